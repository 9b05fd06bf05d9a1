//! From configuration to View. Every node compiles the same inputs, so that all decide alike.
//!
//! A change costs what it changes: [`recompile`] shares with the View before whatever follows from the same. Real servers and
//! next hops keep their numbers then, so a next hop that isn't needed any more leaves a vacant number, which another one gets
//! later.

mod servers;
#[cfg(test)]
mod tests;

use super::config::{Config, GroupConfig, NodeConfig, PortRole, VirtualServerConfig};
use crate::base::hash::{mix, siphash13_bytes};
use crate::base::planted::{self, Bug};
use crate::base::{
    Addr, GroupId, HashKey, Incarnation, InterfaceId, NodeId, NodeSet, PortId, SnatId, Tick, VirtualServerId,
};
use crate::path::port::PortCaps;
use crate::table::exact::{ExactMap, Filter};
use crate::table::placement::Placement;
use crate::table::route::RouteTable;
use crate::view::{
    Adjacencies, Buckets, Group, Hop, HopId, Ingress, Interface, Neighbour, Node, Owned, Route, Service,
    Services, Snat, Timeouts, View, prefix_holds,
};
use crate::wire::backplane;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What the configuration's checks promise and the compiler still has to see for itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// No interface or route leads there.
    #[error("no interface or route covers {what} {address}")]
    Unroutable {
        /// What has the address.
        what: String,
        /// The address.
        address: Addr,
    },
    /// Two routes for one prefix.
    #[error("two routes for one prefix: a static one and an interface's own, or two interfaces' ")]
    DuplicateRoute,
    /// An interface has no address to speak to a neighbour from.
    #[error("interface \"{interface}\" has no address of the family of {address}, which it has to reach")]
    NoSource {
        /// The interface.
        interface: String,
        /// The neighbour.
        address: Addr,
    },
}

/// A digest of all that the nodes of a cluster must agree on, under their key.
pub fn digest(config: &Config) -> u64 {
    let Config { cluster, snats, vips, .. } = config;
    // The derived text names every field, so none can be forgotten.
    let mut text = format!("{cluster:?} {snats:?} {vips:?}");
    for (id, server) in config.virtual_servers.iter() {
        // How long an idle flow lives may be left to each node's own file.
        let server = VirtualServerConfig { idle: Duration::ZERO, ..VirtualServerConfig::clone(server) };
        // What is read from files has no former group, nor is anything known of health; the last release's text had neither.
        let said =
            format!(" {id} {server:?}").replace(" former: None,", "").replace(" persistence: None,", "");
        text += &said.replace(", up: true }", " }");
    }
    siphash13_bytes(cluster.hash_key, text.as_bytes())
}

/// Next hops while they are collected: each neighbour once.
#[derive(Default)]
struct Hops {
    all: Vec<Hop>,
    /// Where each is; made when it is asked for.
    numbers: Option<HashMap<Neighbour, HopId>>,
    /// Numbers that were vacant in the View before.
    vacant: Vec<HopId>,
}

impl Hops {
    /// Those that a View has keep their numbers, and what is known of them.
    fn of(before: &View) -> Self {
        let all = before.hops.clone();
        let numbered = (0..).map(HopId).zip(&all);
        let vacant = numbered.filter(|(_, hop)| hop.is_vacant()).map(|(id, _)| id).collect();
        Self { all, numbers: None, vacant }
    }

    fn id(&mut self, interface: InterfaceId, address: Addr) -> HopId {
        let Self { all, numbers, vacant } = self;
        let numbers = numbers.get_or_insert_with(|| {
            let numbered = (0..).map(HopId).zip(&*all);
            numbered.filter(|(_, hop)| !hop.is_vacant()).map(|(id, hop)| (hop.place(), id)).collect()
        });
        *numbers.entry(Neighbour { interface, address }).or_insert_with(|| {
            let hop = Hop { interface, address, mac: None };
            if let Some(id) = vacant.pop() {
                all[id.0 as usize] = hop;
                return id;
            }
            all.push(hop);
            HopId(all.len() as u32 - 1)
        })
    }
}

/// What a View was made of.
#[derive(Clone, Copy)]
struct Before<'a> {
    config: &'a Config,
    view: &'a View,
}

/// The first View of a node: nobody heard, no neighbour resolved. `caps` are those of the configuration's ports.
///
/// # Errors
/// [`CompileError`].
pub fn compile(config: &Config, incarnation: Incarnation, caps: &[PortCaps]) -> Result<View, CompileError> {
    build(config, incarnation, caps, None)
}

/// The same but for the numbers of next hops, which may differ, and their Ethernet addresses, which are as `view` has them.
/// What follows from the same as in `view`, which was made of the configuration `of`, is shared with it.
///
/// # Errors
/// [`CompileError`].
pub fn recompile(
    config: &Config,
    incarnation: Incarnation,
    caps: &[PortCaps],
    (of, view): (&Config, &View),
) -> Result<View, CompileError> {
    build(config, incarnation, caps, Some(Before { config: of, view }))
}

fn build(
    config: &Config,
    incarnation: Incarnation,
    caps: &[PortCaps],
    before: Option<Before<'_>>,
) -> Result<View, CompileError> {
    let cluster = &config.cluster;
    let (interfaces, backplane) = interfaces(config, caps);
    // Numbers of next hops, and the ways to real servers, are those of before if this machine is.
    let here = before.filter(|b| {
        let (old, services) = (b.config, &b.view.services);
        services.interfaces == interfaces && old.routes == config.routes && old.me == config.me
    });
    let mut hops = here.map_or_else(Hops::default, |b| Hops::of(b.view));
    let routes = routes(config, &interfaces, &mut hops)?;
    let groups = groups(config);
    let nodes = nodes(config, incarnation, backplane, &mut hops);
    let machine = servers::Machine { interfaces: &interfaces, routes: &routes };
    let known = before.map(|b| &b.view.services);
    let real_servers =
        servers::real_servers(config, &machine, &nodes, &mut hops, here, known.map(|s| &s.real_servers))?;
    let virtual_servers = servers::virtual_servers(config, before);
    for hop in hops.all.iter().filter(|hop| !hop.is_vacant()) {
        let interface = &interfaces[hop.interface.index()];
        if interface.source_for(hop.address).is_none() {
            return Err(CompileError::NoSource { interface: interface.name.clone(), address: hop.address });
        }
    }
    let mut interface_of: Vec<_> = interfaces
        .iter()
        .enumerate()
        .map(|(i, x)| (u32::from(x.port.0) << 16 | u32::from(x.vlan.unwrap_or(0)), InterfaceId(i as u8)))
        .collect();
    interface_of.sort_unstable();
    let service = config.virtual_servers.iter().map(|(i, v)| {
        let service = Service { address: v.address, port: v.port, protocol: v.protocol.number() };
        (service, VirtualServerId(i as u32))
    });
    let owned = owned(config, &interfaces);
    let services = Services {
        by_service: ExactMap::build(service.clone()),
        owned_filter: Filter::build(owned.keys()),
        owned,
        local: ExactMap::build(service.filter(|(_, id)| {
            let server = &virtual_servers[id.index()];
            server.ingress == Ingress::Local && groups[server.group.index()].has(config.me)
        })),
        virtual_servers,
        real_servers,
        snats: config.snats.filled(
            |_, s| Snat { address: s.address, group: s.group, node: s.node },
            |id| match known.and_then(|known| known.snats.get(id)) {
                // The hashes of sessions that name it follow from its address.
                Some(was) => *was,
                None => Snat { address: Addr::UNSPECIFIED, group: GroupId(0), node: NodeId(0) },
            },
        ),
        groups,
        interfaces,
        interface_of,
        routes,
    };
    let mut view = View {
        version: 1,
        me: config.me,
        hash_key: if planted::is(Bug::HashUnkeyed) { HashKey([0; 2]) } else { cluster.hash_key },
        auth_key: cluster.auth_key,
        data_port: cluster.data_port,
        control_port: cluster.control_port,
        steering_cache: config.tables.steering_cache,
        stateless_without_lease: config.log.as_ref().is_none_or(|log| log.stateless_without_quorum),
        timeouts: Timeouts {
            half_open: Tick::covering(config.tables.half_open),
            closed: Tick::covering(config.tables.closed),
            steering: Tick::covering(config.tables.steering),
        },
        nodes,
        buckets: config
            .cluster
            .groups
            .filled(|_, group| first_placement(config, group), |_| Placement::initial(0, &[]).into())
            .into(),
        placed: 1,
        placed_by_group: config.cluster.groups.filled(|_, _| 1, |_| 1).into(),
        in_force: 0,
        decided: 0,
        leaving: 0,
        regrouping: Arc::default(),
        regrouped: regrouped(config).collect(),
        regrouped_in: 1,
        services: Arc::new(services),
        advertised: Arc::new(ExactMap::build(
            advertised(config, NodeSet(u64::MAX), NodeSet::EMPTY).into_iter().map(|a| (a, ())),
        )),
        hops: hops.all,
        numbered: here.map_or_else(|| before.map_or(1, |b| b.view.version + 1), |b| b.view.numbered),
        adjacencies: Adjacencies::default(),
        neighbours: ExactMap::build([]),
    };
    view.link(here.map(|b| b.view));
    Ok(view)
}

/// The virtual servers that have left a group, in which there may be sessions of them, ascending.
fn regrouped(config: &Config) -> impl Iterator<Item = VirtualServerId> {
    let all = config.virtual_servers.iter().filter(|(_, server)| server.former.is_some());
    all.map(|(id, _)| VirtualServerId(id as u32))
}

/// The configured interfaces, and behind them the backplane's, whose id is given too.
fn interfaces(config: &Config, caps: &[PortCaps]) -> (Vec<Interface>, Option<InterfaceId>) {
    let mut all: Vec<_> = config
        .interfaces
        .iter()
        .map(|x| Interface {
            name: x.name.clone(),
            port: x.port,
            vlan: x.vlan,
            mac: caps[x.port.index()].mac,
            mtu: caps[x.port.index()].mtu,
            addresses: x.addresses.clone(),
            backplane: false,
        })
        .collect();
    let port = config.ports.iter().position(|p| p.role == PortRole::Backplane);
    if let Some(port) = port {
        let address = config.cluster.nodes[config.me.index()].backplane;
        all.push(Interface {
            name: "backplane".into(),
            port: PortId(port as u8),
            vlan: None,
            mac: caps[port].mac,
            mtu: caps[port].mtu,
            addresses: vec![(address, config.cluster.backplane_prefix)],
            backplane: true,
        });
    }
    let backplane = port.map(|_| InterfaceId((all.len() - 1) as u8));
    (all, backplane)
}

fn routes(
    config: &Config,
    interfaces: &[Interface],
    hops: &mut Hops,
) -> Result<RouteTable<Route>, CompileError> {
    let connected = interfaces.iter().enumerate().filter(|(_, x)| !x.backplane).flat_map(|(i, x)| {
        x.addresses
            .iter()
            .map(move |(a, len)| ((network(*a, *len), *len), Route::OnLink(InterfaceId(i as u8))))
    });
    let mut all: Vec<_> = connected.collect();
    // Two addresses of one interface may share their prefix.
    all.sort_by_key(|((a, len), route)| (*a, *len, matches!(route, Route::OnLink(i) if i.0 > 0)));
    all.dedup();
    for route in &config.routes {
        let (to, len) = route.to;
        all.push(((network(to, len), len), Route::Via(hops.id(route.interface, route.via))));
    }
    RouteTable::build(all).map_err(|_| CompileError::DuplicateRoute)
}

/// The first address of the prefix that `address` lies in.
fn network(address: Addr, len: u8) -> Addr {
    let bits = if address.is_v4() { 96 + u32::from(len) } else { u32::from(len) };
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits.min(128)) };
    Addr((u128::from_be_bytes(address.0) & mask).to_be_bytes())
}

fn groups(config: &Config) -> Vec<Group> {
    config.cluster.groups.filled(
        |id, group| {
            let snats = config.snats.iter().filter(|(_, s)| s.group == GroupId(id as u16));
            // Those that this node advertises first: their replies come straight home (MECHANISMS §4 point 5).
            let (own, others): (Vec<_>, Vec<_>) = snats.partition(|(_, s)| s.node == config.me);
            Group {
                name: group.name.clone(),
                members: group.members.iter().fold(0, |set, m| set | 1 << m.0),
                own_snats: own.len(),
                snats: own.into_iter().chain(others).map(|(i, _)| SnatId(i as u16)).collect(),
            }
        },
        |_| Group { name: String::new(), members: 0, own_snats: 0, snats: Vec::new() },
    )
}

/// Where a group's buckets are before anyone has said otherwise.
fn first_placement(config: &Config, group: &GroupConfig) -> Buckets {
    let seed = siphash13_bytes(config.cluster.hash_key, group.name.as_bytes());
    let weights: Vec<_> =
        group.members.iter().map(|m| (*m, config.cluster.nodes[m.index()].weight)).collect();
    Placement::initial(seed, &weights).into()
}

fn nodes(
    config: &Config,
    incarnation: Incarnation,
    backplane: Option<InterfaceId>,
    hops: &mut Hops,
) -> Vec<Node> {
    let me = config.me;
    let node = |i: usize, node: &NodeConfig| {
        let id = NodeId(i as u16);
        let incarnation = if id == me { incarnation } else { Incarnation(0) };
        Node {
            name: node.name.clone(),
            incarnation,
            cookie: backplane::cookie(config.cluster.auth_key, id, incarnation),
            backplane: node.backplane,
            hop: backplane.filter(|_| id != me).map(|b| hops.id(b, node.backplane)),
            workers: node.workers,
            up: id == me,
        }
    };
    config.cluster.nodes.filled(node, |_| Node {
        name: String::new(),
        incarnation: Incarnation(0),
        cookie: 0,
        backplane: Addr::UNSPECIFIED,
        hop: None,
        workers: 1,
        up: false,
    })
}

/// The node that answers ARP and ND for a VIP, of those of its group that serve: the one that is preferred, or that of the
/// highest random weight, so that VIPs spread over the members. One that is being drained does so only if no other member can.
fn advertiser(
    config: &Config,
    group: GroupId,
    vip: Addr,
    serving: NodeSet,
    draining: NodeSet,
) -> Option<NodeId> {
    let stays = serving.without(draining);
    let preferred = config.vips.get(&vip).and_then(|vip| vip.preferred).filter(|node| stays.contains(*node));
    let GroupConfig { members, backups, .. } = config.cluster.groups.get(group.index())?;
    let weight = |m: &NodeId| mix(config.cluster.hash_key.addr(vip) ^ mix(u64::from(m.0) + 1));
    let of = |nodes: &[NodeId], able: NodeSet| {
        nodes.iter().copied().filter(|node| able.contains(*node)).max_by_key(weight)
    };
    let members = preferred.or_else(|| of(members, stays)).or_else(|| of(members, serving));
    members.or_else(|| of(backups, stays)).or_else(|| of(backups, serving))
}

/// Each VIP and the node that answers ARP and ND for it when these nodes serve, of which some are being drained; ascending.
pub fn advertisers(
    config: &Config,
    serving: NodeSet,
    draining: NodeSet,
) -> impl Iterator<Item = (Addr, Option<NodeId>)> {
    // A VIP may stand in several groups, by port; unless it is said who advertises it, the first virtual server that names
    // it decides.
    let mut groups = BTreeMap::new();
    for (_, server) in config.virtual_servers.iter() {
        groups
            .entry(server.address)
            .or_insert_with(|| config.vips.get(&server.address).map_or(server.group, |vip| vip.group));
    }
    groups.into_iter().map(move |(vip, group)| (vip, advertiser(config, group, vip, serving, draining)))
}

/// The VIPs and SNAT addresses that this node answers ARP and ND for when these nodes serve, of which some are being drained;
/// ascending.
pub fn advertised(config: &Config, serving: NodeSet, draining: NodeSet) -> Vec<Addr> {
    let vips = advertisers(config, serving, draining).filter(|(_, node)| *node == Some(config.me));
    // A SNAT address is its node's, which has most of its sessions, as long as that serves; then whoever can takes the replies,
    // since the port says whose they are.
    let snats = config.snats.iter().filter(|(_, snat)| {
        let heir = || advertiser(config, snat.group, snat.address, serving, draining);
        let node = if serving.contains(snat.node) { Some(snat.node) } else { heir() };
        node == Some(config.me)
    });
    let mut all: Vec<_> = vips.map(|(vip, _)| vip).chain(snats.map(|(_, snat)| snat.address)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn owned(config: &Config, interfaces: &[Interface]) -> ExactMap<Addr, Owned> {
    let front = interfaces.iter().filter(|x| !x.backplane);
    let own = front.flat_map(|x| x.addresses.iter().map(|(a, _)| (*a, Owned::Interface)));
    let snats = config.snats.iter().map(|(i, s)| (s.address, Owned::Snat { id: SnatId(i as u16) }));
    let vips = config.virtual_servers.iter().map(|(_, v)| (v.address, Owned::Vip));
    let nodes = config.cluster.nodes.iter().map(|(_, n)| (n.backplane, Owned::Backplane));
    ExactMap::build(own.chain(nodes).chain(snats).chain(vips))
}

/// Whether an interface of this node has `address` on its link.
pub fn on_link(interface: &Interface, address: Addr) -> bool {
    interface.addresses.iter().any(|(own, len)| prefix_holds(*own, *len, address))
}
