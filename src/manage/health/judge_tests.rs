//! The leader's side, with reporting nodes that err, flap, die and contradict each other.

use super::*;
use crate::base::VirtualServerId;

const SERVER: RealServerId = RealServerId(1);

fn watch() -> Watch {
    Watch::new(VirtualServerId(0), &spec(), None)
}

/// A judge, and the log that commits what it proposes after a while.
struct Leader {
    judge: Judge,
    standings: Standings,
    numbers: u64,
    applied: Vec<(u64, Change)>,
    now: u64,
}

impl Leader {
    fn new(watch: Watch, probers: NodeSet) -> Self {
        let mut judge = Judge::new();
        judge.put(at(0), SERVER, watch, probers, Health::Unknown);
        Self { judge, standings: Standings::default(), numbers: 0, applied: Vec::new(), now: 0 }
    }

    fn hear(&mut self, node: u16, up: bool) {
        self.numbers += 1;
        let reason = if up { String::new() } else { format!("refused n{node}") };
        let report = Report { server: SERVER, number: self.numbers, up, reason };
        self.judge.hear(at(self.now), NodeId(node), report);
    }

    /// Lets time pass in steps of 10 ms, at which proposals are committed.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now += 10;
            for change in self.judge.turn(at(self.now), 100) {
                if self.standings.apply(&change) {
                    self.judge.committed(at(self.now), change.server, change.to.health);
                    self.applied.push((self.now, change));
                }
            }
        }
    }

    /// What all of `votes` say, `ms` long, repeated as probers do.
    fn say(&mut self, votes: &[(u16, bool)], ms: u64) {
        for _ in 0..ms.div_ceil(1000) {
            votes.iter().for_each(|(node, up)| self.hear(*node, *up));
            self.pass(1000);
        }
    }

    fn health(&self) -> Health {
        self.standings.health(SERVER)
    }
}

#[test]
fn a_majority_decides() {
    let mut leader = Leader::new(watch(), nodes(0..3));
    leader.hear(0, true);
    leader.pass(100);
    assert_eq!(leader.health(), Health::Unknown, "one of three");
    leader.hear(1, true);
    leader.pass(100);
    assert_eq!(leader.health(), Health::FULL, "two of three");
    leader.hear(0, false);
    leader.pass(100);
    assert_eq!(leader.health(), Health::FULL, "one and one, the third silent");
    leader.hear(2, false);
    leader.pass(100);
    assert_eq!(leader.health(), Health::Down);
    let reason = &leader.standings.get(SERVER).unwrap().reason;
    assert_eq!(reason, "down for 2 of 3 nodes: refused n0");
    assert_eq!(leader.applied.len(), 2);
}

/// The real servers of a new virtual server, of which the last is heard of `late` milliseconds after the others: when each was
/// judged.
fn first_judgements(late: u64) -> Vec<u64> {
    let mut leader = Leader::new(watch(), nodes(0..1));
    for server in 2..5 {
        leader.judge.put(at(0), RealServerId(server), watch(), nodes(0..1), Health::Unknown);
    }
    let another = Watch { of: VirtualServerId(1), ..watch() };
    leader.judge.put(at(0), RealServerId(9), another, nodes(0..1), Health::Unknown);
    for server in 1..5 {
        if server == 4 {
            leader.pass(late);
        }
        let report =
            Report { server: RealServerId(server), number: 1, up: server != 2, reason: String::new() };
        leader.judge.hear(at(leader.now), NodeId(0), report);
    }
    leader.pass(100);
    leader.applied.iter().map(|(at, _)| *at).collect()
}

#[test]
fn first_judgements_of_a_virtual_server_are_made_together_but_not_for_ever() {
    assert_eq!(first_judgements(500), [510; 4]);
    let gather = watch().gather.as_millis() as u64;
    assert_eq!(first_judgements(2 * gather), [gather + 10, gather + 10, gather + 10, 2 * gather + 10]);
}

#[test]
fn nobody_else_is_heard() {
    let mut leader = Leader::new(watch(), nodes(0..3));
    (3..10).for_each(|node| leader.hear(node, false));
    let late = Report { server: SERVER, number: 0, up: false, reason: String::new() };
    leader.hear(0, true);
    leader.hear(1, true);
    leader.judge.hear(at(0), NodeId(0), late.clone());
    leader.judge.hear(at(0), NodeId(1), late.clone());
    leader.judge.hear(at(0), NodeId(0), Report { server: RealServerId(2), ..late });
    leader.pass(2000);
    assert_eq!(leader.health(), Health::FULL, "strangers, and reports that were overtaken");
}

#[test]
fn old_reports_and_those_of_the_dead_count_no_more() {
    let mut leader = Leader::new(watch(), nodes(0..3));
    leader.say(&[(0, true), (1, true), (2, true)], 2000);
    leader.hear(0, false);
    leader.pass(believed(&spec()).as_millis() as u64);
    leader.hear(1, false);
    leader.pass(3000);
    assert_eq!(leader.health(), Health::FULL, "node 0 said so long ago");
    leader.hear(0, false);
    leader.judge.forget(NodeId(1));
    leader.pass(3000);
    assert_eq!(leader.health(), Health::FULL, "node 1 is dead");
    // It is replaced, or the others decide alone.
    leader.judge.put(at(leader.now), SERVER, watch(), nodes([0, 2]), leader.standings.health(SERVER));
    leader.pass(1000);
    assert_eq!(leader.health(), Health::FULL, "one of two is no majority");
    leader.hear(2, false);
    leader.pass(1000);
    assert_eq!(leader.health(), Health::Down);
}

#[test]
fn silence_changes_nothing() {
    let mut leader = Leader::new(watch(), nodes(0..3));
    leader.say(&[(0, true), (1, true), (2, true)], 2000);
    leader.pass(600_000);
    assert_eq!(leader.applied.len(), 1);
    assert!(leader.judge.is_asleep(), "nothing to wait for");
}

#[test]
fn a_divided_majority_has_to_hold() {
    let mut leader = Leader::new(watch(), nodes(0..3));
    leader.say(&[(0, true), (1, false), (2, false)], 2000);
    assert_eq!(leader.health(), Health::Down);
    // The third can't make up its mind; the other two contradict each other.
    for _ in 0..20 {
        leader.say(&[(0, true), (1, false), (2, true)], 4000);
        leader.say(&[(0, true), (1, false), (2, false)], 2000);
    }
    assert_eq!(leader.applied.len(), 1);
    leader.say(&[(0, true), (1, false), (2, true)], 9000);
    assert_eq!(leader.health(), Health::Down);
    leader.say(&[(0, true), (1, false), (2, true)], 2000);
    assert_eq!(leader.health(), Health::FULL, "it has held");
    leader.say(&[(0, false), (1, false), (2, false)], 1000);
    leader.say(&[(0, true), (1, true), (2, true)], 100);
    assert_eq!(leader.health(), Health::FULL, "an undivided one counts at once");

    // The control: without that, the server flaps.
    let mut hasty = Leader::new(Watch { hold: Duration::ZERO, ..watch() }, nodes(0..3));
    for _ in 0..20 {
        hasty.say(&[(0, true), (1, false), (2, true)], 4000);
        hasty.say(&[(0, true), (1, false), (2, false)], 2000);
    }
    assert_eq!(hasty.applied.len(), 40);
}

#[test]
fn a_server_that_comes_up_gets_its_share_in_steps() {
    let slow = Watch { slow_start: Some(10 * SECOND), ..watch() };
    let mut leader = Leader::new(slow, nodes([0]));
    leader.say(&[(0, true)], 20_000);
    let steps: Vec<_> = leader.applied.iter().map(|(now, change)| (now / 1000, change.to.health)).collect();
    let expected: Vec<_> = (0..5).map(|i| (i * 2, Health::Up(i as u8 + 1))).collect();
    assert_eq!(steps, expected);
    leader.say(&[(0, false)], 1000);
    leader.say(&[(0, true)], 3000);
    assert_eq!(leader.health(), Health::Up(2));
    leader.say(&[(0, false)], 1000);
    assert_eq!(leader.health(), Health::Down, "in the midst of it");
    // Without slow start at once, and a slow start that is taken back ends.
    leader.say(&[(0, true)], 1000);
    leader.judge.put(at(leader.now), SERVER, watch(), nodes([0]), leader.standings.health(SERVER));
    leader.pass(100);
    assert_eq!(leader.health(), Health::FULL);
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_ended() {
    let slow = Watch { slow_start: Some(10 * SECOND), ..watch() };
    let mut leader = Leader::new(slow, nodes(0..3));
    leader.say(&[(0, true), (1, true), (2, true)], 3000);
    assert_eq!(leader.health(), Health::Up(2));
    leader.judge = Judge::new();
    leader.judge.put(at(leader.now), SERVER, slow, nodes(0..3), leader.health());
    leader.pass(1500);
    assert_eq!(leader.health(), Health::Up(2), "nothing before it has heard enough, or waited a step's time");
    leader.pass(7000);
    assert_eq!(leader.health(), Health::FULL);
    leader.say(&[(0, false), (1, false)], 1000);
    assert_eq!(leader.health(), Health::Down);
}

#[test]
fn what_is_not_committed_is_proposed_again_but_not_every_turn() {
    let mut judge = Judge::new();
    judge.put(at(0), SERVER, watch(), nodes([0]), Health::Unknown);
    judge.hear(at(0), NodeId(0), Report { server: SERVER, number: 1, up: true, reason: String::new() });
    let proposals = (0..5000).map(|ms| judge.turn(at(ms), 10).len()).sum::<usize>();
    assert_eq!(proposals, 5);
    judge.committed(at(5000), SERVER, Health::FULL);
    assert_eq!((5000..20_000).map(|ms| judge.turn(at(ms), 10).len()).sum::<usize>(), 0);
    judge.remove(SERVER);
    assert!(judge.is_asleep());
}

#[test]
fn a_turn_proposes_no_more_than_asked_and_forgets_nothing() {
    let mut judge = Judge::new();
    for server in (0..250).map(RealServerId) {
        judge.put(at(0), server, watch(), nodes([0]), Health::Unknown);
        judge.hear(at(0), NodeId(0), Report { server, number: 1, up: true, reason: String::new() });
    }
    let sizes: Vec<_> = (1..5).map(|ms| judge.turn(at(ms), 100).len()).collect();
    assert_eq!(sizes, [100, 100, 50, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two nodes see the same, a third says whatever it likes: nothing changes that those two don't say.
    #[test]
    fn one_bad_prober_changes_nothing(
        lies in prop::collection::vec((0u64..900, any::<bool>()), 1..60), liar in 0u16..3, truth in any::<bool>(),
    ) {
        let mut leader = Leader::new(watch(), nodes(0..3));
        let honest: Vec<_> = (0..3).filter(|node| *node != liar).map(|node| (node, truth)).collect();
        leader.say(&honest, 1000);
        for (wait, lie) in &lies {
            leader.hear(liar, *lie);
            honest.iter().for_each(|(node, up)| leader.hear(*node, *up));
            leader.pass(*wait);
        }
        prop_assert_eq!(leader.health().is_up(), truth);
        prop_assert_eq!(leader.applied.len(), 1);
    }

    /// The control: where it is the only one, it is believed.
    #[test]
    fn a_single_prober_is_believed(lies in prop::collection::vec(any::<bool>(), 1..60)) {
        let mut leader = Leader::new(watch(), nodes([0]));
        for lie in &lies {
            leader.hear(0, *lie);
            leader.pass(100);
            prop_assert_eq!(leader.health().is_up(), *lie);
        }
    }

    /// Whatever is said, once all agree for long enough it is so; and each change that was applied was a change.
    #[test]
    fn in_the_end_all_agree(
        said in prop::collection::vec((0u16..5, any::<bool>(), 0u64..3000), 0..80),
        forgotten in prop::collection::vec(0u16..5, 0..5),
        end in any::<bool>(), slow in any::<bool>(),
    ) {
        let slow_start = slow.then_some(5 * SECOND);
        let mut leader = Leader::new(Watch { slow_start, ..watch() }, nodes(0..5));
        let mut forgotten = forgotten.into_iter();
        for (node, up, wait) in said {
            leader.hear(node, up);
            leader.pass(wait);
            if wait > 2500 && let Some(node) = forgotten.next() {
                leader.judge.forget(NodeId(node));
            }
        }
        leader.say(&[(0, end), (1, end), (2, end), (3, end), (4, end)], 10_000);
        prop_assert_eq!(leader.health(), if end { Health::FULL } else { Health::Down });
        let mut health = Health::Unknown;
        for (_, change) in &leader.applied {
            prop_assert_eq!(change.from, health);
            prop_assert!(change.to.health != health);
            health = change.to.health;
        }
    }
}
