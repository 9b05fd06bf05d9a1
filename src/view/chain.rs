//! Who has a bucket, as one node sees it.

use crate::base::NodeId;
use arrayvec::ArrayVec;

/// Copies besides the owner's, at most.
pub const MAX_COPIES: usize = 3;

/// A node that has a copy of a bucket, or is to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The node.
    pub node: NodeId,
    /// Since when it is one, by a number that is never used twice for a node and bucket: one that was taken out and came back knows
    /// by it that it may have missed something.
    pub since: u32,
    /// It has all of it.
    pub complete: bool,
}

/// Who has a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// When the owner took it: higher with each owner, below 2^24.
    pub epoch: u32,
    /// Who answers for it; its `complete`: it has all of what those before it had.
    pub owner: Option<Copy>,
    /// Who else has it, the next owner first.
    pub copies: ArrayVec<Copy, MAX_COPIES>,
}

impl Chain {
    /// Whether this node owns it.
    pub fn is_owned_by(&self, node: NodeId) -> bool {
        self.owner.is_some_and(|owner| owner.node == node)
    }

    /// What a node is here, if anything.
    pub fn place_of(&self, node: NodeId) -> Option<Copy> {
        self.owner.iter().chain(&self.copies).find(|copy| copy.node == node).copied()
    }

    /// A copy that isn't the owner's.
    pub fn copy(&self, node: NodeId) -> Option<Copy> {
        self.copies.iter().find(|copy| copy.node == node).copied()
    }

    /// Those that are complete, the owner apart.
    pub fn complete(&self) -> impl Iterator<Item = NodeId> {
        self.copies.iter().filter(|copy| copy.complete).map(|copy| copy.node)
    }
}
