use super::check::{Check, State};
use super::prober::MAX_IN_FLIGHT;
use super::weights::{Member, weights};
use super::*;
use crate::base::{Addr, Instant};
use crate::cluster::health::{Change, Health, STEPS, Standings};
use crate::cluster::namespace::Probe;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn spec() -> HealthSpec {
    HealthSpec { interval: SECOND, timeout: SECOND / 2, ..HealthSpec::new(Probe::Tcp) }
}

fn good() -> Outcome {
    Outcome::Good(Duration::from_millis(1))
}

fn bad() -> Outcome {
    Outcome::Bad("refused".into())
}

fn target(server: u32, spec: &HealthSpec) -> Target {
    let address = Addr::from(std::net::IpAddr::from([10, 0, 0, 1]));
    Target { server: RealServerId(server), address, port: 80, spec: Arc::new(spec.clone()) }
}

fn nodes(ids: impl IntoIterator<Item = u16>) -> NodeSet {
    ids.into_iter().map(NodeId).collect()
}

mod checks {
    use super::*;

    /// States after each outcome, `+` for a good one, `-` for a bad one, `?` for none, a second apart.
    fn states(spec: &HealthSpec, outcomes: &str) -> Vec<State> {
        let mut check = Check::new(spec);
        let mut states = Vec::new();
        for (second, outcome) in (100..).zip(outcomes.chars()) {
            let outcome = match outcome {
                '+' => good(),
                '-' => bad(),
                _ => Outcome::Unable("no descriptors".into()),
            };
            check.count(at(second * 1000), outcome);
            states.push(check.state());
        }
        states
    }

    #[test]
    fn rows_of_probes_change_the_state() {
        use State::{Down, Unknown, Up};
        let spec = HealthSpec { rise: 2, fall: 3, ..spec() };
        assert_eq!(states(&spec, "+-+-"), [Unknown; 4]);
        assert_eq!(states(&spec, "++--+---+++"), [Unknown, Up, Up, Up, Up, Up, Up, Down, Down, Up, Up]);
        assert_eq!(states(&spec, "---"), [Unknown, Unknown, Down]);
        assert_eq!(states(&spec, "+?+?-?-?-?"), [Unknown, Unknown, Up, Up, Up, Up, Up, Up, Down, Down]);
    }

    #[test]
    fn the_reason_is_the_last_bad_probes() {
        let spec = HealthSpec { rise: 1, fall: 1, ..spec() };
        let mut check = Check::new(&spec);
        assert_eq!(check.reason(), "");
        check.count(at(0), Outcome::Bad("too slow".into()));
        check.count(at(1), bad());
        assert_eq!(check.reason(), "refused");
        check.count(at(2), good());
        assert_eq!(check.reason(), "");
    }

    #[test]
    fn a_flapping_server_is_held_down_and_one_that_recovered_is_not() {
        let flapping = "++---".repeat(20);
        let changes = |spec: &HealthSpec, outcomes: &str| {
            let ups: Vec<bool> = states(spec, outcomes).iter().map(|s| *s == State::Up).collect();
            ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
        };
        let damped = HealthSpec { damping: Some(60 * SECOND), ..spec() };
        assert_eq!(changes(&damped, &flapping), 4, "up, down, up, down, and then held");
        // The control: without damping it goes up and down for as long as it likes.
        assert_eq!(changes(&spec(), &flapping), 40);
        // Held for at most three half-lives.
        let states = states(&damped, &(flapping + &"+".repeat(185)));
        assert_eq!(states[110], State::Damped);
        assert_eq!(states.last(), Some(&State::Up));
    }

    proptest! {
        /// Against a model that looks at the whole past: it is up if the last row of `rise` or `fall` says so.
        #[test]
        fn the_state_is_what_the_last_long_row_says(
            outcomes in prop::collection::vec(any::<bool>(), 1..200), rise in 1u8..5, fall in 1u8..5,
        ) {
            let spec = HealthSpec { rise, fall, ..spec() };
            let mut check = Check::new(&spec);
            let mut expected = State::Unknown;
            for n in 1..=outcomes.len() {
                check.count(at(n as u64 * 1000), if outcomes[n - 1] { good() } else { bad() });
                let row = |length: u8, value: bool| {
                    n >= usize::from(length) && outcomes[n - usize::from(length)..n].iter().all(|o| *o == value)
                };
                if row(rise, true) {
                    expected = State::Up;
                } else if row(fall, false) {
                    expected = State::Down;
                }
                prop_assert_eq!(check.state(), expected);
            }
        }
    }
}

mod probing {
    use super::*;

    /// Runs a prober for a while in steps of a millisecond; `serve` says how long each probe takes and what it comes to.
    fn run(
        prober: &mut Prober,
        ms: std::ops::Range<u64>,
        mut serve: impl FnMut(Instant, &Target) -> Option<(u64, Outcome)>,
    ) -> Vec<Report> {
        let mut flying: BTreeSet<(u64, Attempt)> = BTreeSet::new();
        let mut outcomes = BTreeMap::new();
        let mut reports = Vec::new();
        for now in ms {
            while let Some((end, attempt)) = flying.first().copied().filter(|(end, _)| *end <= now) {
                flying.remove(&(end, attempt));
                prober.outcome(at(now), attempt, outcomes.remove(&attempt).unwrap());
            }
            prober.turn(at(now), |attempt, target| {
                if let Some((takes, outcome)) = serve(at(now), target) {
                    flying.insert((now + takes, attempt));
                    outcomes.insert(attempt, outcome);
                }
                true
            });
            reports.extend(prober.reports(at(now), usize::MAX));
        }
        reports
    }

    #[test]
    fn each_server_is_probed_once_an_interval_and_not_in_step() {
        let mut prober = Prober::new(7);
        for server in 0..100 {
            prober.put(at(0), target(server, &spec()));
        }
        let mut begun: BTreeMap<RealServerId, Vec<u64>> = BTreeMap::new();
        let reports = run(&mut prober, 0..60_000, |now, target| {
            begun.entry(target.server).or_default().push(now.0 / 1_000_000);
            Some((3, good()))
        });
        let mut first: Vec<u64> = begun.values().map(|times| times[0]).collect();
        first.sort_unstable();
        assert!(first[0] < 50 && first[50] > 300 && first[50] < 700 && first[99] > 900, "{first:?}");
        for times in begun.values() {
            assert!((58..=62).contains(&times.len()), "{}", times.len());
            let gaps: BTreeSet<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(*gaps.first().unwrap() >= 950 && *gaps.last().unwrap() <= 1051 && gaps.len() > 10);
        }
        // One when it is known, then one each time that a repetition is due.
        for server in 0..100 {
            let mine: Vec<_> = reports.iter().filter(|report| report.server.0 == server).collect();
            assert!((10..=13).contains(&mine.len()), "{}", mine.len());
            assert!(mine.iter().all(|report| report.up) && mine.is_sorted_by_key(|report| report.number));
        }
        assert_eq!(prober.counts().late, 0);
    }

    #[test]
    fn changes_are_reported_at_once_and_trouble_of_its_own_never() {
        let mut prober = Prober::new(1);
        prober.put(at(0), target(1, &spec()));
        let reports = run(&mut prober, 0..30_000, |now, _| {
            let down = (10..20).contains(&(now.0 / 1_000_000_000));
            Some((1, if down { bad() } else { good() }))
        });
        let changes: Vec<bool> = reports.iter().map(|report| report.up).collect();
        let mut changes = changes;
        changes.dedup();
        assert_eq!(changes, [true, false, true]);
        let down = reports.iter().find(|report| !report.up).unwrap();
        assert_eq!(down.reason, "refused");

        let mut unable = Prober::new(1);
        unable.put(at(0), target(1, &spec()));
        assert_eq!(run(&mut unable, 0..30_000, |_, _| Some((1, Outcome::Unable("no ports".into())))), []);
        assert_eq!(unable.state(RealServerId(1)), Some(State::Unknown));
        assert!(unable.counts().unable > 25);
    }

    #[test]
    fn a_lost_probe_is_given_up_and_its_answer_is_too_late() {
        let mut prober = Prober::new(1);
        prober.put(at(0), target(1, &spec()));
        let mut attempts = Vec::new();
        for now in 0..20_000 {
            prober.turn(at(now), |attempt, _| {
                attempts.push(attempt);
                true
            });
        }
        assert_eq!(attempts.len(), 4, "one is awaited for 5.5 s");
        assert_eq!(prober.counts().lost, 3);
        prober.outcome(at(20_000), attempts[0], good());
        assert_eq!(prober.counts().good, 0);
        prober.outcome(at(20_000), attempts[3], good());
        assert_eq!(prober.counts().good, 1);
    }

    #[test]
    fn a_refused_probe_is_begun_next_turn() {
        let mut prober = Prober::new(1);
        (0..10).for_each(|server| prober.put(at(0), target(server, &spec())));
        let mut begun = 0;
        for turn in 0..4 {
            let mut room = 3;
            prober.turn(at(2000 + turn), |_, _| {
                let taken = room > 0;
                room -= i32::from(taken);
                begun += i32::from(taken);
                taken
            });
        }
        assert_eq!(begun, 10);
        assert_eq!(prober.counts().begun, 10);
    }

    #[test]
    fn only_so_many_are_in_flight_and_the_longest_overdue_goes_first() {
        let mut prober = Prober::new(1);
        let many = MAX_IN_FLIGHT as u32 + 100;
        (0..many).for_each(|server| prober.put(at(0), target(server, &spec())));
        let mut first = Vec::new();
        prober.turn(at(2000), |attempt, target| {
            first.push((attempt, target.server));
            true
        });
        assert_eq!(first.len(), MAX_IN_FLIGHT);
        first.iter().for_each(|(attempt, _)| prober.outcome(at(2001), *attempt, good()));
        let mut second = BTreeSet::new();
        prober.turn(at(2001), |_, target| second.insert(target.server));
        assert_eq!(second.len(), 100, "those that had no place");
        assert!(first.iter().all(|(_, server)| !second.contains(server)));
    }

    #[test]
    fn what_is_changed_starts_anew_and_what_is_not_goes_on() {
        let mut prober = Prober::new(1);
        let one = target(1, &spec());
        prober.put(at(0), one.clone());
        run(&mut prober, 0..5000, |_, _| Some((1, good())));
        prober.put(at(5000), one);
        assert_eq!(prober.state(RealServerId(1)), Some(State::Up));
        // With a probe in flight, whose outcome is the old check's.
        let mut old = None;
        for now in 5000..7000 {
            prober.turn(at(now), |attempt, _| old.replace(attempt).is_none());
        }
        prober.put(at(7000), target(1, &HealthSpec { rise: 1, ..spec() }));
        prober.outcome(at(7001), old.unwrap(), good());
        assert_eq!(prober.state(RealServerId(1)), Some(State::Unknown));
        prober.put(at(7002), target(1, &HealthSpec::new(Probe::None)));
        assert_eq!(prober.state(RealServerId(1)), None);
        assert_eq!(prober.servers().count(), 0);
        prober.turn(at(60_000), |_, _| panic!("nothing is checked"));
    }

    #[test]
    fn a_new_leader_is_told_everything() {
        let mut prober = Prober::new(1);
        (0..3).for_each(|server| prober.put(at(0), target(server, &spec())));
        run(&mut prober, 0..4000, |_, target| Some((1, if target.server.0 == 2 { bad() } else { good() })));
        prober.report_all();
        prober.put(at(4000), target(3, &spec()));
        let told = prober.reports(at(4000), 2);
        assert_eq!(told.len(), 2);
        let rest = prober.reports(at(4000), 9);
        let all: Vec<_> = told.iter().chain(&rest).map(|report| (report.server.0, report.up)).collect();
        assert_eq!(all, [(0, true), (1, true), (2, false)]);
    }

    #[test]
    fn equal_seeds_make_equal_schedules() {
        let schedule = |seed| {
            let mut prober = Prober::new(seed);
            (0..20).for_each(|server| prober.put(at(0), target(server, &spec())));
            let mut begun = Vec::new();
            run(&mut prober, 0..5000, |now, target| {
                begun.push((now, target.server));
                Some((2, good()))
            });
            begun
        };
        assert_eq!(schedule(3), schedule(3));
        assert_ne!(schedule(3), schedule(4));
    }

    proptest! {
        /// Whatever comes in whatever order, the books agree: each server is due or in flight, and nothing is kept of what is
        /// no longer checked.
        #[test]
        fn the_schedule_is_whole(steps in prop::collection::vec((0u8..5, 0u32..6, 0u64..3000), 1..200)) {
            let mut prober = Prober::new(5);
            let mut now = 0;
            let mut flying = Vec::new();
            for (what, server, time) in steps {
                now += time;
                match what {
                    0 => prober.put(at(now), target(server, &spec())),
                    1 => prober.remove(RealServerId(server)),
                    2 if !flying.is_empty() => {
                        let attempt = flying.swap_remove(server as usize % flying.len());
                        prober.outcome(at(now), attempt, if time % 2 == 0 { good() } else { bad() });
                    }
                    3 => drop(prober.reports(at(now), 2)),
                    _ => prober.turn(at(now), |attempt, _| {
                        flying.push(attempt);
                        true
                    }),
                }
                prop_assert!(prober.is_whole());
            }
        }
    }
}

mod assigning {
    use super::*;

    #[test]
    fn a_few_nodes_each_and_all_alike() {
        let all = nodes(0..8);
        let mut load = BTreeMap::new();
        for server in (0..10_000).map(RealServerId) {
            let chosen = probers(server, all, PROBERS);
            assert_eq!(chosen.len(), PROBERS);
            chosen.iter().for_each(|node| *load.entry(node).or_insert(0) += 1);
        }
        assert!(load.len() == 8 && load.values().all(|n| (3500..4000).contains(n)), "{load:?}");
        assert_eq!(probers(RealServerId(1), nodes([4, 9]), PROBERS), nodes([4, 9]));
        assert!(probers(RealServerId(1), NodeSet::EMPTY, PROBERS).is_empty());
    }

    proptest! {
        #[test]
        fn a_node_that_leaves_is_replaced_and_nothing_else_changes(
            candidates in any::<u64>(), leaver in 0u16..64, server in any::<u32>(),
        ) {
            let (all, server) = (NodeSet(candidates), RealServerId(server));
            let rest = all.without(NodeSet::of(NodeId(leaver)));
            let (before, after) = (probers(server, all, PROBERS), probers(server, rest, PROBERS));
            prop_assert_eq!(before.without(NodeSet::of(NodeId(leaver))).without(after), NodeSet::EMPTY);
            prop_assert_eq!(after.len(), PROBERS.min(rest.len()));
        }
    }
}

mod weighing {
    use super::*;

    fn shares(members: &[(u32, Option<Health>)]) -> Vec<u32> {
        let members: Vec<_> =
            members.iter().map(|(weight, health)| Member { weight: *weight, health: *health }).collect();
        weights(&members)
    }

    #[test]
    fn weights_follow_health() {
        let (up, down, unknown) = (Some(Health::FULL), Some(Health::Down), Some(Health::Unknown));
        let s = u32::from(STEPS);
        assert_eq!(shares(&[(1, None), (2, up), (3, down), (4, unknown)]), [s, 2 * s, 0, 0]);
        assert_eq!(shares(&[(10, Some(Health::Up(1))), (10, up), (0, up)]), [10, 10 * s, 0]);
        // A new virtual server, or a cluster that has just begun: all are tried.
        assert_eq!(shares(&[(1, unknown), (2, unknown), (3, down)]), [s, 2 * s, 0]);
        // One that serves with weight zero doesn't serve.
        assert_eq!(shares(&[(0, up), (2, unknown)]), [0, 2 * s]);
        assert_eq!(shares(&[(1, down), (2, down)]), [0, 0]);
        assert_eq!(shares(&[]), [0; 0]);
        assert_eq!(shares(&[(u32::MAX, up)]), [u32::MAX]);
    }
}

#[path = "judge_tests.rs"]
mod judging;
