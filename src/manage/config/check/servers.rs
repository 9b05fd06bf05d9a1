//! Virtual servers and their real servers.

use super::super::cluster_file::{ClusterFile, RealServer, VirtualServer};
use super::super::error::{At, Problem, Sink};
use super::super::node_file::Port;
use crate::cluster::namespace::prefix::{Prefix, contains};
use super::super::{InterfaceConfig, RealServerConfig, SnatConfig, TableConfig, VirtualServerConfig};
use super::cluster::Groups;
use super::machine::MIN_V6_MTU;
use super::{Claims, Names, Net, Unique, on_backplane, twice};
use crate::base::{Addr, GroupId, NodeId};
use crate::view::{Forward, Ingress, Protocol};
use crate::wire::{gue, ipip};
use std::collections::BTreeMap;

/// The smallest IPv4 packet that must pass a tunnel whole: what every host takes (RFC 791 §3.1).
const MIN_V4_MTU: u16 = 576;

/// The group of all nodes, which stands in front of the listed ones.
const EVERYONE: GroupId = GroupId(0);

/// What virtual servers are checked against; `None` is what could not be made out, and said so.
pub(super) struct Scene<'a> {
    pub sink: &'a Sink,
    pub me: Option<usize>,
    pub ports: Option<&'a [Port]>,
    pub interfaces: Option<&'a [InterfaceConfig]>,
    pub net: Option<&'a Net>,
    pub groups: &'a Groups<'a>,
    pub snats: Option<&'a [SnatConfig]>,
    pub backplane: Option<Prefix>,
    pub claims: &'a Claims,
    pub tables: Option<&'a TableConfig>,
}

/// All virtual servers, in the file's order.
pub(super) fn check(scene: &Scene<'_>, cluster: &ClusterFile) -> Option<Vec<VirtualServerConfig>> {
    let servers = cluster.virtual_servers.as_ref()?;
    Names::new(scene.sink, Some(servers), |server| (&server.item, server.name.as_ref()));
    let mut services = Unique::new();
    let vips: BTreeMap<Addr, &str> =
        servers.iter().rev().filter_map(|s| Some((s.address?.value, s.item.path.as_str()))).collect();
    let configs: Vec<Option<VirtualServerConfig>> = servers
        .iter()
        .map(|server| {
            let udp = server.protocol.map(|p| p.value == Protocol::Udp);
            if let (Some(address), Some(port), Some(udp)) = (server.address, server.port, udp)
                && let Some(first) = services.add((address.value, port.value, udp), address.place)
            {
                let protocol = if udp { "udp" } else { "tcp" };
                let what = format!("{} port {} {protocol}", address.value, port.value);
                scene.sink.error(address.place, server.item.path.as_str(), twice(&what, scene.sink, first));
            }
            check_one(scene, server, &vips)
        })
        .collect();
    configs.into_iter().collect()
}

fn check_one(
    scene: &Scene<'_>,
    server: &VirtualServer,
    vips: &BTreeMap<Addr, &str>,
) -> Option<VirtualServerConfig> {
    let sink = scene.sink;
    let path = server.item.path.as_str();
    if let Some(vip) = &server.address {
        let key = format!("{path}: address");
        _ = scene.claims.conflict(sink, vip, &key) || on_backplane(sink, scene.backplane, vip, &key);
    }
    let group =
        server.group.as_ref().and_then(|name| scene.groups.find(sink, &format!("{path}: group"), name));
    let nat = server.forward.filter(|forward| forward.value == Forward::Nat);
    if let (Some(_), Some(ingress)) = (nat, server.ingress)
        && ingress.value == Ingress::Local
    {
        let problem = Problem::new("\"local\" keeps no state, and forward = \"nat\" needs it");
        sink.error(
            ingress.place,
            format!("{path}: ingress"),
            problem.hint("use ingress = \"steered\", or another way to forward"),
        );
    }
    if let (Some(nat), Some(vip), Some(group), Some(snats), Some(name)) =
        (nat, server.address, group, scene.snats, &server.group)
        && !snats.iter().any(|snat| snat.group == group && snat.address.is_v4() == vip.value.is_v4())
    {
        let family = family(vip.value);
        let message =
            format!("\"nat\" needs an {family} SNAT address of group {:?}, and there is none", name.value);
        let hint = format!("write a [[snat]] with group = {:?} and one of its members as node", name.value);
        sink.error(nat.place, format!("{path}: forward"), Problem::new(message).hint(hint));
    }
    let real_servers = server.real_servers.as_ref()?;
    check_weights(sink, server, real_servers);
    check_real_servers(scene, server, real_servers, vips);
    // Of an unknown group, whose members can't be told, every node is to reach the real servers: an error must not hide others.
    check_paths(scene, server, real_servers, group.unwrap_or(EVERYONE));
    let default_idle = match server.protocol?.value {
        Protocol::Tcp => scene.tables?.established,
        Protocol::Udp => scene.tables?.udp,
    };
    let port = server.port?.value;
    let real_servers = real_servers.iter().map(|real| {
        Some(RealServerConfig {
            name: real.name.as_ref()?.value.clone(),
            address: real.address?.value,
            port: real.port?.map_or(port, |port| port.value),
            weight: real.weight?.value,
        })
    });
    Some(VirtualServerConfig {
        name: server.name.as_ref()?.value.clone(),
        address: server.address?.value,
        port,
        protocol: server.protocol?.value,
        group: group?,
        forward: server.forward?.value,
        ingress: server.ingress?.value,
        idle: server.idle?.map_or(default_idle, |idle| idle.value),
        real_servers: real_servers.collect::<Option<_>>()?,
    })
}

fn family(addr: Addr) -> &'static str {
    if addr.is_v4() { "IPv4" } else { "IPv6" }
}

fn check_weights(sink: &Sink, server: &VirtualServer, real_servers: &[RealServer]) {
    let problem = match real_servers {
        [] => Problem::new("has no real server")
            .hint("write a [[virtual_server.real_server]] below it for each"),
        all if all.iter().all(|real| real.weight.is_some_and(|weight| weight.value == 0)) => {
            Problem::new("has no real server of a weight above zero")
        }
        _ => return,
    };
    sink.error(server.item.place, server.item.path.as_str(), problem);
}

/// What can be said of the real servers without knowing this machine.
fn check_real_servers(
    scene: &Scene<'_>,
    server: &VirtualServer,
    real_servers: &[RealServer],
    vips: &BTreeMap<Addr, &str>,
) {
    let sink = scene.sink;
    Names::new(sink, Some(real_servers), |real| (&real.item, real.name.as_ref()));
    let mut targets = Unique::new();
    for real in real_servers {
        let path = real.item.path.as_str();
        if let (Some(forward), Some(Some(port)), Some(expected)) = (server.forward, real.port, server.port)
            && forward.value != Forward::Nat
            && port.value != expected.value
        {
            let message = format!(
                "{} is not the virtual server's {}, and only \"nat\" rewrites ports",
                port.value, expected.value
            );
            sink.error(port.place, format!("{path}: port"), Problem::new(message));
        }
        let Some(address) = &real.address else { continue };
        let key = format!("{path}: address");
        if scene.claims.conflict(sink, address, &key) || on_backplane(sink, scene.backplane, address, &key) {
            continue;
        }
        if let Some(owner) = vips.get(&address.value) {
            let problem = Problem::new(format!("{} is the address of {owner}", address.value));
            sink.error(address.place, key, problem.hint("name the server's own address"));
            continue;
        }
        if let Some(port) = real.port {
            let port = port.or(server.port).map(|port| port.value);
            if let Some(first) = targets.add((address.value, port), address.place) {
                sink.error(address.place, key.as_str(), twice(&address.value.to_string(), sink, first));
            }
        }
        if let (Some(vip), Some(forward)) = (server.address, server.forward)
            && matches!(forward.value, Forward::Nat | Forward::DsrL2)
            && vip.value.is_v4() != address.value.is_v4()
        {
            let message = format!(
                "{} is {}, and the virtual server's {} is {}",
                address.value,
                family(address.value),
                vip.value,
                family(vip.value)
            );
            let problem =
                Problem::new(message).hint("only \"ipip\" and \"gue\" carry one family over the other");
            sink.error(address.place, key, problem);
        }
    }
}

/// Whether this node, if it serves the virtual server, reaches its real servers with packets of a useful size.
fn check_paths(scene: &Scene<'_>, server: &VirtualServer, real_servers: &[RealServer], group: GroupId) {
    let (Some(net), Some(interfaces), Some(me)) = (scene.net, scene.interfaces, scene.me) else { return };
    let member = scene.groups.members(group).is_some_and(|members| members.contains(&NodeId(me as u16)));
    let Some(forward) = server.forward.filter(|_| member) else { return };
    let mut small_port_said = false;
    for real in real_servers {
        let Some(address) = real.address else { continue };
        // Such an address is refused anyway; that a default route covers it or not is of no interest.
        if scene.backplane.is_some_and(|subnet| contains(subnet, address.value)) {
            continue;
        }
        let key = server.item.path.as_str();
        let called = real.name.as_ref().map_or(String::new(), |name| format!(" {:?}", name.value));
        let Some(reach) = net.reach(address.value) else {
            let message = format!(
                "real_server{called} {} is not reachable: no interface or route covers it",
                address.value
            );
            let hint = "add a [[route]] to the node file, or an [[interface]] with an address on its link";
            scene.sink.error(address.place, key, Problem::new(message).hint(hint));
            continue;
        };
        if forward.value == Forward::DsrL2 && !reach.on_link {
            let message = format!(
                "real_server{called} {} is behind a router, and \"dsr-l2\" reaches only what is on link of an interface",
                address.value
            );
            scene.sink.error(
                address.place,
                key,
                Problem::new(message).hint("use forward = \"ipip\" or \"gue\""),
            );
        }
        if !small_port_said {
            let port = interfaces[reach.interface].port;
            let problem = scene
                .ports
                .and_then(|ports| too_small(&ports[port.index()], server, &forward, address.value));
            if let Some(problem) = problem {
                scene.sink.error(address.place, format!("{key}: real_server{called}"), problem);
                small_port_said = true; // the other real servers most likely suffer from the same port
            }
        }
    }
}

/// Why `port` can't carry a tunnel's packets to `to`, if it can't.
fn too_small(port: &Port, server: &VirtualServer, forward: &At<Forward>, to: Addr) -> Option<Problem> {
    let (between, called) = match forward.value {
        Forward::Nat | Forward::DsrL2 => return None,
        Forward::Ipip => (0, "ipip"),
        Forward::Gue => (gue::VARIANT_1_LEN, "gue"),
    };
    let (mtu, vip) = (port.mtu?, server.address?);
    let inner = if vip.value.is_v4() { MIN_V4_MTU } else { MIN_V6_MTU };
    let overhead = ipip::outer_len(to) + between;
    let needed = usize::from(inner) + overhead;
    (usize::from(mtu.value) < needed).then(|| {
        let message = format!(
            "{} has an MTU of {}, and {} packets of {inner} with {overhead} of {called} encapsulation need {needed}",
            port.item.path,
            mtu.value,
            family(vip.value)
        );
        Problem::new(message).hint(format!("set its mtu to {needed} or more; 1500 and {overhead} spare clients a smaller one"))
    })
}
