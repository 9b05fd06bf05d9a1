//! A short search of each target from its corpus, and a control: what a search has to find is found.

use crate::home;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Seconds of each search. A real one takes hours (`scripts/fuzz`); this one shows that searching works.
const SECONDS: &str = "-max_total_time=10";

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("steerage-search-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("found")).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a target's binary; what it finds and what it crashes on goes to `scratch`.
fn search(binary: &str, scratch: &Path, seconds: &str, corpora: &[PathBuf]) -> Output {
    Command::new(binary)
        .args([seconds, "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=4096", "-detect_leaks=0"])
        .arg(format!("-artifact_prefix={}/", scratch.display()))
        .arg(scratch.join("found"))
        .args(corpora)
        .output()
        .expect("the target's binary")
}

fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Searches a target, which must not crash, and must have run so many inputs at least: few, as the machine may be busy.
fn clean(name: &str, binary: &str, least: u64) {
    let scratch = Scratch::new(name);
    let corpora = ["corpus", "regressions"].map(|kind| home().join(kind).join(name));
    let output = search(binary, &scratch.0, SECONDS, &corpora);
    assert!(output.status.success(), "{name}:\n{}", told(&output));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("inline 8-bit counters"), "no coverage is counted");
    let runs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs: u64 = runs.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{}", told(&output)));
    assert!(runs > least, "{runs} runs only");
}

#[test]
fn wire() {
    clean("wire", env!("CARGO_BIN_EXE_wire"), 10_000);
}

#[test]
fn parse() {
    clean("parse", env!("CARGO_BIN_EXE_parse"), 10_000);
}

#[test]
fn turn() {
    clean("turn", env!("CARGO_BIN_EXE_turn"), 100);
}

#[test]
fn config() {
    clean("config", env!("CARGO_BIN_EXE_config"), 100);
}

#[cfg(feature = "decode")]
#[test]
fn decode() {
    clean("decode", env!("CARGO_BIN_EXE_decode"), 1000);
}

/// A control: a panic that stands behind eight bytes, which chance alone would not find in the age of the universe.
#[test]
fn a_planted_fault_is_found() {
    let scratch = Scratch::new("planted");
    let output = search(env!("CARGO_BIN_EXE_planted"), &scratch.0, "-max_total_time=60", &[]);
    assert!(!output.status.success(), "{}", told(&output));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("the planted fault was reached"), "{}", told(&output));
    let crash = std::fs::read_dir(&scratch.0)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("crash-")));
    let bytes = std::fs::read(crash.expect("the crash was stored")).expect("an input");
    assert!(bytes.starts_with(b"steerage"), "{bytes:?}");
}
