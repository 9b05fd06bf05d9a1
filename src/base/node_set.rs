//! Sets of nodes.

use crate::base::NodeId;
use crate::base::limits::MAX_NODES;

/// A set of nodes: bit *i* stands for node *i*, below [`MAX_NODES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct NodeSet(pub u64);

impl NodeSet {
    /// No node.
    pub const EMPTY: Self = Self(0);

    /// `node` alone; no node if its number is [`MAX_NODES`] or more.
    pub fn of(node: NodeId) -> Self {
        Self(if node.index() < MAX_NODES { 1 << node.0 } else { 0 })
    }

    /// Whether `node` is in it.
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & Self::of(node).0 != 0
    }

    /// What is in either.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one and not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no node is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of nodes in it.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Its nodes, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let node = (rest != 0).then(|| NodeId(rest.trailing_zeros() as u16));
            rest &= rest.wrapping_sub(1);
            node
        })
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::EMPTY, |set, node| set.with(Self::of(node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: NodeSet = [NodeId(0), NodeId(63), NodeId(7), NodeId(7)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [NodeId(0), NodeId(7), NodeId(63)]);
        assert_eq!(set.len(), 3);
        assert!(set.contains(NodeId(63)) && !set.contains(NodeId(1)));
        let rest = set.without(NodeSet::of(NodeId(7)));
        assert!(!rest.contains(NodeId(7)) && rest.contains(NodeId(0)));
        assert_eq!(rest.with(NodeSet::of(NodeId(7))), set);
    }

    #[test]
    fn what_is_no_node_of_a_cluster_is_in_no_set() {
        assert!(NodeSet::of(NodeId(64)).is_empty());
        assert!(!NodeSet(u64::MAX).contains(NodeId(1000)));
    }
}
