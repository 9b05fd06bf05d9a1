//! From the cluster's namespace to what a node is configured by.

use super::check::Machine;
use super::{
    ClusterConfig, Config, GroupConfig, NodeConfig, RealServerConfig, Slots, SnatConfig, TableConfig,
    VipConfig, VirtualServerConfig,
};
use crate::base::{Addr, GroupId, HashKey, NodeId, VirtualServerId};
use crate::cluster::namespace::object::{Object, VirtualServerSpec};
use crate::cluster::namespace::{ALL, Fault, Key, Kind, Name, Namespace};
use crate::view::Protocol;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The part of a configuration that follows from the namespace.
pub(super) struct Shared {
    pub cluster: ClusterConfig,
    pub snats: Slots<SnatConfig>,
    pub vips: BTreeMap<Addr, VipConfig>,
    pub virtual_servers: Slots<Arc<VirtualServerConfig>>,
}

/// Those of `names` that exist, ascending by id.
fn ids(space: &Namespace, names: &[Name]) -> Vec<NodeId> {
    names.iter().filter_map(|name| Some(space.node(name)?.0)).collect()
}

fn sorted(mut ids: Vec<NodeId>) -> Vec<NodeId> {
    ids.sort_unstable();
    ids
}

impl Shared {
    /// `keys` are those of the flow hash and of frames. Virtual servers of `before` are taken over if nothing of them has
    /// changed; without (the namespace is that of a file) they have no revision that says so later; how long an idle flow lives is for `tables` to say where nobody else does.
    ///
    /// None if something names what doesn't exist: the rules don't let that pass.
    pub fn of(
        space: &Namespace,
        keys: (HashKey, HashKey),
        tables: &TableConfig,
        before: Option<&Slots<Arc<VirtualServerConfig>>>,
    ) -> Option<Self> {
        let settings = space.cluster();
        let nodes = space.nodes().map(|(id, name, spec)| {
            let node = NodeConfig {
                name: name.to_string(),
                backplane: spec.backplane,
                workers: spec.workers,
                weight: spec.weight,
                management: spec.management,
            };
            (id.index(), node)
        });
        let everyone = GroupConfig {
            name: ALL.to_owned(),
            members: sorted(space.nodes().map(|(id, ..)| id).collect()),
            backups: Vec::new(),
        };
        let groups = space.groups().map(|(id, name, spec)| {
            let (members, backups) = (sorted(ids(space, &spec.members)), ids(space, &spec.backups));
            (id.index(), GroupConfig { name: name.to_string(), members, backups })
        });
        let snats = space.snats().map(|(id, address, spec)| {
            let (group, node) = (space.group_id(&spec.group)?, space.node(&spec.node)?.0);
            Some((id.index(), SnatConfig { address: *address, group, node }))
        });
        let vips = space.of(Kind::Vip).filter_map(|(key, entry)| match (key, &entry.object) {
            (Key::Vip(address), Object::Vip(spec)) => Some((*address, spec)),
            _ => None,
        });
        let vips = vips.map(|(address, spec)| {
            let preferred = match &spec.preferred {
                Some(name) => Some(space.node(name)?.0),
                None => None,
            };
            Some((address, VipConfig { group: space.group_id(&spec.group)?, preferred }))
        });
        let virtual_servers = space.of(Kind::VirtualServer).map(|(key, entry)| {
            let (id, revision) = (entry.id as usize, if before.is_some() { entry.revision } else { 0 });
            let former = space.former_group(VirtualServerId(entry.id));
            let same = before.and_then(|all| all.get(id));
            let same = same.filter(|old| (old.revision, old.former) == (revision, former));
            let server = match (same, key, &entry.object) {
                (Some(same), ..) => Arc::clone(same),
                (None, Key::VirtualServer(name), Object::VirtualServer(spec)) => {
                    Arc::new(virtual_server(space, name, spec, (revision, former), tables)?)
                }
                _ => return None,
            };
            Some((id, server))
        });
        Some(Self {
            cluster: ClusterConfig {
                hash_key: keys.0,
                auth_key: keys.1,
                data_port: settings.data_port,
                control_port: settings.control_port,
                heartbeat: settings.heartbeat,
                suspicion: settings.suspicion,
                backplane_prefix: space.backplane()?.1,
                maglev_slots: settings.maglev_slots as usize,
                nodes: Slots::new(space.ids(Kind::Node), nodes),
                groups: Slots::new(space.ids(Kind::Group), groups.chain([(0, everyone)])),
            },
            snats: Slots::new(space.ids(Kind::Snat), snats.collect::<Option<Vec<_>>>()?),
            vips: vips.collect::<Option<_>>()?,
            virtual_servers: Slots::new(
                space.ids(Kind::VirtualServer),
                virtual_servers.collect::<Option<Vec<_>>>()?,
            ),
        })
    }
}

fn virtual_server(
    space: &Namespace,
    name: &Name,
    spec: &VirtualServerSpec,
    (revision, former): (u64, Option<(GroupId, u64)>),
    tables: &TableConfig,
) -> Option<VirtualServerConfig> {
    let usual = match spec.protocol {
        Protocol::Tcp => tables.established,
        Protocol::Udp => tables.udp,
    };
    let real_servers = space.real_servers(name).map(|(id, called, real)| RealServerConfig {
        id,
        name: called.to_string(),
        address: real.address,
        port: real.port.unwrap_or(spec.port),
        set: real.weight,
        weight: real.weight,
        up: true,
    });
    let mut real_servers: Vec<RealServerConfig> = real_servers.collect();
    real_servers.sort_unstable_by_key(|real| real.id);
    Some(VirtualServerConfig {
        revision,
        name: name.to_string(),
        address: spec.address,
        port: spec.port,
        protocol: spec.protocol,
        group: space.group_id(&spec.group)?,
        former,
        forward: spec.forward,
        ingress: spec.ingress,
        persistence: space.persistence(name).copied(),
        idle: space.idle_of(spec).unwrap_or(usual),
        real_servers,
    })
}

impl Config {
    /// This node's configuration as a namespace has it that is to hold from now on: all that is the node's own stays, and so
    /// does the cluster's secret. It costs what is different; what isn't is shared.
    ///
    /// Or what keeps this node from serving it: the namespace is right by itself, but this node has an address, a subnet, a
    /// number of workers or routes that it doesn't suit.
    pub fn with(&self, space: &Namespace) -> Result<Self, Vec<Fault>> {
        let Ok(name) = Name::new(&self.cluster.nodes[self.me.index()].name) else { return Err(Vec::new()) };
        let key = Key::Node(name.clone());
        let fault = |field: Option<&str>, message: &str| {
            let field = field.map(str::to_owned);
            vec![Fault { key: key.clone(), field, message: message.to_owned(), hint: None, other: None }]
        };
        let Some((me, node)) = space.node(&name) else {
            return Err(fault(None, "is this node, and does not exist"));
        };
        if node.workers != self.workers.count {
            let message = format!("{} here, and the node runs {}", node.workers, self.workers.count);
            return Err(fault(Some("workers"), &message));
        }
        let keys = (self.cluster.hash_key, self.cluster.auth_key);
        let Some(shared) = Shared::of(space, keys, &self.tables, Some(&self.virtual_servers)) else {
            return Err(fault(None, "belongs to a cluster with a reference that leads nowhere"));
        };
        let machine = Machine::new(&self.interfaces, &self.routes, Some(&self.ports));
        let served = |groups: &Slots<GroupConfig>, id: GroupId, me: NodeId| {
            groups.get(id.index()).is_some_and(|group| group.members.contains(&me))
        };
        // Looked at are the virtual servers that are new to this node, or different.
        let looked_at = shared.virtual_servers.iter().filter(|(id, server)| {
            let old = self.virtual_servers.get(*id);
            !old.is_some_and(|old| Arc::ptr_eq(old, server))
                || !served(&self.cluster.groups, server.group, self.me)
                    && served(&shared.cluster.groups, server.group, me)
        });
        let names = looked_at.filter_map(|(_, server)| Name::new(&server.name).ok()).collect::<Vec<_>>();
        let mut faults = machine.overlaps(space);
        faults.extend(machine.taken(space).map(|misfit| misfit.fault));
        let paths = names.iter().flat_map(|name| machine.paths(space, Some(me), name));
        faults.extend(paths.map(|misfit| misfit.fault));
        if !faults.is_empty() {
            return Err(faults);
        }
        let Shared { mut cluster, snats, vips, virtual_servers } = shared;
        cluster.nodes = cluster.nodes.as_long_as(&self.cluster.nodes);
        cluster.groups = cluster.groups.as_long_as(&self.cluster.groups);
        let (snats, virtual_servers) =
            (snats.as_long_as(&self.snats), virtual_servers.as_long_as(&self.virtual_servers));
        let real_server_ids = space.ids(Kind::RealServer).max(self.real_server_ids);
        Ok(Self { me, cluster, snats, vips, virtual_servers, real_server_ids, ..self.clone() })
    }
}
