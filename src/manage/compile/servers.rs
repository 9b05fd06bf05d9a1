//! Virtual and real servers, of which there may be a million: what a change leaves alone is shared with the View before.

use super::{Before, CompileError, Hops};
use crate::base::hash::siphash13_bytes;
use crate::base::{Addr, GroupId, Tick, VirtualServerId};
use crate::manage::config::{Config, RealServerConfig, VirtualServerConfig};
use crate::table::chunks::{Chunks, Edit};
use crate::table::maglev::{Maglev, Member};
use crate::table::route::RouteTable;
use crate::view::{
    Forward, Hop, HopId, Ingress, Interface, Node, Persistence, Protocol, RealServer, Route, VirtualServer,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What of this machine says where a real server is.
pub(super) struct Machine<'a> {
    pub interfaces: &'a [Interface],
    pub routes: &'a RouteTable<Route>,
}

impl Machine<'_> {
    /// Next hop towards `address`, and the source address for a tunnel to it.
    fn way(&self, address: Addr, hops: &mut Hops) -> Option<(HopId, Addr)> {
        let (hop, interface) = match self.routes.lookup(address)? {
            Route::Via(hop) => (hop, hops.all[hop.0 as usize].interface),
            Route::OnLink(interface) => (hops.id(interface, address), interface),
        };
        Some((hop, self.interfaces[interface.index()].source_for(address)?))
    }
}

/// A real server's place when it was removed: there is no way to it, and sessions that name it end as soon as a worker comes to
/// them. Their hashes follow from where it was, so that stays.
fn gone(was: &RealServer) -> RealServer {
    RealServer { name: String::new(), hop: None, tunnel_source: Addr::UNSPECIFIED, up: false, ..was.clone() }
}

/// The place of one that this node has never had.
fn never() -> RealServer {
    RealServer {
        virtual_server: VirtualServerId(0),
        name: String::new(),
        address: Addr::UNSPECIFIED,
        port: 0,
        protocol: Protocol::Tcp.number(),
        forward: Forward::DsrL2,
        v4: false,
        hop: None,
        tunnel_source: Addr::UNSPECIFIED,
        up: false,
    }
}

fn serves(config: &Config, group: GroupId) -> bool {
    config.cluster.groups.get(group.index()).is_some_and(|group| group.members.contains(&config.me))
}

fn member(servers: &[RealServerConfig], id: usize) -> Option<&RealServerConfig> {
    let at = servers.binary_search_by_key(&id, |real| real.id.index()).ok()?;
    servers.get(at)
}

/// The virtual servers of `new` that `old` has not or otherwise, and the other way round.
fn differing<'a>(
    new: &'a Config,
    old: Option<&'a Config>,
) -> impl Iterator<Item = (usize, Option<&'a VirtualServerConfig>, Option<&'a VirtualServerConfig>)> {
    let slots = old.map_or(0, |old| old.virtual_servers.slots()).max(new.virtual_servers.slots());
    (0..slots).filter_map(move |id| {
        let old = old.and_then(|old| Some((old, old.virtual_servers.get(id)?)));
        let now = new.virtual_servers.get(id);
        let same = matches!((old, now), (Some((config, old)), Some(now))
            if Arc::ptr_eq(old, now) && serves(config, old.group) == serves(new, now.group));
        (!same).then_some((id, old.map(|(_, old)| &**old), now.map(|now| &**now)))
    })
}

/// The real servers by id. `nodes` have their next hops already; `before` is there if ways are what they were, `known` has the
/// ids' real servers so far in any case.
pub(super) fn real_servers(
    config: &Config,
    machine: &Machine<'_>,
    nodes: &[Node],
    hops: &mut Hops,
    before: Option<Before<'_>>,
    known: Option<&Chunks<RealServer>>,
) -> Result<Chunks<RealServer>, CompileError> {
    let none = Chunks::default();
    let list = before.map_or(&none, |b| &b.view.services.real_servers);
    let mut all = list.edit(config.real_server_ids, &never());
    if before.is_none() {
        for (id, was) in known.iter().flat_map(|known| known.iter()).enumerate().take(config.real_server_ids)
        {
            all.set(id, gone(was));
        }
    }
    let old_config = before.map(|b| b.config);
    // Next hops that may not be needed any more.
    let mut idle: BTreeSet<HopId> =
        before.iter().flat_map(|b| &b.view.nodes).filter_map(|node| node.hop).collect();
    for (_, old, now) in differing(config, old_config) {
        for real in old.into_iter().flat_map(|old| &old.real_servers) {
            let id = real.id.index();
            idle.extend(list[id].hop);
            let stays = now.is_some_and(|now| member(&now.real_servers, id).is_some());
            if !stays && id < config.real_server_ids {
                all.set(id, gone(&list[id]));
            }
        }
    }
    for (id, _, now) in differing(config, old_config) {
        let Some(server) = now else { continue };
        let serves = serves(config, server.group);
        for real in &server.real_servers {
            let known = all.get(real.id.index()).filter(|known| known.address == real.address);
            let known = known.and_then(|known| Some((known.hop?, known.tunnel_source)));
            let (hop, tunnel_source) = match (known.or_else(|| machine.way(real.address, hops)), serves) {
                (Some((hop, source)), _) => (Some(hop), source),
                (None, false) => (None, Addr::UNSPECIFIED),
                (None, true) => {
                    let what = format!("real server \"{}\" of \"{}\"", real.name, server.name);
                    return Err(CompileError::Unroutable { what, address: real.address });
                }
            };
            let compiled = RealServer {
                virtual_server: VirtualServerId(id as u32),
                name: real.name.clone(),
                address: real.address,
                port: real.port,
                protocol: server.protocol.number(),
                forward: server.forward,
                v4: server.address.is_v4(),
                hop,
                tunnel_source,
                up: real.up,
            };
            if let Some(hop) = hop {
                idle.remove(&hop);
            }
            all.set(real.id.index(), compiled);
        }
    }
    vacate(idle, config, nodes, &all, hops);
    Ok(all.done())
}

/// Vacates those of `idle` that nothing needs.
fn vacate(
    mut idle: BTreeSet<HopId>,
    config: &Config,
    nodes: &[Node],
    all: &Edit<RealServer>,
    hops: &mut Hops,
) {
    nodes.iter().filter_map(|node| node.hop).for_each(|hop| _ = idle.remove(&hop));
    config.routes.iter().for_each(|route| _ = idle.remove(&hops.id(route.interface, route.via)));
    for hop in all.iter().filter_map(|real| real.hop) {
        // Mostly at once: few changes move or remove a real server.
        if idle.is_empty() {
            return;
        }
        idle.remove(&hop);
    }
    for hop in idle {
        hops.all[hop.0 as usize] = Hop::VACANT;
    }
}

/// The virtual servers by id.
pub(super) fn virtual_servers(config: &Config, before: Option<Before<'_>>) -> Vec<VirtualServer> {
    let (key, slots) = (config.cluster.hash_key, config.cluster.maglev_slots);
    let before = before.filter(|b| {
        let cluster = &b.config.cluster;
        (cluster.hash_key, cluster.maglev_slots) == (key, slots)
    });
    let maglev = |server: &VirtualServerConfig| {
        let members: Vec<Member> = server
            .real_servers
            .iter()
            .map(|real| Member {
                id: real.id,
                name_hash: siphash13_bytes(key, real.name.as_bytes()),
                weight: real.weight,
            })
            .collect();
        Maglev::build(key, &members, slots)
    };
    config.virtual_servers.filled(
        |id, server| {
            let old = before.and_then(|b| {
                Some((b.config.virtual_servers.get(id)?, b.view.services.virtual_servers.get(id)?))
            });
            match old {
                Some((of, old)) if Arc::ptr_eq(of, server) => return old.clone(),
                _ => {}
            }
            let same = old.filter(|(of, _)| same_shares(&of.real_servers, &server.real_servers));
            VirtualServer {
                name: server.name.clone(),
                address: server.address,
                port: server.port,
                protocol: server.protocol,
                group: server.group,
                former: server.former.map(|(group, _)| group),
                forward: server.forward,
                ingress: server.ingress,
                persistence: server.persistence.map(|of| Persistence {
                    ticks: Tick::covering(of.timeout),
                    v4: of.prefix_v4,
                    v6: of.prefix_v6,
                }),
                idle_ticks: Tick::covering(server.idle),
                maglev: same.map_or_else(|| maglev(server), |(_, old)| old.maglev.clone()),
            }
        },
        |_| VirtualServer {
            name: String::new(),
            address: Addr::UNSPECIFIED,
            port: 0,
            protocol: Protocol::Tcp,
            group: GroupId(0),
            former: None,
            forward: Forward::DsrL2,
            ingress: Ingress::Local,
            persistence: None,
            idle_ticks: 1,
            maglev: Maglev::build(key, &[], slots),
        },
    )
}

/// Whether new flows spread alike over both.
fn same_shares(one: &[RealServerConfig], other: &[RealServerConfig]) -> bool {
    let share = |real: &'_ RealServerConfig| (real.id, real.weight);
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| share(a) == share(b) && a.name == b.name)
}
