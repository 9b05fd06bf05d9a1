//! Virtual servers and their real servers.

use super::{Files, refused};
use crate::base::{Addr, GroupId};
use crate::view::{Forward, Ingress, Protocol};
use std::time::Duration;

/// A virtual server to put behind the others.
fn extra(address: &str, port: u16, keys: &str, real: &str) -> String {
    format!(
        "[[virtual_server]]\nname = \"extra\"\naddress = \"{address}\" # vip\nport = {port}\n{keys}\n\
         [[virtual_server.real_server]]\nname = \"r\"\n{real} # real\n"
    )
}

const NAT: &str = "forward = \"nat\"";
const IPIP: &str = "forward = \"ipip\"";
const REAL: &str = "address = \"10.10.0.29\"";

refused! {
    name_twice: Files::new().cluster("name = \"dsr\"", "name = \"web\" # again")
        => ("cluster.toml", "# again", "virtual_server \"web\": the name stands twice");
    vip_twice: Files::new().cluster_end(&extra("10.99.0.1", 80, NAT, REAL))
        => ("cluster.toml", "# vip", "virtual_server \"extra\": address: 10.99.0.1 port 80 tcp stands twice, first at cluster.toml:32");
    vip_is_an_interface: Files::new().cluster_end(&extra("10.10.0.11", 80, NAT, REAL))
        => ("cluster.toml", "# vip", "address: 10.10.0.11 is the address of interface \"lan\" (node.toml:26)");
    vip_is_a_snat: Files::new().cluster_end(&extra("10.10.0.101", 80, NAT, REAL))
        => ("cluster.toml", "# vip", "10.10.0.101 is a SNAT address (cluster.toml:24)");
    vip_is_a_backplane_address: Files::new().cluster_end(&extra("10.20.0.12", 80, NAT, REAL))
        => ("cluster.toml", "# vip", "10.20.0.12 is the address of node \"n2\" on the backplane");
    vip_on_the_backplane: Files::new().cluster_end(&extra("10.20.0.99", 80, NAT, REAL))
        => ("cluster.toml", "# vip", "10.20.0.99 is on the backplane's subnet 10.20.0.0/24, which only nodes are on");
    no_such_group: Files::new().cluster_end(&extra("10.99.0.9", 80, "forward = \"nat\"\ngroup = \"nope\"", REAL))
        => ("cluster.toml", "nope", "virtual_server \"extra\": group: there is no group \"nope\"");
    no_such_group_hides_nothing: Files::new().cluster_end(&extra("10.99.0.9", 80, "forward = \"nat\"\ngroup = \"nope\"", "address = \"172.16.0.1\""))
        => ("cluster.toml", "nope", "virtual_server \"extra\": group: there is no group \"nope\""),
           ("cluster.toml", "# real", "real_server \"r\" 172.16.0.1 is not reachable");
    local_nat: Files::new().cluster("ingress = \"steered\"", "ingress = \"local\" # web")
        => ("cluster.toml", "# web", "virtual_server \"web\": ingress: \"local\" keeps no state, and forward = \"nat\" needs it");
    nat_without_snat: Files::new().cluster_end(&extra("10.99.0.9", 80, "forward = \"nat\" # nat\ngroup = \"far\"", REAL))
        => ("cluster.toml", "# nat", "\"nat\" needs an IPv4 SNAT address of group \"far\", and there is none…add a SNAT address with group = \"far\"");
    nat_without_snat_v6: Files::new().cluster_end(&extra("fd99::9", 80, "forward = \"nat\" # nat", "address = \"fd10::29\""))
        => ("cluster.toml", "# nat", "\"nat\" needs an IPv6 SNAT address of group \"all\"");
    nat_over_families: Files::new().cluster_end(&extra("10.99.0.9", 80, NAT, "address = \"fd10::29\""))
        => ("cluster.toml", "# real", "fd10::29 is IPv6, and the virtual server's 10.99.0.9 is IPv4");
    dsr_over_families: Files::new().cluster("\"fd10::21\"", "\"10.10.0.29\"")
        => ("cluster.toml", "\"10.10.0.29\"", "10.10.0.29 is IPv4, and the virtual server's fd99::2 is IPv6");
    dsr_behind_a_router: Files::new().cluster_end(&extra("10.99.0.9", 80, "forward = \"dsr-l2\"", "address = \"10.30.0.29\""))
        => ("cluster.toml", "# real", "real_server \"r\" 10.30.0.29 is behind a router, and \"dsr-l2\"");
    other_port: Files::new().cluster("address = \"fd10::22\"", "address = \"fd10::22\"\nport = 8081")
        => ("cluster.toml", "port = 8081", "virtual_server \"tunnel\": real_server \"s1\": port: 8081 is not the virtual server's 81");
    no_positive_weight: Files::new().cluster("weight = 1", "weight = 0 # s1")
        => ("cluster.toml", "[[virtual_server]]", "virtual_server \"web\": has no real server of a weight above zero");
    no_real_server: Files::new().cluster_end("[[virtual_server]] # empty\nname = \"e\"\naddress = \"10.99.0.9\"\nport = 1\nforward = \"nat\"\n")
        => ("cluster.toml", "# empty", "virtual_server \"e\": has no real server");
    real_name_twice: Files::new().cluster("name = \"s2\"", "name = \"s1\" # again")
        => ("cluster.toml", "# again", "virtual_server \"web\": real_server \"s1\": the name stands twice");
    real_address_twice: Files::new().cluster("\"10.30.0.22\"", "\"10.10.0.21\" # again\nport = 8080")
        => ("cluster.toml", "# again", "10.10.0.21 stands twice");
    real_is_a_vip: Files::new().cluster_end(&extra("10.99.0.9", 80, IPIP, "address = \"10.99.0.3\""))
        => ("cluster.toml", "# real", "10.99.0.3 is the address of virtual_server \"tunnel\""),
           ("cluster.toml", "# real", "not reachable");
    real_is_this_node: Files::new().cluster_end(&extra("10.99.0.9", 80, IPIP, "address = \"10.10.0.11\""))
        => ("cluster.toml", "# real", "10.10.0.11 is the address of interface \"lan\"");
    real_on_the_backplane: Files::new().cluster_end(&extra("10.99.0.9", 80, IPIP, "address = \"10.20.0.77\""))
        => ("cluster.toml", "# real", "10.20.0.77 is on the backplane's subnet");
    tunnel_mtu_v6: Files::new().node("mtu = 1500", "mtu = 1319\nrx_descriptors = 1024")
            .cluster_end(&extra("fd99::9", 80, IPIP, "address = \"fd10::29\""))
        => ("cluster.toml", "fd10::29", "port \"front\" has an MTU of 1319, and IPv6 packets of 1280 with 40 of ipip encapsulation need 1320");
    tunnel_mtu_v4: Files::new().node("mtu = 1500", "mtu = 603").node(", \"fd10::11/64\"", "")
            .cluster("\"fd10::22\"", "\"10.10.0.22\"")
            .cluster("protocol = \"udp\"\ngroup = \"edge\"", "protocol = \"udp\"\ngroup = \"far\"")
        => ("cluster.toml", "10.10.0.22", "IPv4 packets of 576 with 28 of gue encapsulation need 604");
}

#[test]
fn unreachable_as_a_line() {
    let files = Files::new().cluster("10.30.0.22", "10.31.0.22");
    assert_eq!(
        files.load().unwrap_err().to_string(),
        "cluster.toml:43: virtual_server \"web\": real_server \"s2\" 10.31.0.22 is not reachable: \
         no interface or route covers it\n    \
         hint: add a [[route]] to the node file, or an [[interface]] with an address on its link"
    );
}

#[test]
fn tunnel_mtu_just_enough() {
    Files::new()
        .node("mtu = 1500", "mtu = 1320")
        .cluster_end(&extra("fd99::9", 80, IPIP, "address = \"fd10::29\""))
        .good();
}

#[test]
fn a_node_outside_of_the_group_need_not_reach_the_servers() {
    let keys = "forward = \"ipip\"\ngroup = \"far\"";
    Files::new().cluster_end(&extra("10.99.0.9", 80, keys, "address = \"10.31.0.22\"")).good();
}

#[test]
fn one_vip_several_ports_and_protocols() {
    Files::new()
        .cluster_end(&extra("10.99.0.1", 81, NAT, REAL))
        .cluster_end(
            &extra("10.99.0.1", 80, "forward = \"nat\"\nprotocol = \"udp\"", REAL).replace("extra", "extra2"),
        )
        .good();
}

#[test]
fn virtual_servers_as_configured() {
    let config = Files::new().good();
    let [web, dsr, tunnel] = [0, 1, 2].map(|id| &config.virtual_servers[id]);
    assert_eq!((web.forward, web.ingress, web.protocol), (Forward::Nat, Ingress::Steered, Protocol::Tcp));
    assert_eq!((web.address, web.port, web.group), (Addr::v4([10, 99, 0, 1]), 80, GroupId(0)));
    assert_eq!(web.idle, Duration::from_secs(300), "the lab profile's");
    assert_eq!(web.real_servers.iter().map(|r| (r.port, r.weight)).collect::<Vec<_>>(), [(8080, 1), (80, 0)]);
    assert_eq!((dsr.forward, dsr.ingress, dsr.protocol), (Forward::DsrL2, Ingress::Local, Protocol::Udp));
    assert_eq!((dsr.group, dsr.idle), (GroupId(1), Duration::from_secs(7)), "the node file's");
    assert_eq!((tunnel.forward, tunnel.idle), (Forward::Gue, Duration::from_secs(3600)));
}
