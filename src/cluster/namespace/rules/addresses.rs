//! Whose each address is: no two things of a different kind have the same, and only nodes are on the backplane.

use super::super::Namespace;
use super::super::fault::Finding;
use super::super::key::{Key, Kind};
use super::super::object::Object;
use super::super::prefix::{Prefix, contains, last};
use super::Touched;
use crate::base::Addr;

/// Addresses of one kind of thing; VIPs stand in two kinds of object.
const CLASSES: [&[Kind]; 4] =
    [&[Kind::Node], &[Kind::Snat], &[Kind::Vip, Kind::VirtualServer], &[Kind::RealServer]];
/// Untouched objects that are said to be on a backplane's new subnet.
const SAID: usize = 8;

fn class(kind: Kind) -> Option<usize> {
    CLASSES.iter().position(|kinds| kinds.contains(&kind))
}

/// The address that an object has, and the field that says so.
fn address(space: &Namespace, key: &Key) -> Option<(Addr, &'static str)> {
    match (key, &space.get(key)?.object) {
        (_, Object::Node(spec)) => Some((spec.backplane, "backplane")),
        (_, Object::VirtualServer(spec)) => Some((spec.address, "address")),
        (_, Object::RealServer(spec)) => Some((spec.address, "address")),
        (Key::Snat(address) | Key::Vip(address), _) => Some((*address, "address")),
        _ => None,
    }
}

/// What `address` is to `key`, as messages say it.
fn owner(key: &Key) -> String {
    match key {
        Key::Node(name) => format!("the address of node {:?} on the backplane", name.as_str()),
        Key::Snat(_) => "a SNAT address".to_owned(),
        Key::Vip(_) => "a VIP".to_owned(),
        Key::RealServer(server, name) => {
            format!("the address of real_server {:?} of {:?}", name.as_str(), server.as_str())
        }
        key => format!("the address of {} {:?}", key.kind().word(), key.called()),
    }
}

/// Collisions of what was touched with anything.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let subnet = space.backplane();
    for key in touched.keys() {
        let (Some((at, field)), Some(own)) = (address(space, key), class(key.kind())) else { continue };
        if let Some(other) = collision(space, touched, key, at, own) {
            let other_field = address(space, other).map_or("address", |(_, field)| field);
            let finding = Finding::new(key, format!("{at} is {}", owner(other))).field(field);
            let finding = finding.of(other, other_field);
            found.push(match (key.kind(), other.kind()) {
                (Kind::RealServer, Kind::Vip | Kind::VirtualServer) => {
                    finding.hint("name the server's own address")
                }
                _ => finding,
            });
        } else if key.kind() != Kind::Node
            && let Some(subnet) = subnet.filter(|subnet| contains(*subnet, at))
        {
            found.push(on_backplane(key, at, field, subnet));
        }
    }
    // A node or the length of the prefix may have moved the subnet under others.
    if let Some(subnet) = subnet
        && touched.keys().any(|key| matches!(key.kind(), Kind::Cluster | Kind::Node))
    {
        let within = space.index.within(subnet.0, last(subnet)).filter(|(at, _)| contains(subnet, *at));
        let untouched = within.filter(|(_, key)| key.kind() != Kind::Node && !touched.contains_key(key));
        for (at, key) in untouched.take(SAID) {
            found.push(on_backplane(key, *at, "address", subnet));
        }
    }
}

fn on_backplane(key: &Key, at: Addr, field: &str, (network, len): Prefix) -> Finding {
    let message = format!("{at} is on the backplane's subnet {network}/{len}, which only nodes are on");
    Finding::new(key, message).field(field)
}

/// Something else that has the address. Of two that were both touched, the later kind says so, and of two nodes the later.
fn collision<'a>(
    space: &'a Namespace,
    touched: &Touched<'_>,
    key: &Key,
    at: Addr,
    own: usize,
) -> Option<&'a Key> {
    for (class, kinds) in CLASSES.iter().enumerate() {
        if class == own && own != 0 {
            continue;
        }
        let mut holders = kinds.iter().flat_map(|kind| space.index.holders(at, *kind));
        let told_there = |other: &Key| {
            let later =
                class > own || class == own && space.get(other).map(|e| e.id) > space.get(key).map(|e| e.id);
            later && touched.contains_key(other)
        };
        // There may be thousands of holders, but then they are of one class and the first decides for all but its own
        // telling; so few are looked at.
        if let Some(other) = holders.by_ref().take(SAID).find(|other| *other != key && !told_there(other)) {
            return Some(other);
        }
    }
    None
}
