//! What all nodes share: members, groups, SNAT addresses, the cluster's settings.

use super::super::cluster_file::{ALL, ClusterFile};
use super::super::error::{At, Place, Problem, Sink};
use crate::cluster::namespace::prefix::{Prefix, contains, host_len, not_on_link};
use super::super::{GroupConfig, NodeConfig, SnatConfig};
use super::{Claims, Names, Unique, on_backplane, subnet, twice};
use crate::base::{GroupId, NodeId};

/// On-link prefix lengths of the backplane unless configured otherwise.
const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 64;

/// The backplane's subnet, as the first node's address and the prefix length have it.
pub(super) fn backplane(sink: &Sink, cluster: &ClusterFile) -> Option<Prefix> {
    let first = cluster.nodes.as_ref()?.iter().find_map(|node| node.backplane)?;
    let longest = host_len(first.value);
    match cluster.backplane_prefix? {
        None if first.value.is_v4() => Some(subnet(first.value, V4_PREFIX)),
        None => Some(subnet(first.value, V6_PREFIX)),
        Some(len) if len.value <= longest => Some(subnet(first.value, len.value)),
        Some(len) => {
            let message = format!("{} is no prefix length of {}: 1 to {longest}", len.value, first.value);
            sink.error(len.place, "cluster.backplane_prefix", Problem::new(message));
            None
        }
    }
}

/// Ports, times, sizes.
pub(super) fn check_settings(sink: &Sink, cluster: &ClusterFile) {
    let workers = cluster.nodes.iter().flatten().filter_map(|node| node.workers).map(|w| w.value).max();
    if let (Some(data), Some(workers)) = (cluster.data_port, workers) {
        let last = u32::from(data.value) + u32::from(workers) - 1;
        if last > u32::from(u16::MAX) {
            let message = format!("{} and {workers} workers end at port {last}, beyond 65535", data.value);
            sink.error(data.place, "cluster.data_port", Problem::new(message));
        }
        if let Some(control) = cluster.control_port
            && (u32::from(data.value)..=last).contains(&u32::from(control.value))
        {
            let message = format!(
                "{} is among the data ports {} to {last} of up to {workers} workers",
                control.value, data.value
            );
            sink.error(control.place, "cluster.control_port", Problem::new(message));
        }
    }
    if let (Some(heartbeat), Some(suspicion)) = (cluster.heartbeat, cluster.suspicion)
        && suspicion.value < heartbeat.value * 2
    {
        let message = format!(
            "{:?} is less than two heartbeats of {:?}: one lost frame would make a node suspect",
            suspicion.value, heartbeat.value
        );
        sink.error(suspicion.place, "cluster.suspicion", Problem::new(message));
    }
    if let Some(slots) = cluster.maglev_slots {
        if !is_prime(slots.value) {
            let next = (slots.value..).find(|n| is_prime(*n)).unwrap_or(slots.value);
            let problem =
                Problem::new(format!("{} is no prime", slots.value)).hint(format!("{next} is the next one"));
            sink.error(slots.place, "cluster.maglev_slots", problem);
        }
        let servers = cluster.virtual_servers.iter().flatten();
        let most = servers.filter_map(|v| Some((v.real_servers.as_ref()?.len(), v))).max_by_key(|(n, _)| *n);
        if let Some((count, server)) = most
            && slots.value <= 2 * count
        {
            let message = format!(
                "{} is too few: {} has {count} real servers, which need more than {}",
                slots.value,
                server.item.path,
                2 * count
            );
            sink.error(slots.place, "cluster.maglev_slots", Problem::new(message));
        }
    }
}

/// Whether `n` is a prime, by trial division: `n` is bounded to some millions.
pub(super) fn is_prime(n: usize) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The nodes, whose backplane addresses are claimed. Their names were looked at already.
pub(super) fn nodes(
    sink: &Sink,
    cluster: &ClusterFile,
    backplane: Option<Prefix>,
    top: Place,
    claims: &mut Claims,
) -> Option<Vec<NodeConfig>> {
    let nodes = cluster.nodes.as_ref()?;
    if nodes.is_empty() {
        sink.error(top, "node", Problem::new("the cluster has no node").hint("write a [[node]] for each"));
    }
    for node in nodes {
        let Some(addr) = &node.backplane else { continue };
        let key = format!("{}: backplane", node.item.path);
        if !claims.add(sink, addr, &key, &format!("{} on the backplane", node.item.path)) {
            continue;
        }
        let Some(subnet) = backplane else { continue };
        if addr.value.is_v4() != subnet.0.is_v4() {
            let message =
                format!("{} is of another family than {}, the first node's subnet", addr.value, subnet.0);
            sink.error(addr.place, key, Problem::new(message));
        } else if !contains(subnet, addr.value) {
            let message =
                format!("{} is not on the first node's subnet {}/{}", addr.value, subnet.0, subnet.1);
            let hint = "the backplane has no routers; set cluster.backplane_prefix if it is another";
            sink.error(addr.place, key, Problem::new(message).hint(hint));
        } else if let Some(why) = not_on_link((addr.value, subnet.1)) {
            sink.error(addr.place, key, Problem::new(format!("{} {why}", addr.value)));
        }
    }
    if !nodes.is_empty() && nodes.iter().all(|node| node.weight.is_some_and(|weight| weight.value == 0)) {
        sink.error(top, "node", Problem::new("no node has a weight above zero"));
    }
    nodes
        .iter()
        .map(|node| {
            Some(NodeConfig {
                name: node.name.as_ref()?.value.clone(),
                backplane: node.backplane?.value,
                workers: node.workers?.value,
                weight: node.weight?.value,
            })
        })
        .collect()
}

/// The groups by name; index 0 is that of all nodes.
pub(super) struct Groups<'a> {
    names: Names<'a>,
    /// Members of each group, or `None` where some could not be resolved.
    members: Vec<Option<Vec<NodeId>>>,
    /// All of them, if nothing is wrong with any.
    pub configs: Option<Vec<GroupConfig>>,
}

impl<'a> Groups<'a> {
    pub fn new(sink: &Sink, cluster: &'a ClusterFile, nodes: &Names<'a>) -> Self {
        let listed = cluster.groups.as_deref();
        let mut names = Names::new(sink, listed, |group| (&group.item, group.name.as_ref()));
        // Behind the implicit group.
        names.index.values_mut().for_each(|index| *index += 1);
        names.index.insert(ALL, 0);
        let everyone = cluster.nodes.as_ref().map(|nodes| (0..nodes.len() as u16).map(NodeId).collect());
        let mut members = vec![everyone];
        for group in listed.unwrap_or(&[]) {
            if let Some(name) = group.name.as_ref().filter(|name| name.value == ALL) {
                let message = format!("the group {ALL:?} exists by itself and has every node");
                sink.error(name.place, group.item.path.as_str(), Problem::new(message).hint("leave it out"));
            }
            let resolved =
                group.members.as_ref().and_then(|all| Self::resolve(sink, &group.item.path, all, nodes));
            let weightless = |id: &NodeId| {
                let node = cluster.nodes.as_ref().and_then(|nodes| nodes.get(id.index()));
                node.is_some_and(|node| node.weight.is_some_and(|weight| weight.value == 0))
            };
            if let (Some(members), Some(listed)) = (&resolved, &group.members)
                && !members.is_empty()
                && members.iter().all(weightless)
            {
                let problem = Problem::new("no member has a weight above zero, so none would own a flow");
                sink.error(listed.place, group.item.path.as_str(), problem);
            }
            members.push(resolved);
        }
        let called = std::iter::once(Some(ALL.to_owned()))
            .chain(listed.unwrap_or(&[]).iter().map(|group| Some(group.name.as_ref()?.value.clone())));
        let all = called.zip(&members);
        let configs = all.map(|(name, members)| Some(GroupConfig { name: name?, members: members.clone()? }));
        let configs = if listed.is_some() { configs.collect() } else { None };
        Self { names, members, configs }
    }

    fn resolve(sink: &Sink, path: &str, all: &At<Vec<At<String>>>, nodes: &Names<'_>) -> Option<Vec<NodeId>> {
        let key = format!("{path}: members");
        let mut unique = Unique::new();
        let mut members = Some(Vec::new());
        for name in &all.value {
            if let Some(first) = unique.add(name.value.as_str(), name.place) {
                sink.error(name.place, key.as_str(), twice(&format!("node {:?}", name.value), sink, first));
            }
            match (nodes.find(sink, &key, name, "node"), &mut members) {
                (Some(node), Some(members)) => members.push(NodeId(node as u16)),
                _ => members = None,
            }
        }
        members.map(|mut members| {
            members.sort_unstable();
            members
        })
    }

    /// The group that `key` names.
    pub fn find(&self, sink: &Sink, key: &str, name: &At<String>) -> Option<GroupId> {
        self.names.find(sink, key, name, "group").map(|index| GroupId(index as u16))
    }

    /// Its members, as far as they are known.
    pub fn members(&self, group: GroupId) -> Option<&[NodeId]> {
        self.members.get(group.index())?.as_deref()
    }
}

/// SNAT addresses, which are claimed, in the file's order.
pub(super) fn snats(
    sink: &Sink,
    cluster: &ClusterFile,
    nodes: &Names<'_>,
    groups: &Groups<'_>,
    backplane: Option<Prefix>,
    claims: &mut Claims,
) -> Option<Vec<SnatConfig>> {
    let snats = cluster.snats.as_ref()?;
    let configs: Vec<Option<SnatConfig>> = snats
        .iter()
        .map(|snat| {
            let path = snat.item.path.as_str();
            if let Some(addr) = &snat.address {
                let key = format!("{path}: address");
                // One complaint about an address is enough.
                _ = claims.add(sink, addr, &key, path) && on_backplane(sink, backplane, addr, &key);
            }
            let group =
                snat.group.as_ref().and_then(|name| groups.find(sink, &format!("{path}: group"), name));
            let node =
                snat.node.as_ref().and_then(|name| nodes.find(sink, &format!("{path}: node"), name, "node"));
            if let (Some(group), Some(node), Some(name)) = (group, node, &snat.node)
                && let Some(members) = groups.members(group)
                && !members.contains(&NodeId(node as u16))
            {
                let called = snat.group.as_ref().map_or(ALL, |group| group.value.as_str());
                let message = format!("node {:?} is no member of group {called:?}", name.value);
                let hint = "a member advertises the address";
                sink.error(name.place, format!("{path}: node"), Problem::new(message).hint(hint));
            }
            Some(SnatConfig { address: snat.address?.value, group: group?, node: NodeId(node? as u16) })
        })
        .collect();
    configs.into_iter().collect()
}
