//! The replicated state: what the committed entries of the log add up to, the same on every node (MECHANISMS §0, §6): what people
//! want served, and what has become of the nodes.
//!
//! What decides about packets takes effect in two steps. An entry that changes any of it makes a new *version*, for which every
//! node that serves prepares a View; [`Entry::InForce`] follows once all have, and they publish it. A version is never taken
//! back: what keeps it from being prepared is a node, and that is taken out.

use super::fences::Fences;
use super::fleet::{DIGEST_KEY, Fleet, GroupShape, Stays, TakenOver, Topology, Why};
use super::health::{self, Standings};
use super::namespace::{self, ALL, By, Change, Faults, Formers, Name, Namespace, Write};
use super::plan::Step;
use crate::base::hash::siphash13_bytes;
use crate::base::version::WireVersion;
use crate::base::{Bucket, GroupId, Incarnation, NodeId, NodeSet, VirtualServerId};
use crate::view::Learnt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What stands behind a state's own form unless the oldest wire version is spoken: the version, and what belongs to the fleets, by
/// what is decided and by what is in force.
type Behind = (WireVersion, Formers, Vec<Option<Stays>>);

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A node has begun a life.
    Join(NodeId, Incarnation),
    /// A node that joined is ready to serve.
    Activate(NodeId, Incarnation),
    /// A node is to give away what it owns, or no more, because somebody wants it so.
    Drain(NodeId, bool, By),
    /// A life of a node must not serve any more.
    Offline(NodeId, Incarnation, Why),
    /// A group's placement moves on.
    Steps(GroupId, Vec<Step>),
    /// A life of a node has no sessions left in buckets of a group that it owned before.
    Drained(GroupId, NodeId, Incarnation, Vec<Bucket>),
    /// All that serve have prepared this version. Without effect if there is a later one by now, which they haven't.
    InForce(u64),
    /// People want something else served.
    Write(Write),
    /// Real servers are found to be well, or not.
    Health(Vec<health::Change>),
    /// All nodes can speak this, as they said in these lives: from now on they do. Without effect if one of them has begun another
    /// life by now, which may be an older release's, or there is another node.
    Speak(WireVersion, BTreeMap<NodeId, Incarnation>),
    /// A life of a node has no sessions left of virtual servers in the groups that they were in before these log indices.
    Left(NodeId, Incarnation, Vec<(VirtualServerId, u64)>),
    /// Who stands by for buckets of a group has all of their state, as their owners say.
    Learnt(GroupId, Vec<Learnt>),
}

impl Entry {
    /// As the log stores it.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// The reverse.
    ///
    /// # Errors
    /// If these bytes are none of this version's entries.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    /// The lives that it takes out, if it does: those who store it renew their leases no more.
    pub fn fences(&self) -> Fences {
        match self {
            Self::Offline(node, life, _) => Fences::upto(*node, *life),
            // Whatever came before this life is over.
            Self::Join(node, life) => Fences::upto(*node, Incarnation(life.0.saturating_sub(1))),
            _ => Fences::NONE,
        }
    }
}

/// What an entry has done besides changing the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// There is a new version to be prepared.
    pub changed: bool,
    /// Buckets that were taken from a node whose lease may last for a while.
    pub taken_over: TakenOver,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    index: u64,
    version: u64,
    in_force: u64,
    fleet: Fleet,
    /// The nodes by the version in force, if that isn't the latest.
    published: Option<Fleet>,
    #[serde(with = "whole")]
    namespace: Namespace,
    standings: Standings,
    /// Stands behind the rest, and only if it isn't the first: nodes that know of no other have the same bytes. Behind it stand the
    /// namespace's [`Formers`].
    #[serde(skip)]
    wire: WireVersion,
}

/// A namespace has bytes of its own.
mod whole {
    use super::Namespace;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(space: &Namespace, to: S) -> Result<S::Ok, S::Error> {
        space.encode().map_err(S::Error::custom)?.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Namespace, D::Error> {
        Namespace::decode(&Vec::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What a namespace says of nodes and groups.
pub fn topology(space: &Namespace) -> Topology {
    let seed = |name: &str| siphash13_bytes(DIGEST_KEY, name.as_bytes());
    let set = |names: &[Name]| names.iter().filter_map(|name| Some(space.node(name)?.0)).collect();
    let all = GroupShape {
        seed: seed(ALL),
        members: space.nodes().map(|(id, ..)| id).collect(),
        backups: NodeSet::EMPTY,
    };
    let groups = space.groups().map(|(id, name, spec)| {
        let shape = GroupShape {
            seed: seed(name.as_str()),
            members: set(&spec.members),
            backups: set(&spec.backups),
        };
        (id, shape)
    });
    Topology {
        nodes: space.nodes().map(|(id, _, spec)| (id, spec.weight)).collect(),
        groups: groups.chain([(GroupId(0), all)]).collect(),
    }
}

impl State {
    /// The state in front of the first entry; a cluster begins with an empty namespace.
    pub fn new(namespace: Namespace) -> Self {
        let mut fleet = Fleet::default();
        fleet.set_topology(topology(&namespace));
        Self {
            index: 0,
            version: 1,
            in_force: 1,
            fleet,
            published: None,
            namespace,
            standings: Standings::default(),
            wire: WireVersion::FIRST,
        }
    }

    /// What all nodes speak.
    pub fn wire(&self) -> WireVersion {
        self.wire
    }

    /// What people want served.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What [`Namespace::preview`] gives of these changes as the next entry.
    ///
    /// # Errors
    /// Why they can't be made, and how many more reasons there are.
    pub fn preview<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Namespace) -> T,
    ) -> Result<T, Faults> {
        self.namespace.preview(self.index + 1, changes, look)
    }

    /// How real servers are.
    pub fn standings(&self) -> &Standings {
        &self.standings
    }

    /// The last entry that it holds.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Higher with each entry that changes what decides about packets.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version that is to be published.
    pub fn in_force(&self) -> u64 {
        self.in_force
    }

    /// The nodes, by what is decided.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The nodes, by what is in force.
    pub fn published(&self) -> &Fleet {
        self.published.as_ref().unwrap_or(&self.fleet)
    }

    /// Nodes whose lives that are in force are over, by what is decided.
    pub fn over(&self) -> NodeSet {
        let Some(published) = &self.published else { return NodeSet::EMPTY };
        let lives = published.serving();
        let same =
            |node: &NodeId| published.member(*node).is_some_and(|m| self.fleet.serves(*node, m.incarnation));
        lives.without(lives.iter().filter(same).collect())
    }

    /// Takes the next entry.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        debug_assert!(index > self.index, "entry {index} behind {}", self.index);
        self.index = index;
        let mut taken_over = None;
        let before = self.fleet.clone();
        let changed = match entry {
            Entry::Join(node, life) => {
                taken_over =
                    self.fleet.join(*node, *life).map(|taken| self.with_given(taken, *node, &before));
                if taken_over.is_some() {
                    let last = Incarnation(life.0.saturating_sub(1));
                    self.namespace.formers_mut().over(*node, last, index, &self.fleet.lives());
                }
                taken_over.is_some()
            }
            Entry::Activate(node, life) => self.fleet.activate(*node, *life),
            Entry::Drain(node, drain, by) => {
                let changed = self.namespace.is_first(by.request, index) && self.fleet.drain(*node, *drain);
                if changed && let Some(key) = self.namespace.node_key(*node) {
                    let summary = if *drain { "drained" } else { "taken back from being drained" };
                    self.namespace.note(index, key, by, summary);
                }
                changed
            }
            Entry::Offline(node, life, why) => {
                let taken = self.fleet.offline(*node, *life, why.clone());
                taken_over = taken.map(|taken| self.with_given(taken, *node, &before));
                if taken_over.is_some() {
                    self.namespace.formers_mut().over(*node, *life, index, &self.fleet.lives());
                }
                taken_over.is_some()
            }
            Entry::Steps(group, steps) => self.fleet.take(*group, steps),
            Entry::Drained(group, node, life, buckets) => self.fleet.drained(*group, *node, *life, buckets),
            Entry::InForce(version) => {
                // A node that was removed is still to be taken out, which makes another version.
                if *version == self.version && self.fleet.removed().next().is_none() {
                    (self.in_force, self.published) = (self.version, None);
                }
                false
            }
            Entry::Health(changes) => {
                // Each, however many of the others are void.
                changes.iter().fold(false, |any, change| self.standings.apply(change) | any)
            }
            Entry::Speak(wire, lives) => {
                let last = |node| self.fleet.member(node).map_or(Incarnation(0), |member| member.incarnation);
                let said = |node: &NodeId| lives.get(node).is_some_and(|life| *life >= last(*node));
                if !self.fleet.topology().nodes.keys().all(said) {
                    return Applied::default();
                }
                let begins = self.wire < WireVersion::SHARES_STATE && *wire >= WireVersion::SHARES_STATE;
                self.wire = self.wire.max(*wire);
                if self.wire >= WireVersion::KNOWS_FORMER_GROUPS {
                    self.namespace.formers_mut().keep();
                }
                if begins {
                    self.fleet.share_state();
                }
                begins
            }
            Entry::Left(node, life, servers) => self.namespace.formers_mut().left(servers, *node, *life),
            Entry::Learnt(group, learnt) => self.fleet.learnt(*group, learnt),
            Entry::Write(write) => {
                let keys = || write.changes.iter().map(|change| &change.key);
                let groups = self.namespace.groups_of(keys());
                let known = self.namespace.at_stake(keys());
                match self.namespace.apply(index, write) {
                    // A request that comes again has the index of its first time.
                    namespace::Outcome::Applied { index: at } if at == index => {
                        // Of those that were removed or moved, nothing holds any more.
                        for id in self.namespace.gone(known) {
                            self.standings.forget(id);
                        }
                        self.namespace.regroup(keys(), &groups, index, &self.fleet.lives());
                        let topology = topology(&self.namespace);
                        if topology != *self.fleet.topology() {
                            self.fleet.set_topology(topology);
                        }
                        true
                    }
                    _ => false,
                }
            }
        };
        if changed {
            self.version += 1;
            self.published.get_or_insert(before);
        }
        Applied { changed, taken_over: taken_over.unwrap_or_default() }
    }

    /// What was taken over from a dead node, and what it was about to give away: by what is in force, `before` if nothing was
    /// decided since, that is still its own, and it may never have heard of the change.
    fn with_given(&self, mut taken: TakenOver, dead: NodeId, before: &Fleet) -> TakenOver {
        let published = self.published.as_ref().unwrap_or(before);
        for (group, map) in published.maps() {
            let owned = map.iter().filter(|(_, place)| place.owner == Some(dead)).map(|(bucket, _)| bucket);
            match taken.iter_mut().find(|(known, _)| known == group) {
                Some((_, buckets)) => {
                    let known: BTreeSet<_> = buckets.iter().copied().collect();
                    buckets.extend(owned.filter(|bucket| !known.contains(bucket)));
                }
                None => {
                    let owned: Vec<_> = owned.collect();
                    if !owned.is_empty() {
                        taken.push((*group, owned));
                    }
                }
            }
        }
        taken
    }

    /// For a snapshot.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let bytes = postcard::to_allocvec(self)?;
        if self.wire == WireVersion::FIRST {
            return Ok(bytes);
        }
        let stays: Vec<_> = [&self.fleet].into_iter().chain(&self.published).map(Fleet::stays).collect();
        let behind = (self.wire, self.namespace.formers(), stays);
        postcard::to_extend(&behind, bytes)
    }

    /// The reverse.
    ///
    /// # Errors
    /// If these bytes are no snapshot that this software knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut state, rest): (Self, _) = postcard::take_from_bytes(bytes)?;
        if !rest.is_empty() {
            let ((wire, formers, stays), rest): (Behind, _) = postcard::take_from_bytes(rest)?;
            (state.wire, *state.namespace.formers_mut()) = (wire, formers);
            let mut fleets: Vec<_> = [&mut state.fleet].into_iter().chain(&mut state.published).collect();
            let same = rest.is_empty() && fleets.len() == stays.len();
            if !same || !fleets.iter_mut().zip(stays).all(|(fleet, stays)| fleet.set_stays(stays)) {
                return Err(postcard::Error::DeserializeBadEncoding);
            }
        }
        state.fleet.complete();
        state.published.iter_mut().for_each(Fleet::complete);
        Ok(state)
    }

    /// For [`crate::base::planted::Bug::SnapshotTorn`]: this state with the nodes of another.
    pub(super) fn torn(self, other: &Self) -> Self {
        Self { fleet: other.fleet.clone(), ..self }
    }

    /// The same on all nodes that hold the same entries.
    pub fn digest(&self) -> u64 {
        let published = self.published.as_ref().map_or(0, Fleet::digest);
        let parts = [
            self.index,
            self.version,
            self.in_force,
            self.fleet.digest(),
            u64::from(self.published.is_some()),
            published,
            self.standings.whole_digest(),
            self.namespace.digest(),
        ];
        let more = (self.wire > WireVersion::FIRST)
            .then(|| [u64::from(self.wire.0), self.namespace.formers().digest()]);
        let bytes: Vec<_> =
            parts.into_iter().chain(more.into_iter().flatten()).flat_map(u64::to_le_bytes).collect();
        siphash13_bytes(DIGEST_KEY, &bytes)
    }
}

#[cfg(test)]
mod former_tests;
#[cfg(test)]
mod tests;
