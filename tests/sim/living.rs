//! Living clusters without a planted fault, and with one.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use steerage::base::planted::Bug;
use steerage::sim::living::{self, Oracle, Outcome};

fn fine(seed: u64) -> Outcome {
    let outcome = living::run(seed, None, None, None);
    assert!(outcome.violation.is_none(), "{outcome}");
    outcome
}

#[test]
fn a_cluster_lives_again_as_it_did() {
    for seed in 1..=3 {
        let (first, second) = (fine(seed), fine(seed));
        assert_eq!((first.digest, first.figures), (second.digest, second.figures), "seed {seed}");
        assert_eq!(first.to_string(), second.to_string());
    }
    assert_ne!(fine(1).digest, fine(2).digest);
}

/// What makes the oracles worth anything: all kinds of things happen to clusters of all kinds, and much of it.
#[test]
fn clusters_differ_and_are_busy() {
    let all: Vec<Outcome> = (1..=40).map(fine).collect();
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    for kind in [
        "of 3 nodes",
        "of 5 nodes",
        "joins later",
        "offline: it was silent",
        "networks part",
        "is cut off",
        "has no backplane",
        "has no management network",
        "stands still",
        "server 2 dies",
        "drains: true",
        "another weight",
    ] {
        let count = texts.iter().filter(|text| text.contains(kind)).count();
        assert!((2..=38).contains(&count), "{count} of 40 clusters are of the kind \"{kind}\"");
    }
    let sum = |of: fn(&living::Figures) -> u64| all.iter().map(|o| of(&o.figures)).sum::<u64>();
    assert!(sum(|f| f.sent) > 40 * 300, "{} packets", sum(|f| f.sent));
    assert!(sum(|f| f.moved) > 40 * 1000, "{} buckets", sum(|f| f.moved));
    assert!(sum(|f| f.answers) > 40 * 200, "{} answers", sum(|f| f.answers));
    assert!(sum(|f| f.lost_with_node) > 10, "{} connections", sum(|f| f.lost_with_node));
}

#[test]
fn a_cluster_of_many_nodes_lives() {
    let outcome = living::run(1, Some(64), Some(Duration::from_secs(1)), None);
    assert!(outcome.violation.is_none(), "{outcome}");
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The goal is a hundred; a busy machine that shares its caches gets less for its time.
#[test]
fn five_nodes_live_fast() {
    let begin = processor_time();
    let outcome = living::run(2, Some(5), Some(Duration::from_secs(60)), None);
    let spent = processor_time() - begin;
    assert!(outcome.violation.is_none(), "{outcome}");
    let rate = outcome.lived.as_secs_f64() / spent.as_secs_f64();
    println!("{rate:.0} simulated seconds of five nodes a second of one core");
    assert!(rate > 25.0, "{rate:.0} simulated seconds a second");
}

/// Plants `bug`: one of the seeds must find it by `oracle`, and be clean without it; those that complain before that do so by one of
/// `also`.
fn found(bug: Bug, oracle: Oracle, also: &[Oracle]) {
    for seed in 1..=150 {
        let Some(violation) = living::run(seed, None, None, Some(bug)).violation else { continue };
        if violation.oracle == oracle {
            fine(seed);
            return;
        }
        assert!(also.contains(&violation.oracle), "seed {seed}: {violation}");
    }
    panic!("no seed finds it");
}

macro_rules! planted {
    ($($name:ident: $bug:ident by $oracle:ident $(, or $also:ident)*;)*) => {
        $(#[test]
        fn $name() {
            found(Bug::$bug, Oracle::$oracle, &[$(Oracle::$also),*]);
        })*
    };
}

planted! {
    a_lease_that_nobody_asks_for: LeaseUnchecked by Owner, or Vip, or Mapping;
    two_that_answer_as_nobody_asks_for_a_lease: LeaseUnchecked by Vip, or Owner, or Mapping;
    a_lease_counted_from_its_answer: LeaseFromAnswer by Owner, or Vip, or Mapping;
    a_successor_that_does_not_wait: NoQuarantine by Owner, or Vip, or Mapping;
    a_bucket_that_is_not_ceded: NothingCeded by Owner, or Mapping;
    a_previous_owner_that_is_not_asked: PreviousOwnerForgotten by Mapping, or Server;
    an_heir_that_takes_no_sessions: StateUninherited by Mapping;
    copies_that_drop_updates: UpdateDropped by Copies, or Mapping, or Persistence;
    clients_that_are_forgotten: ClientForgotten by Persistence;
    a_group_that_is_forgotten_once_it_was_left: FormerGroupForgotten by Mapping, or Server;
    a_view_in_force_before_all_have_it: InForceEarly by Owner, or Promotion, or Mapping;
    a_bucket_of_which_not_all_was_learnt: IncompleteOwns by Promotion;
    a_fence_that_is_ignored: FenceIgnored by Owner, or Vip;
    an_entry_that_one_node_skips: EntrySkipped by Digest, or Owner;
    a_snapshot_of_two_halves: SnapshotTorn by Digest, or Owner, or Convergence;
    a_write_that_is_acknowledged_early: AcknowledgedEarly by Acknowledged;
    a_server_that_is_chosen_anew: ServerChosenAnew by Server;
    a_session_that_expires_in_use: LiveSessionExpires by Mapping, or Server;
    a_port_of_another_bucket: WrongPortClass by Mapping, or Progress, or Server;
    a_checksum_that_is_not_mended: ChecksumStale by Checksum;
    a_steered_packet_that_is_steered_again: StageIgnored by Loop;
    a_packet_that_is_sent_twice: SentTwice by Duplicate;
    a_buffer_that_is_not_given_back: BufferForgotten by Buffers;
}
