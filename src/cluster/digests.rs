//! Which nodes' states differ from the others', by the digests that they tell (MECHANISMS §6).
//!
//! Of those who serve more than half must agree about an entry before another is at fault: of two that differ neither can say
//! which it is, and those who tell first are not the only ones.

use crate::base::{NodeId, NodeSet};
use std::collections::BTreeMap;

/// Late entries of which it is remembered who has told what.
const REMEMBERED: usize = 256;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    /// So many nodes are expected to tell.
    nodes: usize,
    told: BTreeMap<u64, BTreeMap<NodeId, u64>>,
    odd: NodeSet,
    divided: Option<u64>,
}

impl Digests {
    /// So many nodes tell, sooner or later: no fewer than half of those find another at fault.
    pub fn expect(&mut self, nodes: usize) {
        self.nodes = nodes;
    }

    /// A node's state behind the entry at `index` has this digest.
    pub fn told(&mut self, node: NodeId, index: u64, digest: u64) {
        let all = self.told.entry(index).or_default();
        if all.insert(node, digest) == Some(digest) {
            return;
        }
        let agree = |digest: u64| all.values().filter(|other| **other == digest).count();
        let voices = all.len().max(self.nodes);
        let most = all.values().copied().find(|digest| agree(*digest) * 2 > voices);
        if let Some(most) = most {
            self.odd = all
                .iter()
                .filter(|(_, other)| **other != most)
                .map(|(node, _)| *node)
                .fold(self.odd, |odd, node| odd.with(NodeSet::of(node)));
        }
        if all.len() > 1 {
            let differ = all.values().any(|other| *other != digest);
            self.divided = (most.is_none() && differ).then_some(index);
        }
        if self.told.len() > REMEMBERED {
            self.told.pop_first();
        }
    }

    /// A node has begun another life, or has its state anew: what it told before counts no more.
    pub fn forget(&mut self, node: NodeId) {
        self.odd = self.odd.without(NodeSet::of(node));
        self.told.retain(|_, all| {
            all.remove(&node);
            !all.is_empty()
        });
    }

    /// The nodes whose states differ from most others'.
    pub fn odd(&self) -> NodeSet {
        self.odd
    }

    /// The entry behind which nodes differ and none of them can be found at fault, if that was so of late.
    pub fn divided(&self) -> Option<u64> {
        self.divided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[u16]) -> NodeSet {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn told(all: &[(u16, u64, u64)]) -> Digests {
        let mut digests = Digests::default();
        all.iter().for_each(|(node, index, digest)| digests.told(NodeId(*node), *index, *digest));
        digests
    }

    #[test]
    fn most_of_those_who_tell_of_an_entry_are_right() {
        assert_eq!(told(&[(0, 5, 7), (1, 5, 7), (2, 5, 7), (2, 6, 8)]).odd(), set(&[]));
        let odd = told(&[(0, 5, 7), (1, 5, 9), (2, 5, 7)]);
        assert_eq!((odd.odd(), odd.divided()), (set(&[1]), None));
        assert_eq!(told(&[(1, 5, 9), (0, 5, 7), (2, 5, 7)]).odd(), set(&[1]), "whoever tells first");
        assert_eq!(told(&[(0, 5, 7), (1, 6, 9), (2, 7, 8)]).odd(), set(&[]), "of other entries");
        assert_eq!(told(&[(0, 5, 7), (1, 5, 8), (2, 5, 9)]).odd(), set(&[]), "no two agree");
    }

    #[test]
    fn of_two_that_differ_neither_is_at_fault() {
        let mut two = told(&[(0, 5, 7), (1, 5, 9)]);
        assert_eq!((two.odd(), two.divided()), (set(&[]), Some(5)));
        assert_eq!(told(&[(0, 5, 7), (1, 5, 9), (2, 5, 7), (3, 5, 9)]).divided(), Some(5));
        two.told(NodeId(0), 6, 1);
        two.told(NodeId(1), 6, 1);
        assert_eq!(two.divided(), None, "they agree again");
    }

    #[test]
    fn those_who_tell_first_are_not_the_only_ones() {
        let mut digests = Digests::default();
        digests.expect(5);
        for (node, digest, odd) in [(0, 9, &[][..]), (1, 7, &[]), (2, 9, &[]), (3, 7, &[]), (4, 7, &[0, 2])] {
            digests.told(NodeId(node), 5, digest);
            assert_eq!(digests.odd(), set(odd), "{node}");
        }
    }

    #[test]
    fn another_life_begins_without_blame() {
        let mut digests = told(&[(0, 5, 7), (1, 5, 9), (2, 5, 7), (0, 6, 3), (2, 6, 3)]);
        digests.forget(NodeId(1));
        assert_eq!(digests.odd(), set(&[]));
        digests.told(NodeId(1), 6, 3);
        assert_eq!(digests.odd(), set(&[]));
        digests.told(NodeId(1), 5, 9);
        assert_eq!(digests.odd(), set(&[1]), "by what it tells now");
    }

    #[test]
    fn old_entries_are_forgotten() {
        let mut digests = Digests::default();
        (0..1000).for_each(|index| digests.told(NodeId(0), index, 1));
        assert_eq!(digests.told.len(), REMEMBERED);
    }
}
