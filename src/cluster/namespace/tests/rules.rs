//! What is refused, and why.

use super::*;

/// Changes that a small namespace refuses, with the whole reason.
macro_rules! refuses {
    ($($name:ident: $([$key:expr, $fields:expr]),+ => $($fault:expr),+;)*) => {
        $(
            #[test]
            fn $name() {
                assert_eq!(refused(&mut small(), &[$(($key, $fields)),+]), [$($fault),+].join("\n"));
            }
        )*
    };
}

refuses! {
    node_in_use: ["node/n2", ""]
        => "node/n2: is in use by group/edge, group/far, snat/10.10.0.102, vip/203.0.113.1 (change or remove those with it)";
    node_of_a_changed_group: ["node/n3", ""], ["group/edge", r#"{"members": ["n1", "n2"], "backups": ["n3"]}"#]
        => "node/n3: is in use by group/edge (change or remove those with it)";
    node_named_anew: ["node/n3", ""], ["group/edge", r#"{"members": ["n3", "n2"]}"#]
        => "group/edge: members: there is no node \"n3\" (there is \"n1\", \"n2\")";
    group_in_use: ["group/edge", ""]
        => "group/edge: is in use by snat/10.10.0.102, vip/203.0.113.1, virtual_server/web (change or remove those with it)";
    profile_in_use: ["profile/slow", ""]
        => "profile/slow: is in use by virtual_server/dns (change or remove those with it)";
    virtual_server_in_use: ["virtual_server/web", ""]
        => "virtual_server/web: is in use by virtual_server/web/real_server/s1, virtual_server/web/real_server/s2, limit/guests (change or remove those with it)";
    last_snat: ["snat/10.10.0.102", ""]
        => "snat/10.10.0.102: is the last IPv4 SNAT address of group \"edge\", and \"nat\" needs one (virtual_server/web) (add another first, or in the same change)";
    last_snat_elsewhere: ["snat/10.10.0.102", r#"{"node": "n2"}"#]
        => "snat/10.10.0.102: is the last IPv4 SNAT address of group \"edge\", and \"nat\" needs one (virtual_server/web) (add another first, or in the same change)";
    last_real_server: ["virtual_server/dns/real_server/s1", ""]
        => "virtual_server/dns: has no real server (add at least one in the same change)";
    last_weight: ["virtual_server/web/real_server/s1", ""]
        => "virtual_server/web: has no real server of a weight above zero";
    last_member: ["group/far", r#"{"members": []}"#] => "group/far: members: has no member";
    last_member_of_weight: ["group/far", r#"{"members": ["n3"]}"#]
        => "group/far: members: no member has a weight above zero, so none would own a flow";
    last_weight_of_a_group: ["node/n2", r#"{"backplane": "10.20.0.12", "workers": 3, "weight": 0}"#]
        => "group/far: members: no member has a weight above zero, so none would own a flow";
    member_and_backup: ["group/far", r#"{"members": ["n2", "n2"], "backups": ["n2"]}"#]
        => "group/far: members: node \"n2\" stands twice", "group/far: backups: node \"n2\" is a member already";
    group_of_all: ["group/all", r#"{"members": ["n1"]}"#]
        => "group/all: name: the group \"all\" exists by itself and has every node (leave it out)";
    snat_of_no_member: ["snat/10.10.0.102", r#"{"node": "n3", "group": "edge"}"#]
        => "snat/10.10.0.102: node: node \"n3\" is no member of group \"edge\" (a member advertises the address)";
    snat_of_no_member_any_more: ["group/edge", r#"{"members": ["n1"]}"#]
        => "snat/10.10.0.102: node: node \"n2\" is no member of group \"edge\" (a member advertises the address)",
           "vip/203.0.113.1: preferred: node \"n2\" is no member of group \"edge\" (a member advertises the address)";
    vip_of_another_group: ["vip/203.0.113.1", r#"{"group": "far"}"#]
        => "vip/203.0.113.1: group: no virtual server at this address is in group \"far\" (virtual_server/web)";
    group_of_a_vip_left: ["virtual_server/web", r#"{"address": "203.0.113.1", "port": 80, "forward": "nat"}"#]
        => "vip/203.0.113.1: group: no virtual server at this address is in group \"edge\" (virtual_server/web)";
    backplane_twice: ["node/n4", r#"{"backplane": "10.20.0.12", "workers": 1}"#]
        => "node/n4: backplane: 10.20.0.12 is the address of node \"n2\" on the backplane (node/n2)";
    backplane_elsewhere: ["node/n4", r#"{"backplane": "10.21.0.12", "workers": 1}"#]
        => "node/n4: backplane: 10.21.0.12 is not on the first node's subnet 10.20.0.0/24 (the backplane has no routers; set cluster.backplane_prefix if it is another)";
    backplane_moved: ["node/n1", r#"{"backplane": "10.21.0.11", "workers": 2}"#]
        => "node/n2: backplane: 10.20.0.12 is not on the first node's subnet 10.21.0.0/24 (the backplane has no routers; set cluster.backplane_prefix if it is another)",
           "node/n3: backplane: 10.20.0.13 is not on the first node's subnet 10.21.0.0/24 (the backplane has no routers; set cluster.backplane_prefix if it is another)";
    management_twice: ["node/n4", r#"{"backplane": "10.20.0.14", "workers": 1, "management": "10.30.0.11:7000"}"#]
        => "node/n4: management: 10.30.0.11:7000 stands twice, first in node/n1";
    backplane_widened_over_others: ["cluster", r#"{"backplane_prefix": 8}"#]
        => "snat/10.10.0.101: address: 10.10.0.101 is on the backplane's subnet 10.0.0.0/8, which only nodes are on",
           "snat/10.10.0.102: address: 10.10.0.102 is on the backplane's subnet 10.0.0.0/8, which only nodes are on",
           "virtual_server/dns/real_server/s1: address: 10.10.0.21 is on the backplane's subnet 10.0.0.0/8, which only nodes are on",
           "virtual_server/web/real_server/s1: address: 10.10.0.21 is on the backplane's subnet 10.0.0.0/8, which only nodes are on",
           "virtual_server/web/real_server/s2: address: 10.10.0.22 is on the backplane's subnet 10.0.0.0/8, which only nodes are on";
    ports_overlap: ["cluster", r#"{"control_port": 6602}"#]
        => "cluster: control_port: 6602 is among the data ports 6600 to 6602 of up to 3 workers";
    ports_run_out: ["node/n1", r#"{"backplane": "10.20.0.11", "workers": 65}"#]
        => "node/n1: workers: 65 is out of range: 1 to 64";
    suspicion_too_short: ["cluster", r#"{"suspicion": "99ms"}"#]
        => "cluster: suspicion: 99ms is less than two heartbeats of 50ms: one lost frame would make a node suspect";
    no_prime: ["cluster", r#"{"maglev_slots": 8}"#] => "cluster: maglev_slots: 8 is no prime (11 is the next one)";
    too_few_slots: ["cluster", r#"{"maglev_slots": 3}"#]
        => "cluster: maglev_slots: 3 is too few: virtual_server \"web\" has 2 real servers, which need more than 4";
    service_twice: ["virtual_server/dns", r#"{"address": "203.0.113.1", "port": 80, "forward": "dsr-l2"}"#]
        => "virtual_server/dns: address: 203.0.113.1 port 80 tcp stands twice, first in virtual_server/web";
    vip_is_a_server: ["virtual_server/dns", r#"{"address": "10.10.0.22", "port": 53, "forward": "dsr-l2"}"#]
        => "virtual_server/dns: address: 10.10.0.22 is the address of real_server \"s2\" of \"web\" (virtual_server/web/real_server/s2)";
    vip_is_a_snat: ["vip/10.10.0.101", "{}"]
        => "vip/10.10.0.101: address: 10.10.0.101 is a SNAT address (snat/10.10.0.101)";
    snat_is_a_vip: ["snat/203.0.113.2", r#"{"node": "n1"}"#]
        => "snat/203.0.113.2: address: 203.0.113.2 is the address of virtual_server \"dns\" (virtual_server/dns)";
    server_is_a_node: ["virtual_server/web/real_server/s2", r#"{"address": "10.20.0.13"}"#]
        => "virtual_server/web/real_server/s2: address: 10.20.0.13 is the address of node \"n3\" on the backplane (node/n3)";
    server_on_the_backplane: ["virtual_server/web/real_server/s2", r#"{"address": "10.20.0.99"}"#]
        => "virtual_server/web/real_server/s2: address: 10.20.0.99 is on the backplane's subnet 10.20.0.0/24, which only nodes are on";
    target_twice: ["virtual_server/web/real_server/s3", r#"{"address": "10.10.0.21", "port": 8080}"#]
        => "virtual_server/web/real_server/s3: address: 10.10.0.21 stands twice, first in virtual_server/web/real_server/s1";
    over_families: ["virtual_server/web/real_server/s3", r#"{"address": "fd10::1"}"#]
        => "virtual_server/web/real_server/s3: address: fd10::1 is IPv6, and the virtual server's 203.0.113.1 is IPv4 (only \"ipip\" and \"gue\" carry one family over the other)";
    other_port: ["virtual_server/dns/real_server/s1", r#"{"address": "10.10.0.21", "port": 54}"#]
        => "virtual_server/dns/real_server/s1: port: 54 is not the virtual server's 53, and only \"nat\" rewrites ports";
    local_nat: ["virtual_server/web", r#"{"address": "203.0.113.1", "port": 80, "forward": "nat", "group": "edge", "ingress": "local"}"#]
        => "virtual_server/web: ingress: \"local\" keeps no state, and forward = \"nat\" needs it (use ingress = \"steered\", or another way to forward)";
    counted_without_nat: ["limit/guests", r#"{"virtual_server": "dns", "connections": 5}"#]
        => "limit/guests: connections: the end of a connection is seen with forward = \"nat\" alone, and virtual_server \"dns\" forwards otherwise";
    nat_left_a_limit: ["virtual_server/web", r#"{"address": "203.0.113.1", "port": 8080, "forward": "ipip", "group": "edge"}"#]
        => "limit/guests: connections: the end of a connection is seen with forward = \"nat\" alone, and virtual_server \"web\" forwards otherwise";
    limit_of_nothing: ["limit/none", r#"{"per": "client"}"#]
        => "limit/none: limits nothing (set at least one of connections, connections_per_second, packets_per_second, bits_per_second)";
    limit_of_nobody: ["limit/none", r#"{"packets_per_second": 0}"#]
        => "limit/none: packets_per_second: 0 is out of range: 1 to 9007199254740992",
           "limit/none: virtual_server: is missing: the limit is one of a virtual server";
    bad_health: ["profile/slow", r#"{"health": {"type": "tcp", "path": "/", "rise": 0}}"#]
        => "profile/slow: health.rise: 0 is out of range: 1 to 100",
           "profile/slow: health.path: means nothing for type = \"tcp\"";
    values_out_of_range: ["virtual_server/web/real_server/s2", r#"{"address": "224.0.0.1", "port": 0, "weight": 10001}"#]
        => "virtual_server/web/real_server/s2: address: 224.0.0.1 is a multicast address",
           "virtual_server/web/real_server/s2: port: 0 is out of range: 1 to 65535",
           "virtual_server/web/real_server/s2: weight: 10001 is out of range: 0 to 10000";
    orphan: ["virtual_server/wbe/real_server/s1", r#"{"address": "10.10.0.29"}"#]
        => "virtual_server/wbe/real_server/s1: virtual_server: there is no virtual_server \"wbe\" (did you mean \"web\"?)";
    nothing_to_remove: ["node/n9", ""] => "node/n9: does not exist";
    twice_in_one_write: ["limit/guests", ""], ["limit/guests", ""] => "limit/guests: is changed twice by one write";
    all_at_once: ["snat/10.10.0.103", r#"{"node": "x"}"#], ["vip/203.0.113.9", r#"{"group": "egde"}"#]
        => "snat/10.10.0.103: node: there is no node \"x\" (there is \"n1\", \"n2\", \"n3\")",
           "vip/203.0.113.9: group: there is no group \"egde\" (did you mean \"edge\"?)";
}

#[test]
fn what_is_refused_alone_passes_together() {
    let mut space = small();
    for (request, changes) in [
        vec![
            ("limit/guests", ""),
            ("virtual_server/web", ""),
            ("virtual_server/web/real_server/s1", ""),
            ("virtual_server/web/real_server/s2", ""),
            ("vip/203.0.113.1", ""),
        ],
        vec![("snat/10.10.0.102", ""), ("group/edge", "")],
        vec![("group/far", ""), ("node/n2", "")],
        vec![
            ("snat/10.10.0.101", ""),
            ("node/n4", r#"{"backplane": "10.21.0.1", "workers": 1}"#),
            ("node/n1", ""),
            ("node/n3", ""),
        ],
        // Two that swap their ports.
        vec![
            ("virtual_server/dns", r#"{"address": "203.0.113.2", "port": 54, "forward": "dsr-l2"}"#),
            ("virtual_server/x", r#"{"address": "203.0.113.2", "port": 53, "forward": "dsr-l2"}"#),
            ("virtual_server/x/real_server/s1", r#"{"address": "10.10.0.21"}"#),
        ],
        vec![
            ("virtual_server/dns", r#"{"address": "203.0.113.2", "port": 53, "forward": "dsr-l2"}"#),
            ("virtual_server/x", r#"{"address": "203.0.113.2", "port": 54, "forward": "dsr-l2"}"#),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let index = request as u64 + 2;
        let changes = changes.iter().map(|(key, fields)| change(key, fields)).collect();
        let outcome = space.apply(index, &write(request as u128 + 2, changes));
        assert_eq!(outcome, Outcome::Applied { index });
    }
    assert_eq!(refused(&mut space, &[("node/n4", "")]), "cluster: the cluster has no node");
}

#[test]
fn a_cluster_begins_with_a_node() {
    let mut space = Namespace::default();
    assert_eq!(refused(&mut space, &[("profile/x", "{}")]), "cluster: the cluster has no node");
    assert_eq!(
        refused(&mut space, &[("node/n1", r#"{"backplane": "10.20.0.11", "workers": 1, "weight": 0}"#)]),
        "cluster: no node has a weight above zero"
    );
}

#[test]
fn ids_run_out() {
    let mut space = small();
    for i in 4..=64 {
        let node = format!(r#"{{"backplane": "10.20.0.{}", "workers": 1}}"#, i + 10);
        let outcome = space.apply(i, &write(i.into(), vec![change("node/new", &node)]));
        assert_eq!(outcome, Outcome::Applied { index: i });
        assert_eq!(space.apply(i, &write(1000 + u128::from(i), vec![change("node/new", "")])), outcome);
    }
    assert_eq!(
        refused(&mut space, &[("node/new", r#"{"backplane": "10.20.0.99", "workers": 1}"#)]),
        "node/new: no id is left: a cluster can have 64 in its life"
    );
}
