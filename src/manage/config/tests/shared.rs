//! From the cluster's namespace to a node's configuration, while it runs.

use super::{Files, refused};
use crate::base::{Addr, Bucket, FlowKey, GroupId, Incarnation, Mac, NodeId, RealServerId, VirtualServerId};
use crate::cluster::namespace::{
    Change, Difference, HealthSpec, Key, Name, Namespace, Object, Outcome, Probe, RequestId, Write,
};
use crate::manage::compile::compile;
use crate::manage::config::{Config, Errors, objects_from};
use crate::path::port::PortCaps;
use crate::view::{Reach, View};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn objects(files: &Files) -> Result<Vec<(Key, Object)>, Errors> {
    objects_from(&|path| files.read(path), Path::new("cluster.toml"))
}

/// The namespace that the good cluster file makes.
fn space() -> Namespace {
    let mut space = Namespace::default();
    let changes = space.diff(&objects(&Files::new()).unwrap());
    apply(&mut space, 1, changes);
    space
}

#[track_caller]
fn apply(space: &mut Namespace, index: u64, changes: Vec<Change>) {
    let write = Write { request: RequestId(index.into()), who: "olga".to_owned(), at: 0, changes };
    assert_eq!(space.apply(index, &write), Outcome::Applied { index });
}

/// A change to fields given as JSON; none: a removal.
fn change(key: &str, fields: &str) -> Change {
    let key: Key = key.parse().unwrap();
    let mut from = serde_json::Deserializer::from_str(fields);
    let value = (!fields.is_empty()).then(|| Object::read(key.kind(), &mut from).unwrap());
    Change { key, expected: None, value }
}

/// Why a node can't serve a namespace.
#[track_caller]
fn unfit(config: &Config, space: &Namespace) -> Vec<String> {
    config.with(space).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_file_and_the_namespace_make_the_same() {
    let config = Files::new().good();
    let mut same = config.with(&space()).unwrap();
    for id in 0..same.virtual_servers.slots() {
        assert_eq!(config.virtual_servers[id].revision, 0, "a file is no log");
        Arc::make_mut(&mut same.virtual_servers[id]).revision = 0;
    }
    assert_eq!(same, config);
}

#[test]
fn what_is_left_alone_is_shared() {
    let mut space = space();
    let config = Files::new().good().with(&space).unwrap();
    let s2 = "virtual_server/web/real_server/s2";
    apply(&mut space, 5, vec![change(s2, r#"{"address": "10.30.0.22", "weight": 9}"#)]);
    let next = config.with(&space).unwrap();
    let same = |id: usize| Arc::ptr_eq(&config.virtual_servers[id], &next.virtual_servers[id]);
    assert_eq!([0, 1, 2].map(same), [false, true, true]);
    assert_eq!(next.virtual_servers[0].real_servers[1].weight, 9);
    // A removal leaves no trace in what is left, and must be seen all the same.
    apply(&mut space, 6, vec![change(s2, "")]);
    let last = next.with(&space).unwrap();
    assert_eq!(last.virtual_servers[0].real_servers.len(), 1);
}

#[test]
fn profiles_are_where_a_virtual_server_says_nothing() {
    let profile = "[[profile]]\nname = \"p\"\nidle = \"9s\"\nhealth = { type = \"udp\", send = \"x\" }\n";
    let files = Files::new()
        .cluster("ingress = \"steered\"", "profile = \"p\"")
        .cluster("idle = \"1h\"", "idle = \"1h\"\nprofile = \"p\"")
        .cluster("weight = 1\n", "weight = 1\nhealth = { type = \"none\" }\n")
        .cluster_end(profile);
    let config = files.good();
    let idles: Vec<u64> = config.virtual_servers.iter().map(|(_, v)| v.idle.as_secs()).collect();
    assert_eq!(idles, [9, 7, 3600]);
    let mut space = Namespace::default();
    let changes = space.diff(&objects(&files).unwrap());
    apply(&mut space, 1, changes);
    let web = Name::new("web").unwrap();
    let server = space.virtual_server(&web).unwrap();
    let health: Vec<Probe> =
        space.real_servers(&web).map(|(_, _, real)| space.health_of(server, real).unwrap().probe).collect();
    assert_eq!(health, [Probe::None, Probe::Udp]);
    // A change of the profile is one of those that name it, and of no other.
    let config = config.with(&space).unwrap();
    apply(&mut space, 7, vec![change("profile/p", r#"{"idle": "8s"}"#)]);
    let next = config.with(&space).unwrap();
    assert_eq!(next.virtual_servers[0].idle, Duration::from_secs(8));
    assert!(Arc::ptr_eq(&config.virtual_servers[1], &next.virtual_servers[1]));
}

#[test]
fn what_is_removed_leaves_a_hole() {
    let (config, mut space) = (Files::new().good(), space());
    let gone = ["virtual_server/dsr", "virtual_server/dsr/real_server/s1", "snat/10.10.0.102", "group/edge"];
    apply(&mut space, 5, gone.map(|key| change(key, "")).into());
    let next = config.with(&space).unwrap();
    assert!(next.virtual_servers.get(1).is_none() && next.snats.get(1).is_none());
    assert!(next.cluster.groups.get(1).is_none());
    assert_eq!((next.virtual_servers.slots(), next.virtual_servers.len()), (3, 2));
    assert_eq!(next.virtual_servers[2].real_servers[0].id, RealServerId(3));
    assert_eq!(next.real_server_ids, 4);
    // The last one of all may be the hole.
    apply(
        &mut space,
        6,
        vec![change("virtual_server/tunnel", ""), change("virtual_server/tunnel/real_server/s1", "")],
    );
    let last = next.with(&space).unwrap();
    assert_eq!((last.virtual_servers.slots(), last.real_server_ids), (3, 4));
    // And what comes after it gets an id of its own.
    apply(
        &mut space,
        7,
        vec![
            change("virtual_server/dsr", r#"{"address": "10.99.0.9", "port": 1, "forward": "ipip"}"#),
            change("virtual_server/dsr/real_server/s1", r#"{"address": "10.10.0.29"}"#),
        ],
    );
    let again = last.with(&space).unwrap();
    assert_eq!(again.virtual_servers[3].real_servers[0].id, RealServerId(4));
}

#[test]
fn what_a_node_cannot_serve() {
    let config = Files::new().good();
    for (changes, expected) in [
        (
            vec![change("node/n1", r#"{"backplane": "10.20.0.11", "workers": 3}"#)],
            "node/n1: workers: 3 here, and the node runs 2",
        ),
        (
            vec![change("vip/10.10.0.11", "{}")],
            "vip/10.10.0.11: address: 10.10.0.11 is the address of interface \"lan\"",
        ),
        (
            vec![change("virtual_server/web/real_server/s1", r#"{"address": "10.31.0.22"}"#)],
            "virtual_server/web: real_server \"s1\" 10.31.0.22 is not reachable: no interface or route covers it \
             (add a [[route]] to the node file, or an [[interface]] with an address on its link)",
        ),
        (
            vec![
                change("node/n1", r#"{"backplane": "10.10.1.11", "workers": 2}"#),
                change("node/n2", r#"{"backplane": "10.10.1.12", "workers": 3}"#),
            ],
            "",
        ),
    ] {
        let mut space = space();
        apply(&mut space, 5, changes);
        if expected.is_empty() {
            config.with(&space).unwrap();
        } else {
            assert_eq!(unfit(&config, &space), [expected]);
        }
    }
    let mut space = space();
    let keys =
        ["virtual_server/dsr", "virtual_server/dsr/real_server/s1", "snat/10.10.0.101", "snat/10.10.0.102"];
    let mut changes: Vec<Change> = keys.map(|key| change(key, "")).into();
    changes.extend(
        ["virtual_server/web", "virtual_server/web/real_server/s1", "virtual_server/web/real_server/s2"]
            .map(|key| change(key, "")),
    );
    changes.extend(["group/edge", "node/n1"].map(|key| change(key, "")));
    apply(&mut space, 5, changes);
    assert_eq!(unfit(&config, &space), ["node/n1: is this node, and does not exist"]);
}

#[test]
fn a_node_that_joins_a_group_has_to_reach_its_servers() {
    // Far's real server is out of reach of this node, which is no member.
    let far = "[[virtual_server]]\nname = \"off\"\naddress = \"10.99.0.9\"\nport = 80\nforward = \"ipip\"\ngroup = \"far\"\n\
               [[virtual_server.real_server]]\nname = \"r\"\naddress = \"10.31.0.22\"\n";
    let files = Files::new().cluster_end(far);
    let config = files.good();
    let mut space = Namespace::default();
    let changes = space.diff(&objects(&files).unwrap());
    apply(&mut space, 1, changes);
    apply(&mut space, 2, vec![change("group/far", r#"{"members": ["n1", "n2"]}"#)]);
    assert!(
        unfit(&config, &space)[0]
            .starts_with("virtual_server/off: real_server \"r\" 10.31.0.22 is not reachable")
    );
}

#[test]
fn the_file_alone_is_checked_too() {
    // The key is the nodes' own business.
    let files = Files::new().cluster("key = \"000102030405060708090a0b0c0d0e0f\"", "key_file = \"nowhere\"");
    assert_eq!(objects(&files).unwrap(), objects(&Files::new()).unwrap());
    let errors =
        objects(&Files::new().cluster("65537", "65536").cluster("weight = 1", "weight = -1")).unwrap_err();
    assert_eq!(errors.0.len(), 2, "{errors}");
    assert!(objects(&Files::new().cluster("[[group]]\nname = \"far\"", "[[group]\nname = \"far\"")).is_err());
    assert!(objects_from(&|_| Err(std::io::ErrorKind::NotFound.into()), Path::new("x")).is_err());
}

#[test]
fn a_file_is_applied_by_its_difference() {
    let space = space();
    let files = Files::new().cluster("weight = 0", "weight = 5").cluster("idle = \"1h\"", "");
    let changes = space.diff(&objects(&files).unwrap());
    let shown: Vec<String> = space.describe(&changes).iter().map(Difference::to_string).collect();
    assert_eq!(
        shown,
        ["~ virtual_server/web/real_server/s2: weight 0 → 5", "~ virtual_server/tunnel: idle \"1h\" → unset"]
    );
}

#[test]
fn new_fields() {
    let files = Files::new()
        .cluster("workers = 2 # n1", "workers = 2\nmanagement = \"[fd30::1]:6601\"")
        .cluster("members = [\"n1\"]", "members = [\"n1\"]\nbackups = [\"n2\"]")
        .cluster_end("[[vip]]\naddress = \"10.99.0.1\"\npreferred = \"n2\"\n[[limit]]\nname = \"l\"\nper = \"client\"\nbits_per_second = 5\n")
        .cluster("forward = \"gue\"", "forward = \"gue\"\nhealth = { type = \"icmp\" }\nslow_start = \"5s\"");
    let config = files.good();
    assert_eq!(config.cluster.nodes[0].management, Some("[fd30::1]:6601".parse().unwrap()));
    assert_eq!(config.cluster.groups[1].backups, [NodeId(1)]);
    assert_eq!(config.vips.values().next().unwrap().preferred, Some(NodeId(1)));
    let objects = objects(&files).unwrap();
    let tunnel = objects.iter().find(|(key, _)| key.to_string() == "virtual_server/tunnel").unwrap();
    let Object::VirtualServer(spec) = &tunnel.1 else { panic!() };
    assert_eq!(spec.health.as_deref(), Some(&HealthSpec::new(Probe::Icmp)));
    assert_eq!(spec.slow_start, Some(Duration::from_secs(5)));
}

refused! {
    management: Files::new().cluster("workers = 2 # n1", "workers = 2\nmanagement = \"n1:6601\"")
        => ("cluster.toml", "management", "node \"n1\": management: \"n1:6601\" is no address with a port");
    health_of_another_type: Files::new().cluster("weight = 1\n", "weight = 1\nhealth = { type = \"tcp\", path = \"/\" }\n")
        => ("cluster.toml", "health", "real_server \"s1\": health.path: means nothing for type = \"tcp\"");
    health_typo: Files::new().cluster("weight = 1\n", "weight = 1\nhealth = { type = \"tcp\", intervall = \"1s\" }\n")
        => ("cluster.toml", "health", "real_server \"s1\": health: unknown field `intervall`");
    health_is_no_word: Files::new().cluster("weight = 1\n", "weight = 1\nhealth = \"tcp\"\n")
        => ("cluster.toml", "health", "health: expected a table, found a string");
    health_in_its_own_table: Files::new().cluster("weight = 1\n", "weight = 1\n[virtual_server.real_server.health]\ntype = \"http\"\nrise = 0\n")
        => ("cluster.toml", "[virtual_server.real_server.health]", "health.rise: 0 is out of range: 1 to 100");
    backup_is_a_member: Files::new().cluster("members = [\"n1\"]", "members = [\"n1\"]\nbackups = [\"n2\",\n\"n1\", # member\n]")
        => ("cluster.toml", "# member", "group \"edge\": backups: node \"n1\" is a member already");
    profile_unknown: Files::new().cluster("ingress = \"steered\"", "profile = \"p\"")
        => ("cluster.toml", "profile", "virtual_server \"web\": profile: there is no profile \"p\"");
    vip_of_a_stranger: Files::new().cluster_end("[[vip]]\naddress = \"fd99::2\"\ngroup = \"edge\"\npreferred = \"n2\" # stranger\n")
        => ("cluster.toml", "# stranger", "vip #1: preferred: node \"n2\" is no member of group \"edge\"");
    persistence_of_nobody: Files::new().cluster_end("[[persistence]]\nvirtual_server = \"wep\" # wep\n")
        => ("cluster.toml", "# wep", "there is no virtual_server \"wep\"");
    persistence_with_a_long_prefix: Files::new().cluster_end("[[persistence]]\nvirtual_server = \"web\"\nprefix_v4 = 33 # long\n")
        => ("cluster.toml", "# long", "33 is out of range: 1 to 32");
    persistence_for_a_moment: Files::new().cluster_end("[[persistence]]\nvirtual_server = \"web\"\ntimeout = \"1s\" # short\n")
        => ("cluster.toml", "# short", "1s is too short: at least 2s");
    limit_without_a_bound: Files::new().cluster_end("[[limit]] # limit\nname = \"l\"\nvirtual_server = \"web\"\n")
        => ("cluster.toml", "# limit", "limit \"l\": limits nothing");
    // What names something that could not be read isn't blamed for it.
    broken_things_are_there: Files::new().cluster("backplane = \"10.20.0.12\"", "backplane = \"10.20.0\"")
            .cluster("address = \"10.10.0.101\"", "address = \"10.10.0\"").cluster("address = \"10.10.0.102\"", "address = \"10.10\"")
        => ("cluster.toml", "\"10.20.0\"", "is no IPv4 or IPv6 address"), ("cluster.toml", "\"10.10.0\"", "is no IPv4"),
           ("cluster.toml", "\"10.10\"", "is no IPv4");
}

/// What the packet path indexes by id reaches as far as ids do, and nothing leads to a hole.
#[test]
fn a_view_has_holes_that_nothing_leads_to() {
    let (config, mut space) = (Files::new().good(), space());
    let gone = ["virtual_server/dsr", "virtual_server/dsr/real_server/s1", "snat/10.10.0.102", "group/edge"];
    let gone = gone.into_iter().chain(["virtual_server/tunnel", "virtual_server/tunnel/real_server/s1"]);
    apply(&mut space, 5, gone.map(|key| change(key, "")).collect());
    let caps = vec![PortCaps { mac: Mac([2; 6]), mtu: 1700 }; 2];
    let before = compile(&config, Incarnation(1), &caps).unwrap();
    let view = compile(&config.with(&space).unwrap(), Incarnation(1), &caps).unwrap();
    let sizes = |view: &View| {
        let s = &view.services;
        (s.virtual_servers.len(), s.real_servers.len(), s.snats.len(), s.groups.len(), view.nodes.len())
    };
    assert_eq!(sizes(&view), sizes(&before));
    let web = FlowKey::new(Addr::v4([10, 30, 0, 1]), Addr::v4([10, 99, 0, 1]), 1, 80, 6);
    let tunnel = FlowKey::new(Addr::v4([10, 30, 0, 1]), Addr::v4([10, 99, 0, 3]), 1, 81, 6);
    assert_eq!(before.virtual_server(&tunnel), Some(VirtualServerId(2)));
    assert_eq!((view.virtual_server(&web), view.virtual_server(&tunnel)), (Some(VirtualServerId(0)), None));
    assert_eq!(view.owned(&Addr::v4([10, 99, 0, 3])), None);
    assert_eq!(view.owned(&Addr::UNSPECIFIED), None);
    assert_eq!(view.adjacencies.servers[3].adjacency.reach, Reach::No, "its sessions' packets are dropped");
    assert_eq!(view.owner(GroupId(1), Bucket(0)), None);
}
