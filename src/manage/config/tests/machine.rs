//! This machine: workers, ports, interfaces, routes.

use super::{Files, refused};
use crate::base::{InterfaceId, NodeId};
use crate::manage::config::PortRole;
use std::path::PathBuf;

refused! {
    unknown_node: Files::new().node("name = \"n1\"", "name = \"n3\"")
        => ("node.toml", "name = \"n3\"", "node.name: there is no node \"n3\"…hint: there is \"n1\", \"n2\"");
    other_count: Files::new().cluster("workers = 2 # n1", "workers = 4")
        => ("node.toml", "count = 2", "workers.count: 2 here, but the cluster file says 4 of node \"n1\" (cluster.toml:12)");
    core_twice: Files::new().node("[1, 2]", "[1, 1]") => ("node.toml", "cores", "core 1 is used twice");
    no_such_core: Files::new().node("[1, 2]", "[1, 8]")
        => ("node.toml", "cores", "core 8 does not exist here…0, 1, 2, 3, 4, 5, 6, 7");
    cores_for_others: Files::new().node("[1, 2]", "[1, 2, 3]") => ("node.toml", "cores", "workers.cores: 3 for 2 workers");
    management_on_a_worker: Files::new().node("management_core = 0", "management_core = 2")
        => ("node.toml", "management_core", "workers.management_core: core 2 is a worker's");
    no_management_core: Files::new().node("management_core = 0", "management_core = 9")
        => ("node.toml", "management_core", "core 9 does not exist");
    port_name_twice: Files::new().node("name = \"back\"", "name = \"front\" # second")
        => ("node.toml", "# second", "port \"front\": the name stands twice, first at node.toml:13");
    interface_name_twice: Files::new().node_end(
            "[[interface]]\nname = \"lan\" # second\nport = \"front\"\nvlan = 3\naddresses = [\"10.3.0.1/24\"]\n")
        => ("node.toml", "# second", "interface \"lan\": the name stands twice, first at node.toml:24");
    device_twice: Files::new().node("net_af_xdp1,iface=back", "net_af_xdp0,iface=back")
        => ("node.toml", "iface=back", "port \"back\": the device net_af_xdp0 stands twice, first at node.toml:15");
    output_is_its_input: Files::new().node("net_af_xdp0,iface=front", "pcap:in/a:in/./a")
        => ("node.toml", "pcap:", "port \"front\": the capture file in/./a is written, and stands twice, first at node.toml:15");
    output_twice: Files::new().node("net_af_xdp0,iface=front", "pcap:a:./b").node("net_af_xdp1,iface=back", "pcap:c:./b")
        => ("node.toml", "pcap:c", "port \"back\": the capture file ./b is written, and stands twice, first at node.toml:15");
    too_many_queues: Files::new().node("queues = 1", "queues = 3")
        => ("node.toml", "queues", "port \"front\": queues: 3 for 2 workers");
    no_front: Files::new().node("role = \"backplane\"", "role = \"backplane\" # second").node("role = \"front\"", "role = \"backplane\"")
        => ("node.toml", "", "no port with role = \"front\""),
           ("node.toml", "# second", "port \"back\": a second backplane port; the first is at node.toml:12"),
           ("node.toml", "port = \"front\"", "is the backplane's");
    no_backplane: Files::new().node("role = \"backplane\"", "role = \"front\"")
        => ("node.toml", "", "port: there is no port with role = \"backplane\", and the cluster has 2 nodes");
    mtu_too_small: Files::new().node("mtu = 1600", "mtu = 1559")
        => ("node.toml", "mtu = 1559", "an MTU of 1559 is too small: the 1500 of port \"front\" and 60 of encapsulation make 1560");
    mtu_too_small_v6: Files::new().node("mtu = 1600", "mtu = 1579")
            .cluster("10.20.0.11", "fd20::11").cluster("10.20.0.12", "fd20::12")
        => ("node.toml", "mtu = 1579", "an MTU of 1579 is too small: the 1500 of port \"front\" and 80 of encapsulation make 1580");
    rings_hold_the_pool: Files::new().node("[[interface]]", "[dpdk]\nbuffers = 2047\n[[interface]]").node("mtu = 1600", "mtu = 1600\nrx_descriptors = 256\ntx_descriptors = 256")
        => ("node.toml", "[[port]]", "port \"front\": its rings can hold 2048 buffers, and its pool has 2047");
    memory_too_small: Files::new().node("[[interface]]", "[dpdk]\nmemory_mb = 91\n[[interface]]")
        => ("node.toml", "[[port]]", "dpdk.memory_mb: 91 is too little: 2 ports of 16384 buffers of 2368 bytes each need 92");
    memory_too_small_without_hugepages: Files::new()
            .node("[[interface]]", "[dpdk]\nhugepages = false\nmemory_mb = 152\n[[interface]]")
        => ("node.toml", "[[port]]", "152 is too little: 2 ports of 16384 buffers of 4096 bytes each without hugepages need 153");
    memory_for_large_buffers: Files::new()
            .node("[[interface]]", "[dpdk]\nhugepages = false\nbuffer_bytes = 4096\n[[interface]]")
        => ("node.toml", "[[port]]", "160 is too little: 2 ports of 16384 buffers of 8192 bytes each without hugepages need 297");
    memory_for_small_buffers: Files::new()
            .node("[[interface]]", "[dpdk]\nhugepages = false\nbuffer_bytes = 512\nmemory_mb = 44\n[[interface]]")
        => ("node.toml", "[[port]]", "44 is too little: 2 ports of 16384 buffers of 1024 bytes each without hugepages need 45");
    no_such_port: Files::new().node("port = \"front\"", "port = \"fromt\"")
        => ("node.toml", "fromt", "interface \"lan\": port: there is no port \"fromt\"…did you mean \"front\"?");
    interface_on_backplane: Files::new().node("port = \"front\"", "port = \"back\"")
        => ("node.toml", "port = \"back\"", "port \"back\" is the backplane's");
    same_vlan: Files::new().node_end("[[interface]]\nname = \"b\"\nport = \"front\" # b\naddresses = [\"10.3.0.1/24\"]\n")
        => ("node.toml", "# b", "port \"front\" with no VLAN has an interface already");
    no_address: Files::new().node_end("[[interface]] # b\nname = \"b\"\nvlan = 7\nport = \"front\"\n")
        => ("node.toml", "# b", "interface \"b\": has no address");
    same_link: Files::new().node_end(
            "[[interface]]\nname = \"b\"\nvlan = 7\nport = \"front\"\naddresses = [\"10.10.0.12/24\"]\n")
        => ("node.toml", "10.10.0.12/24", "the prefix 10.10.0.0/24, on link of another interface, stands twice");
    same_address: Files::new().node_end(
            "[[interface]]\nname = \"b\"\nvlan = 7\nport = \"front\"\naddresses = [\"10.10.0.11/25\"]\n")
        => ("node.toml", "10.10.0.11/25", "10.10.0.11 is the address of interface \"lan\" (node.toml:26)");
    interface_on_backplane_subnet: Files::new().node_end(
            "[[interface]]\nname = \"b\"\nvlan = 7\nport = \"front\"\naddresses = [\"10.20.0.99/16\"]\n")
        => ("node.toml", "10.20.0.99", "10.20.0.0/16 overlaps the backplane's subnet 10.20.0.0/24");
    v6_on_a_small_port: Files::new().node("mtu = 1500", "mtu = 1200")
        => ("node.toml", "fd10::11", "IPv6 needs an MTU of 1280, and port \"front\" has 1200");
    gateway_off_link: Files::new().node("via = \"10.10.0.1\"", "via = \"10.11.0.1\"").cluster("10.30.0.22", "10.10.0.22")
        => ("node.toml", "via", "route #1: via: the gateway 10.11.0.1 is on link of no interface");
    gateway_of_the_other_family: Files::new().node("via = \"10.10.0.1\"", "via = \"fd10::1\"")
        => ("node.toml", "via", "fd10::1 is of the other family than 10.30.0.0/16");
    gateway_is_this_node: Files::new().node("via = \"10.10.0.1\"", "via = \"10.10.0.11\"")
        => ("node.toml", "via", "10.10.0.11 is this node's own address");
    same_route: Files::new().node_end("[[route]]\nto = \"10.30.0.0/16\" # again\nvia = \"10.10.0.2\"\n")
        => ("node.toml", "# again", "the destination 10.30.0.0/16 stands twice");
    route_on_link: Files::new().node_end("[[route]]\nto = \"10.10.0.0/24\"\nvia = \"10.10.0.2\"\n")
        => ("node.toml", "to = \"10.10.0.0/24\"", "route #2: to: 10.10.0.0/24 is on link of interface \"lan\"");
}

#[test]
fn too_many_of_a_kind() {
    let mut node = Files::new();
    for i in 0..16 {
        node = node.node_end(&format!("[[port]]\nname = \"p{i}\"\nrole = \"front\"\ndevice = \"memory\"\n"));
    }
    let errors = node.load().unwrap_err().to_string();
    assert!(errors.contains("port \"p14\": is one [[port]] of 18, and at most 16 are possible"), "{errors}");
    assert!(!errors.contains("there is no port"), "no follow-up errors: {errors}");
}

#[test]
fn a_machine_as_configured() {
    let config = Files::new().good();
    assert_eq!(config.me, NodeId(0));
    assert_eq!(config.admin_socket, PathBuf::from("/run/steerage/n1.sock"));
    assert_eq!(config.workers.cores, [1, 2]);
    assert_eq!(config.workers.management_core, Some(0));
    assert_eq!(config.ports[0].device.queues, 1, "fewer than workers is legal");
    assert_eq!(config.ports[1].device.queues, 2, "one for each worker");
    assert_eq!(config.ports[1].role, PortRole::Backplane);
    assert_eq!(config.routes[0].interface, InterfaceId(0));
}

#[test]
fn the_laboratory_fits_with_and_without_hugepages() {
    for hugepages in [true, false] {
        let section = format!("[dpdk]\nhugepages = {hugepages}\n[[interface]]");
        assert_eq!(Files::new().node("[[interface]]", &section).good().dpdk.hugepages, hugepages);
    }
}

#[test]
fn the_cluster_file_gives_the_count() {
    let config = Files::new()
        .node("count = 2\ncores = [1, 2]\n", "")
        .cluster("workers = 2 # n1", "workers = 5")
        .good();
    assert_eq!(config.workers.count, 5);
    assert!(config.workers.cores.is_empty());
}

#[test]
fn exact_mtu_is_enough() {
    Files::new().node("mtu = 1600", "mtu = 1560").good();
}

#[test]
fn one_node_needs_no_backplane() {
    let back =
        "[[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"net_af_xdp1,iface=back\"\nmtu = 1600\n";
    let n2 = "[[node]]\nname = \"n2\"\nbackplane = \"10.20.0.12\"\nworkers = 3 # n2\n";
    let far = "[[group]]\nname = \"far\"\nmembers = [\"n2\"]\n";
    Files::new().node(back, "").cluster(n2, "").cluster(far, "").good();
    Files::new().node("mtu = 1600", "mtu = 1500").cluster(n2, "").cluster(far, "").good();
}

#[test]
fn unknown_cores_are_not_checked() {
    let files = Files::new().node("[1, 2]", "[100, 200]");
    let read = |path: &std::path::Path| Ok(files.0[path.to_str().unwrap()].clone());
    super::load_from(&read, std::path::Path::new("node.toml"), None).unwrap();
}

#[test]
fn a_second_backplane_port() {
    let files = Files::new().node_end(
        "[[port]]\nname = \"b2\"\nrole = \"backplane\" # second\ndevice = \"memory\"\nmtu = 1600\n",
    );
    files.bad(&[(
        "node.toml",
        "# second",
        "port \"b2\": a second backplane port; the first is at node.toml:18",
    )]);
}
