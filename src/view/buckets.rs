//! What of a group changes while it runs: whose its buckets are.

use super::chain::Chain;
use super::{Owner, View};
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::{
    Bucket, FlowHash, FlowKey, GroupId, Incarnation, Instant, NodeId, VirtualServerId, WorkerId,
};
use crate::table::placement::Placement;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A set of a group's buckets: a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSet([u64; BUCKETS / 64]);

impl BucketSet {
    /// No bucket.
    pub const EMPTY: Self = Self([0; BUCKETS / 64]);

    /// Adds a bucket.
    #[inline]
    pub fn insert(&mut self, bucket: Bucket) {
        if let Some(word) = self.0.get_mut(bucket.index() / 64) {
            *word |= 1 << (bucket.0 % 64);
        }
    }

    /// Whether a bucket is in it.
    #[inline]
    pub fn has(&self, bucket: Bucket) -> bool {
        self.0.get(bucket.index() / 64).is_some_and(|word| word >> (bucket.0 % 64) & 1 == 1)
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }
}

/// Buckets taken over from a node that died: what it has promised still holds until its lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Which.
    pub buckets: BucketSet,
    /// From then on their new owner may open NAT sessions.
    pub until: Instant,
}

/// Who has each bucket's state, in the order of the buckets.
pub type Chains = Arc<[Chain]>;

/// Who stands by for a bucket has all of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learnt {
    /// The bucket.
    pub bucket: Bucket,
    /// In which epoch of the owner that was so.
    pub epoch: u32,
    /// Who.
    pub node: NodeId,
    /// Which stay of it: see [`Copy::since`](super::chain::Copy::since).
    pub stay: u32,
}

/// The buckets of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Owner and previous owner of each.
    pub placement: Placement,
    /// Those that are in quarantine.
    pub quarantine: Option<Box<Quarantine>>,
    /// Who has the state of each; none: nodes share nothing.
    pub chains: Option<Chains>,
}

impl From<Placement> for Buckets {
    fn from(placement: Placement) -> Self {
        Self { placement, quarantine: None, chains: None }
    }
}

impl View {
    /// The owner of a bucket of a group; none if the group has no node.
    #[inline]
    pub fn owner(&self, group: GroupId, bucket: Bucket) -> Option<Owner> {
        let node = self.buckets[group.index()].placement.owner(bucket)?;
        Some(self.at(node, bucket))
    }

    /// Whether a bucket's previous owner may still have sessions: it must live, as far as we know. That this node, which may have
    /// started just now, has yet to hear of it says nothing.
    #[inline]
    pub fn may_hold(&self, previous: NodeId) -> bool {
        let node = &self.nodes[previous.index()];
        (node.up || node.incarnation == Incarnation(0)) && !planted::is(Bug::PreviousOwnerForgotten)
    }

    /// The bucket of a flow to a virtual server, whose tuple has this hash: where clients keep their real servers, their client's.
    #[inline]
    pub fn bucket(&self, id: VirtualServerId, key: &FlowKey, hash: FlowHash) -> Bucket {
        self.hash_of(id, key, hash).bucket()
    }

    /// That by which a flow is balanced: of its tuple, or of its client.
    #[inline]
    pub fn hash_of(&self, id: VirtualServerId, key: &FlowKey, hash: FlowHash) -> FlowHash {
        match &self.services.virtual_servers[id.index()].persistence {
            Some(persistence) => self.hash_key.flow(&persistence.client(key)),
            None => hash,
        }
    }

    /// A bucket's place at `node`.
    #[inline]
    pub fn at(&self, node: NodeId, bucket: Bucket) -> Owner {
        Owner { node, worker: self.worker_of(node, bucket) }
    }

    /// The worker of `node` that owns its flows of this bucket.
    #[inline]
    pub fn worker_of(&self, node: NodeId, bucket: Bucket) -> WorkerId {
        WorkerId(bucket.0 % self.nodes[node.index()].workers)
    }

    /// Whether the node that owned this bucket may still hold a lease, though it counts as dead.
    #[inline]
    pub fn quarantined(&self, group: GroupId, bucket: Bucket, now: Instant) -> bool {
        let quarantine = self.buckets[group.index()].quarantine.as_ref();
        quarantine.is_some_and(|q| now < q.until && q.buckets.has(bucket))
    }

    /// Whether this node is the previous owner of any bucket of the group.
    #[inline]
    pub fn leaves(&self, group: GroupId) -> bool {
        self.leaving >> group.0 & 1 == 1
    }

    /// Gives every group its buckets, in the order of the groups.
    pub fn place(&mut self, buckets: Vec<Buckets>) {
        debug_assert_eq!(buckets.len(), self.services.groups.len());
        let since = buckets.iter().enumerate().map(|(group, buckets)| {
            let known = self.placed_by_group.get(group).filter(|_| self.buckets.get(group) == Some(buckets));
            known.copied().unwrap_or(self.version)
        });
        self.placed_by_group = since.collect();
        self.placed = self.version;
        let leaves = buckets.iter().enumerate().filter(|(_, group)| group.placement.leaves(self.me));
        self.leaving = leaves.fold(0, |set, (group, _)| set | 1 << group);
        self.buckets = buckets.into();
    }
}
