//! Faults planted in the nodes are found, by the oracle that they offend, in few seeds; and those seeds are clean without.

use std::ops::RangeInclusive;
use steerage::base::Instant;
use steerage::base::planted::Bug;
use steerage::sim::{self, Oracle};

const SEEDS: RangeInclusive<u64> = 1..=16;

/// Plants `bug`: some of the seeds must find it by `oracle`, and those that complain all by one of `also` or that.
fn found(bug: Bug, oracle: Oracle, also: &[Oracle]) {
    let mut found = 0;
    for seed in SEEDS {
        let outcome = sim::run(seed, Some(bug));
        let Some(violation) = outcome.violation else { continue };
        assert!(violation.oracle == oracle || also.contains(&violation.oracle), "seed {seed}: {violation}");
        found += usize::from(violation.oracle == oracle);
        let clean = sim::run(seed, None);
        assert!(clean.violation.is_none(), "without the fault: {clean}");
    }
    assert!(found > 0, "no seed finds it");
}

#[test]
fn a_hash_without_the_clusters_key() {
    found(Bug::HashUnkeyed, Oracle::Rewrite, &[Oracle::Steering]);
}

#[test]
fn a_steering_session_that_outlives_its_owners_life() {
    found(Bug::SteeringOutlivesPeer, Oracle::Steering, &[]);
}

#[test]
fn a_steered_packet_that_is_steered_again() {
    // What is taken for just received leaves a steering session behind, too; and a flow hash that was damaged on the way is
    // trusted.
    found(Bug::StageIgnored, Oracle::Loop, &[Oracle::Steering, Oracle::Server]);
}

#[test]
fn a_port_whose_low_bits_name_another_bucket() {
    found(Bug::WrongPortClass, Oracle::Rewrite, &[]);
}

#[test]
fn a_session_that_expires_in_use() {
    found(Bug::LiveSessionExpires, Oracle::Mapping, &[Oracle::Lost]);
}

#[test]
fn a_bucket_whose_previous_owner_is_not_asked() {
    // In a world without faults its flows' packets are lost; in others they get another port.
    found(Bug::PreviousOwnerForgotten, Oracle::Mapping, &[Oracle::Lost, Oracle::Progress]);
}

#[test]
fn a_panic_which_leaves_nothing_behind_in_its_thread() {
    let outcome = sim::run(3, Some(Bug::WorkerPanics));
    let violation = outcome.violation.unwrap();
    assert_eq!(violation.oracle, Oracle::Panic);
    assert!(violation.what.starts_with("seed 3: a panic planted in worker "), "{violation}");
    assert!(violation.at > Instant::ZERO && outcome.figures.sent > 0, "{violation}");
    let after = sim::run(3, None);
    assert!(after.violation.is_none(), "{after}");
}

#[test]
fn a_checksum_that_is_not_mended() {
    found(Bug::ChecksumStale, Oracle::Checksum, &[]);
}

#[test]
fn a_buffer_that_is_not_given_back() {
    found(Bug::BufferForgotten, Oracle::Buffers, &[]);
}

#[test]
fn a_packet_that_is_sent_twice() {
    found(Bug::SentTwice, Oracle::Duplicate, &[]);
}
