//! The nodes as the cluster has decided about them: which life of each is in, what it may do, and which buckets it owns
//! (MECHANISMS §0, §6). A deterministic part of the replicated state: every method is the effect of one log entry.

use super::place::{self, Map, Share};
use super::plan::Step;
use crate::base::hash::siphash13_bytes;
use crate::base::{Bucket, GroupId, HashKey, Incarnation, NodeId, NodeSet};
use crate::view::Learnt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Digests guard against faults, not against forgery.
pub(super) const DIGEST_KEY: HashKey = HashKey([0; 2]);
/// Copies of each bucket's state, the owner's counted.
pub const COPIES: usize = 2;

/// What a node may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It lives and takes up the state; it owns nothing.
    Joining,
    /// It serves.
    Active,
    /// It serves what it owns, and its buckets move away.
    Draining,
    /// It serves nothing, for this reason. Only another life of it may join.
    Offline(Why),
}

impl Phase {
    /// Whether such a node takes part: prepares Views, may own buckets.
    pub fn serves(&self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// Why a node was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Why {
    /// Nothing was heard of it for the suspicion time.
    #[error("it was silent")]
    Silent,
    /// Most others don't hear it over the backplane.
    #[error("most others don't hear it over the backplane")]
    Unheard,
    /// It began another life without a word.
    #[error("it was started anew")]
    Restarted,
    /// A worker's turns stand still.
    #[error("worker {0} is stuck")]
    Stuck(u16),
    /// It could not apply an entry, or make a View of it.
    #[error("it could not apply the state: {0}")]
    Apply(String),
    /// Its state differs from the others' at the same entry.
    #[error("its state differs from the others'")]
    Digest,
    /// It did not prepare a View in time.
    #[error("it did not prepare View {0} in time")]
    Unprepared(u64),
    /// It says itself that it can't go on.
    #[error("it says that it can't go on: {0}")]
    Ended(Trouble),
    /// It isn't in the namespace any more.
    #[error("it was removed")]
    Removed,
}

/// What keeps a node from going on, in so far as heartbeats say it; its own log and status say more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Trouble {
    /// It doesn't say.
    #[default]
    #[error("its own log says why")]
    Unsaid,
    /// [`Why::Apply`].
    #[error("it could not apply the state, or serve by it")]
    Apply,
    /// Its replica of the log has ended.
    #[error("its replica of the log has stopped")]
    Log,
    /// [`Why::Stuck`].
    #[error("a worker is stuck")]
    Stuck,
    /// [`Why::Digest`].
    #[error("its state differs from the others'")]
    Digest,
}

impl Trouble {
    /// As heartbeats number them, from 1.
    const SAID: [Self; 4] = [Self::Apply, Self::Log, Self::Stuck, Self::Digest];

    /// Its number in heartbeats.
    pub fn number(self) -> u16 {
        Self::SAID.iter().position(|one| *one == self).map_or(0, |at| at as u16 + 1)
    }

    /// What has this number. One that isn't known is not said.
    pub fn numbered(number: u16) -> Self {
        usize::from(number).checked_sub(1).and_then(|at| Self::SAID.get(at)).copied().unwrap_or_default()
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its latest life that joined.
    pub incarnation: Incarnation,
    /// What that life may do.
    pub phase: Phase,
}

/// What the namespace says of nodes and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Weight of each node.
    pub nodes: BTreeMap<NodeId, u32>,
    /// Each group.
    pub groups: BTreeMap<GroupId, GroupShape>,
}

/// A group as far as placement goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupShape {
    /// Tells groups apart where a bucket's next owner is chosen by hash.
    pub seed: u64,
    /// Who serves it.
    pub members: NodeSet,
    /// Who serves it while no member does.
    pub backups: NodeSet,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    topology: Topology,
    members: BTreeMap<NodeId, Member>,
    /// Nodes that are to own nothing, in whichever life.
    drained: NodeSet,
    maps: BTreeMap<GroupId, Arc<Map>>,
    /// Nodes share state by all placements.
    #[serde(skip)]
    shares_state: bool,
    /// Digest of each placement: they are large, and few change at a time.
    #[serde(skip)]
    sums: BTreeMap<GroupId, u64>,
}

/// What stands behind a fleet's own form where nodes share state: each placement's, in the order of the groups.
pub(super) type Stays = Vec<(u32, Vec<place::Stays>)>;

/// Buckets whose owner died, and which another has now: a lease of the dead one may cover them for a while.
pub type TakenOver = Vec<(GroupId, Vec<Bucket>)>;

impl Fleet {
    /// All nodes that ever joined, by id.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// What is decided about a node; none before it joined.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether a node serves, in this life.
    pub fn serves(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.member(node).is_some_and(|m| m.incarnation == incarnation && m.phase.serves())
    }

    /// The nodes that take part now.
    pub fn serving(&self) -> NodeSet {
        self.members.iter().filter(|(_, m)| m.phase.serves()).map(|(node, _)| *node).collect()
    }

    /// The same, each with its life.
    pub fn lives(&self) -> BTreeMap<NodeId, Incarnation> {
        let serve = self.members.iter().filter(|(_, m)| m.phase.serves());
        serve.map(|(node, m)| (*node, m.incarnation)).collect()
    }

    /// Those of [`Self::serving`] that give away what they own.
    pub fn draining(&self) -> NodeSet {
        self.members.iter().filter(|(_, m)| m.phase == Phase::Draining).map(|(node, _)| *node).collect()
    }

    /// Whether a node is to own nothing, in whichever life.
    pub fn is_drained(&self, node: NodeId) -> bool {
        self.drained.contains(node)
    }

    /// What the namespace says.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The placement of each group.
    pub fn maps(&self) -> &BTreeMap<GroupId, Arc<Map>> {
        &self.maps
    }

    /// The same wherever the same was decided.
    pub fn digest(&self) -> u64 {
        // Serialisation has one form for one value: all maps are ordered.
        let small = (&self.topology, &self.members, self.drained, &self.sums);
        siphash13_bytes(DIGEST_KEY, &postcard::to_allocvec(&small).unwrap_or_default())
    }

    /// The placement of a group is another.
    fn sum(&mut self, group: GroupId) {
        let as_stored =
            |map: &Map| siphash13_bytes(DIGEST_KEY, &postcard::to_allocvec(map).unwrap_or_default());
        let sum = |map: &Arc<Map>| map.digest().unwrap_or_else(|| as_stored(map));
        match self.maps.get(&group).map(sum) {
            Some(sum) => _ = self.sums.insert(group, sum),
            None => _ = self.sums.remove(&group),
        }
    }

    /// What isn't stored, but follows from what is.
    pub(super) fn complete(&mut self) {
        for group in self.maps.keys().copied().collect::<Vec<_>>() {
            self.sum(group);
        }
    }

    /// From now on nodes share state: see [`Map::share_state`].
    pub fn share_state(&mut self) {
        self.shares_state = true;
        for map in self.maps.values_mut() {
            Arc::make_mut(map).share_state();
        }
        self.complete();
    }

    /// What stands behind its own form; none where nodes share nothing yet.
    pub(super) fn stays(&self) -> Option<Stays> {
        self.shares_state.then(|| self.maps.values().filter_map(|map| map.stays()).collect())
    }

    /// The reverse; `false` if that is another fleet's.
    pub(super) fn set_stays(&mut self, stays: Option<Stays>) -> bool {
        let Some(stays) = stays else { return true };
        self.shares_state = true;
        let fits = stays.len() == self.maps.len();
        fits && self.maps.values_mut().zip(stays).all(|(map, stays)| Arc::make_mut(map).set_stays(stays))
    }

    /// Copies of buckets of a group are complete. Whether any of it is news.
    pub fn learnt(&mut self, group: GroupId, learnt: &[Learnt]) -> bool {
        let Some(map) = self.maps.get_mut(&group).filter(|map| map.has_news(learnt)) else { return false };
        Arc::make_mut(map).learnt(learnt);
        self.sum(group);
        true
    }

    /// The nodes that may own buckets of a group now: members that serve, or if there is none, backups.
    pub fn shares(&self, group: GroupId) -> Vec<Share> {
        let Some(shape) = self.topology.groups.get(&group) else { return Vec::new() };
        let of = |set: NodeSet| -> Vec<Share> {
            let serving = set.iter().filter_map(|node| self.member(node).map(|m| (node, &m.phase)));
            let weight = |node| self.topology.nodes.get(&node).copied().unwrap_or(0);
            serving
                .filter(|(_, phase)| phase.serves())
                .map(|(node, phase)| Share {
                    node,
                    weight: if *phase == Phase::Active { weight(node) } else { 0 },
                })
                .collect()
        };
        let members = of(shape.members);
        if members.is_empty() { of(shape.backups) } else { members }
    }

    /// The namespace says something new of nodes and groups. A group that is gone takes its placement along. A node that is gone
    /// keeps what it has until its life is over ([`Self::removed`]): a removal doesn't say which life that is, so it can't fence
    /// it.
    pub fn set_topology(&mut self, topology: Topology) {
        self.topology = topology;
        self.drained = self.drained.iter().filter(|node| self.topology.nodes.contains_key(node)).collect();
        let groups: BTreeSet<_> = self.topology.groups.keys().chain(self.maps.keys()).copied().collect();
        for group in groups {
            match (self.topology.groups.contains_key(&group), self.maps.contains_key(&group)) {
                (true, true) => continue,
                (true, false) => {
                    let mut map = Map::default();
                    if self.shares_state {
                        map.share_state();
                    }
                    self.maps.insert(group, Arc::new(map));
                }
                (false, _) => _ = self.maps.remove(&group),
            }
            self.sum(group);
        }
    }

    /// Nodes that the namespace doesn't have any more, with their lives that aren't over yet. No other life of them can begin.
    pub fn removed(&self) -> impl Iterator<Item = (NodeId, Incarnation)> {
        let gone = self.members.iter().filter(|(node, member)| {
            !self.topology.nodes.contains_key(node) && !matches!(member.phase, Phase::Offline(_))
        });
        gone.map(|(node, member)| (*node, member.incarnation))
    }

    /// A node has begun a life. Refused (none) if the namespace doesn't have it, or the life isn't newer than its last.
    pub fn join(&mut self, node: NodeId, incarnation: Incarnation) -> Option<TakenOver> {
        let last = self.member(node).map_or(Incarnation(0), |m| m.incarnation);
        if !self.topology.nodes.contains_key(&node) || incarnation <= last {
            return None;
        }
        let taken = self.offline(node, last, Why::Restarted);
        self.members.insert(node, Member { incarnation, phase: Phase::Joining });
        Some(taken.unwrap_or_default())
    }

    /// A node that joined is ready: from now on it may own buckets, unless it is drained. Whether that is news.
    pub fn activate(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        let phase = if self.is_drained(node) { Phase::Draining } else { Phase::Active };
        self.change(node, incarnation, |phase| *phase == Phase::Joining, phase)
    }

    /// A node is to own no more, in this life and later ones, or may own again. Whether that is news.
    pub fn drain(&mut self, node: NodeId, drain: bool) -> bool {
        if !self.topology.nodes.contains_key(&node) || self.is_drained(node) == drain {
            return false;
        }
        let set = NodeSet::of(node);
        self.drained = if drain { self.drained.with(set) } else { self.drained.without(set) };
        if let Some(member) = self.members.get_mut(&node).filter(|member| member.phase.serves()) {
            member.phase = if drain { Phase::Draining } else { Phase::Active };
        }
        true
    }

    fn change(&mut self, node: NodeId, life: Incarnation, from: impl Fn(&Phase) -> bool, to: Phase) -> bool {
        match self.members.get_mut(&node) {
            Some(member) if member.incarnation == life && from(&member.phase) => {
                member.phase = to;
                true
            }
            _ => false,
        }
    }

    /// A life of a node is over, or must not serve any more: whoever stands by takes its buckets. None if that is no
    /// news.
    pub fn offline(&mut self, node: NodeId, incarnation: Incarnation, why: Why) -> Option<TakenOver> {
        if !self.change(node, incarnation, |phase| !matches!(phase, Phase::Offline(_)), Phase::Offline(why)) {
            return None;
        }
        let mut taken = Vec::new();
        let groups: Vec<_> = self.topology.groups.iter().map(|(id, shape)| (*id, shape.seed)).collect();
        for (group, seed) in groups {
            let others = self.shares(group);
            let Some(map) = self.maps.get_mut(&group) else { continue };
            let moved = Arc::make_mut(map).fail(seed, node, &others);
            self.sum(group);
            if !moved.is_empty() {
                taken.push((group, moved));
            }
        }
        Some(taken)
    }

    /// Steps that were planned on this placement or a predecessor. A step for a node that doesn't serve any more is left out.
    /// Whether any is news.
    pub fn take(&mut self, group: GroupId, steps: &[Step]) -> bool {
        let serving = self.serving();
        let apply: Vec<_> =
            steps.iter().filter(|s| s.adds().is_none_or(|n| serving.contains(n))).copied().collect();
        let taken = self.maps.get_mut(&group).is_some_and(|map| Arc::make_mut(map).take(&apply));
        self.sum(group);
        taken
    }

    /// This life of a node has no sessions left in these buckets, which it owned before. Whether that is news.
    pub fn drained(&mut self, group: GroupId, node: NodeId, life: Incarnation, buckets: &[Bucket]) -> bool {
        if !self.serves(node, life) {
            return false;
        }
        let map = self.maps.get_mut(&group);
        let drained = map.is_some_and(|map| !Arc::make_mut(map).forget_previous(node, buckets).is_empty());
        self.sum(group);
        drained
    }
}

#[cfg(test)]
mod tests;
