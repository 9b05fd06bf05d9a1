//! What hangs together: references, uniqueness, reachability, sizes. Every check goes on after an error, and says nothing
//! about what rests on a value that was refused already. What holds of the cluster whatever the node is for the namespace's
//! rules to say; here stands what is this node's own, and how the two suit each other.

mod fit;
mod machine;
mod report;

pub(super) use fit::Machine;

use super::cluster_file::ClusterFile;
use super::error::{At, Place, Problem, Sink};
use super::node_file::{Item, NodeFile};
use super::shared::Shared;
use super::{Config, LogConfig, LogTls};
use crate::base::{Addr, HashKey};
use crate::cluster::namespace::prefix::{Prefix, contains, host_len, network};
use crate::cluster::namespace::text::nearest;
use crate::cluster::namespace::{Key, Kind, Name, Namespace, Object};
use report::Report;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Which key of the two derived from the cluster's secret is which ([`HashKey::derive`]).
const HASH_DOMAIN: u64 = 1;
const AUTH_DOMAIN: u64 = 2;

/// The namespace that a cluster file makes, with every error in `sink`.
pub(super) fn space(sink: &Sink, cluster: &ClusterFile) -> Namespace {
    let read = cluster.objects.iter().filter_map(|placed| Some((placed.key.clone(), placed.object.clone()?)));
    let (space, findings) = Namespace::draft(read);
    let report = Report::new(sink, cluster);
    findings.iter().for_each(|finding| report.finding(finding));
    space
}

/// The configuration, if everything of it is there; what isn't has an error in `sink`. `top` is the node file's first line, and
/// `directory` where it lies.
pub(super) fn check(
    sink: &Sink,
    node: NodeFile,
    cluster: &ClusterFile,
    secret: Option<Vec<u8>>,
    (top, directory): (Place, &Path),
    cores: Option<&[usize]>,
) -> Option<Config> {
    let space = space(sink, cluster);
    let listed = || cluster.objects.iter().filter(|placed| placed.key.kind() == Kind::Node);
    let names: Vec<String> = listed().map(|placed| placed.key.called()).collect();
    let index = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let known = Names { index, complete: !cluster.unsure.contains(&Kind::Node) };
    let name = node.name.as_ref();
    let name = name.filter(|name| known.find(sink, "node.name", name, "node").is_some());
    let name = name.and_then(|name| Name::new(&name.value).ok());
    let own = name.as_ref().and_then(|name| cluster.find(&Key::Node(name.clone())));
    let expected = own.and_then(|placed| match &placed.object {
        Some(Object::Node(spec)) => Some(At { value: spec.workers, place: placed.place("workers") }),
        _ => None,
    });
    let me = name.as_ref().and_then(|name| Some(space.node(name)?.0));

    let workers = machine::workers(sink, &node, expected, cores);
    let count = node.count.flatten().or(expected).map(|count| count.value);
    let node_count = known.complete.then_some(names.len());
    let backplane = space.backplane();
    let ports = machine::ports(sink, &node, count, node_count, top);
    machine::check_backplane_mtu(sink, &node, node_count, backplane);
    machine::check_memory(sink, &node, count);
    let interfaces = machine::interfaces(sink, &node, backplane);
    let routes = machine::routes(sink, &node, interfaces.as_deref());
    if let Some(interfaces) = &interfaces {
        let report = Report::new(sink, cluster);
        let machine = Machine::new(interfaces, routes.as_deref().unwrap_or(&[]), ports.as_deref());
        machine.taken(&space).for_each(|misfit| report.misfit(&misfit, &node));
        // Without the routes, everything would seem to be out of reach.
        if routes.is_some() {
            let misfits = space.virtual_servers().flat_map(|(_, name, _)| machine.paths(&space, me, name));
            misfits.for_each(|misfit| report.misfit(&misfit, &node));
        }
    }

    let log = log_config(sink, &node, cluster, directory);

    let secret = secret?;
    let keys = (HashKey::derive(&secret, HASH_DOMAIN), HashKey::derive(&secret, AUTH_DOMAIN));
    if !sink.is_empty() {
        return None;
    }
    let tables = node.tables?;
    let Shared { cluster, snats, vips, virtual_servers } = Shared::of(&space, keys, &tables, None)?;
    Some(Config {
        me: me?,
        admin_socket: node.admin_socket?,
        workers: workers?,
        tables,
        dpdk: node.dpdk?,
        ports: ports?,
        interfaces: interfaces?,
        routes: routes?,
        log: log?,
        cluster,
        snats,
        vips,
        virtual_servers,
        real_server_ids: space.ids(Kind::RealServer),
    })
}

/// How the node takes part in the log, if its file says so. None: it's wrong, and that was said.
fn log_config(
    sink: &Sink,
    node: &NodeFile,
    cluster: &ClusterFile,
    directory: &Path,
) -> Option<Option<Arc<LogConfig>>> {
    let Some(log) = node.log.as_ref()? else { return Some(None) };
    let nodes: Vec<_> = cluster.objects.iter().filter(|placed| placed.key.kind() == Kind::Node).collect();
    let mut wrong = false;
    if nodes.len() > 1 {
        if log.tls.is_none() {
            let problem =
                Problem::new("`ca`, `certificate` and `key` are missing: the nodes know each other by them");
            sink.error(
                log.item.place,
                log.item.path.as_str(),
                problem.hint("`steerage cluster init` makes them"),
            );
            wrong = true;
        }
        for placed in &nodes {
            if matches!(&placed.object, Some(Object::Node(spec)) if spec.management.is_none()) {
                let what = format!("node \"{}\"", placed.key.called());
                let problem =
                    Problem::new("`management` is missing: nodes with a log reach each other there");
                sink.error(placed.place("name"), what, problem);
                wrong = true;
            }
        }
    }
    let tls = log.tls.clone().map(|paths| {
        let [ca, certificate, key] = paths.map(|path| directory.join(path));
        LogTls { ca, certificate, key }
    });
    let objects =
        cluster.objects.iter().filter_map(|placed| Some((placed.key.clone(), placed.object.clone()?)));
    let log = LogConfig {
        directory: directory.join(&log.directory),
        tls,
        stateless_without_quorum: log.stateless_without_quorum,
        witnesses: log.witnesses.clone(),
        objects: objects.collect(),
    };
    (!wrong).then(|| Some(Arc::new(log)))
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
        if let Some((owner, place)) = self.0.get(&addr.value) {
            let message = format!("{} is the address of {owner} ({})", addr.value, sink.show(*place));
            sink.error(addr.place, key, Problem::new(message));
            return false;
        }
        self.0.insert(addr.value, (owner.to_owned(), addr.place));
        true
    }
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
