//! The cluster itself: settings, nodes, groups, SNAT addresses, VIPs, limits.

use super::super::fault::{Finding, Lack};
use super::super::key::{ALL, Key, Kind, Name};
use super::super::object::{GroupSpec, NodeSpec, Object};
use super::super::prefix::{contains, host_len, not_on_link};
use super::super::{Entry, Namespace};
use super::Touched;
use crate::base::NodeId;
use crate::base::limits::is_prime;
use crate::view::Forward;
use std::collections::BTreeMap;

/// What is wrong because of the change.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let any = |kinds: &[Kind]| touched.keys().any(|key| kinds.contains(&key.kind()));
    if any(&[Kind::Cluster, Kind::Node]) {
        settings(space, found);
    }
    if any(&[Kind::Cluster]) {
        slots(space, found);
    }
    // There are few of these, so all are looked at again.
    if any(&[Kind::Cluster, Kind::Node]) || space.index.count(Kind::Node) == 0 && !space.is_empty() {
        nodes(space, found);
    }
    if any(&[Kind::Node, Kind::Group]) {
        for (key, entry) in space.of(Kind::Group) {
            if let Object::Group(spec) = &entry.object {
                group_weight(space, key, spec, found);
            }
        }
    }
    if any(&[Kind::Group, Kind::Snat]) {
        snats(space, touched, found);
    }
    if any(&[Kind::Group, Kind::Vip, Kind::VirtualServer]) {
        vips(space, touched, found);
    }
    limits(space, touched, found);
}

/// Ports and times.
fn settings(space: &Namespace, found: &mut Vec<Finding>) {
    let (key, cluster) = (&Key::Cluster, space.cluster());
    let workers = space.nodes().map(|(_, _, node)| node.workers).max().unwrap_or(1);
    let data = cluster.data_port;
    let last = u32::from(data) + u32::from(workers.max(1)) - 1;
    if last > u32::from(u16::MAX) {
        let message = format!("{data} and {workers} workers end at port {last}, beyond 65535");
        found.push(Finding::new(key, message).field("data_port"));
    }
    if (u32::from(data)..=last).contains(&u32::from(cluster.control_port)) {
        let message = format!(
            "{} is among the data ports {data} to {last} of up to {workers} workers",
            cluster.control_port
        );
        found.push(Finding::new(key, message).field("control_port"));
    }
    if cluster.suspicion < cluster.heartbeat * 2 {
        let message = format!(
            "{:?} is less than two heartbeats of {:?}: one lost frame would make a node suspect",
            cluster.suspicion, cluster.heartbeat
        );
        found.push(Finding::new(key, message).field("suspicion"));
    }
    if let (Some(len), Some((_, _, first))) =
        (cluster.backplane_prefix, space.nodes().min_by_key(|(id, ..)| *id))
        && len > host_len(first.backplane)
    {
        let longest = host_len(first.backplane);
        let message = format!("{len} is no prefix length of {}: 1 to {longest}", first.backplane);
        found.push(Finding::new(key, message).field("backplane_prefix"));
    }
}

/// The size of Maglev tables.
fn slots(space: &Namespace, found: &mut Vec<Finding>) {
    let slots = space.cluster().maglev_slots as usize;
    let finding = |message: String| Finding::new(&Key::Cluster, message).field("maglev_slots");
    if !is_prime(slots) {
        let next = (slots..).find(|n| is_prime(*n)).unwrap_or(slots);
        found.push(finding(format!("{slots} is no prime")).hint(format!("{next} is the next one")));
    }
    if let Some((server, count)) = space.index.largest()
        && slots <= 2 * count
    {
        found.push(finding(format!(
            "{slots} is too few: virtual_server {:?} has {count} real servers, which need more than {}",
            server.as_str(),
            2 * count
        )));
    }
}

/// The nodes together.
fn nodes(space: &Namespace, found: &mut Vec<Finding>) {
    let all: Vec<(NodeId, &Name, &NodeSpec)> = space.nodes().collect();
    let whole = |message: &str| Finding::new(&Key::Cluster, message).lacking(Lack::Kind(Kind::Node));
    if all.is_empty() {
        found.push(whole("the cluster has no node"));
    } else if all.iter().all(|(_, _, node)| node.weight == 0) {
        found.push(whole("no node has a weight above zero"));
    }
    let Some(subnet) = space.backplane() else { return };
    let mut management = BTreeMap::new();
    for (id, name, node) in all {
        let (key, at) = (Key::Node(name.clone()), node.backplane);
        let finding = |message: String| Finding::new(&key, message).field("backplane");
        if at.is_v4() != subnet.0.is_v4() {
            found.push(finding(format!(
                "{at} is of another family than {}, the first node's subnet",
                subnet.0
            )));
        } else if !contains(subnet, at) {
            let hint = "the backplane has no routers; set cluster.backplane_prefix if it is another";
            let message = format!("{at} is not on the first node's subnet {}/{}", subnet.0, subnet.1);
            found.push(finding(message).hint(hint));
        } else if let Some(why) = not_on_link((at, subnet.1)) {
            found.push(finding(format!("{at} {why}")));
        }
        if let Some(at) = node.management {
            match management.get(&at) {
                Some((first, before)) => {
                    let (later, earlier) = if *first < id { (&key, before) } else { (before, &key) };
                    let finding = Finding::new(later, format!("{at} stands twice")).field("management");
                    found.push(finding.first_in(earlier, "management"));
                }
                None => _ = management.insert(at, (id, key)),
            }
        }
    }
}

/// A group whose members all have weight zero would own nothing.
fn group_weight(space: &Namespace, key: &Key, spec: &GroupSpec, found: &mut Vec<Finding>) {
    let weights: Option<Vec<u32>> =
        spec.members.iter().map(|name| Some(space.node(name)?.1.weight)).collect();
    if weights.is_some_and(|weights| !weights.is_empty() && weights.iter().all(|weight| *weight == 0)) {
        let message = "no member has a weight above zero, so none would own a flow";
        found.push(Finding::new(key, message).field("members"));
    }
}

/// Whether a node belongs to a group, if both are known.
fn is_member(space: &Namespace, group: &Name, node: &Name) -> Option<bool> {
    space.node(node)?;
    if *group == *ALL {
        return Some(true);
    }
    match &space.get(&Key::Group(group.clone()))?.object {
        Object::Group(spec) => Some(spec.members.contains(node)),
        _ => None,
    }
}

/// A member of the group advertises the address, or prefers to.
fn advertised(space: &Namespace, key: &Key, field: &str, group: &Name, node: &Name) -> Option<Finding> {
    let stranger = !is_member(space, group, node)?;
    stranger.then(|| {
        let message = format!("node {:?} is no member of group {:?}", node.as_str(), group.as_str());
        Finding::new(key, message).field(field).hint("a member advertises the address")
    })
}

/// SNAT addresses belong to a group, with their node.
fn snats(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let groups = touched.keys().any(|key| key.kind() == Kind::Group);
    for (key, entry) in chosen(space, Kind::Snat, groups, touched.keys().copied()) {
        if let Object::Snat(spec) = &entry.object {
            found.extend(advertised(space, key, "node", &spec.group, &spec.node));
        }
    }
    // What went, or went to another group, may have been the last that others needed.
    for (key, before) in touched {
        let (Key::Snat(address), Some(Entry { object: Object::Snat(spec), .. })) = (key, before) else {
            continue;
        };
        let (group, v4) = (&spec.group, address.is_v4());
        if !space.index.has_snat(group, v4)
            && let Some(server) = space.index.needs_snat(group, v4)
            && !touched.contains_key(&Key::VirtualServer(server.clone()))
        {
            let family = if v4 { "IPv4" } else { "IPv6" };
            let message = format!("is the last {family} SNAT address of group {:?}", group.as_str());
            let other = Key::VirtualServer(server.clone());
            let finding =
                Finding::new(key, format!("{message}, and \"nat\" needs one")).of(&other, "forward");
            found.push(finding.hint("add another first, or in the same change"));
        }
    }
}

/// All objects of a kind, or those of `keys` that are of it.
fn chosen<'a>(
    space: &'a Namespace,
    kind: Kind,
    all: bool,
    keys: impl Iterator<Item = &'a Key>,
) -> BTreeMap<&'a Key, &'a Entry> {
    if all {
        return space.of(kind).collect();
    }
    keys.filter(|key| key.kind() == kind).filter_map(|key| Some((key, space.get(key)?))).collect()
}

/// A VIP is advertised by a group that serves it.
fn vips(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let groups = touched.keys().any(|key| key.kind() == Kind::Group);
    // A virtual server that came, went or moved bears on the VIP where it is, and where it was.
    let places = touched.iter().flat_map(|(key, before)| [space.get(key), *before]).flatten();
    let served: Vec<Key> = places
        .filter_map(|entry| match &entry.object {
            Object::VirtualServer(server) => Some(Key::Vip(server.address)),
            _ => None,
        })
        .collect();
    let keys = touched.keys().copied().chain(&served);
    for (key, entry) in chosen(space, Kind::Vip, groups, keys) {
        let (Key::Vip(address), Object::Vip(spec)) = (key, &entry.object) else { continue };
        if let Some(node) = &spec.preferred {
            found.extend(advertised(space, key, "preferred", &spec.group, node));
        }
        let group = |key: &Key| match key {
            Key::VirtualServer(name) => space.virtual_server(name).map(|server| &server.group),
            _ => None,
        };
        let mut servers = space.index.holders(*address, Kind::VirtualServer).peekable();
        if let Some(first) = servers.peek().copied()
            && !servers.any(|server| group(server) == Some(&spec.group))
        {
            let message = format!("no virtual server at this address is in group {:?}", spec.group.as_str());
            found.push(Finding::new(key, message).field("group").of(first, "group"));
        }
    }
}

/// A count of connections needs to see them end, which only "nat" does.
fn limits(space: &Namespace, touched: &Touched<'_>, found: &mut Vec<Finding>) {
    let servers = touched.keys().filter(|key| key.kind() == Kind::VirtualServer);
    let dependent = servers.flat_map(|key| space.index.referrers(key));
    let own = touched.keys().copied().filter(|key| key.kind() == Kind::Limit);
    let mut keys: Vec<&Key> = dependent.chain(own).filter(|key| key.kind() == Kind::Limit).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let Some(Entry { object: Object::Limit(spec), .. }) = space.get(key) else { continue };
        let Some(name) = spec.virtual_server.as_ref().filter(|_| spec.connections.is_some()) else {
            continue;
        };
        if space.virtual_server(name).is_some_and(|server| server.forward != Forward::Nat) {
            let message = format!(
                "the end of a connection is seen with forward = \"nat\" alone, and virtual_server {:?} forwards otherwise",
                name.as_str()
            );
            found.push(Finding::new(key, message).field("connections"));
        }
    }
}
