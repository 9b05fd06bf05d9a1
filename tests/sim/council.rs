//! The deciding parts of a cluster under faults.

use steerage::base::planted::Bug;
use steerage::sim::council;

#[test]
fn clusters_decide_alike_and_come_to_rest() {
    for seed in 1..=4 {
        let nodes = [3, 5, 4, 7][seed as usize % 4];
        let lived = council::run(seed, nodes, 30, None);
        let figures = lived.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
        println!("seed {seed}: {figures:?}");
        assert!(figures.entries > 10 && figures.lives > u32::from(nodes), "{figures:?}");
    }
}

/// Plants `bug`: one of the seeds must find it by `rule`, and be clean without it; those that complain before that do so by one of
/// `also`.
fn found(bug: Bug, rule: &str, also: &[&str]) {
    for seed in 1..=12 {
        let Err(violation) = council::run(seed, 5, 30, Some(bug)) else { continue };
        if violation.rule == rule {
            assert_eq!(council::run(seed, 5, 30, None).err(), None, "seed {seed} without the fault");
            return;
        }
        assert!(also.contains(&violation.rule), "seed {seed}: {violation:?}");
    }
    panic!("no seed finds it");
}

/// A state machine that is wrong now and then: the node is taken out, gets its state anew and comes back. The control: without
/// that, it never does.
#[test]
fn a_state_that_went_wrong_is_given_anew() {
    let mut stays_out = 0;
    for seed in 1..=4 {
        let nodes = [3, 5, 4, 7][seed as usize % 4];
        let lived = council::run(seed, nodes, 30, Some(Bug::EntrySkippedAtTimes));
        let figures = lived.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
        assert!(figures.entries > 100, "nothing was left out: {figures:?}");
        let kept = council::run(seed, nodes, 30, Some(Bug::NothingRestored));
        stays_out += u32::from(kept.is_err_and(|violation| violation.rule == "convergence"));
    }
    assert!(stays_out > 0, "the control finds nothing");
}

macro_rules! planted {
    ($($name:ident: $bug:ident by $rule:literal $(, or $also:literal)*;)*) => {
        $(#[test]
        fn $name() {
            found(Bug::$bug, $rule, &[$($also),*]);
        })*
    };
}

planted! {
    a_lease_that_nobody_asks_for: LeaseUnchecked by "one owner", or "convergence";
    a_lease_counted_from_its_answer: LeaseFromAnswer by "one owner";
    a_fence_that_voters_ignore: FenceIgnored by "one owner";
    a_successor_that_does_not_wait: NoQuarantine by "one owner";
    a_bucket_that_is_not_ceded: NothingCeded by "one owner";
    a_view_in_force_before_all_have_it: InForceEarly by "one owner", or "promotion";
    an_owner_that_still_learns: IncompleteOwns by "promotion";
    an_entry_that_one_node_skips: EntrySkipped by "digest", or "convergence", or "one owner";
    a_snapshot_of_which_half_is_taken: SnapshotTorn by "digest", or "convergence", or "one owner";
    a_write_that_is_acknowledged_and_lost: AcknowledgedEarly by "acknowledged";
}
