//! The command line.

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    (output, text)
}

#[test]
fn one_seed_tells_its_digest_and_repeats_it() {
    let (output, text) = sim(&["--seed", "2"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("digest ") && text.ends_with("\nok\n"), "{text}");
    assert_eq!(sim(&["--seed", "2"]).1, text);
}

#[test]
fn a_range_has_both_ends_and_a_summary() {
    let (output, text) = sim(&["--seeds", "4..6"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("seeds 4..6 in ") && text.ends_with("\nok\n"), "{text}");
    let (output, text) = sim(&["--seeds", "1..3", "--plant", "checksum-stale"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for seed in 1..=3 {
        assert!(text.contains(&format!("  seed {seed}: violation of Checksum")), "{text}");
    }
    assert!(text.contains("6 worlds failed; the first is\nseed 1: "), "{text}");
}

#[test]
fn a_violation_tells_when_which_flow_and_the_packets_way() {
    let (output, text) = sim(&["--seed", "1", "--plant", "wrong-port-class"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let (_, violation) = text.split_once("violation of Rewrite at ").unwrap();
    assert!(violation.contains(" s: flow "), "{text}");
    for part in ["sent by its client", "into n", "out of n", "taken by server"] {
        assert!(violation.contains(part), "{text}");
    }
}

#[test]
fn a_panic_costs_neither_its_seed_nor_the_others() {
    let (output, text) = sim(&["--seeds", "1..3", "--plant", "worker-panics"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for seed in 1..=3 {
        assert!(text.contains(&format!("  seed {seed}: violation of Panic at ")), "{text}");
    }
    assert!(text.contains("3 worlds failed; the first is\nseed 1: "), "{text}");
}

#[test]
fn a_bad_argument_is_an_error_of_its_own() {
    for (arguments, says) in [
        (&["--seed", "x"][..], "invalid value 'x'"),
        (&["--seeds", "9..2"], "9 is above 2"),
        (&["--seeds", "9"], "write it as 1..1000"),
        (&["--seed", "1", "--plant", "nothing"], "there are hash-unkeyed, steering-outlives-peer"),
        (&["--seed", "1", "--seeds", "1..2"], "cannot be used with"),
        (&[], "required"),
        (&["--sed", "1"], "unexpected argument"),
    ] {
        let (output, text) = sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
}
