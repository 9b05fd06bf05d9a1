//! Lives of nodes that must not serve any more, as entries of the log say to whoever stores them (MECHANISMS §0, leases and
//! fencing).

use crate::base::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of each node all lives up to the one that is named. What several entries say adds up to the same in whatever order, and
/// however often they come: a fence is never lifted, a node is renewed again when it has begun another life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fences(BTreeMap<NodeId, Incarnation>);

impl Fences {
    /// What an ordinary entry says.
    pub const NONE: Self = Self(BTreeMap::new());

    /// The lives of one node up to this one; lives count from 1.
    pub fn upto(node: NodeId, life: Incarnation) -> Self {
        Self(if life.0 > 0 { [(node, life)].into() } else { BTreeMap::new() })
    }

    /// Whether nothing is fenced.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this life of a node is fenced.
    pub fn has(&self, node: NodeId, life: Incarnation) -> bool {
        self.0.get(&node).is_some_and(|upto| life <= *upto)
    }

    /// What others say is added.
    pub fn add(&mut self, others: &Self) {
        for (node, life) in &others.0 {
            let upto = self.0.entry(*node).or_default();
            *upto = (*upto).max(*life);
        }
    }

    /// Each node of which something is fenced, the lowest first, and the last life that is.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Incarnation)> {
        self.0.iter().map(|(node, life)| (*node, *life))
    }
}

impl<'a> FromIterator<&'a Fences> for Fences {
    fn from_iter<I: IntoIterator<Item = &'a Fences>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, |mut sum, fences| {
            sum.add(fences);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::{Phase, Why};
    use super::super::lead::{Lead, Patience};
    use super::super::namespace::{Change, Key, Name, Namespace, NodeSpec, Object, RequestId, Write};
    use super::super::state::{Entry, State};
    use super::*;
    use crate::base::{Addr, Instant, NodeSet};
    use proptest::prelude::*;
    use std::time::Duration;

    fn key(node: u16) -> Key {
        Key::Node(Name::new(&format!("n{node}")).unwrap())
    }

    fn state() -> State {
        let node = |n: u16| {
            let backplane = Addr::v4([10, 0, 0, n as u8 + 1]);
            (key(n), Object::Node(NodeSpec { backplane, workers: 1, weight: 1, management: None }))
        };
        State::new(Namespace::draft((0..3).map(node)).0)
    }

    /// A log, what it adds up to, and what it fences.
    struct Log {
        state: State,
        fences: Fences,
        /// The control: fences as sets of nodes, which an activation lifts again.
        sets: NodeSet,
    }

    impl Log {
        fn new() -> Self {
            Self { state: state(), fences: Fences::NONE, sets: NodeSet::EMPTY }
        }

        fn append(&mut self, entry: &Entry) {
            self.state.apply(self.state.index() + 1, entry);
            self.fences.add(&entry.fences());
            match entry {
                Entry::Join(node, _) | Entry::Offline(node, ..) => {
                    self.sets = self.sets.with(NodeSet::of(*node));
                }
                Entry::Activate(node, _) => self.sets = self.sets.without(NodeSet::of(*node)),
                _ => {}
            }
        }

        /// A node of which the log and what it fences say different things: a life that is over can be renewed, or one that
        /// serves can't.
        fn contradicts(&self, fenced: impl Fn(NodeId, Incarnation) -> bool) -> Option<NodeId> {
            let wrong = self.state.fleet().members().iter().find(|(node, member)| {
                let fenced = fenced(**node, member.incarnation);
                match member.phase {
                    Phase::Joining => false,
                    Phase::Active | Phase::Draining => fenced,
                    Phase::Offline(_) => !fenced,
                }
            });
            wrong.map(|(node, _)| *node)
        }
    }

    const N: NodeId = NodeId(1);

    fn join(life: u32) -> Entry {
        Entry::Join(N, Incarnation(life))
    }

    fn activate(life: u32) -> Entry {
        Entry::Activate(N, Incarnation(life))
    }

    fn offline(life: u32) -> Entry {
        Entry::Offline(N, Incarnation(life), Why::Silent)
    }

    #[test]
    fn late_and_doubled_entries_lift_no_fence_and_leave_none() {
        let again = [join(1), activate(1), offline(1), activate(1)];
        let late = [join(2), activate(2), join(1)];
        for entries in [&again[..], &late[..]] {
            let mut log = Log::new();
            entries.iter().for_each(|entry| log.append(entry));
            assert_eq!(log.contradicts(|node, life| log.fences.has(node, life)), None, "{entries:?}");
            assert_eq!(
                log.contradicts(|node, _| log.sets.contains(node)),
                Some(N),
                "the control: {entries:?}"
            );
        }
    }

    #[test]
    fn a_removal_is_in_force_once_the_life_that_there_is_was_taken_out() {
        let mut log = Log::new();
        [join(1), activate(1), offline(1), join(2), activate(2)].iter().for_each(|entry| log.append(entry));
        log.append(&Entry::InForce(log.state.version()));
        assert_eq!(log.state.in_force(), log.state.version());
        let changes = vec![Change { key: key(1), expected: None, value: None }];
        log.append(&Entry::Write(Write { request: RequestId(7), who: "somebody".into(), at: 0, changes }));
        assert!(!log.fences.has(N, Incarnation(2)), "who wrote that may not have known of this life");
        let removed = log.state.version();
        log.append(&Entry::InForce(removed));
        assert!(log.state.in_force() < removed, "its buckets are nobody's to steer to");
        let patience = Patience { suspicion: Duration::from_millis(400), prepare: Duration::from_secs(1) };
        let mut lead = Lead::new(patience);
        lead.leads(true, Instant::ZERO);
        let wanted = lead.turn(&log.state, &BTreeMap::new(), Instant::ZERO);
        assert_eq!(wanted, [Entry::Offline(N, Incarnation(2), Why::Removed)]);
        log.append(&wanted[0]);
        assert!(log.fences.has(N, Incarnation(2)));
        log.append(&join(3));
        assert_eq!(log.state.fleet().member(N).unwrap().phase, Phase::Offline(Why::Removed));
        log.append(&Entry::InForce(log.state.version()));
        assert_eq!(log.state.in_force(), log.state.version());
    }

    #[test]
    fn all_lives_up_to_one_are_fenced() {
        let fences = Fences::upto(NodeId(3), Incarnation(2));
        assert!(fences.has(NodeId(3), Incarnation(1)) && fences.has(NodeId(3), Incarnation(2)));
        assert!(!fences.has(NodeId(3), Incarnation(3)) && !fences.has(NodeId(4), Incarnation(1)));
        assert!(Fences::upto(NodeId(3), Incarnation(0)).is_empty() && !fences.is_empty());
        assert_eq!(fences.iter().collect::<Vec<_>>(), [(NodeId(3), Incarnation(2))]);
    }

    proptest! {
        /// Late, doubled and reordered entries change nothing.
        #[test]
        fn they_add_up_in_any_order(said in prop::collection::vec((0..4u16, 0..5u32), 0..12), cut in 0..12usize) {
            let each: Vec<_> = said.iter().map(|(n, l)| Fences::upto(NodeId(*n), Incarnation(*l))).collect();
            let all: Fences = each.iter().collect();
            let (first, rest) = each.split_at(cut.min(each.len()));
            let turned: Fences = rest.iter().chain(first).chain(rest).collect();
            prop_assert_eq!(&all, &turned);
            for (node, life) in said.iter().filter(|(_, life)| *life > 0) {
                prop_assert!(all.has(NodeId(*node), Incarnation(*life)));
            }
            for node in (0..4).map(NodeId) {
                let last = said.iter().filter(|(n, _)| *n == node.0).map(|(_, l)| *l).max().unwrap_or(0);
                prop_assert!(!all.has(node, Incarnation(last + 1)), "the next life is free");
            }
        }

        /// Leaders propose by what is decided then; what they propose comes late, in another order, and again. Still who is out
        /// is fenced, and who serves isn't.
        #[test]
        fn what_is_fenced_follows_what_is_decided(
            acts in prop::collection::vec((0..5u8, 0..3u16, any::<prop::sample::Index>()), 1..80)
        ) {
            let mut log = Log::new();
            let (mut begun, mut proposed) = ([0; 3], Vec::new());
            for (act, node, which) in acts {
                let (id, life) = (NodeId(node), &mut begun[usize::from(node)]);
                let last = log.state.fleet().member(id).map(|member| member.incarnation);
                match (act, last) {
                    (0, _) => {
                        *life += 1;
                        proposed.push(Entry::Join(id, Incarnation(*life)));
                    }
                    (1, Some(last)) => proposed.push(Entry::Activate(id, last)),
                    (2, Some(last)) => proposed.push(Entry::Offline(id, last, Why::Silent)),
                    _ if proposed.is_empty() => {}
                    _ => log.append(which.get(&proposed)),
                }
                prop_assert_eq!(log.contradicts(|node, life| log.fences.has(node, life)), None);
            }
        }
    }
}
