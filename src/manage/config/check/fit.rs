//! Whether a node suits what the cluster is to do: a namespace that is right by itself may still name an address that is one
//! of this node's own, or a real server that it doesn't reach.

use super::super::{InterfaceConfig, PortConfig, RouteConfig};
use super::machine::MIN_V6_MTU;
use super::{Net, subnet};
use crate::base::{Addr, NodeId};
use crate::cluster::namespace::prefix::{contains, overlap};
use crate::cluster::namespace::rules::family;
use crate::cluster::namespace::{
    Fault, GroupSpec, Key, Kind, Name, Namespace, Object, RealServerSpec, VirtualServerSpec,
};
use crate::view::Forward;
use crate::wire::{gue, ipip};

/// The smallest IPv4 packet that must pass a tunnel whole: what every host takes (RFC 791 §3.1).
const MIN_V4_MTU: u16 = 576;
/// Objects of one kind that are said to have an interface's address.
const SAID: usize = 8;

/// What of a node bears on the question.
pub struct Machine<'a> {
    interfaces: &'a [InterfaceConfig],
    /// `None`: not known, and nothing is said of them.
    ports: Option<&'a [PortConfig]>,
    net: Net,
}

/// What doesn't fit.
pub struct Misfit {
    /// What is wrong.
    pub fault: Fault,
    /// Where that stands, if elsewhere than the fault's key and field say: at this object's address.
    pub stands: Option<Key>,
    /// The interface, and the number of its address, that it is about.
    pub interface: Option<(usize, usize)>,
}

fn fault(key: &Key, field: Option<&str>, message: String, hint: Option<&str>) -> Fault {
    let (field, hint) = (field.map(str::to_owned), hint.map(str::to_owned));
    Fault { key: key.clone(), field, message, hint, other: None }
}

impl<'a> Machine<'a> {
    /// A node with these interfaces, routes and ports.
    pub fn new(
        interfaces: &'a [InterfaceConfig],
        routes: &[RouteConfig],
        ports: Option<&'a [PortConfig]>,
    ) -> Self {
        Self { interfaces, ports, net: Net::new(interfaces, routes) }
    }

    /// Addresses of the cluster that are also those of an interface.
    pub fn taken(&self, space: &Namespace) -> impl Iterator<Item = Misfit> {
        let own = self.interfaces.iter().enumerate();
        let own =
            own.flat_map(|(i, x)| x.addresses.iter().enumerate().map(move |(n, (at, _))| ((i, n), *at)));
        own.flat_map(move |(interface, at)| {
            let holders = Kind::ALL.into_iter().flat_map(move |kind| space.holders(at, kind).take(SAID));
            holders.map(move |key| {
                let called = &self.interfaces[interface.0].name;
                let field = if key.kind() == Kind::Node { "backplane" } else { "address" };
                let message = format!("{at} is the address of interface {called:?}");
                Misfit {
                    fault: fault(key, Some(field), message, None),
                    stands: None,
                    interface: Some(interface),
                }
            })
        })
    }

    /// Interfaces whose subnet is (a part of) the backplane's.
    pub fn overlaps(&self, space: &Namespace) -> Vec<Fault> {
        let Some(backplane) = space.backplane() else { return Vec::new() };
        let links = self
            .interfaces
            .iter()
            .flat_map(|x| x.addresses.iter().map(move |(at, len)| (x, subnet(*at, *len))));
        let overlapping = links.filter(|(_, link)| overlap(backplane, *link));
        overlapping
            .map(|(interface, link)| {
                let message = format!(
                    "the backplane's subnet {}/{} overlaps {}/{}, on link of interface {:?}",
                    backplane.0, backplane.1, link.0, link.1, interface.name
                );
                fault(&Key::Cluster, None, message, None)
            })
            .collect()
    }

    /// Whether node `me`, if it serves the virtual server, reaches its real servers with packets of a useful size.
    pub fn paths(&self, space: &Namespace, me: Option<NodeId>, name: &Name) -> Vec<Misfit> {
        let Some(server) = space.virtual_server(name) else { return Vec::new() };
        if !me.is_some_and(|me| serves(space, server, me)) {
            return Vec::new();
        }
        let backplane = space.backplane();
        // Such an address is refused anyway; that a default route covers it or not is of no interest.
        let real_servers = space
            .real_servers(name)
            .filter(|(_, _, real)| !backplane.is_some_and(|subnet| contains(subnet, real.address)));
        let mut found = Vec::new();
        let mut small_port_said = false;
        for (_, called, real) in real_servers {
            let mut path = self.path(name, server, called, real, &mut small_port_said);
            found.append(&mut path);
        }
        found
    }

    fn path(
        &self,
        name: &Name,
        server: &VirtualServerSpec,
        called: &Name,
        real: &RealServerSpec,
        small_port_said: &mut bool,
    ) -> Vec<Misfit> {
        let own = Key::RealServer(name.clone(), called.clone());
        let parent = Key::VirtualServer(name.clone());
        let misfit = |key: &Key, message: String, hint: &str| Misfit {
            fault: fault(key, None, message, Some(hint)),
            stands: Some(own.clone()),
            interface: None,
        };
        let shown = format!("real_server {:?} {}", called.as_str(), real.address);
        let Some(reach) = self.net.reach(real.address) else {
            let message = format!("{shown} is not reachable: no interface or route covers it");
            let hint = "add a [[route]] to the node file, or an [[interface]] with an address on its link";
            return vec![misfit(&parent, message, hint)];
        };
        let mut found = Vec::new();
        if server.forward == Forward::DsrL2 && !reach.on_link {
            let message = format!(
                "{shown} is behind a router, and \"dsr-l2\" reaches only what is on link of an interface"
            );
            found.push(misfit(&parent, message, "use forward = \"ipip\" or \"gue\""));
        }
        if !*small_port_said
            && let Some(ports) = self.ports
            && let Some((message, hint)) =
                too_small(&ports[self.interfaces[reach.interface].port.index()], server, real.address)
        {
            found.push(misfit(&own, message, &hint));
            *small_port_said = true; // the other real servers most likely suffer from the same port
        }
        found
    }
}

/// Whether a node is in a virtual server's group. Of a group that isn't there, every node is: an error must not hide others.
fn serves(space: &Namespace, server: &VirtualServerSpec, me: NodeId) -> bool {
    match space.get(&Key::Group(server.group.clone())).map(|entry| &entry.object) {
        Some(Object::Group(GroupSpec { members, .. })) => {
            members.iter().any(|name| space.node(name).is_some_and(|(id, _)| id == me))
        }
        _ => true,
    }
}

/// Why `port` can't carry a tunnel's packets to `to`, if it can't, and what to do about it.
fn too_small(port: &PortConfig, server: &VirtualServerSpec, to: Addr) -> Option<(String, String)> {
    let (between, called) = match server.forward {
        Forward::Nat | Forward::DsrL2 => return None,
        Forward::Ipip => (0, "ipip"),
        Forward::Gue => (gue::VARIANT_1_LEN, "gue"),
    };
    let (mtu, vip) = (port.device.mtu, server.address);
    let inner = if vip.is_v4() { MIN_V4_MTU } else { MIN_V6_MTU };
    let overhead = ipip::outer_len(to) + between;
    let needed = usize::from(inner) + overhead;
    (usize::from(mtu) < needed).then(|| {
        let message = format!(
            "port {:?} has an MTU of {mtu}, and {} packets of {inner} with {overhead} of {called} encapsulation need {needed}",
            port.device.name,
            family(vip)
        );
        (message, format!("set its mtu to {needed} or more; 1500 and {overhead} spare clients a smaller one"))
    })
}
