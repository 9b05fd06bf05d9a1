//! Virtual servers that have changed their group (MECHANISMS §2 point 4): new connections are the new group's, while those of
//! before live on where they are. Until none is left the new group's nodes ask the former's about flows that they don't know, and
//! the former group can't be removed.

use super::fault::Finding;
use super::key::Key;
use super::rules::Touched;
use super::{Entry, Namespace, snapshot};
use crate::base::limits::{MAX_GROUPS, MAX_NODES, MAX_VIRTUAL_SERVERS};
use crate::base::{GroupId, Incarnation, NodeId, VirtualServerId};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The group that a virtual server was in before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Which.
    pub group: GroupId,
    /// Log index of the change: what was counted by an earlier one says nothing about it.
    pub since: u64,
    /// The lives of nodes that may still have sessions of then; one at least.
    pub holders: BTreeMap<NodeId, Incarnation>,
}

/// By virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Formers(BTreeMap<VirtualServerId, Former>);

impl<'de> Deserialize<'de> for Formers {
    /// As a snapshot has them, which may be damaged: the numbers are array indices from here on.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let all = BTreeMap::<VirtualServerId, Former>::deserialize(from)?;
        let fits = |(id, former): (&VirtualServerId, &Former)| {
            id.index() < MAX_VIRTUAL_SERVERS
                && former.group.index() < MAX_GROUPS
                && former.holders.keys().all(|node| node.index() < MAX_NODES)
        };
        all.iter().all(fits).then_some(Self(all)).ok_or_else(|| D::Error::custom("a former group of nobody"))
    }
}

impl Formers {
    /// Whether no virtual server has changed its group of late.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A virtual server's former group, if there may be sessions in it.
    pub fn get(&self, server: VirtualServerId) -> Option<&Former> {
        self.0.get(&server)
    }

    /// All, by virtual server.
    pub fn iter(&self) -> impl Iterator<Item = (VirtualServerId, &Former)> {
        self.0.iter().map(|(id, former)| (*id, former))
    }

    /// The same wherever the same was decided.
    pub fn digest(&self) -> u64 {
        snapshot::digest_of(&self.0)
    }

    /// These lives of nodes may have sessions of a virtual server in the group that it leaves.
    fn leave(&mut self, server: VirtualServerId, former: Former) {
        if !former.holders.is_empty() {
            self.0.insert(server, former);
        }
    }

    /// A life of a node has no sessions left of virtual servers as they were before these changes. Whether any is forgotten by
    /// that.
    pub fn left(&mut self, servers: &[(VirtualServerId, u64)], node: NodeId, life: Incarnation) -> bool {
        let before = self.0.len();
        for (server, since) in servers {
            if let Some(former) = self.0.get_mut(server).filter(|former| former.since == *since)
                && former.holders.get(&node) == Some(&life)
            {
                former.holders.remove(&node);
            }
        }
        self.0.retain(|_, former| !former.holders.is_empty());
        self.0.len() < before
    }

    /// All lives of a node up to this one are over, and with them their sessions.
    pub fn over(&mut self, node: NodeId, upto: Incarnation) {
        for former in self.0.values_mut() {
            former.holders.retain(|holder, life| *holder != node || *life > upto);
        }
        self.0.retain(|_, former| !former.holders.is_empty());
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
    pub fn groups_of<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<(VirtualServerId, GroupId)> {
        let group = |key: &Key| {
            let Key::VirtualServer(name) = key else { return None };
            let group = self.group_id(&self.virtual_server(name)?.group)?;
            Some((VirtualServerId(self.get(key)?.id), group))
        };
        keys.filter_map(group).collect()
    }

    /// Virtual servers that were in these groups may be in others now, by the change at this index: what was begun by then is at
    /// these lives of nodes.
    pub fn regroup(
        &mut self,
        before: Vec<(VirtualServerId, GroupId)>,
        index: u64,
        holders: &BTreeMap<NodeId, Incarnation>,
    ) {
        let now: BTreeMap<_, _> = self
            .virtual_servers()
            .filter(|(id, ..)| before.iter().any(|(known, _)| known == id))
            .filter_map(|(id, _, spec)| Some((id, self.group_id(&spec.group)?)))
            .collect();
        for (id, was) in before {
            match now.get(&id) {
                Some(group) if *group == was => {}
                Some(_) => {
                    let former = Former { group: was, since: index, holders: holders.clone() };
                    self.formers.leave(id, former);
                }
                None => _ = self.formers.0.remove(&id),
            }
        }
    }
}

/// What still has sessions in a group can neither go on to a third one, nor may that group be removed.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let name = |group: GroupId| {
        let mut groups = space.groups().filter(|(id, ..)| *id == group);
        groups.next().map_or_else(|| super::ALL.to_owned(), |(_, name, _)| name.to_string())
    };
    for (key, before) in touched {
        match (key, before) {
            (
                Key::VirtualServer(server),
                Some(Entry { object: super::Object::VirtualServer(was), id, .. }),
            ) => {
                let Some(now) = space.virtual_server(server).filter(|now| now.group != was.group) else {
                    continue;
                };
                let former = space.formers.get(VirtualServerId(*id)).map(|former| former.group);
                if let Some(former) = former.filter(|former| space.group_id(&now.group) != Some(*former)) {
                    let message =
                        format!("it still has sessions in group {:?}, which it was in before", name(former));
                    let hint = "move it when those have ended, or back to that group";
                    found.push(Finding::new(key, message).field("group").hint(hint));
                }
            }
            (Key::Group(_), Some(before)) if space.get(key).is_none() => {
                let group = GroupId(before.id as u16);
                let server = |id: VirtualServerId| {
                    space.virtual_servers().find(|(known, ..)| *known == id).map(|(_, name, _)| name)
                };
                let left = space.formers.iter().filter(|(_, former)| former.group == group);
                if let Some(server) = left.filter_map(|(id, _)| server(id)).next() {
                    let message =
                        format!("virtual_server/{server} was in it before, and still has sessions there");
                    found.push(Finding::new(key, message).hint("remove it when those have ended"));
                }
            }
            _ => {}
        }
    }
}
