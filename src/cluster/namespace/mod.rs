//! What people decide, held alike by all nodes: a tree of versioned objects (MECHANISMS §6).
//!
//! A [`Namespace`] is a value without I/O. It changes by [`Namespace::apply`] alone, which gives the same on every node
//! that has applied the same writes: all of a write's changes are made, or none and every reason why not. The rules
//! (in `rules`) are the only ones there are: the cluster file is checked by them too.

pub mod diff;
pub mod fault;
mod former;
pub mod health;
mod identity;
mod index;
pub mod key;
pub mod object;
pub mod prefix;
pub mod rules;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod text;
pub mod write;

pub use diff::Difference;
pub use fault::{Fault, Faults, Finding, Lack};
pub use former::{Former, Formers};
pub use health::{HealthSpec, Probe};
pub use key::{ALL, Key, Kind, Name};
pub use object::{
    ClusterSpec, GroupSpec, LimitSpec, NodeSpec, Object, PersistenceSpec, ProfileSpec, RealServerSpec,
    SnatSpec, VipSpec, VirtualServerSpec,
};
pub use snapshot::DecodeError;
pub use write::{By, Change, Outcome, Record, RequestId, Write};

use crate::base::limits::{MAX_GROUPS, MAX_NODES, MAX_REAL_SERVERS, MAX_SNATS, MAX_VIRTUAL_SERVERS};
use crate::base::{GroupId, NodeId, RealServerId, SnatId, VirtualServerId};
use index::Index;
use prefix::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::LazyLock;

/// An object and what the namespace knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    pub object: Object,
    /// Log index of its last change.
    pub version: u64,
    /// Log index of the last change of the object or of what it rests on: a virtual server's real servers, its profile.
    pub revision: u64,
    /// Its number among all objects of its kind there ever were; an array index where the forwarding snapshot has one.
    pub id: u32,
}

/// Profiles, VIPs, limits and persistences, each.
const MAX_OTHERS: usize = MAX_VIRTUAL_SERVERS;
/// Ids of real servers, used and used up.
pub const MAX_REAL_SERVER_IDS: usize = MAX_VIRTUAL_SERVERS * MAX_REAL_SERVERS;

/// How many ids a kind has: those of removed objects are not used again, since sessions may name them.
fn ids(kind: Kind) -> usize {
    match kind {
        Kind::Cluster => usize::MAX,
        Kind::Node => MAX_NODES,
        Kind::Group => MAX_GROUPS,
        Kind::Snat => MAX_SNATS,
        Kind::VirtualServer => MAX_VIRTUAL_SERVERS,
        Kind::RealServer => MAX_REAL_SERVER_IDS,
        Kind::Vip | Kind::Profile | Kind::Limit | Kind::Persistence => u32::MAX as usize,
    }
}

/// How many objects of a kind there may be at a time, besides what their ids allow.
fn most(kind: Kind) -> usize {
    match kind {
        Kind::Vip | Kind::Profile | Kind::Limit | Kind::Persistence => MAX_OTHERS,
        other => ids(other),
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    entries: BTreeMap<Key, Entry>,
    /// The next id of each kind.
    next: [u32; Kind::ALL.len()],
    /// Sum of the entries' hashes.
    sum: u64,
    index: Index,
    requests: write::Requests,
    trail: write::Trail,
    /// Not among its own bytes: see [`State`](super::state::State).
    formers: Formers,
}

impl Default for Namespace {
    fn default() -> Self {
        let mut next = [0; Kind::ALL.len()];
        next[Kind::Group as usize] = 1; // behind the group of all nodes
        Self {
            entries: BTreeMap::new(),
            next,
            sum: 0,
            index: Index::default(),
            requests: write::Requests::default(),
            trail: write::Trail::default(),
            formers: Formers::default(),
        }
    }
}

static DEFAULTS: LazyLock<ClusterSpec> = LazyLock::new(ClusterSpec::default);

/// The typed objects of one kind with their names and ids.
macro_rules! listed {
    ($($(#[$doc:meta])* $method:ident: $variant:ident($name:ty, $id:ident($int:ty), $spec:ty);)*) => {
        $(
            $(#[$doc])*
            pub fn $method(&self) -> impl Iterator<Item = ($id, &$name, &$spec)> {
                self.of(Kind::$variant).filter_map(|(key, entry)| match (key, &entry.object) {
                    (Key::$variant(name), Object::$variant(spec)) => {
                        let spec: &$spec = spec;
                        Some(($id(entry.id as $int), name, spec))
                    }
                    _ => None,
                })
            }
        )*
    };
}

impl Namespace {
    /// The object that `key` names.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All objects, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// All objects behind `key`, in the order of their keys.
    pub fn behind(&self, key: &Key) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range((Bound::Excluded(key), Bound::Unbounded))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The objects of one kind, in the order of their keys.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(Key::first(kind)..).take_while(move |(key, _)| key.kind() == kind)
    }

    /// The cluster's settings; as they are unless set, if nobody has set any.
    pub fn cluster(&self) -> &ClusterSpec {
        match self.get(&Key::Cluster).map(|entry| &entry.object) {
            Some(Object::Cluster(spec)) => spec,
            _ => &DEFAULTS,
        }
    }

    listed! {
        /// The nodes, by name.
        nodes: Node(Name, NodeId(u16), NodeSpec);
        /// The groups but the one of all nodes (which has id 0), by name.
        groups: Group(Name, GroupId(u16), GroupSpec);
        /// The SNAT addresses, ascending.
        snats: Snat(crate::base::Addr, SnatId(u16), SnatSpec);
        /// The virtual servers, by name.
        virtual_servers: VirtualServer(Name, VirtualServerId(u32), VirtualServerSpec);
    }

    /// A virtual server's real servers, by name.
    pub fn real_servers<'a>(
        &'a self,
        virtual_server: &'a Name,
    ) -> impl Iterator<Item = (RealServerId, &'a Name, &'a RealServerSpec)> {
        let all = self.entries.range(Key::first_real_server(virtual_server)..);
        all.map_while(move |(key, entry)| match (key, &entry.object) {
            (Key::RealServer(server, name), Object::RealServer(spec)) if server == virtual_server => {
                Some((RealServerId(entry.id), name, spec))
            }
            _ => None,
        })
    }

    /// What is particular to a VIP.
    pub fn vip(&self, address: crate::base::Addr) -> Option<&VipSpec> {
        match &self.get(&Key::Vip(address))?.object {
            Object::Vip(spec) => Some(spec),
            _ => None,
        }
    }

    /// A node.
    pub fn node(&self, name: &Name) -> Option<(NodeId, &NodeSpec)> {
        let entry = self.get(&Key::Node(name.clone()))?;
        match &entry.object {
            Object::Node(spec) => Some((NodeId(entry.id as u16), spec)),
            _ => None,
        }
    }

    /// The key of the node with this number.
    pub fn node_key(&self, node: NodeId) -> Option<Key> {
        self.nodes().find(|(id, ..)| *id == node).map(|(_, name, _)| Key::Node(name.clone()))
    }

    /// The id of a group, that of all nodes among them.
    pub fn group_id(&self, name: &Name) -> Option<GroupId> {
        if *name == *ALL {
            return Some(GroupId(0));
        }
        self.get(&Key::Group(name.clone())).map(|entry| GroupId(entry.id as u16))
    }

    /// A virtual server.
    pub fn virtual_server(&self, name: &Name) -> Option<&VirtualServerSpec> {
        match &self.get(&Key::VirtualServer(name.clone()))?.object {
            Object::VirtualServer(spec) => Some(spec),
            _ => None,
        }
    }

    /// How long a virtual server's clients keep their real servers; none: not at all.
    pub fn persistence(&self, virtual_server: &Name) -> Option<&PersistenceSpec> {
        match &self.get(&Key::Persistence(virtual_server.clone()))?.object {
            Object::Persistence(spec) => Some(spec),
            _ => None,
        }
    }

    /// The profile that a virtual server names.
    pub fn profile_of(&self, server: &VirtualServerSpec) -> Option<&ProfileSpec> {
        match &self.get(&Key::Profile(server.profile.clone()?))?.object {
            Object::Profile(spec) => Some(spec),
            _ => None,
        }
    }

    /// How a virtual server's real server is checked: what itself, the virtual server or its profile says, if one does.
    pub fn health_of<'a>(
        &'a self,
        server: &'a VirtualServerSpec,
        real: &'a RealServerSpec,
    ) -> Option<&'a HealthSpec> {
        let profile = || self.profile_of(server)?.health.as_ref();
        real.health.as_ref().or(server.health.as_ref()).or_else(profile).map(Box::as_ref)
    }

    /// The backplane's subnet: that of the node with the lowest id; none without a node, or if the prefix doesn't fit it.
    pub fn backplane(&self) -> Option<Prefix> {
        let (_, _, first) = self.nodes().min_by_key(|(id, ..)| *id)?;
        let usual = if first.backplane.is_v4() { 24 } else { 64 };
        let len = self.cluster().backplane_prefix.unwrap_or(usual);
        let fits = len <= prefix::host_len(first.backplane);
        fits.then(|| (prefix::network((first.backplane, len)), len))
    }

    /// Life of an idle established flow, if the virtual server or its profile says.
    pub fn idle_of(&self, server: &VirtualServerSpec) -> Option<std::time::Duration> {
        server.idle.or_else(|| self.profile_of(server)?.idle)
    }

    /// Time over which a virtual server's real server that comes up gets its share.
    pub fn slow_start_of(&self, server: &VirtualServerSpec) -> Option<std::time::Duration> {
        server.slow_start.or_else(|| self.profile_of(server)?.slow_start)
    }

    /// The objects of one kind that have `address`.
    pub fn holders(&self, address: crate::base::Addr, kind: Kind) -> impl Iterator<Item = &Key> {
        self.index.holders(address, kind)
    }

    /// One past the highest id that a kind of object has ever had: how long an array by id has to be.
    pub fn ids(&self, kind: Kind) -> usize {
        self.next[kind as usize] as usize
    }

    /// A namespace of these objects, as if one write had made it, and all that is wrong with it. One that anything is
    /// wrong with is good for further checks of the same input, and for nothing else.
    pub fn draft(objects: impl IntoIterator<Item = (Key, Object)>) -> (Self, Vec<Finding>) {
        let mut draft = Self::default();
        let changes =
            objects.into_iter().map(|(key, object)| Change { key, expected: None, value: Some(object) });
        let findings = draft.change(1, changes.collect(), &mut Vec::new());
        (draft, findings)
    }
}
