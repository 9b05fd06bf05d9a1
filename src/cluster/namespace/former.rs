//! Virtual servers that have changed their group (MECHANISMS §2 point 4): new connections are the new group's, while those of
//! before live on where they are. Until none is left the new group's nodes ask the former's about flows that they don't know, and
//! the former group can't be removed.

use super::fault::Finding;
use super::key::Key;
use super::rules::Touched;
use super::{ALL, Entry, Namespace, Object, snapshot};
use crate::base::limits::{MAX_GROUPS, MAX_NODES, MAX_VIRTUAL_SERVERS};
use crate::base::{GroupId, Incarnation, NodeId, VirtualServerId};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// The group that a virtual server was in before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Which.
    pub group: GroupId,
    /// Log index of the change, or of the end of a life that had sessions of then: what was counted by an earlier one says nothing
    /// about it.
    pub since: u64,
    /// The lives of nodes that may still have sessions of then; one at least.
    pub holders: BTreeMap<NodeId, Incarnation>,
}

/// By virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formers {
    all: BTreeMap<VirtualServerId, Former>,
    /// The nodes speak of it: only then is anything kept.
    kept: bool,
    /// Of all; and of what decides about packets.
    digests: (u64, u64),
}

impl Serialize for Formers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Formers {
    /// As a snapshot has them, which may be damaged: the numbers are array indices from here on.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let all = BTreeMap::<VirtualServerId, Former>::deserialize(from)?;
        let fits = |(id, former): (&VirtualServerId, &Former)| {
            id.index() < MAX_VIRTUAL_SERVERS
                && former.group.index() < MAX_GROUPS
                && !former.holders.is_empty()
                && former.holders.keys().all(|node| node.index() < MAX_NODES)
        };
        if !all.iter().all(fits) {
            return Err(D::Error::custom("a former group that cannot be"));
        }
        let mut formers = Self { all, kept: true, ..Self::default() };
        formers.sum();
        Ok(formers)
    }
}

impl Formers {
    /// From now on the nodes speak of it.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Whether no virtual server has changed its group of late.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A virtual server's former group, if there may be sessions in it.
    pub fn get(&self, server: VirtualServerId) -> Option<&Former> {
        self.all.get(&server)
    }

    /// All, by virtual server.
    pub fn iter(&self) -> impl Iterator<Item = (VirtualServerId, &Former)> {
        self.all.iter().map(|(id, former)| (*id, former))
    }

    /// The same wherever the same was decided.
    pub fn digest(&self) -> u64 {
        self.digests.0
    }

    /// The same where packets go the same ways.
    pub fn groups_digest(&self) -> u64 {
        self.digests.1
    }

    fn sum(&mut self) {
        let groups: Vec<_> = self.all.iter().map(|(id, former)| (*id, former.group, former.since)).collect();
        self.digests = match groups.is_empty() {
            true => (0, 0),
            false => (snapshot::digest_of(&self.all), snapshot::digest_of(&groups)),
        };
    }

    /// A life of a node has no sessions left of virtual servers as they were before these changes. Whether any is forgotten by
    /// that.
    pub fn left(&mut self, servers: &[(VirtualServerId, u64)], node: NodeId, life: Incarnation) -> bool {
        let servers: BTreeSet<_> = servers.iter().copied().collect();
        let (before, mut any) = (self.all.len(), false);
        self.all.retain(|id, former| {
            let lives = former.holders.len();
            let counted = servers.contains(&(*id, former.since));
            former.holders.retain(|holder, held| !counted || (*holder, *held) != (node, life));
            any |= former.holders.len() < lives;
            !former.holders.is_empty()
        });
        if any {
            self.sum();
        }
        self.all.len() < before
    }

    /// All lives of a node up to this one are over by the entry at this index, and with them their sessions. What it may have had
    /// others go on with, and any of these `heirs` may be one, whatever it has said before.
    pub fn over(
        &mut self,
        node: NodeId,
        upto: Incarnation,
        index: u64,
        heirs: &BTreeMap<NodeId, Incarnation>,
    ) {
        let ends = |former: &Former| former.holders.get(&node).is_some_and(|life| *life <= upto);
        let all = self.all.values_mut().filter(|former| ends(former));
        all.for_each(|former| (former.since, former.holders) = (index, heirs.clone()));
        self.all.retain(|_, former| !former.holders.is_empty());
        self.sum();
    }
}

impl Namespace {
    /// Virtual servers that have changed their group, for as long as that matters.
    pub fn formers(&self) -> &Formers {
        &self.formers
    }

    /// The same, for who knows what has become of nodes.
    pub fn formers_mut(&mut self) -> &mut Formers {
        &mut self.formers
    }

    /// The group that a virtual server was in before, and the log index of the change, if there is still that group.
    pub fn former_group(&self, server: VirtualServerId) -> Option<(GroupId, u64)> {
        let former = self.formers.get(server)?;
        let exists = former.group == GroupId(0) || self.groups().any(|(id, ..)| id == former.group);
        exists.then_some((former.group, former.since))
    }

    /// The groups of the virtual servers among these objects, as they are.
    pub fn groups_of<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> BTreeMap<VirtualServerId, GroupId> {
        let group = |key: &Key| {
            let Key::VirtualServer(name) = key else { return None };
            let group = self.group_id(&self.virtual_server(name)?.group)?;
            Some((VirtualServerId(self.get(key)?.id), group))
        };
        keys.filter_map(group).collect()
    }

    /// The virtual servers among these objects were in the groups that `before` says, and may be in others now, by the change at
    /// this index: what was begun by then is at these lives of nodes.
    pub fn regroup<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a Key>,
        before: &BTreeMap<VirtualServerId, GroupId>,
        index: u64,
        holders: &BTreeMap<NodeId, Incarnation>,
    ) {
        let now = self.groups_of(keys);
        let moved: Vec<_> = before.iter().filter(|(id, was)| now.get(id) != Some(was)).collect();
        if !self.formers.kept || moved.is_empty() {
            return;
        }
        for (id, was) in moved {
            self.formers.all.remove(id);
            if now.contains_key(id) && !holders.is_empty() {
                let former = Former { group: *was, since: index, holders: holders.clone() };
                self.formers.all.insert(*id, former);
            }
        }
        self.formers.sum();
    }
}

/// What still has sessions in a group can neither go on to a third one, nor may that group be removed.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    if !space.formers.kept {
        return;
    }
    let server = |id: VirtualServerId| space.virtual_servers().find(|(known, ..)| *known == id);
    for (key, before) in touched {
        match (key, before) {
            (Key::VirtualServer(name), Some(Entry { object: Object::VirtualServer(was), id, .. })) => {
                let moves = space.virtual_server(name).filter(|now| now.group != was.group);
                let (Some(now), Some(former)) = (moves, space.formers.get(VirtualServerId(*id))) else {
                    continue;
                };
                if space.group_id(&now.group) != Some(former.group) {
                    let group =
                        space.groups().find(|(id, ..)| *id == former.group).map(|(_, name, _)| name.as_str());
                    let group = group.unwrap_or(ALL);
                    let message = format!("it still has sessions in group {group:?}, which it was in before");
                    let hint = "move it when those have ended, or back to that group";
                    found.push(Finding::new(key, message).field("group").hint(hint));
                }
            }
            (Key::Group(name), Some(before)) if space.get(key).is_none() => {
                let group = GroupId(before.id as u16);
                let mut left = space.formers.iter().filter(|(_, former)| former.group == group);
                let left = left.find_map(|(id, _)| server(id)).map(|(_, name, _)| name);
                // Or it leaves by this very change.
                let mut leaves = touched.iter().filter_map(|(key, before)| match (key, before) {
                    (Key::VirtualServer(server), Some(Entry { object: Object::VirtualServer(was), .. })) => {
                        (was.group == *name && space.virtual_server(server).is_some()).then_some(server)
                    }
                    _ => None,
                });
                if let Some(server) = left.or_else(|| leaves.next()) {
                    let message =
                        format!("virtual_server/{server} was in it before, and still has sessions there");
                    found.push(Finding::new(key, message).hint("remove it when those have ended"));
                }
            }
            _ => {}
        }
    }
}
