//! What is read besides packets and the configuration, from the inputs that searches have found worth keeping (`scripts/fuzz
//! decode`). The searches build it with a sanitizer; here it is built as all else is.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "fuzz/src/decode.rs"]
mod decode;

use std::path::{Path, PathBuf};

/// The inputs in a folder of the fuzzer's, by path.
fn inputs(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(kind).join("decode");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), std::fs::read(&path).expect("an input"))).collect()
}

#[test]
fn no_input_that_was_kept_breaks_a_promise() {
    let all = [inputs("corpus"), inputs("regressions")].concat();
    assert!(all.len() > 20, "{} inputs", all.len());
    for (path, bytes) in all {
        println!("{}", path.display());
        decode::one(&bytes);
    }
}

/// Some that each reader accepts, and some that it refuses, or the search would start far from what it has to reach.
#[test]
fn every_reader_has_inputs() {
    let all: Vec<_> = inputs("corpus").iter().filter_map(|(_, bytes)| decode::accepts(bytes)).collect();
    for (number, (name, _)) in decode::FORMATS.iter().enumerate() {
        assert!(all.contains(&(number, true)), "no {name} that is accepted");
        assert!(all.contains(&(number, false)), "no {name} that is refused");
    }
}
