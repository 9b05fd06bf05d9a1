//! What hangs together: references, uniqueness, reachability, sizes. Every check goes on after an error, and says nothing
//! about what rests on a value that was refused already.

mod cluster;
mod machine;
mod servers;

use super::cluster_file::ClusterFile;
use super::error::{At, Place, Problem, Sink};
use super::node_file::{Item, NodeFile};
use crate::cluster::namespace::prefix::{Prefix, contains, host_len, network};
use crate::cluster::namespace::text::nearest;
use super::{ClusterConfig, Config};
use crate::base::{Addr, HashKey, NodeId};
use std::collections::BTreeMap;

/// Which key of the two derived from the cluster's secret is which ([`HashKey::derive`]).
const HASH_DOMAIN: u64 = 1;
const AUTH_DOMAIN: u64 = 2;

/// The configuration, if everything of it is there; what isn't has an error in `sink`. `tops` are the first lines of the
/// node and the cluster file.
pub(super) fn check(
    sink: &Sink,
    node: NodeFile,
    cluster: ClusterFile,
    tops: (Place, Place),
    cores: Option<&[usize]>,
) -> Option<Config> {
    let (node_top, cluster_top) = tops;
    let mut claims = Claims::default();
    let nodes = Names::new(sink, cluster.nodes.as_deref(), |n| (&n.item, n.name.as_ref()));
    let me = node.name.as_ref().and_then(|name| nodes.find(sink, "node.name", name, "node"));
    let expected = me.and_then(|me| cluster.nodes.as_ref()?[me].workers);
    let workers = machine::workers(sink, &node, expected, cores);
    let count = node.count.flatten().or(expected).map(|count| count.value);

    let node_count = cluster.nodes.as_ref().map(Vec::len);
    let backplane = cluster::backplane(sink, &cluster);
    let ports = machine::ports(sink, &node, count, node_count, node_top);
    machine::check_backplane_mtu(sink, &node, node_count, backplane);
    machine::check_memory(sink, &node, count);
    let interfaces = machine::interfaces(sink, &node, backplane, &mut claims);
    let routes = machine::routes(sink, &node, interfaces.as_deref());
    let net =
        interfaces.as_ref().zip(routes.as_ref()).map(|(interfaces, routes)| Net::new(interfaces, routes));

    cluster::check_settings(sink, &cluster);
    let members = cluster::nodes(sink, &cluster, backplane, cluster_top, &mut claims);
    let groups = cluster::Groups::new(sink, &cluster, &nodes);
    let snats = cluster::snats(sink, &cluster, &nodes, &groups, backplane, &mut claims);
    let scene = servers::Scene {
        sink,
        me,
        ports: node.ports.as_deref(),
        interfaces: interfaces.as_deref(),
        net: net.as_ref(),
        groups: &groups,
        snats: snats.as_deref(),
        backplane,
        claims: &claims,
        tables: node.tables.as_ref(),
    };
    let virtual_servers = servers::check(&scene, &cluster);

    let secret = cluster.secret.as_deref()?;
    Some(Config {
        me: NodeId(me? as u16),
        admin_socket: node.admin_socket?,
        workers: workers?,
        tables: node.tables?,
        dpdk: node.dpdk?,
        ports: ports?,
        interfaces: interfaces?,
        routes: routes?,
        cluster: ClusterConfig {
            hash_key: HashKey::derive(secret, HASH_DOMAIN),
            auth_key: HashKey::derive(secret, AUTH_DOMAIN),
            data_port: cluster.data_port?.value,
            control_port: cluster.control_port?.value,
            heartbeat: cluster.heartbeat?.value,
            suspicion: cluster.suspicion?.value,
            backplane_prefix: backplane?.1,
            maglev_slots: cluster.maglev_slots?.value,
            nodes: members?,
            groups: groups.configs?,
        },
        snats: snats?,
        virtual_servers: virtual_servers?,
    })
}

/// Things that must differ from one another, and where each was seen first.
struct Unique<K>(BTreeMap<K, Place>);

impl<K: Ord> Unique<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Where the same was seen before, if it was.
    fn add(&mut self, key: K, place: Place) -> Option<Place> {
        match self.0.entry(key) {
            std::collections::btree_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(place);
                None
            }
        }
    }
}

/// The names of a list's elements and their indices.
struct Names<'a> {
    index: BTreeMap<&'a str, usize>,
    /// Every element has a name; else one that isn't found may be one that could not be read.
    complete: bool,
}

impl<'a> Names<'a> {
    /// Takes up the names of `elements`, reporting those that stand twice.
    fn new<T>(
        sink: &Sink,
        elements: Option<&'a [T]>,
        name: impl Fn(&'a T) -> (&'a Item, Option<&'a At<String>>),
    ) -> Self {
        let mut names = Self { index: BTreeMap::new(), complete: elements.is_some() };
        let mut unique = Unique::new();
        for (i, element) in elements.unwrap_or(&[]).iter().enumerate() {
            let (item, Some(name)) = name(element) else {
                names.complete = false;
                continue;
            };
            match unique.add(name.value.as_str(), name.place) {
                Some(first) => sink.error(name.place, item.path.as_str(), twice("the name", sink, first)),
                None => _ = names.index.insert(&name.value, i),
            }
        }
        names
    }

    /// The index of the element that `key` names.
    fn find(&self, sink: &Sink, key: &str, name: &At<String>, what: &str) -> Option<usize> {
        let found = self.index.get(name.value.as_str()).copied();
        if found.is_none() && self.complete {
            let near = nearest(self.index.keys().copied(), &name.value);
            let problem = Problem::new(format!("there is no {what} {:?}", name.value));
            let all = || self.index.keys().take(8).map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
            sink.error(
                name.place,
                key,
                match near {
                    Some(near) => problem.hint(format!("did you mean {near:?}?")),
                    None if self.index.is_empty() => problem,
                    None => problem.hint(format!(
                        "there is {}{}",
                        all(),
                        if self.index.len() > 8 { ", …" } else { "" }
                    )),
                },
            );
        }
        found
    }
}

fn twice(what: &str, sink: &Sink, first: Place) -> Problem {
    Problem::new(format!("{what} stands twice, first at {}", sink.show(first)))
}

/// Whose each address is, so that no two have the same.
#[derive(Default)]
struct Claims(BTreeMap<Addr, (String, Place)>);

impl Claims {
    /// Claims `addr` for `owner`; an error, under `key`, if it is another's.
    fn add(&mut self, sink: &Sink, addr: &At<Addr>, key: &str, owner: &str) -> bool {
        let taken = self.conflict(sink, addr, key);
        if !taken {
            self.0.insert(addr.value, (owner.to_owned(), addr.place));
        }
        !taken
    }

    /// Reports, under `key`, that `addr` is taken, if it is.
    fn conflict(&self, sink: &Sink, addr: &At<Addr>, key: &str) -> bool {
        let Some((owner, place)) = self.0.get(&addr.value) else { return false };
        let message = format!("{} is the address of {owner} ({})", addr.value, sink.show(*place));
        sink.error(addr.place, key, Problem::new(message));
        true
    }
}

/// Reports, under `key`, that `addr` is on the backplane's subnet, if it is.
fn on_backplane(sink: &Sink, backplane: Option<Prefix>, addr: &At<Addr>, key: &str) -> bool {
    let Some(subnet) = backplane.filter(|subnet| contains(*subnet, addr.value)) else { return false };
    let message = format!(
        "{} is on the backplane's subnet {}/{}, which only nodes are on",
        addr.value, subnet.0, subnet.1
    );
    sink.error(addr.place, key, Problem::new(message));
    true
}

/// How this node reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    /// Index of the interface.
    interface: usize,
    /// Without a gateway.
    on_link: bool,
}

/// Connected prefixes and routes.
struct Net(Vec<(Prefix, Reach)>);

impl Net {
    fn new(interfaces: &[super::InterfaceConfig], routes: &[super::RouteConfig]) -> Self {
        let connected = interfaces.iter().enumerate().flat_map(|(interface, config)| {
            config.addresses.iter().map(move |prefix| (*prefix, Reach { interface, on_link: true }))
        });
        let routed = routes
            .iter()
            .map(|route| (route.to, Reach { interface: route.interface.index(), on_link: false }));
        Self(connected.chain(routed).collect())
    }

    /// By the longest prefix that covers `addr`.
    fn reach(&self, addr: Addr) -> Option<Reach> {
        let covering = self.0.iter().filter(|(prefix, _)| contains(*prefix, addr));
        covering.max_by_key(|(prefix, _)| prefix.1).map(|(_, reach)| *reach)
    }
}

/// The subnet that `addr` is in.
fn subnet(addr: Addr, len: u8) -> Prefix {
    let len = len.min(host_len(addr));
    (network((addr, len)), len)
}
