//! Compiling a change gives what compiling all of it gives, and shares what it leaves alone.

mod large;

use super::*;
use crate::base::{FlowKey, Mac, RealServerId, SnatId};
use crate::cluster::namespace::{Change, Key, Namespace, Object, Outcome, RequestId, Write};
use crate::manage::config::{load_from, objects_from};
use crate::path::select;
use crate::table::session::Session;
use crate::view::RealServer;
use crate::wire::backplane::Stage;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const NODE: &str = "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = 1\n\
    [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
    [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
    [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/16\"]\n\
    [[route]]\nto = \"10.64.0.0/10\"\nvia = \"10.10.0.254\"\n";
const CLUSTER: &str = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 31\n\
    [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n\
    [[node]]\nname = \"n2\"\nbackplane = \"10.20.0.12\"\nworkers = 1\n\
    [[group]]\nname = \"g\"\nmembers = [\"n2\"]\n\
    [[snat]]\naddress = \"10.10.0.101\"\nnode = \"n1\"\n\
    [[snat]]\naddress = \"10.10.0.102\"\nnode = \"n2\"\ngroup = \"g\"\n\
    [[virtual_server]]\nname = \"file\"\naddress = \"10.99.0.200\"\nport = 80\nforward = \"nat\"\n\
    [[virtual_server.real_server]]\nname = \"s\"\naddress = \"10.10.9.9\"\n";

fn config() -> Config {
    let read = |path: &Path| match path.to_str() {
        Some("n") => Ok(NODE.to_owned()),
        Some("c") => Ok(CLUSTER.to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    load_from(&read, Path::new("n"), None).unwrap()
}

fn caps(mtu: u16) -> Vec<PortCaps> {
    vec![PortCaps { mac: Mac([2; 6]), mtu }, PortCaps { mac: Mac([3; 6]), mtu: 1700 }]
}

fn change(key: String, fields: Option<String>) -> Change {
    let key: Key = key.parse().unwrap();
    let value = fields
        .map(|fields| Object::read(key.kind(), &mut serde_json::Deserializer::from_str(&fields)).unwrap());
    Change { key, expected: None, value }
}

/// Makes a write, unless the rules are against it.
fn apply(space: &mut Namespace, index: u64, changes: Vec<Change>) -> bool {
    let write = Write { request: RequestId(index.into()), who: "olga".to_owned(), at: 0, changes };
    matches!(space.apply(index, &write), Outcome::Applied { .. })
}

fn space() -> Namespace {
    let mut space = Namespace::default();
    let objects = objects_from(&|_| Ok(CLUSTER.to_owned()), Path::new("c")).unwrap();
    // Not what a configuration made of a file is taken to be of.
    let changes = space.diff(&objects);
    assert!(apply(&mut space, 10, changes));
    space
}

/// The first eight are on link.
fn host(n: u16) -> String {
    if n < 8 { format!("10.10.1.{n}") } else { format!("10.64.{}.{}", n / 250, n % 250) }
}

#[derive(Clone, Debug)]
enum Op {
    Server {
        v: u8,
        forward: u8,
        group: bool,
        idle: u8,
        /// Its port and protocol.
        at: u8,
    },
    NoServer {
        v: u8,
    },
    Real {
        v: u8,
        r: u16,
        host: u16,
        weight: u8,
        port: bool,
    },
    NoReal {
        v: u8,
        r: u16,
    },
    Group {
        both: bool,
    },
    Node {
        there: bool,
    },
    Snat {
        there: bool,
    },
    Mtu {
        large: bool,
    },
    Life,
    /// These have another Ethernet address from now on.
    Moved {
        hosts: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let v = 0..4u8;
    // A chunk is longer than all that a test makes, unless some ids lie apart.
    let r = prop_oneof![4 => 0..4u16, 1 => 4..40u16];
    prop_oneof![
        2 => (v.clone(), 0..4u8, any::<bool>(), 0..2u8, 0..6u8).prop_map(|(v, forward, group, idle, at)| Op::Server { v, forward, group, idle, at: at.saturating_sub(3) }),
        1 => v.clone().prop_map(|v| Op::NoServer { v }),
        6 => (v.clone(), r.clone(), 0..16u16, 0..3u8, any::<bool>()).prop_map(|(v, r, host, weight, port)| Op::Real { v, r, host, weight, port }),
        3 => (v, r).prop_map(|(v, r)| Op::NoReal { v, r }),
        1 => any::<bool>().prop_map(|both| Op::Group { both }),
        1 => any::<bool>().prop_map(|there| Op::Node { there }),
        1 => any::<bool>().prop_map(|there| Op::Snat { there }),
        1 => any::<bool>().prop_map(|large| Op::Mtu { large }),
        1 => Just(Op::Life),
        1 => any::<u8>().prop_map(|hosts| Op::Moved { hosts }),
    ]
}

impl Op {
    fn changes(&self, space: &Namespace) -> Vec<Change> {
        match self {
            Self::Server { v, forward, group, idle, at } => {
                let forward = ["nat", "dsr-l2", "ipip", "gue"][usize::from(*forward)];
                let group = if *group { "g" } else { "all" };
                let fields = format!(
                    r#"{{"address": "10.99.0.{v}", "port": {}, "protocol": "{}", "forward": "{forward}",
                    "group": "{group}", "idle": "{}s"}}"#,
                    80 + at % 2,
                    if *at < 2 { "tcp" } else { "udp" },
                    idle + 5
                );
                // What is there stays.
                let first = change(
                    format!("virtual_server/v{v}/real_server/r0"),
                    Some(format!(r#"{{"address": "{}"}}"#, host(u16::from(*v)))),
                );
                let mut all = vec![change(format!("virtual_server/v{v}"), Some(fields))];
                if space.get(&all[0].key).is_none() {
                    all.push(first);
                }
                all
            }
            Self::NoServer { v } => {
                let server = format!("virtual_server/v{v}");
                let below = format!("{server}/");
                let below =
                    space.iter().map(|(key, _)| key.to_string()).filter(|key| key.starts_with(&below));
                below.chain([server.clone()]).map(|key| change(key, None)).collect()
            }
            Self::Real { v, r, host: at, weight, port } => {
                let port = if *port { r#", "port": 8080"# } else { "" };
                let fields = format!(r#"{{"address": "{}", "weight": {weight}{port}}}"#, host(*at));
                vec![change(format!("virtual_server/v{v}/real_server/r{r}"), Some(fields))]
            }
            Self::NoReal { v, r } => vec![change(format!("virtual_server/v{v}/real_server/r{r}"), None)],
            Self::Group { both } => {
                let members = if *both { r#"["n1", "n2"]"# } else { r#"["n2"]"# };
                vec![change("group/g".to_owned(), Some(format!(r#"{{"members": {members}}}"#)))]
            }
            Self::Node { there } => {
                let fields = there.then(|| r#"{"backplane": "10.20.0.13", "workers": 2}"#.to_owned());
                vec![change("node/n3".to_owned(), fields)]
            }
            Self::Snat { there } => {
                let fields = there.then(|| r#"{"node": "n1"}"#.to_owned());
                vec![change("snat/10.10.0.103".to_owned(), fields)]
            }
            Self::Mtu { .. } | Self::Life | Self::Moved { .. } => Vec::new(),
        }
    }
}

/// Ethernet addresses as some epoch has them; every fifth host keeps silent.
fn resolve(view: &mut View, epochs: &[u8; 256], before: Option<&View>) {
    for hop in view.hops.iter_mut().filter(|hop| !hop.is_vacant()) {
        let last = hop.address.0[15];
        let mac = Mac([2, hop.interface.0, hop.address.0[13], last, epochs[usize::from(last)], 1]);
        hop.mac = (last % 5 != 4).then_some(mac);
    }
    view.link(before);
}

/// All that a View says of what there is, without the numbers of next hops.
fn said(view: &View) -> Vec<String> {
    let place = |hop: Option<HopId>| hop.map(|hop| view.hops[hop.0 as usize]);
    let View { services, adjacencies, .. } = view;
    let mut said = vec![
        format!("{:?}", services.virtual_servers.iter().filter(|v| !v.name.is_empty()).collect::<Vec<_>>()),
        format!("{:?} {:?} {:?}", services.by_service, services.owned, services.local),
        format!("{:?} {:?}", services.groups, services.interfaces),
        format!("{:?} {:?}", services.interface_of, view.advertised),
        format!("{:?} {:?} {:?}", view.me, view.timeouts, view.buckets.len()),
    ];
    said.extend(
        services.groups.iter().flat_map(|g| &g.snats).map(|id| format!("{:?}", services.snats[id.index()])),
    );
    assert_eq!(adjacencies.servers.len(), services.real_servers.len());
    for (i, real) in services.real_servers.iter().enumerate() {
        if real.is_gone() {
            assert_eq!(adjacencies.servers[i].adjacency.reach, crate::view::Reach::No);
            continue;
        }
        let mut way = adjacencies.servers[i].clone();
        way.adjacency.hop = HopId(0);
        said.push(format!(
            "{i} {:?} {:?} {way:?}",
            RealServer { hop: None, ..real.clone() },
            place(real.hop)
        ));
    }
    for (i, node) in view.nodes.iter().enumerate() {
        let ways = [Stage::Owner, Stage::PreviousOwner, Stage::FirstOwner, Stage::Returned].map(|stage| {
            let mut way = adjacencies.at(stage)[i].clone();
            way.hop = HopId(0);
            way
        });
        said.push(format!(
            "{:?} {:?} {ways:?}",
            crate::view::Node { hop: None, ..node.clone() },
            place(node.hop)
        ));
    }
    let mut hops: Vec<String> = Vec::new();
    for (hop, way) in view.hops.iter().zip(&*adjacencies.hops) {
        let mut way = way.clone();
        way.hop = HopId(0);
        assert_eq!(hop.is_vacant(), way.reach == crate::view::Reach::No);
        if !hop.is_vacant() {
            hops.push(format!("{hop:?} {way:?}"));
        }
    }
    hops.sort();
    said.append(&mut hops);
    for address in [[10, 64, 0, 1], [10, 10, 0, 1], [192, 0, 2, 1]] {
        said.push(match services.routes.lookup(Addr::v4(address)) {
            Some(Route::Via(hop)) => format!("{:?}", place(Some(hop))),
            other => format!("{other:?}"),
        });
    }
    said
}

/// What sessions count on for ever, by the ids that they name: where real servers and SNAT addresses are.
fn promised(view: &View) -> impl Iterator<Item = ((bool, usize), (Addr, u16, u8))> {
    let services = &view.services;
    let reals = services.real_servers.iter().map(|real| (real.address, real.port, real.protocol)).enumerate();
    let snats = services.snats.iter().map(|snat| (snat.address, 0, 0)).enumerate();
    let all = reals.map(|(i, place)| ((true, i), place)).chain(snats.map(|(i, place)| ((false, i), place)));
    all.filter(|(_, (address, ..))| *address != Addr::UNSPECIFIED)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2000 }))]

    #[test]
    fn a_change_compiles_to_what_all_of_it_does(ops in proptest::collection::vec(op(), 1..40)) {
        let (mut config, mut space) = (config(), space());
        let (mut mtu, mut life, mut epochs) = (1500, Incarnation(1), [0; 256]);
        let mut view = compile(&config, life, &caps(mtu)).unwrap();
        resolve(&mut view, &epochs, None);
        let mut places = BTreeMap::new();
        for (index, op) in (11..).zip(&ops) {
            match op {
                Op::Mtu { large } => mtu = if *large { 1600 } else { 1500 },
                Op::Life => life = Incarnation(life.0 + 1),
                Op::Moved { hosts } => (0..8).filter(|bit| hosts >> bit & 1 == 1).for_each(|host| epochs[host] += 1),
                _ => {
                    let changes = op.changes(&space);
                    apply(&mut space, index, changes);
                }
            }
            // What this node can't serve is compiled with the next change that makes it fit.
            let Ok(next) = config.with(&space) else { continue };
            let mut all = compile(&next, life, &caps(mtu)).unwrap();
            resolve(&mut all, &epochs, None);
            let mut changed = recompile(&next, life, &caps(mtu), (&config, &view)).unwrap();
            resolve(&mut changed, &epochs, Some(&view));
            for (changed, all) in said(&changed).iter().zip(&said(&all)) {
                prop_assert_eq!(changed, all, "after {:?}", op);
            }
            prop_assert_eq!(said(&changed).len(), said(&all).len());
            for (id, place) in promised(&changed) {
                prop_assert_eq!(places.entry(id).or_insert(place), &place, "{:?} after {:?}", id, op);
            }
            prop_assert_eq!(promised(&changed).count(), places.len(), "all of them still are, after {:?}", op);
            (config, view) = (next, changed);
        }
    }
}

/// A cluster with this many real servers at each of four virtual servers, which are all that it has.
fn large(each: usize) -> (Config, Namespace) {
    let (config, mut space) = (config(), space());
    let slots = change("cluster".to_owned(), Some(r#"{"maglev_slots": 1301}"#.to_owned()));
    assert!(apply(&mut space, 11, vec![slots]));
    for v in 0..4u8 {
        let server = Op::Server { v, forward: 2, group: false, idle: 0, at: 0 };
        let changes = server.changes(&space);
        assert!(apply(&mut space, 12 + 2 * u64::from(v), changes));
        let reals = (1..each as u16)
            .flat_map(|r| Op::Real { v, r, host: 8 + r, weight: 1, port: false }.changes(&space));
        let reals = reals.collect();
        assert!(apply(&mut space, 13 + 2 * u64::from(v), reals));
    }
    let config = config.with(&space).unwrap();
    (config, space)
}

#[test]
fn what_a_change_leaves_alone_is_shared() {
    let (config, mut space) = large(600);
    let view = compile(&config, Incarnation(1), &caps(1500)).unwrap();
    let chunks = view.services.real_servers.len().div_ceil(256);
    let step = |space: &mut Namespace, index: u64, op: Op| {
        let changes = op.changes(space);
        assert!(apply(space, index, changes));
        let next = config.with(space).unwrap();
        let next = recompile(&next, Incarnation(1), &caps(1500), (&config, &view)).unwrap();
        let (old, new) = (&view.services, &next.services);
        let tables: Vec<usize> = (0..old.virtual_servers.len())
            .filter(|id| !old.virtual_servers[*id].maglev.is(&new.virtual_servers[*id].maglev))
            .collect();
        let copied = |shares: &dyn Fn(usize) -> bool| (0..chunks).filter(|chunk| !shares(*chunk)).count();
        let reals = copied(&|chunk| new.real_servers.shares(&old.real_servers, chunk));
        let ways = copied(&|chunk| next.adjacencies.servers.shares(&view.adjacencies.servers, chunk));
        (tables, reals, ways)
    };
    let weight = Op::Real { v: 2, r: 7, host: 8 + 7, weight: 2, port: false };
    assert_eq!(step(&mut space, 50, weight), (vec![3], 0, 0), "shares alone");
    let back = Op::Real { v: 2, r: 7, host: 8 + 7, weight: 1, port: false };
    assert_eq!(step(&mut space, 51, back), (vec![], 0, 0), "as it was");
    let idle = Op::Server { v: 2, forward: 2, group: false, idle: 1, at: 0 };
    assert_eq!(step(&mut space, 52, idle), (vec![], 0, 0), "neither shares nor ways");
    let address = Op::Real { v: 2, r: 7, host: 900, weight: 1, port: false };
    assert_eq!(step(&mut space, 53, address), (vec![3], 2, 2), "one is gone, another is there");
}

#[test]
fn a_next_hop_that_nothing_needs_leaves_its_number_to_another() {
    let (mut config, mut space) = (config(), space());
    let mut view = compile(&config, Incarnation(1), &caps(1500)).unwrap();
    let mut index = 20;
    let mut step = |op: Op| {
        index += 1;
        let changes = op.changes(&space);
        assert!(apply(&mut space, index, changes));
        let next = config.with(&space).unwrap();
        view = recompile(&next, Incarnation(1), &caps(1500), (&config, &view)).unwrap();
        config = next;
        view.clone()
    };
    let real = |r: u16, host: u16| Op::Real { v: 1, r, host, weight: 1, port: r == 2 };
    let first = step(Op::Server { v: 1, forward: 0, group: false, idle: 0, at: 0 });
    let two = step(real(1, 5));
    assert_eq!(two.hops.len(), first.hops.len() + 1);
    let id = two.hops.len() - 1;
    assert_eq!(two.hops[id].address, Addr::v4([10, 10, 1, 5]));
    let shared = step(real(2, 5));
    assert_eq!(shared.hops, two.hops);
    step(Op::NoReal { v: 1, r: 1 });
    let gone = step(Op::NoReal { v: 1, r: 2 });
    assert!(gone.hops[id].is_vacant() && gone.hops.len() == two.hops.len());
    assert_eq!(gone.services.real_servers[RealServerId(2).index()].hop, None, "what was removed has no way");
    let again = step(real(3, 6));
    assert_eq!(again.hops[id].address, Addr::v4([10, 10, 1, 6]));
    assert_eq!((again.hops.len(), again.numbered), (two.hops.len(), first.numbered));
}

#[test]
fn who_reads_the_numbers_of_next_hops_is_told_when_they_are_others() {
    let config = config();
    let view = compile(&config, Incarnation(1), &caps(1500)).unwrap();
    let again =
        |caps: &[PortCaps]| recompile(&config, Incarnation(1), caps, (&config, &view)).unwrap().numbered;
    assert_eq!(again(&caps(1500)), view.numbered);
    // Another interface, as far as can be told.
    assert_ne!(again(&caps(1400)), view.numbered);
}

/// A state that is had anew begins with less than there was: what workers know by number still means something.
#[test]
fn lists_by_id_never_get_shorter() {
    let (first, mut space) = (config(), space());
    let fewer = first.with(&space).unwrap();
    let changes = Op::Server { v: 3, forward: 0, group: false, idle: 0, at: 0 }.changes(&space);
    assert!(apply(&mut space, 20, changes));
    let more = fewer.with(&space).unwrap();
    let lengths = |config: &Config, view: &View| {
        let services = &view.services;
        let lists = (view.nodes.len(), services.groups.len(), services.snats.len());
        (lists, services.virtual_servers.len(), services.real_servers.len(), config.real_server_ids)
    };
    let view = compile(&more, Incarnation(1), &caps(1500)).unwrap();
    // As the namespace was before that.
    let back = more.with(&super::tests::space()).unwrap();
    let after = recompile(&back, Incarnation(1), &caps(1500), (&more, &view)).unwrap();
    assert_eq!(lengths(&back, &after), lengths(&more, &view));
    assert!(lengths(&fewer, &compile(&fewer, Incarnation(1), &caps(1500)).unwrap()) < lengths(&more, &view));
}

/// A session's entry is found by hashes again, when it ends, that were made when it began.
#[test]
fn sessions_stand_under_the_same_hashes_whatever_becomes_of_their_real_server_and_address() {
    let (mut config, mut space) = (config(), space());
    let mut view = compile(&config, Incarnation(1), &caps(1500)).unwrap();
    let mut index = 20;
    let mut step = |mtu: u16, changes: Vec<Change>| {
        index += 1;
        assert!(changes.is_empty() || apply(&mut space, index, changes), "{index}");
        let next = config.with(&space).unwrap();
        view = recompile(&next, Incarnation(1), &caps(mtu), (&config, &view)).unwrap();
        config = next;
        view.clone()
    };
    let none = Namespace::default();
    let at = |at: u8| Op::Server { v: 1, forward: 0, group: false, idle: 0, at }.changes(&none);
    let real = |host: u16| Op::Real { v: 1, r: 1, host, weight: 1, port: false }.changes(&none);
    let snat = |there: bool| Op::Snat { there }.changes(&none);
    let without = |key: &str| change(key.to_owned(), None);
    step(1500, [at(0), snat(true)].concat());
    let first = step(1500, real(5));
    let named = |name: &str| first.services.real_servers.iter().position(|real| real.name == name).unwrap();
    let snat_id = first.services.snats.iter().position(|s| s.address == Addr::v4([10, 10, 0, 103])).unwrap();
    let key = FlowKey::new(Addr::v4([192, 0, 2, 1]), Addr::v4([10, 99, 0, 1]), 999, 80, 6);
    // One with the real server that moves, one with that whose virtual server does.
    let sessions = ["r1", "r0"].map(|name| {
        let mut session = Session::default();
        session.real = RealServerId(named(name) as u32);
        (session.snat, session.snat_port) = (SnatId(snat_id as u16), 0x1005);
        session
    });
    let names = |view: &View| {
        sessions.map(|session| {
            let names = select::names(view, &key, &session);
            (names.forward, names.reply.unwrap())
        })
    };
    let before = names(&first);
    let mut stay = vec![true, true];
    for (what, mtu, changes, going) in [
        ("real server moved", 1500, real(6), Some(0)),
        ("real server gone", 1500, vec![without("virtual_server/v1/real_server/r1")], None),
        ("SNAT address gone", 1500, snat(false), None),
        (
            "nothing but its idle time",
            1500,
            Op::Server { v: 1, forward: 0, group: false, idle: 1, at: 0 }.changes(&none),
            None,
        ),
        ("another port", 1500, at(1), Some(1)),
        ("another protocol", 1500, at(2), None),
        ("another MTU", 1600, Vec::new(), None),
        (
            "all gone",
            1600,
            ["virtual_server/v1/real_server/r0", "virtual_server/v1"].map(without).to_vec(),
            None,
        ),
    ] {
        let view = step(mtu, changes);
        assert_eq!(names(&view), before, "{what}");
        going.iter().for_each(|gone| stay[*gone] = false);
        let ways = sessions.map(|session| view.services.real_servers[session.real.index()].hop.is_some());
        assert_eq!(ways.to_vec(), stay, "{what}");
    }
    // A control: without what was known before, they would not.
    assert_ne!(names(&compile(&config, Incarnation(1), &caps(1600)).unwrap()), before);
}

/// Of the nodes that serve, one that is being drained answers for a VIP only if there is no other.
#[test]
fn the_vip_of_a_node_that_is_drained_is_anothers() {
    let config = config();
    let owner = |serving: NodeSet, draining: NodeSet| {
        let mut all = advertisers(&config, serving, draining);
        all.find(|(vip, _)| *vip == Addr::v4([10, 99, 0, 200])).and_then(|(_, node)| node)
    };
    let both = NodeSet(3);
    let first = owner(both, NodeSet::EMPTY).unwrap();
    assert_eq!(owner(both, NodeSet::of(first)), Some(NodeId(1 - first.0)));
    assert_eq!(owner(both, both), Some(first));
    assert_eq!(owner(NodeSet::of(first), NodeSet::of(first)), Some(first));
    // Sessions there end where they are.
    assert!(advertised(&config, both, both).contains(&Addr::v4([10, 10, 0, 101])));
}
