//! The cluster as a node sees it, as a value for people: its nodes, what they own, and what moves.

use super::compile;
use super::manager::Manager;
use crate::base::version::WireVersion;
use crate::base::{GroupId, Instant, NodeId};
use crate::cluster::fleet::{Fleet, Member, Phase};
use crate::cluster::forecast;
use crate::cluster::health::{Health, Standings};
use crate::cluster::lead::Seen;
use crate::cluster::log::Replica;
use crate::cluster::namespace::{ALL, Former, Namespace};
use crate::cluster::place::Place;
use crate::view::Services;
use serde::Serialize;
use std::collections::BTreeMap;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// The node that tells this.
    pub node: String,
    /// Why that node serves nothing, as far as it knows.
    pub out: Option<String>,
    /// The last entry of the log that it holds.
    pub index: u64,
    /// The latest version of what is decided.
    pub version: u64,
    /// The version that is in force.
    pub in_force: u64,
    /// The wire version that the nodes speak: the newest that all can.
    pub wire: u8,
    /// Who leads the log: a node's or witness's name; none if nobody is known to.
    pub leader: Option<String>,
    /// A majority of the voters is within reach: changes can be made.
    pub quorum: bool,
    /// Those who vote on the log.
    pub voters: Vec<String>,
    /// The nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// The groups, that of all nodes first.
    pub groups: Vec<GroupStatus>,
    /// Virtual servers that have changed their group and still have sessions in the one before.
    pub migrating: Vec<MigrationStatus>,
    /// Who answers ARP and ND for each VIP, by what is in force.
    pub vips: Vec<VipStatus>,
    /// The real servers that are checked, by what is decided.
    pub health: HealthStatus,
}

/// How the real servers are that were ever judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HealthStatus {
    /// How many serve with their whole share.
    pub up: usize,
    /// How many have come up and get their share by and by.
    pub rising: usize,
    /// How many are down.
    pub down: usize,
    /// The first [`DOWN`] of those.
    pub which: Vec<DownStatus>,
}

/// A real server that is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DownStatus {
    /// Its virtual server's name.
    pub virtual_server: String,
    /// Its name.
    pub real_server: String,
    /// What the nodes that probe it say.
    pub reason: String,
}

/// Real servers that are down and told of one by one.
pub const DOWN: usize = 64;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// `absent` (it never joined), `joining`, `active`, `draining` or `offline`.
    pub phase: &'static str,
    /// It is to own nothing, now and when it returns.
    pub drained: bool,
    /// Why it is offline, or isn't let in.
    pub reason: Option<String>,
    /// The release that it runs, as far as it was heard and says so.
    pub software: Option<String>,
    /// The newest wire version that this can speak.
    pub speaks: Option<u8>,
    /// Its life that joined last.
    pub life: Option<u32>,
    /// Its share of the buckets.
    pub weight: u32,
    /// Since it was heard by the node that tells this; none: never.
    pub heard_ms_ago: Option<u64>,
    /// It says that it can serve.
    pub ready: bool,
    /// The version that it has prepared.
    pub prepared: Option<u64>,
    /// The version that its workers run.
    pub adopted: Option<u64>,
    /// Buckets that it owns, by group; groups of which it owns none are left out.
    pub buckets: BTreeMap<String, usize>,
    /// Buckets that it owned before and still has sessions of, by group.
    pub leaving: BTreeMap<String, usize>,
    /// Virtual servers that have changed their group, and of which it may still have sessions of before.
    pub migrating: usize,
}

impl NodeStatus {
    /// Whether it can be removed without harm.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn may_go(&self) -> Result<(), (String, String)> {
        let (name, owned) = (&self.name, self.buckets.values().sum::<usize>());
        let leaving = self.leaving.values().sum::<usize>();
        let (why, wait) = match (self.phase, owned, leaving) {
            ("offline" | "absent", ..) => return Ok(()),
            ("draining", 0, 0) if self.migrating == 0 => return Ok(()),
            ("draining", 0, 0) => (
                format!(
                    "still has sessions of {} virtual servers from before they changed their group",
                    self.migrating
                ),
                "wait until they end".to_owned(),
            ),
            ("draining", 0, _) => (
                format!("still has sessions of {leaving} buckets that it gave away"),
                "wait until they end".to_owned(),
            ),
            ("draining", ..) => {
                (format!("still owns {owned} buckets"), "wait, see `steerage status`".to_owned())
            }
            (phase, ..) => (format!("is {phase}"), format!("drain it first, `steerage node drain {name}`")),
        };
        Err((why, format!("{wait}; or force it, which breaks connections through it")))
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its members' names.
    pub members: Vec<String>,
    /// Buckets that nobody serves.
    pub unowned: usize,
    /// Buckets that are going to have another owner.
    pub moving: usize,
    /// Buckets whose previous owner still has sessions.
    pub handing_over: usize,
}

/// A virtual server whose connections of before are in another group than the new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MigrationStatus {
    /// Its name.
    pub virtual_server: String,
    /// The group that it was in before.
    pub from: String,
    /// The nodes that may still have sessions of then.
    pub nodes: Vec<String>,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct VipStatus {
    /// The address.
    pub address: String,
    /// The node that answers for it; none: nobody can.
    pub owner: Option<String>,
}

/// The name of a group; empty: there is none of this number.
pub(super) fn group_name(space: &Namespace, group: GroupId) -> String {
    if group == GroupId(0) {
        return ALL.to_owned();
    }
    space.groups().find(|(id, ..)| *id == group).map_or(String::new(), |(_, name, _)| name.to_string())
}

/// What a node may do, in a word, and why it is offline.
pub fn phase(member: Option<&Member>) -> (&'static str, Option<String>) {
    match member.map(|member| &member.phase) {
        None => ("absent", None),
        Some(Phase::Joining) => ("joining", None),
        Some(Phase::Active) => ("active", None),
        Some(Phase::Draining) => ("draining", None),
        Some(Phase::Offline(why)) => ("offline", Some(why.to_string())),
    }
}

/// What [`Status`] is made of, copied so that it can be made by another thread: the management thread has others to serve.
#[derive(Clone, Debug)]
pub struct Snapshot {
    me: NodeId,
    now: Instant,
    out: Option<String>,
    index: u64,
    version: u64,
    in_force: u64,
    wire: WireVersion,
    leader: Option<u16>,
    quorum: bool,
    replicas: Vec<Replica>,
    nodes: Vec<(NodeId, String, u32)>,
    groups: Vec<(GroupId, String)>,
    /// Virtual servers by name, with what is known of the group before.
    migrating: Vec<(String, Former)>,
    fleet: Fleet,
    seen: BTreeMap<NodeId, Seen>,
    vips: Vec<VipStatus>,
    health: HealthStatus,
}

fn migrating(space: &Namespace) -> Vec<(String, Former)> {
    let formers = space.formers();
    if formers.is_empty() {
        return Vec::new();
    }
    let servers = space.virtual_servers();
    servers.filter_map(|(id, name, _)| Some((name.to_string(), formers.get(id)?.clone()))).collect()
}

/// How the real servers are, with names from the View that the node has published.
fn health(standings: &Standings, services: &Services) -> HealthStatus {
    let mut told = HealthStatus::default();
    for (id, standing) in standings.iter() {
        match standing.health {
            Health::Unknown => {}
            Health::FULL => told.up += 1,
            Health::Up(_) => told.rising += 1,
            Health::Down => {
                told.down += 1;
                // One that is new isn't in the View yet.
                if told.which.len() < DOWN && id.index() < services.real_servers.len() {
                    let real = &services.real_servers[id.index()];
                    told.which.push(DownStatus {
                        virtual_server: services.virtual_servers[real.virtual_server.index()].name.clone(),
                        real_server: real.name.clone(),
                        reason: standing.reason.clone(),
                    });
                }
            }
        }
    }
    told
}

impl Snapshot {
    /// Of what a node knows now; none if it goes by its files.
    pub fn take(manager: &Manager, now: Instant) -> Option<Self> {
        let (council, config) = (manager.council()?, manager.config());
        let state = council.state();
        let space = state.namespace();
        let published = state.published();
        let name = |id: NodeId| config.cluster.nodes.get(id.index()).map(|node| node.name.clone());
        let vips = compile::advertisers(config, published.serving(), published.draining());
        let mut groups: Vec<_> = vec![(GroupId(0), ALL.to_owned())];
        groups.extend(space.groups().map(|(id, name, _)| (id, name.to_string())));
        Some(Self {
            me: config.me,
            now,
            out: council.ended().map(ToString::to_string),
            index: state.index(),
            version: state.version(),
            in_force: state.in_force(),
            wire: state.wire(),
            leader: council.leader().map(|id| id.0),
            quorum: council.quorum(),
            replicas: council.replicas().to_vec(),
            nodes: space.nodes().map(|(id, name, spec)| (id, name.to_string(), spec.weight)).collect(),
            groups,
            migrating: migrating(space),
            fleet: state.fleet().clone(),
            seen: council.seen().clone(),
            vips: vips
                .map(|(address, owner)| VipStatus {
                    address: address.to_string(),
                    owner: owner.and_then(name),
                })
                .collect(),
            health: health(state.standings(), &manager.view().services),
        })
    }

    /// For people.
    pub fn status(self) -> Status {
        let name = |id: NodeId| {
            let known = self.nodes.iter().find(|(node, ..)| *node == id);
            known.map_or_else(|| format!("node {id}"), |(_, name, _)| name.clone())
        };
        let replica = |id: u16| {
            let known = self.replicas.iter().find(|replica| replica.id.0 == id);
            known.map_or_else(|| name(NodeId(id)), |replica| replica.name.clone())
        };
        let voters = self.replicas.iter().filter(|r| r.votes).map(|r| r.name.clone());
        Status {
            node: name(self.me),
            out: self.out.clone(),
            index: self.index,
            version: self.version,
            in_force: self.in_force,
            wire: self.wire.0,
            leader: self.leader.map(replica),
            quorum: self.quorum,
            voters: voters.collect(),
            nodes: self.nodes.iter().map(|(id, name, weight)| self.node(*id, name, *weight)).collect(),
            groups: self.groups.iter().map(|(id, group)| self.group(*id, group, name)).collect(),
            migrating: self
                .migrating
                .iter()
                .map(|(server, former)| self.migration(server, former, name))
                .collect(),
            vips: self.vips.clone(),
            health: self.health.clone(),
        }
    }

    fn node(&self, id: NodeId, name: &str, weight: u32) -> NodeStatus {
        let member = self.fleet.member(id);
        let (phase, reason) = phase(member);
        let seen = self.seen.get(&id);
        let old = seen.filter(|seen| seen.speaks < self.wire);
        let old = old.map(|seen| {
            format!("its software speaks wire version {} at most, the nodes {}", seen.speaks, self.wire)
        });
        // What another life of it had says nothing about this one.
        let alive = seen.filter(|s| member.is_none_or(|m| m.incarnation == s.incarnation));
        let (mut buckets, mut leaving) = (BTreeMap::new(), BTreeMap::new());
        for (group, group_name) in &self.groups {
            let Some(map) = self.fleet.maps().get(group) else { continue };
            let left = map.iter().filter(|(_, place)| place.previous == Some(id)).count();
            for (of, count) in [(&mut buckets, map.count(id)), (&mut leaving, left)] {
                if count > 0 {
                    of.insert(group_name.clone(), count);
                }
            }
        }
        NodeStatus {
            name: name.to_owned(),
            id: id.0,
            phase,
            drained: self.fleet.is_drained(id),
            reason: old.or(reason),
            software: seen.filter(|s| s.software.is_said()).map(|s| s.software.to_string()),
            speaks: seen.map(|s| s.speaks.0),
            life: member.map(|m| m.incarnation.0),
            weight,
            heard_ms_ago: seen.map(|s| self.now.since(s.heard).as_millis() as u64),
            ready: alive.is_some_and(|s| s.ready),
            prepared: alive.map(|s| s.prepared),
            adopted: alive.map(|s| s.adopted),
            buckets,
            leaving,
            migrating: self.migrating.iter().filter(|(_, former)| former.holders.contains_key(&id)).count(),
        }
    }

    fn migration(&self, server: &str, former: &Former, node: impl Fn(NodeId) -> String) -> MigrationStatus {
        let group = self.groups.iter().find(|(id, _)| *id == former.group);
        MigrationStatus {
            virtual_server: server.to_owned(),
            from: group.map_or_else(String::new, |(_, name)| name.clone()),
            nodes: former.holders.keys().map(|id| node(*id)).collect(),
        }
    }

    fn group(&self, id: GroupId, name: &str, node: impl Fn(NodeId) -> String) -> GroupStatus {
        let members = self.fleet.topology().groups.get(&id).map(|shape| shape.members);
        let map = self.fleet.maps().get(&id);
        let count =
            |is: fn(&Place) -> bool| map.map_or(0, |map| map.iter().filter(|(_, place)| is(place)).count());
        let rest = forecast::at_rest(&self.fleet, id);
        GroupStatus {
            name: name.to_owned(),
            members: members.into_iter().flat_map(|set| set.iter().collect::<Vec<_>>()).map(node).collect(),
            unowned: count(|place| place.owner.is_none()),
            moving: map.zip(rest.as_ref()).map_or(0, |(now, then)| forecast::moved(now, then).count()),
            handing_over: count(|place| place.previous.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_serves_or_still_has_sessions_stays() {
        let may = |phase, owned: usize, leaving: usize, migrating: usize| {
            let some = |count: usize| BTreeMap::from([("all".to_owned(), count)]);
            let node = NodeStatus {
                name: "n1".into(),
                id: 0,
                phase,
                drained: phase == "draining",
                reason: None,
                software: None,
                speaks: None,
                life: Some(1),
                weight: 1,
                heard_ms_ago: None,
                ready: true,
                prepared: None,
                adopted: None,
                buckets: some(owned),
                leaving: some(leaving),
                migrating,
            };
            node.may_go()
        };
        assert_eq!(
            [may("offline", 0, 0, 3), may("absent", 0, 0, 0), may("draining", 0, 0, 0)],
            [Ok(()), Ok(()), Ok(())]
        );
        for (why, phase, owned, leaving, migrating) in [
            ("node drain n1", "active", 0, 0, 0),
            ("owns 7 buckets", "draining", 7, 0, 0),
            ("sessions of 2 buckets", "draining", 0, 2, 0),
            ("sessions of 4 virtual servers", "draining", 0, 0, 4),
        ] {
            let (message, hint) = may(phase, owned, leaving, migrating).unwrap_err();
            assert!(message.contains(why) || hint.contains(why), "{message} ({hint})");
        }
    }
}
