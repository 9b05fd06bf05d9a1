//! What all nodes share.

use super::{Files, refused};
use crate::base::{Addr, GroupId, NodeId};
use std::time::Duration;

refused! {
    node_name_twice: Files::new().cluster("name = \"n2\"", "name = \"n1\" # again").cluster("[\"n2\"]", "[\"n1\"]")
        => ("cluster.toml", "# again", "node \"n1\": the name stands twice, first at cluster.toml:10");
    backplane_twice: Files::new().cluster("\"10.20.0.12\"", "\"10.20.0.11\" # again")
        => ("cluster.toml", "# again", "10.20.0.11 is the address of node \"n1\" on the backplane (cluster.toml:11)");
    backplane_elsewhere: Files::new().cluster("10.20.0.12", "10.20.1.12")
        => ("cluster.toml", "10.20.1.12", "node \"n2\": backplane: 10.20.1.12 is not on the first node's subnet 10.20.0.0/24");
    backplane_of_two_families: Files::new().cluster("10.20.0.12", "fd20::12")
        => ("cluster.toml", "fd20::12", "fd20::12 is of another family");
    backplane_broadcast: Files::new().cluster("10.20.0.12", "10.20.0.255")
        => ("cluster.toml", "10.20.0.255", "is the broadcast address of its network");
    backplane_is_an_interface: Files::new().cluster("10.20.0.11", "10.10.0.11").cluster("10.20.0.12", "10.10.0.12")
        => ("cluster.toml", "backplane = \"10.10.0.11\"", "10.10.0.11 is the address of interface \"lan\""),
           ("node.toml", "addresses", "overlaps the backplane's subnet"),
           ("cluster.toml", "10.10.0.101", "is on the backplane's subnet"),
           ("cluster.toml", "10.10.0.102", "is on the backplane's subnet"),
           ("cluster.toml", "10.10.0.21", "is on the backplane's subnet");
    backplane_prefix_too_long: Files::new().cluster("data_port", "backplane_prefix = 64\ndata_port")
        => ("cluster.toml", "backplane_prefix", "cluster.backplane_prefix: 64 is no prefix length of 10.20.0.11: 1 to 32");
    ports_overlap: Files::new().cluster("control_port = 6599", "control_port = 6602")
        => ("cluster.toml", "control_port", "6602 is among the data ports 6600 to 6602 of up to 3 workers");
    ports_run_out: Files::new().cluster("data_port = 6600", "data_port = 65534")
        => ("cluster.toml", "data_port", "65534 and 3 workers end at port 65536");
    suspicion_too_short: Files::new().cluster("\"400ms\"", "\"99ms\"")
        => ("cluster.toml", "suspicion", "cluster.suspicion: 99ms is less than two heartbeats of 50ms");
    no_prime: Files::new().cluster("65537", "65536")
        => ("cluster.toml", "maglev_slots", "65536 is no prime…65537 is the next one");
    too_few_slots: Files::new().cluster("65537", "3")
        => ("cluster.toml", "maglev_slots", "3 is too few: virtual_server \"web\" has 2 real servers, which need more than 4");
    no_node: Files::new().put("cluster.toml", "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n")
        => ("cluster.toml", "[cluster]", "the cluster has no node"), ("node.toml", "name = \"n1\"", "there is no node \"n1\"");
    no_weight: Files::new().cluster("workers = 2 # n1", "workers = 2\nweight = 0").cluster("workers = 3 # n2", "workers = 3\nweight = 0")
        => ("cluster.toml", "[cluster]", "no node has a weight above zero"),
           ("cluster.toml", "members = [\"n1\"]", "group \"edge\": members: no member"),
           ("cluster.toml", "members = [\"n2\"]", "group \"far\": members: no member");
    group_without_weight: Files::new().cluster("workers = 3 # n2", "workers = 3\nweight = 0")
        => ("cluster.toml", "members = [\"n2\"]", "group \"far\": members: no member has a weight above zero");
    group_twice: Files::new().cluster("name = \"far\"", "name = \"edge\" # again")
        => ("cluster.toml", "# again", "group \"edge\": the name stands twice");
    group_all: Files::new().cluster("name = \"far\"", "name = \"all\"")
        => ("cluster.toml", "name = \"all\"", "the group \"all\" exists by itself");
    group_empty: Files::new().cluster("members = [\"n2\"]", "members = []")
        => ("cluster.toml", "members = []", "group \"far\": members: has no member");
    group_without_members: Files::new().cluster("[[group]]\nname = \"far\"\nmembers = [\"n2\"]\n", "[[group]] # far\nname = \"far\"\n")
        => ("cluster.toml", "# far", "group \"far\": members: has no member");
    group_of_strangers: Files::new().cluster("members = [\"n2\"]", "members = [\"n2\", \"n22\",\n\"n2\"]")
        => ("cluster.toml", "\"n22\"", "group \"far\": members: there is no node \"n22\"…did you mean \"n2\"?"),
           ("cluster.toml", "\"n2\"]", "node \"n2\" stands twice");
    snat_twice: Files::new().cluster("\"10.10.0.102\"", "\"10.10.0.101\" # again")
        => ("cluster.toml", "# again", "snat #2: the address stands twice, first at cluster.toml:24");
    snat_is_an_interface: Files::new().cluster("\"10.10.0.102\"", "\"10.10.0.11\"")
        => ("cluster.toml", "10.10.0.11", "10.10.0.11 is the address of interface \"lan\"");
    snat_on_backplane: Files::new().cluster("\"10.10.0.102\"", "\"10.20.0.102\"")
        => ("cluster.toml", "10.20.0.102", "10.20.0.102 is on the backplane's subnet 10.20.0.0/24");
    snat_of_no_group: Files::new().cluster("address = \"10.10.0.102\"\ngroup = \"edge\"", "address = \"10.10.0.102\"\ngroup = \"egde\"")
        => ("cluster.toml", "egde", "snat #2: group: there is no group \"egde\"…did you mean \"edge\"?");
    snat_of_no_node: Files::new().cluster("node = \"n1\" # edge", "node = \"x\" # edge")
        => ("cluster.toml", "# edge", "snat #2: node: there is no node \"x\"");
    snat_of_no_member: Files::new().cluster("node = \"n1\" # edge", "node = \"n2\" # edge")
        => ("cluster.toml", "# edge", "snat #2: node: node \"n2\" is no member of group \"edge\"");
}

#[test]
fn a_cluster_as_configured() {
    let config = Files::new().good();
    let groups: Vec<_> =
        config.cluster.groups.iter().map(|(_, g)| (g.name.as_str(), g.members.as_slice())).collect();
    assert_eq!(
        groups,
        [("all", &[NodeId(0), NodeId(1)][..]), ("edge", &[NodeId(0)]), ("far", &[NodeId(1)])],
        "in the file's order, behind the implicit one"
    );
    let snats: Vec<_> = config.snats.iter().map(|(_, s)| (s.address, s.group, s.node)).collect();
    assert_eq!(
        snats,
        [
            (Addr::v4([10, 10, 0, 101]), GroupId(0), NodeId(0)),
            (Addr::v4([10, 10, 0, 102]), GroupId(1), NodeId(0))
        ]
    );
    assert_eq!(config.cluster.backplane_prefix, 24);
    assert_eq!(
        (config.cluster.heartbeat, config.cluster.suspicion),
        (Duration::from_millis(50), Duration::from_millis(400))
    );
}

#[test]
fn members_ascend_whatever_their_order() {
    let config = Files::new().cluster("members = [\"n2\"]", "members = [\"n2\", \"n1\"]").good();
    assert_eq!(config.cluster.groups[2].members, [NodeId(0), NodeId(1)]);
}

#[test]
fn the_backplane_may_be_ipv6() {
    let config = Files::new().cluster("10.20.0.11", "fd20::11").cluster("10.20.0.12", "fd20::12").good();
    assert_eq!(config.cluster.backplane_prefix, 64);
}
