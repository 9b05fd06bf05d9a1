//! Reads the repository and refuses what ARCHITECTURE.md's floors and habits forbid: a module that names a higher floor,
//! `unsafe` outside its fence or without its reason, clocks and threads outside `run`, and so on. Every rule is shown to
//! catch a made-up source that breaks it.
#![allow(clippy::unwrap_used)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::Violation;
use source::Source;
use std::fs;
use std::path::Path;

/// Directories that hold sources.
const SOURCES: [&str; 4] = ["src", "tests", "perf", "dpdk-sys"];

/// All files below `dir` that hold text, as paths from the repository's root, in order. Build output (which cargo tags) and
/// version control are left out.
fn files(root: &Path, dir: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink()
            || [".git", "target"].contains(&name.as_str())
            || path.join("CACHEDIR.TAG").exists()
        {
            continue;
        }
        if path.is_dir() {
            files(root, &path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let inner = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            found.push((inner, text));
        }
    }
}

fn repository() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(root, root, &mut found);
    found
}

fn sources() -> Vec<Source> {
    let is_source = |path: &str| {
        path.ends_with(".rs")
            && SOURCES.iter().any(|dir| path.strip_prefix(dir).is_some_and(|p| p.starts_with('/')))
    };
    let all = repository();
    all.iter().filter(|(path, _)| is_source(path)).map(|(path, text)| Source::new(path, text)).collect()
}

fn refuse(mut violations: Vec<Violation>) {
    violations.sort();
    let lines: Vec<String> =
        violations.iter().map(|v| format!("{}:{}: {}", v.path, v.line, v.message)).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

fn check(rule: fn(&Source) -> Vec<Violation>) {
    let sources = sources();
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "looked in the wrong place");
    refuse(sources.iter().flat_map(rule).collect());
}

#[test]
fn modules_name_lower_floors_only() {
    check(rules::floors);
}

#[test]
fn unsafe_stands_behind_its_fence() {
    check(rules::unsafe_code);
}

#[test]
fn banned_names_stand_nowhere() {
    check(rules::banned);
}

#[test]
fn files_are_short() {
    for source in sources().iter().filter(|s| s.path.starts_with("src/") && s.lines > rules::SOFT_LINES) {
        println!("{}: {} lines, more than the {} aimed at", source.path, source.lines, rules::SOFT_LINES);
    }
    check(rules::length);
}

#[test]
fn modules_have_docstrings() {
    check(rules::docstring);
}

#[test]
fn unwanted_words_stand_nowhere() {
    refuse(repository().iter().flat_map(|(path, text)| rules::words(path, text)).collect());
}

/// That each rule can fail, and fails for what it should alone.
mod rules_catch {
    use super::*;

    /// Lines that a rule complains about in a made-up source.
    fn lines(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).iter().map(|v| v.line).collect()
    }

    #[test]
    fn higher_floors() {
        let floors = |path: &str, text: &str| lines(rules::floors, path, text);
        for (path, text) in [
            ("src/wire/eth.rs", "use crate::view::View;"),
            ("src/wire/mod.rs", "use crate::{base::Addr, path::Port};"),
            ("src/wire/mod.rs", "use crate::{base::{self, Addr}, view::{self}};"),
            ("src/base/addr.rs", "fn f() { crate::wire::parse() }"),
            ("src/base/addr.rs", "fn f() -> super::super::wire::Malformed { g() }"),
            ("src/base/addr.rs", "use super::super::table;"),
            ("src/base/mod.rs", "use super::table::ring::Ring;"),
            ("src/base/mod.rs", "mod a { mod b { use super::super::super::table::ring; } }"),
            ("src/base.rs", "macro_rules! m { () => { $crate::wire::x() } }"),
            ("src/path/port.rs", "pub fn f(x: &crate::io::DeviceConfig) {}"),
            ("src/manage/compile/mod.rs", "use crate::io::DeviceConfig;"),
            ("src/node/mod.rs", "use crate::run;"),
            ("src/sim/world.rs", "use crate::run::Clock;"),
            ("src/cluster/log.rs", "use crate::table::ring;"),
            ("src/table/ring.rs", "use crate::*;"),
            ("src/table/ring.rs", "use crate as root;"),
            ("src/table/ring.rs", "use crate::nonsense::X;"),
            ("src/utils/mod.rs", "use crate::base::Addr;"),
            ("src/table/ring.rs", "#[cfg(not(test))] use crate::path::Port;"),
            ("src/table/ring.rs", "#[cfg(test)] mod tests { use crate::io::x; } use crate::path::Port;"),
            ("src/table/ring.rs", "#[cfg(test)] mod tests; use crate::path::Port;"),
            ("src/view/mod.rs", "const C: char = '\"'; use crate::path::Port; // \""),
        ] {
            assert_eq!(floors(path, text), [1], "{path}: {text}");
        }
        assert_eq!(floors("src/wire/a.rs", "use crate::{\n  base,\n  io,\n  view::{X,\n Y},\n};"), [3, 4, 5]);
    }

    #[test]
    fn lower_floors_pass() {
        for (path, text) in [
            (
                "src/wire/eth.rs",
                "use crate::base::{Addr, Mac}; use super::be16; use super::super::base::Tick;",
            ),
            ("src/wire/eth.rs", "use crate::wire::arp; pub(crate) fn f() {} pub(in crate::wire) fn g() {}"),
            ("src/wire/eth.rs", "mod a { use super::super::arp; fn f() { self::g() } }"),
            ("src/wire/eth.rs", "/// [`X`](crate::path::X)\nfn f() {} // crate::io /* crate::io */"),
            ("src/wire/eth.rs", "const S: &str = \"crate::io::X\"; const T: &str = r#\"\"crate::io\"#;"),
            ("src/wire/eth.rs", "#[cfg(test)]\nmod tests { use crate::path::X; }"),
            ("src/wire/eth.rs", "#[cfg(all(test, not(feature = \"loom\")))] use crate::base::X;"),
            ("src/wire/ipv4_tests.rs", "use crate::path::X;"),
            ("src/wire/eth/tests.rs", "use crate::path::X;"),
            ("src/manage/config/check.rs", "use crate::io::DeviceConfig;"),
            ("src/manage/config/mod.rs", "use crate::io::DeviceConfig;"),
            ("src/run/mod.rs", "use crate::{io, node, manage};"),
            ("src/lib.rs", "pub mod run; use crate::run::x;"),
            ("src/bin/sim.rs", "use crate::run::x;"),
            ("tests/wire/main.rs", "use crate::path::X;"),
        ] {
            assert_eq!(lines(rules::floors, path, text), [0; 0], "{path}: {text}");
        }
    }

    #[test]
    fn unsafe_code_without_fence_or_reason() {
        let check = |path: &str, text: &str| lines(rules::unsafe_code, path, text);
        let sound = "// SAFETY: it is.\nlet x = unsafe { f() };";
        assert_eq!(check("src/wire/eth.rs", sound), [2]);
        assert_eq!(check("src/base/hash.rs", "unsafe fn f() {}"), [1]);
        assert_eq!(check("src/base/hash.rs", "#![allow(unsafe_code)]"), [1]);
        assert_eq!(check("src/base/hash.rs", "#![expect(clippy::all, unsafe_code)]"), [1]);
        assert_eq!(check("tests/x.rs", "#[cfg(test)] fn f() { /* SAFETY: */ unsafe { g() } }"), [1]);
        assert_eq!(
            check("src/base/hash.rs", "#![deny(unsafe_code)] // unsafe\nconst S: &str = \"unsafe\";"),
            []
        );
        for path in [
            "src/table/ring.rs",
            "src/base/sync.rs",
            "src/io/dpdk/eal.rs",
            "src/run/pin.rs",
            "dpdk-sys/src/lib.rs",
        ] {
            assert_eq!(check(path, sound), [], "{path}");
            assert_eq!(check(path, "fn f() {\n    unsafe { g() }\n}"), [2], "{path}");
        }
        let path = "src/table/ring.rs";
        assert_eq!(check(path, "unsafe impl Send for X {}"), [1]);
        assert_eq!(
            check(path, "// SAFETY: one writer.\n// So it is.\n#[cfg(x)]\nunsafe impl Send for X {}"),
            []
        );
        assert_eq!(check(path, "// SAFETY: long ago.\nlet y = 1;\nlet x = unsafe { f() };"), [3]);
        assert_eq!(check(path, "// SAFETY: for both?\nunsafe { f() };\nunsafe { g() };"), [3]);
        assert_eq!(check(path, "f(\n    // SAFETY: here.\n    unsafe { g() },\n    unsafe { h() },\n)"), [4]);
        assert_eq!(check(path, "// SAFETY: above the statement.\nlet x =\n    unsafe { f() };"), []);
        assert_eq!(check(path, "// says nothing of it\nunsafe { f() };"), [2]);
    }

    #[test]
    fn banned_names() {
        let check = |path: &str, text: &str| lines(rules::banned, path, text);
        for text in [
            "let t = std::time::Instant::now();",
            "use std::time::{Duration, Instant};",
            "use std::time; fn f() { time::SystemTime::now(); }",
            "use std::time as t; fn f() { t::Instant::now(); }",
            "use std::time::*;",
            "std::thread::sleep(d);",
            "::std::thread::yield_now();",
            "use std::{fmt, thread};",
            "use std::net::{IpAddr, UdpSocket};",
            "fn f(s: std::net::TcpStream) {}",
            "use std::os::unix::net::UnixStream;",
            "tokio::spawn(f);",
            "use axum::Router;",
            "println!(\"x\");",
            "eprintln!(\"x\");",
        ] {
            assert!(!check("src/manage/health.rs", text).is_empty(), "{text}");
            assert_eq!(check("src/main.rs", text), [0; 0], "{text}");
            assert_eq!(check("src/bin/sim.rs", text), [0; 0], "{text}");
            let allowed_in_run = if text.contains("print") { vec![1] } else { vec![] };
            assert_eq!(check("src/run/mod.rs", text), allowed_in_run, "{text}");
            let in_tests = format!("#[cfg(test)] mod tests {{ {text} }}");
            assert_eq!(check("src/manage/health.rs", &in_tests), [0; 0], "{text}");
        }
        for floor in ["base", "wire", "table", "view", "asdr", "path", "cluster", "manage"] {
            let path = format!("src/{floor}/x.rs");
            let maps = check(&path, "use std::collections::{BTreeMap,\nHashMap};\nlet s: HashSet<u8>;");
            assert_eq!(maps, if floor == "manage" { vec![] } else { vec![2, 3] }, "{floor}");
            let panics = check(&path, "x.unwrap();\nx.expect(\"y\");\nx.unwrap_or(1);\nx.expect_err();");
            let exempt = ["base", "cluster", "manage"].contains(&floor);
            assert_eq!(panics, if exempt { vec![] } else { vec![1, 2] }, "{floor}");
            let in_tests = "#[test]\nfn t() { x.unwrap(); }\n#[cfg(test)]\nmod t { fn f() { x.unwrap(); } }";
            assert_eq!(check(&path, in_tests), [0; 0], "{floor}");
        }
        let innocent =
            "use std::net::IpAddr; use std::time::Duration; use crate::base::Instant; fn f(now: Instant) {}";
        assert_eq!(check("src/path/x.rs", innocent), [0; 0]);
    }

    #[test]
    fn long_files_and_bare_modules() {
        let long = "// x\n".repeat(rules::HARD_LINES + 1);
        assert_eq!(lines(rules::length, "src/base/x.rs", &long), [rules::HARD_LINES + 1]);
        assert_eq!(lines(rules::length, "src/base/x.rs", &long[5..]), [0; 0]);
        assert_eq!(lines(rules::docstring, "src/base/mod.rs", "\npub mod x;"), [1]);
        assert_eq!(lines(rules::docstring, "src/base/mod.rs", ""), [1]);
        assert_eq!(lines(rules::docstring, "src/base/x_tests.rs", "use super::*;"), [0; 0]);
        assert_eq!(lines(rules::docstring, "src/base/mod.rs", "\n//! Says it.\npub mod x;"), [0; 0]);
    }

    #[test]
    fn unwanted_words() {
        for parts in [
            ["to", "do!()"],
            ["unimple", "mented!()"],
            ["// FIX", "ME"],
            ["XX", "X: later"],
            ["cd /wo", "rk/x"],
        ] {
            let word = parts.concat();
            assert_eq!(rules::words("a.md", &format!("fine\n{word}\n")).len(), 1, "{word}");
        }
        assert_eq!(rules::words("a.sh", "mktemp /tmp/x.XXXXXX; cd ./work; a framework/x"), []);
    }
}
