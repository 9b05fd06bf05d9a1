//! The committed inputs: the corpus, which reaches what the searches have reached, and the regressions.

use crate::home;
use std::panic::catch_unwind;
use std::path::PathBuf;

/// A target: from an input to nothing, or a panic.
type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] = [
    ("wire", steerage_fuzz::wire::one),
    ("parse", steerage_fuzz::parse::one),
    ("turn", steerage_fuzz::turn::one),
    ("config", steerage_fuzz::config::one),
];

/// The files of a target's folder, in order.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = home().join(kind).join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// The inputs on which a target panics.
fn failing(target: Target, inputs: &[PathBuf]) -> Vec<&PathBuf> {
    let fails = |path: &&PathBuf| {
        let bytes = std::fs::read(path).expect("an input");
        catch_unwind(|| target(&bytes)).is_err()
    };
    inputs.iter().filter(fails).collect()
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(n, _)| *n == name).expect("a target");
    let corpus = inputs("corpus", name);
    assert!(corpus.len() >= 20, "the corpus of {name} has only {} inputs", corpus.len());
    assert_eq!(failing(*target, &corpus), Vec::<&PathBuf>::new());
    let regressions = inputs("regressions", name);
    assert!(!regressions.is_empty(), "no regression of {name} is kept");
    assert_eq!(failing(*target, &regressions), Vec::<&PathBuf>::new());
}

#[test]
fn wire() {
    replay("wire");
}

#[test]
fn parse() {
    replay("parse");
}

#[test]
fn turn() {
    replay("turn");
}

#[test]
fn config() {
    replay("config");
    // Some of each kind, or the search would start far from what it has to reach.
    let all = inputs("corpus", "config");
    let accepted = all
        .iter()
        .filter(|path| steerage_fuzz::config::accepts(&std::fs::read(path).expect("an input")))
        .count();
    assert!(accepted > 3 && accepted < all.len() - 3, "{accepted} of {} are accepted", all.len());
}

/// Each file of `src/wire` has its place in the target of that name, and inputs of its own.
#[test]
fn every_format_is_among_them() {
    let folder = home().join("../../src/wire");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("src/wire")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod" && !name.ends_with("tests"))
        .collect();
    files.sort();
    assert_eq!(files, steerage_fuzz::wire::FORMATS.map(|(name, _)| name));
    let firsts: Vec<u8> = inputs("corpus", "wire")
        .iter()
        .filter_map(|path| std::fs::read(path).expect("an input").first().copied())
        .collect();
    for (number, name) in files.iter().enumerate() {
        let count = firsts.iter().filter(|b| usize::from(**b) % files.len() == number).count();
        assert!(count > 0, "no input for {name}");
    }
}

/// A control: an input that fails is named.
#[test]
fn a_failing_input_is_named() {
    let file = std::env::temp_dir().join(format!("steerage-replay-{}", std::process::id()));
    std::fs::write(&file, "steerage").expect("a temporary file");
    let inputs = [file.clone()];
    let (named, passed) = (failing(steerage_fuzz::planted::one, &inputs), failing(|_| {}, &inputs));
    std::fs::remove_file(&file).expect("it is still there");
    assert_eq!((named, passed), (vec![&file], vec![]));
}
