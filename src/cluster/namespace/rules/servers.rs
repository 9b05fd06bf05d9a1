//! Virtual servers, each with all of its real servers.

use super::super::Namespace;
use super::super::fault::{Finding, Lack};
use super::super::key::{Key, Kind, Name};
use super::super::object::{Object, PersistenceSpec, RealServerSpec, VirtualServerSpec};
use super::Touched;
use crate::base::Addr;
use crate::base::limits::MAX_REAL_SERVERS;
use crate::view::{Forward, Ingress, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// The virtual servers that are touched, or have a real server that is.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let names: BTreeSet<&Name> = touched
        .keys()
        .filter_map(|key| match key {
            Key::VirtualServer(name) | Key::RealServer(name, _) | Key::Persistence(name) => Some(name),
            _ => None,
        })
        .collect();
    for name in names {
        let Some(server) = space.virtual_server(name) else { continue };
        let key = Key::VirtualServer(name.clone());
        if touched.contains_key(&key) {
            service(space, touched, &key, name, server, found);
            forwarding(space, &key, server, found);
        }
        persistence(space, touched, name, server, found);
        size(space, touched, &key, name, found);
        real_servers(space, name, server, found);
    }
}

/// No two have the same address, port and protocol.
fn service(
    space: &Namespace,
    touched: &Touched<'_>,
    key: &Key,
    name: &Name,
    server: &VirtualServerSpec,
    found: &mut Vec<Finding>,
) {
    let udp = server.protocol == Protocol::Udp;
    let id = |name: &Name| space.get(&Key::VirtualServer(name.clone())).map(|entry| entry.id);
    let others = space.index.servers_at((server.address, server.port, udp)).filter(|other| *other != name);
    // Of two that were both touched, the later one says so.
    let first = others
        .filter(|other| id(other) < id(name) || !touched.contains_key(&Key::VirtualServer((*other).clone())));
    if let Some(first) = first.min_by_key(|other| id(other)) {
        let protocol = if udp { "udp" } else { "tcp" };
        let message = format!("{} port {} {protocol} stands twice", server.address, server.port);
        found.push(
            Finding::new(key, message)
                .field("address")
                .first_in(&Key::VirtualServer(first.clone()), "address"),
        );
    }
}

/// What a way to forward needs.
fn forwarding(space: &Namespace, key: &Key, server: &VirtualServerSpec, found: &mut Vec<Finding>) {
    if server.forward != Forward::Nat {
        return;
    }
    if server.ingress == Ingress::Local {
        let finding = Finding::new(key, "\"local\" keeps no state, and forward = \"nat\" needs it");
        found.push(finding.field("ingress").hint("use ingress = \"steered\", or another way to forward"));
    }
    let v4 = server.address.is_v4();
    if space.group_id(&server.group).is_some() && !space.index.has_snat(&server.group, v4) {
        let (family, group) = (family(server.address), server.group.as_str());
        let message = format!("\"nat\" needs an {family} SNAT address of group {group:?}, and there is none");
        let hint = format!("add a SNAT address with group = {group:?} and one of its members as node");
        let finding = Finding::new(key, message).field("forward").hint(hint);
        found.push(finding.lacking(Lack::Kind(Kind::Snat)));
    }
}

/// Whose a flow is follows from its client where clients keep their real servers. So what is there to be served must not change:
/// connections would be looked for where they aren't.
fn persistence(
    space: &Namespace,
    touched: &Touched<'_>,
    name: &Name,
    server: &VirtualServerSpec,
    found: &mut Vec<Finding>,
) {
    let (key, parent) = (Key::Persistence(name.clone()), Key::VirtualServer(name.clone()));
    let now = space.persistence(name);
    if now.is_some() && server.ingress == Ingress::Local {
        let finding = Finding::new(&key, "\"local\" keeps no state, and persistence needs it");
        found.push(finding.of(&parent, "ingress").hint("use ingress = \"steered\""));
    }
    let is_new = touched.get(&parent).is_some_and(Option::is_none);
    let Some(before) = touched.get(&key).filter(|_| !is_new) else { return };
    let prefixes = |spec: &PersistenceSpec| (spec.prefix_v4, spec.prefix_v6);
    let before = before.and_then(|entry| match &entry.object {
        Object::Persistence(spec) => Some(spec),
        _ => None,
    });
    let message = match (before, now) {
        (None, Some(_)) => {
            "would make its connections others' buckets: it comes with its virtual server alone"
        }
        (Some(_), None) => {
            "would make its connections others' buckets: it goes with its virtual server alone"
        }
        (Some(before), Some(now)) if prefixes(before) != prefixes(now) => {
            "other prefixes would make its connections others' buckets"
        }
        _ => return,
    };
    found.push(
        Finding::new(&key, message)
            .hint("add another virtual server, and remove this one once it is drained"),
    );
}

/// Neither too many real servers nor, of any weight, none.
fn size(space: &Namespace, touched: &Touched<'_>, key: &Key, name: &Name, found: &mut Vec<Finding>) {
    let count = space.index.size(name);
    let slots = space.cluster().maglev_slots as usize;
    if count == 0 {
        let finding = Finding::new(key, "has no real server").hint("add at least one in the same change");
        found.push(finding.lacking(Lack::RealServer(key.clone())));
    } else if space.real_servers(name).all(|(_, _, real)| real.weight == 0) {
        let finding = Finding::new(key, "has no real server of a weight above zero");
        found.push(finding.lacking(Lack::RealServer(key.clone())));
    }
    if count > MAX_REAL_SERVERS {
        let message = format!("has {count} real servers, and at most {MAX_REAL_SERVERS} are possible");
        found.push(Finding::new(key, message));
    } else if slots <= 2 * count && !touched.contains_key(&Key::Cluster) {
        let message = format!("has {count} real servers, which need more than {} slots", 2 * count);
        found.push(Finding::new(key, format!("{message}; cluster.maglev_slots is {slots}")));
    }
}

/// The real servers of one virtual server.
fn real_servers(space: &Namespace, name: &Name, server: &VirtualServerSpec, found: &mut Vec<Finding>) {
    let mut targets: BTreeMap<(Addr, u16), Key> = BTreeMap::new();
    let mut all: Vec<_> = space.real_servers(name).collect();
    all.sort_unstable_by_key(|(id, ..)| *id);
    for (_, called, real) in all {
        let key = || Key::RealServer(name.clone(), called.clone());
        match targets.entry((real.address, real.port.unwrap_or(server.port))) {
            std::collections::btree_map::Entry::Occupied(first) => {
                let finding = Finding::new(&key(), format!("{} stands twice", real.address));
                found.push(finding.field("address").first_in(first.get(), "address"));
            }
            std::collections::btree_map::Entry::Vacant(vacant) => _ = vacant.insert(key()),
        }
        found.extend(suits(server, real, &key));
    }
}

/// Whether a real server's port and address suit the way in which it is reached.
fn suits(
    server: &VirtualServerSpec,
    real: &RealServerSpec,
    key: &dyn Fn() -> Key,
) -> impl Iterator<Item = Finding> {
    let port = real.port.filter(|port| server.forward != Forward::Nat && *port != server.port).map(|port| {
        let message =
            format!("{port} is not the virtual server's {}, and only \"nat\" rewrites ports", server.port);
        Finding::new(&key(), message).field("port")
    });
    let crossing = matches!(server.forward, Forward::Nat | Forward::DsrL2)
        && real.address.is_v4() != server.address.is_v4();
    let address = crossing.then(|| {
        let message = format!(
            "{} is {}, and the virtual server's {} is {}",
            real.address,
            family(real.address),
            server.address,
            family(server.address)
        );
        let finding = Finding::new(&key(), message).field("address");
        finding.hint("only \"ipip\" and \"gue\" carry one family over the other")
    });
    port.into_iter().chain(address)
}

/// The family of an address, as messages name it.
pub fn family(address: Addr) -> &'static str {
    if address.is_v4() { "IPv4" } else { "IPv6" }
}
