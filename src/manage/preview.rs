//! What a change would do, before it is made: what is different, and what it will move (MECHANISMS §6).
//!
//! In two parts: [`look`] is quick and needs the state; [`Sight::forecast`] plans whole placements, and needs nothing else, so
//! that it can be done by another thread.

use super::config::Config;
use super::status::group_name;
use crate::base::limits::BUCKETS;
use crate::base::{GroupId, NodeId, RealServerId};
use crate::cluster::council::Council;
use crate::cluster::fleet::{Fleet, Topology};
use crate::cluster::forecast;
use crate::cluster::log::Log;
use crate::cluster::namespace::diff::{Deed, Field};
use crate::cluster::namespace::write::FAULTS;
use crate::cluster::namespace::{Change, Difference, Fault, Faults, Key, Kind, Name, Namespace};
use crate::cluster::place::Map;
use crate::cluster::state::topology;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The node that looks.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// The node.
    pub me: NodeId,
    /// Its sessions.
    pub sessions: u64,
}

/// What was seen of a change that can be made.
#[derive(Clone, Debug)]
pub struct Sight {
    here: Here,
    sessions_ending: u64,
    real_servers_ending: usize,
    differences: Vec<Difference>,
    virtual_servers: BTreeSet<Name>,
    /// Virtual servers that get another group: from, to.
    regrouped: Vec<(Name, GroupId, GroupId)>,
    fleet: Fleet,
    topology: Topology,
    /// A node that is drained, or taken back.
    drain: Option<(NodeId, bool)>,
    /// Names of the groups before and behind.
    names: BTreeMap<GroupId, String>,
    /// Groups that any virtual server is in now.
    used: BTreeSet<GroupId>,
}

/// What a change will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Forecast {
    /// What it changes, object by object.
    pub differences: Vec<Difference>,
    /// Virtual servers that are made, removed, or served otherwise than before.
    pub virtual_servers: usize,
    /// Groups of which buckets will have another owner once all placements are at rest and new nodes serve.
    pub buckets: Vec<Moved>,
    /// Virtual servers that get another group.
    pub migrations: Vec<Migration>,
    /// Sessions on the node that was asked, and about how many of them are in buckets that another node will own: by the number
    /// of buckets, since sessions aren't counted by bucket.
    pub sessions_here: u64,
    /// See `sessions_here`.
    pub sessions_here_moving: u64,
    /// Real servers that are removed, or that move and so are other ones: sessions with them end.
    pub real_servers_ending: usize,
    /// How many such sessions there are on the node that was asked.
    pub sessions_here_ending: u64,
}

/// Buckets of a group that will have another owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Moved {
    /// The group.
    pub group: String,
    /// How many.
    pub moving: usize,
    /// How many buckets a group has.
    pub of: usize,
}

/// A virtual server that gets another group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Migration {
    /// The virtual server.
    pub virtual_server: String,
    /// Its group now.
    pub from: String,
    /// Its group then.
    pub to: String,
    /// Its buckets that another node serves then.
    pub moving: usize,
    /// How many buckets a group has.
    pub of: usize,
}

fn groups(space: &Namespace) -> impl Iterator<Item = GroupId> {
    space.groups().map(|(id, ..)| id).chain([GroupId(0)])
}

/// Looks at what these changes would do; `sessions` says how many this node has with a real server, and `suits` what keeps it
/// from serving by a namespace.
///
/// # Errors
/// Why they can't be made, and how many more reasons there are.
pub fn look<L: Log>(
    council: &mut Council<L>,
    here: Here,
    changes: &[Change],
    sessions: impl Fn(RealServerId) -> u64,
    suits: impl FnOnce(&Namespace) -> Vec<Fault>,
) -> Result<Sight, Faults> {
    let unread = unread(council, changes);
    if !unread.is_empty() {
        return Err((unread, 0));
    }
    let space = council.state().namespace();
    let differences = space.describe(changes).into_iter().zip(changes).filter(|(_, change)| {
        let old = space.get(&change.key).map(|entry| &entry.object);
        change.value.as_ref() != old
    });
    let differences: Vec<_> = differences.map(|(difference, _)| difference).collect();
    let touched: BTreeSet<&Key> = differences.iter().map(|difference| &difference.key).collect();
    let group_of = |space: &Namespace, name: &Name| space.group_id(&space.virtual_server(name)?.group);
    let named: BTreeSet<Name> = touched
        .iter()
        .filter_map(|key| match key {
            Key::VirtualServer(name) | Key::RealServer(name, _) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let mut served = named.clone();
    if touched.iter().any(|key| key.kind() == Kind::Profile) {
        let by_profile = |profile: &Option<Name>| {
            profile.as_ref().is_some_and(|name| touched.contains(&Key::Profile(name.clone())))
        };
        let users = space.virtual_servers().filter(|(.., spec)| by_profile(&spec.profile));
        served.extend(users.map(|(_, name, _)| name.clone()));
    }
    let before: BTreeMap<Name, GroupId> =
        named.iter().filter_map(|name| Some((name.clone(), group_of(space, name)?))).collect();
    let known = space.at_stake(touched.iter().copied());
    let mut sight = Sight::of(council, here);
    let names = &mut sight.names;
    let (topology, regrouped, gone, misfits) = council.preview(changes, |space| {
        names.extend(groups(space).map(|id| (id, group_name(space, id))));
        let regrouped = before.into_iter().filter_map(|(name, from)| {
            let to = group_of(space, &name)?;
            (from != to).then_some((name, from, to))
        });
        let gone: Vec<_> = space.gone(known).collect();
        (topology(space), regrouped.collect(), gone, suits(space))
    })?;
    if !misfits.is_empty() {
        return Err((misfits, 0));
    }
    Ok(Sight {
        sessions_ending: gone.iter().map(|id| sessions(*id)).sum(),
        real_servers_ending: gone.len(),
        differences,
        virtual_servers: served,
        regrouped,
        topology,
        ..sight
    })
}

/// Looks at what it would do to drain a node, or to take it back; none if there is no such node.
pub fn look_at_drain<L: Log>(council: &Council<L>, here: Here, node: NodeId, drain: bool) -> Option<Sight> {
    let sight = Sight::of(council, here);
    let key = council.state().namespace().node_key(node)?;
    let (old, new) = (Some(Value::from(!drain)), Some(Value::from(drain)));
    let field = Field { name: "drained".to_owned(), old, new };
    let difference = Difference { key, deed: Deed::Change, fields: vec![field] };
    let differences = if sight.fleet.is_drained(node) == drain { Vec::new() } else { vec![difference] };
    Some(Sight { differences, drain: Some((node, drain)), ..sight })
}

/// What of these changes a node of the last release can't read, while one runs that.
pub fn unread<L: Log>(council: &Council<L>, changes: &[Change]) -> Vec<Fault> {
    let wire = council.state().wire();
    let unread = changes.iter().filter(|change| change.key.kind().since() > wire).map(|change| Fault {
        key: change.key.clone(),
        field: None,
        message: "the last release doesn't know it, and some nodes still run that".to_owned(),
        hint: Some("renew them first".to_owned()),
        other: None,
    });
    unread.collect()
}

/// What keeps a node from serving by a namespace. What that says of the node itself, its file can be made to follow.
pub fn misfits(config: &Config, space: &Namespace) -> Vec<Fault> {
    let name = &config.cluster.nodes[config.me.index()].name;
    let own = |key: &Key| matches!(key, Key::Node(node) if node == name.as_str());
    let mut faults = config.with(space).err().unwrap_or_default();
    faults.retain(|fault| !own(&fault.key));
    faults.truncate(FAULTS);
    faults
}

impl Sight {
    /// Nothing changes.
    fn of<L: Log>(council: &Council<L>, here: Here) -> Self {
        let (space, fleet) = (council.state().namespace(), council.state().fleet());
        Self {
            here,
            sessions_ending: 0,
            real_servers_ending: 0,
            differences: Vec::new(),
            virtual_servers: BTreeSet::new(),
            regrouped: Vec::new(),
            fleet: fleet.clone(),
            topology: fleet.topology().clone(),
            drain: None,
            names: groups(space).map(|id| (id, group_name(space, id))).collect(),
            used: space.virtual_servers().filter_map(|(.., spec)| space.group_id(&spec.group)).collect(),
        }
    }

    /// What will have moved when all is at rest.
    pub fn forecast(self) -> Forecast {
        let name = |id: &GroupId| self.names.get(id).cloned().unwrap_or_default();
        // Where no placement changes by it, what moves anyway isn't this change's doing.
        let mut changes = self.topology != *self.fleet.topology();
        let mut next = match changes {
            true => forecast::with(&self.fleet, &self.topology),
            false => self.fleet.clone(),
        };
        if let Some((node, drain)) = self.drain {
            changes |= next.drain(node, drain);
        }
        let looked_at = |id: &&GroupId| changes || self.regrouped.iter().any(|(.., to)| to == *id);
        let groups = next.maps().keys().filter(looked_at);
        let rest: BTreeMap<GroupId, Map> =
            groups.filter_map(|id| Some((*id, forecast::at_rest(&next, *id)?))).collect();
        let (mut buckets, mut owned, mut leaving) = (Vec::new(), 0, 0);
        for (id, now) in self.fleet.maps().iter().filter(|_| changes) {
            let Some(then) = rest.get(id) else { continue };
            let moving: Vec<_> = forecast::moved(now, then).collect();
            if self.used.contains(id) {
                owned += now.count(self.here.me);
                leaving += moving.iter().filter(|b| now.get(**b).owner == Some(self.here.me)).count();
            }
            if !moving.is_empty() {
                buckets.push(Moved { group: name(id), moving: moving.len(), of: BUCKETS });
            }
        }
        let migrations = self.regrouped.iter().map(|(server, from, to)| {
            let nobody = Map::default();
            let now = self.fleet.maps().get(from).map_or(&nobody, |map| map);
            let moving = forecast::moved(now, rest.get(to).unwrap_or(&nobody)).count();
            Migration {
                virtual_server: server.to_string(),
                from: name(from),
                to: name(to),
                moving,
                of: BUCKETS,
            }
        });
        Forecast {
            migrations: migrations.collect(),
            virtual_servers: self.virtual_servers.len(),
            buckets,
            sessions_here: self.here.sessions,
            sessions_here_moving: (self.here.sessions * leaving as u64)
                .checked_div(owned as u64)
                .unwrap_or(0),
            real_servers_ending: self.real_servers_ending,
            sessions_here_ending: self.sessions_ending,
            differences: self.differences,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeSet;
    use crate::cluster::fleet::{COPIES, GroupShape};
    use crate::cluster::plan;

    const ALL: GroupId = GroupId(0);
    const EDGE: GroupId = GroupId(1);

    /// So many nodes; the second one alone is in the group `edge`.
    fn topology(nodes: u16) -> Topology {
        let all: NodeSet = (0..nodes).map(NodeId).collect();
        let shape = |seed, members| GroupShape { seed, members, ..GroupShape::default() };
        let groups = [(ALL, shape(1, all)), (EDGE, shape(2, NodeSet::of(NodeId(1))))];
        Topology { nodes: all.iter().map(|node| (node, 1)).collect(), groups: groups.into() }
    }

    /// Node 0 of two looks at a change that leads to this topology.
    fn sight(topology_then: Topology, regrouped: Vec<(Name, GroupId, GroupId)>) -> Sight {
        let mut fleet = forecast::with(&Fleet::default(), &topology(2));
        for group in [ALL, EDGE] {
            let steps = plan::next(&fleet.maps()[&group], &fleet.shares(group), COPIES, BUCKETS);
            assert!(fleet.take(group, &steps));
        }
        let names = [(ALL, "all".to_owned()), (EDGE, "edge".to_owned())].into();
        Sight {
            here: Here { me: NodeId(0), sessions: 600 },
            sessions_ending: 0,
            real_servers_ending: 0,
            differences: Vec::new(),
            virtual_servers: BTreeSet::new(),
            regrouped,
            fleet,
            topology: topology_then,
            drain: None,
            names,
            used: [ALL].into(),
        }
    }

    #[test]
    fn a_third_node_takes_a_third() {
        let told = sight(topology(3), Vec::new()).forecast();
        let moved = |group: &str, moving| Moved { group: group.into(), moving, of: BUCKETS };
        assert_eq!(told.buckets, [moved("all", 1365)]);
        // This node gives half of those, which is a third of what it has.
        assert!((190..=210).contains(&told.sessions_here_moving), "{told:?}");
    }

    #[test]
    fn a_server_that_gets_another_group_leaves_the_nodes_that_are_not_in_it() {
        let web = Name::new("web").unwrap();
        let told = sight(topology(2), vec![(web, ALL, EDGE)]).forecast();
        assert_eq!(told.buckets, [], "the groups stay as they are");
        let [migration] = &told.migrations[..] else { panic!("{told:?}") };
        assert_eq!((migration.moving, migration.from.as_str(), migration.to.as_str()), (2048, "all", "edge"));
    }

    #[test]
    fn a_node_that_is_drained_gives_all_away() {
        let told = Sight { drain: Some((NodeId(0), true)), ..sight(topology(2), Vec::new()) }.forecast();
        assert_eq!(told.buckets, [Moved { group: "all".into(), moving: 2048, of: BUCKETS }]);
        assert_eq!(told.sessions_here_moving, 600);
        let told = Sight { drain: Some((NodeId(0), false)), ..sight(topology(2), Vec::new()) }.forecast();
        assert_eq!(told.buckets, [], "it isn't drained");
    }

    #[test]
    fn what_changes_no_placement_moves_nothing() {
        let told = sight(topology(2), Vec::new()).forecast();
        assert_eq!((told.buckets.len(), told.migrations.len(), told.sessions_here_moving), (0, 0, 0));
    }
}
