//! The rules, each a function from a source to its violations.

use crate::source::{Source, is_word};

/// Who may name whom; a floor may always name itself. `main.rs`, `lib.rs` and the commands of `bin` stand above all.
const FLOORS: [(&str, &[&str]); 13] = [
    ("base", &[]),
    ("wire", &["base"]),
    ("table", &["base"]),
    ("view", &["base", "wire", "table"]),
    ("asdr", &["base", "wire", "table", "view"]),
    ("service", &["base", "wire", "table", "view", "asdr"]),
    ("path", &["base", "wire", "table", "view", "asdr", "service"]),
    ("cluster", &["base", "wire", "view"]),
    ("io", &["base", "wire", "path"]),
    ("manage", &["base", "wire", "table", "view", "asdr", "service", "path", "cluster"]),
    ("node", &["base", "wire", "table", "view", "asdr", "service", "path", "cluster", "manage"]),
    ("run", &["base", "wire", "table", "view", "asdr", "service", "path", "cluster", "io", "manage", "node"]),
    ("sim", &["base", "wire", "table", "view", "asdr", "service", "path", "cluster", "io", "manage", "node"]),
];

/// Modules that may name one floor more than theirs, for plain data only.
const EXTRA: [(&[&str], &str); 1] = [(&["manage", "config"], "io")];

/// Where `unsafe` may stand.
const UNSAFE_FENCE: [&str; 7] = [
    "src/table/",
    "src/base/sync.rs",
    "src/io/dpdk/",
    "src/io/capsule/",
    "src/run/pin.rs",
    "dpdk-sys/",
    "tests/allocation.rs", // a global allocator
];

/// What only `run` and `main.rs` may name: clocks, threads, sockets and what brings them.
const RUN_ONLY: [&[&str]; 13] = [
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "time", "UNIX_EPOCH"],
    &["std", "time", "*"],
    &["std", "thread"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "*"],
    &["std", "os", "unix", "net"],
    &["tokio"],
    &["axum"],
    &["std", "*"],
];

/// Floors whose decisions have to replay: no map with an order of its own.
const REPLAYED: [&str; 7] = ["base", "wire", "table", "view", "asdr", "path", "cluster"];

/// Floors on which packets pass.
const NEVER_PANIC: [&str; 5] = ["wire", "table", "view", "asdr", "path"];

/// Lines that a source of `src` may have; beyond [`SOFT_LINES`] it is only listed.
pub const HARD_LINES: usize = 700;
/// See [`HARD_LINES`].
pub const SOFT_LINES: usize = 400;

/// A rule broken: where, and what to do about it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, from the repository's root.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

fn at(source: &Source, line: usize, message: impl Into<String>) -> Violation {
    Violation { path: source.path.clone(), line, message: message.into() }
}

/// Whether a path lies in the module, or is the item, that `start` names.
fn starts_with(path: &[String], start: &[&str]) -> bool {
    path.len() >= start.len() && path.iter().zip(start).all(|(a, b)| a == b)
}

/// The floor that a file stands on; none for the crate's roots and for what lies outside `src`.
fn floor(source: &Source) -> Option<String> {
    let inside = source.path.starts_with("src/") && !source.path.starts_with("src/bin/");
    inside.then(|| source.module().into_iter().next()).flatten()
}

/// A module names lower floors only.
pub fn floors(source: &Source) -> Vec<Violation> {
    let Some(own) = floor(source) else { return Vec::new() };
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == own) else {
        return vec![at(source, 1, format!("`{own}` is no floor: give it a row in the table"))];
    };
    let module = source.module();
    let extra = |to: &str| EXTRA.iter().any(|(who, whom)| *whom == to && starts_with(&module, who));
    let mut found = Vec::new();
    for named in source.names().into_iter().filter(|n| !n.test) {
        if named.segments[0] != "crate" {
            continue;
        }
        let Some(to) = named.segments.get(1) else {
            found.push(at(source, named.line, "the crate's root under another name hides who is named"));
            continue;
        };
        if to == "*" {
            found.push(at(source, named.line, "a glob of the crate's root names every floor"));
        } else if !FLOORS.iter().any(|(name, _)| name == to) {
            found.push(at(source, named.line, format!("`crate::{to}` is no floor")));
        } else if *to != own && !allowed.contains(&to.as_str()) && !extra(to) {
            let path = named.segments.join("::");
            found.push(at(source, named.line, format!("floor `{own}` may not name `{path}`")));
        }
    }
    found
}

/// `unsafe` stands behind its fence, and says why it is sound.
pub fn unsafe_code(source: &Source) -> Vec<Violation> {
    let fenced = UNSAFE_FENCE.iter().any(|fence| source.path.starts_with(fence));
    let mut found = Vec::new();
    for (i, token) in source.tokens.iter().enumerate() {
        if !fenced && token.text == "unsafe" {
            found.push(at(source, token.line, "`unsafe` outside its fence"));
        }
        if !fenced && token.text == "unsafe_code" && allowing(source, i) {
            found.push(at(source, token.line, "`unsafe_code` allowed outside its fence"));
        }
        if token.text == "unsafe"
            && (source.is(i + 1, &["{"]) || source.is(i + 1, &["impl"]))
            && !explained(source, i)
        {
            found.push(at(source, token.line, "`unsafe` without a `// SAFETY:` comment right above"));
        }
    }
    found
}

/// Whether the lint named at token `i` is an argument of `allow` or `expect`.
fn allowing(source: &Source, i: usize) -> bool {
    let open = source.tokens[..i].iter().rposition(|t| t.text == "(");
    open.is_some_and(|open| open > 0 && ["allow", "expect"].contains(&source.tokens[open - 1].text.as_str()))
}

/// Whether a comment that starts with SAFETY stands above the statement of token `i`, or within it before the token.
fn explained(source: &Source, i: usize) -> bool {
    let boundary = |t: &str| matches!(t, ";" | "{" | "}" | "," | "=>");
    let before = source.tokens[..i].iter().rposition(|t| boundary(&t.text));
    let start = source.tokens[before.map_or(0, |b| b + 1)].line;
    // Attributes may stand between.
    let says_why = |line: usize| source.comments.get(&line).is_some_and(|c| c.contains("SAFETY:"));
    let line = source.tokens[i].line;
    if (start..=line).any(says_why) {
        return true;
    }
    let code = |line: usize| source.tokens.iter().any(|t| t.line == line);
    (1..start).rev().take_while(|l| source.comments.contains_key(l) && !code(*l)).any(says_why)
}

/// Clocks, threads and sockets belong to `run`; maps without an order of their own, printing and panics have places where
/// they do not stand.
pub fn banned(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    if !source.path.starts_with("src/") {
        return found;
    }
    let own = floor(source).unwrap_or_default();
    let main = source.path == "src/main.rs" || source.path.starts_with("src/bin/");
    for named in source.names().into_iter().filter(|n| !n.test) {
        if own == "run" || main {
            break;
        }
        if RUN_ONLY.iter().any(|banned| starts_with(&named.segments, banned)) {
            let path = named.segments.join("::");
            found.push(at(source, named.line, format!("only `run` may name `{path}`")));
        }
    }
    for (i, token) in source.tokens.iter().enumerate().filter(|(_, t)| !t.test) {
        let text = token.text.as_str();
        if REPLAYED.contains(&own.as_str()) && ["HashMap", "HashSet"].contains(&text) {
            found.push(at(
                source,
                token.line,
                format!("`{text}`: its order breaks replay; take `BTreeMap`, `Vec` or an index"),
            ));
        }
        let prints =
            ["println", "eprintln", "print", "eprint", "dbg"].contains(&text) && source.is(i + 1, &["!"]);
        if !main && prints {
            found.push(at(source, token.line, format!("`{text}!` outside `main.rs`: log with `tracing`")));
        }
        let panics = ["unwrap", "expect"].contains(&text)
            && i > 0
            && source.is(i - 1, &["."])
            && source.is(i + 1, &["("]);
        if NEVER_PANIC.contains(&own.as_str()) && panics {
            found.push(at(source, token.line, format!("`{text}` where packets pass")));
        }
    }
    found
}

/// A source of `src` has a length that a person can hold in mind.
pub fn length(source: &Source) -> Vec<Violation> {
    if source.path.starts_with("src/") && source.lines > HARD_LINES {
        return vec![at(source, source.lines, format!("{} lines; at most {HARD_LINES}", source.lines))];
    }
    Vec::new()
}

/// A module says first what it is. Tests beside it say it by their names.
pub fn docstring(source: &Source) -> Vec<Violation> {
    if source.path.starts_with("src/") && !source.path.ends_with("tests.rs") && !source.has_docstring {
        return vec![at(source, 1, "a module starts with a `//!` docstring")];
    }
    Vec::new()
}

/// Words that stand for something left undone, or for one machine. Put together here, so that this file may hold them.
fn unwanted() -> [String; 5] {
    [["to", "do!"], ["unim", "plemented!"], ["FIX", "ME"], ["XX", "X"], ["/wo", "rk/"]]
        .map(|parts| parts.concat())
}

/// Text of any kind holds no unwanted word. A word that is part of a longer one (a template of `mktemp`) is another.
pub fn words(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for word in unwanted() {
            let stands_alone = line.match_indices(&word).any(|(at, _)| {
                let before = line[..at].chars().next_back().map(String::from).unwrap_or_default();
                let after = line[at + word.len()..].chars().next().map(String::from).unwrap_or_default();
                let joined = |own: Option<char>, other: &str| {
                    own.is_some_and(|c| c.is_alphanumeric()) && is_word(other)
                };
                !joined(word.chars().next(), &before) && !joined(word.chars().next_back(), &after)
            });
            if stands_alone {
                let message = format!("`{word}` must not stand in the repository");
                found.push(Violation { path: path.into(), line: i + 1, message });
            }
        }
    }
    found
}
