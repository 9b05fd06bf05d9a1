//! The shared state alone, under faults: every history has an order.

use steerage::base::planted::Bug;
use steerage::sim::shards::{self, Faults, Figures};

/// Three quarters of a minute, with a hundred thousand operations.
const STEPS: u64 = 45_000;

fn fine(seed: u64, copies: usize, faults: Faults) -> Figures {
    shards::run(seed, STEPS, copies, faults, None).unwrap_or_else(|bad| panic!("seed {seed}: {bad:#?}"))
}

#[test]
fn histories_are_linearizable_with_one_copy_and_with_two() {
    for copies in [1, 2] {
        let mut differed = 0;
        for seed in 1..=4 {
            let figures = fine(seed, copies, Faults::ALL);
            println!("{copies} copies, seed {seed}: {figures:?}");
            let Figures { operations, lives, moved, hunts, differing, mended, .. } = figures;
            assert!(operations >= 100_000 && lives > 5 && moved > 100 && hunts > 100, "{figures:?}");
            // What copies say that they have they have.
            assert_eq!(mended, 0, "{figures:?}");
            differed += differing;
            // A node is gone or cut off most of the time.
            assert!(figures.unknown * 8 < operations, "{figures:?}");
        }
        // Of two, one may have what a dead owner had begun to write: that is made the same.
        assert_eq!(differed > 0, copies == 2, "{differed}");
    }
}

/// Plants `bug`: one of the seeds must show it, and each is clean without it.
fn found(bug: Bug, copies: usize) {
    for seed in 1..=6 {
        if shards::run(seed, STEPS, copies, Faults::ALL, Some(bug)).is_err() {
            fine(seed, copies, Faults::ALL);
            return;
        }
    }
    panic!("no seed finds it");
}

#[test]
fn an_owner_that_answers_without_a_lease() {
    found(Bug::StateUnleased, 1);
}

#[test]
fn records_and_entries_of_an_epoch_that_is_over() {
    found(Bug::StateEpochIgnored, 1);
}

#[test]
fn writes_that_no_copy_has() {
    found(Bug::StateUnreplicated, 1);
}
