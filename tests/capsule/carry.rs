//! The same packets through a node whose turns capsule's runtime calls, on DPDK's capture devices, and through the same node
//! on memory ports: what comes out is the same to the byte.

use super::capture::{capture, frames};
use super::{CORE, child, device, host_config, terminate};
use etherparse::PacketBuilder;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steerage::base::{Addr, Incarnation, Instant, Mac, PortId, WorkerId};
use steerage::io::capsule::Host;
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::io::{DeviceConfig, OpenDevice};
use steerage::manage::config::{self, Config};
use steerage::node::Node;
use steerage::path::port::{Pool, Port, PortCaps};
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{ND_LEN, Neighbour};
use steerage::wire::ipv6;

/// Virtual milliseconds that a node lives, a turn each.
const TURNS: usize = 400;
/// The addresses that net_pcap gives to its first two devices.
const MACS: [Mac; 2] = [Mac([2, 0x70, 0x63, 0x61, 0x70, 0]), Mac([2, 0x70, 0x63, 0x61, 0x70, 1])];
/// Frames of a port before the first packet, all of neighbours that tell their addresses: two bursts, in which the node
/// learns them.
const ANNOUNCEMENTS: usize = 64;

/// Node n1 of two, with all ways to the real servers. `key` is the cluster's.
pub(super) fn configuration(key: &str) -> Config {
    let node = "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n\
         [tables]\nsessions = 4096\nsteering_sessions = 4096\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = 1500\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.10.0.254\"\n[[route]]\nto = \"fd77::/16\"\nvia = \"fd10::fe\"\n";
    let mut cluster = format!("[cluster]\nkey = \"{key}\"\nmaglev_slots = 509\n");
    for i in [1, 2] {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"10.20.0.1{i}\"\nworkers = 1\n");
        cluster += &format!("[[snat]]\naddress = \"10.10.0.10{i}\"\nnode = \"n{i}\"\n");
        cluster += &format!("[[snat]]\naddress = \"fd10::10{i}\"\nnode = \"n{i}\"\n");
    }
    for (i, forward) in ["nat", "dsr-l2", "ipip", "gue"].iter().enumerate() {
        for (family, vip, real) in [(4, "10.99.0.", "10.10.0."), (6, "fd99::", "fd10::")] {
            for protocol in ["tcp", "udp"] {
                cluster += &format!(
                    "[[virtual_server]]\nname = \"{forward}-{protocol}-{family}\"\naddress = \"{vip}{}\"\nport = 80\n\
                     protocol = \"{protocol}\"\nforward = \"{forward}\"\n",
                    i + 1
                );
                for s in 21..=24 {
                    cluster += &format!(
                        "[[virtual_server.real_server]]\nname = \"s{s}\"\naddress = \"{real}{s}\"\n"
                    );
                }
            }
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(node.to_owned()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None).unwrap_or_else(|e| panic!("{e}"))
}

fn host_mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 9, last])
}

/// A neighbour's answer to nobody's question.
fn announcement(address: Addr, own: Addr, to: Mac) -> Vec<u8> {
    let mac = host_mac(address.0[15]);
    let mut out = vec![0; if address.is_v4() { 14 + arp::LEN } else { 54 + ND_LEN }];
    if address.is_v4() {
        eth::write(&mut out, to, mac, None, ethertype::ARP);
        let operation = Operation::Reply;
        let reply = Arp { operation, sender_mac: mac, sender: address, target_mac: to, target: own };
        reply.write(&mut out[14..]);
    } else {
        eth::write(&mut out, to, mac, None, ethertype::IPV6);
        ipv6::write(&mut out[14..], 0, 0, ND_LEN as u16, 58, 255, address, own);
        let told = Neighbour {
            advertisement: true,
            solicited: true,
            overrides: true,
            target: address,
            mac: Some(mac),
        };
        told.write(&mut out[54..], address, own);
    }
    out
}

fn v4(address: &str) -> Addr {
    Addr::v4(address.parse::<Ipv4Addr>().unwrap().octets())
}

fn v6(address: &str) -> Addr {
    Addr(address.parse::<Ipv6Addr>().unwrap().octets())
}

/// What the front and the backplane port receive.
fn inputs() -> [Vec<Vec<u8>>; 2] {
    let mut told = Vec::new();
    for host in [21, 22, 23, 24, 254] {
        told.push(announcement(v4(&format!("10.10.0.{host}")), v4("10.10.0.11"), MACS[0]));
        told.push(announcement(v6(&format!("fd10::{host}")), v6("fd10::11"), MACS[0]));
    }
    told.push(announcement(v6("fd10::fe"), v6("fd10::11"), MACS[0]));
    let mut front: Vec<_> = told.into_iter().cycle().take(ANNOUNCEMENTS).collect();
    let back = vec![announcement(v4("10.20.0.12"), v4("10.20.0.11"), MACS[1]); ANNOUNCEMENTS];
    for way in 1..=4 {
        for flow in 0..12u8 {
            for step in 0..3 {
                for family in [4, 6] {
                    front.push(packet(family, way, flow, step, true));
                    front.push(packet(family, way, flow, step, false));
                }
            }
        }
    }
    // What is refused or answered here, between and behind what is forwarded.
    let whole = packet(4, 1, 0, 0, true);
    for cut in [10, 20, 40, whole.len() - 1] {
        front.insert(100 + cut, whole[..cut].to_vec());
    }
    let question = Arp {
        operation: Operation::Request,
        sender_mac: host_mac(9),
        sender: v4("10.10.0.9"),
        target_mac: Mac([0; 6]),
        target: v4("10.10.0.11"),
    };
    let mut request = vec![0; 14 + arp::LEN];
    eth::write(&mut request, Mac([0xff; 6]), host_mac(9), None, ethertype::ARP);
    question.write(&mut request[14..]);
    front.push(request);
    let builder =
        PacketBuilder::ethernet2(host_mac(9).0, MACS[0].0).ipv4([10, 10, 0, 9], [10, 10, 0, 11], 64);
    front.push(built(|out| builder.icmpv4_echo_request(1, 1).write(out, b"are you there?")));
    [front, back]
}

fn built(
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    out
}

/// A client's packet: SYN, ACK with data, FIN; or a datagram.
fn packet(family: u8, way: u8, flow: u8, step: u8, tcp: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(host_mac(254).0, MACS[0].0);
    let builder = if family == 4 {
        builder.ipv4([192, 168, 1, flow], [10, 99, 0, way], 61)
    } else {
        let [src, dst] = [format!("fd77::{flow:x}"), format!("fd99::{way}")];
        builder.ipv6(v6(&src).0, v6(&dst).0, 61)
    };
    let payload = vec![flow; 100 * usize::from(step) + usize::from(flow)];
    let port = 20_000 + u16::from(flow) * 37;
    if !tcp {
        return built(|out| builder.udp(port, 80).write(out, &payload));
    }
    let tcp = builder.tcp(port, 80, 1000, 4096);
    match step {
        0 => built(|out| tcp.syn().write(out, b"")),
        1 => built(|out| tcp.ack(2000).write(out, &payload)),
        _ => built(|out| tcp.fin().ack(2000).write(out, b"")),
    }
}

/// A node's turns, a virtual millisecond each; `false` when its time is over.
fn turn<P: Port>(node: &mut Node<P>, turns: &mut usize) -> bool {
    if *turns == TURNS {
        return false;
    }
    *turns += 1;
    node.turn(Instant::ZERO + Duration::from_millis(*turns as u64));
    true
}

/// What the node on memory ports sends.
fn on_memory(config: &Config, inputs: &[Vec<Vec<u8>>; 2]) -> [Vec<Vec<u8>>; 2] {
    let pools = MemoryPools::new(4096, 2048);
    let caps = |port: usize| PortCaps { mac: MACS[port], mtu: config.ports[port].device.mtu };
    let pairs = [0, 1].map(|port| MemoryPort::link(caps(port), pools.clone(), 2048));
    let mut devices = Vec::new();
    let mut links = Vec::new();
    for ((port, link), frames) in pairs.into_iter().zip(inputs) {
        assert!(frames.iter().all(|frame| link.inject(frame)));
        devices.push(OpenDevice { monitor: Box::new(port.monitor()), queues: vec![port] });
        links.push(link);
    }
    let mut node = Node::new(config, Incarnation(1), devices, Instant::ZERO).unwrap();
    let mut turns = 0;
    while turn(&mut node, &mut turns) {}
    [links[0].collect_all(), links[1].collect_all()]
}

/// What the node sends whose turns capsule's runtime calls.
fn under_capsule(config: &Config, inputs: &[Vec<Vec<u8>>; 2]) -> [Vec<Vec<u8>>; 2] {
    let dir = std::env::temp_dir().join(format!("steerage-capsule-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let file = |port: &str, what: &str| dir.join(format!("{port}.{what}")).display().to_string();
    let configs: Vec<DeviceConfig> = config
        .ports
        .iter()
        .zip(inputs)
        .enumerate()
        .map(|(i, (port, frames))| {
            let name = &port.device.name;
            std::fs::write(file(name, "in"), capture(frames)).unwrap();
            let vdev = format!("net_pcap{i},rx_pcap={},tx_pcap={}", file(name, "in"), file(name, "out"));
            DeviceConfig { mtu: port.device.mtu, ..device(name, &vdev) }
        })
        .collect();
    let (mut host, devices) = Host::open(&host_config(), &configs).unwrap();
    assert_eq!([0, 1].map(|i: usize| devices[i].queues[0].caps().mac), MACS);
    let free = [Pool::Data, Pool::Control].map(|pool| devices[0].queues[0].free_buffers(pool));
    let node = Node::new(config, Incarnation(1), devices, Instant::ZERO).unwrap();
    // Kept, so that its buffers can be counted.
    let node = Arc::new(Mutex::new(node));
    let (hosted, mut turns, mut told) = (node.clone(), 0, false);
    let hosted = move || {
        let more = turn(&mut hosted.lock().unwrap(), &mut turns);
        if !more && !std::mem::replace(&mut told, true) {
            terminate();
        }
        more
    };
    host.add(CORE, "node", hosted).unwrap();
    let panics = host.panics();
    host.run(|| true).unwrap();
    assert!(panics.try_recv().is_err(), "a turn panicked");
    let mut node = Arc::into_inner(node).unwrap().into_inner().unwrap();
    let port = node.port(WorkerId(0), PortId(0)).unwrap();
    assert_eq!([Pool::Data, Pool::Control].map(|pool| port.free_buffers(pool)), free, "buffers");
    drop(node);
    drop(host);
    let outputs = [0, 1].map(|i| frames(&std::fs::read(file(&config.ports[i].device.name, "out")).unwrap()));
    std::fs::remove_dir_all(&dir).unwrap();
    outputs
}

#[test]
fn a_hosted_node_sends_what_the_same_node_sends_on_memory_ports() {
    child("carry::a_hosted_node_sends_what_the_same_node_sends_on_memory_ports", true, || {
        let (config, inputs) = (configuration("000102030405060708090a0b0c0d0e0f"), inputs());
        let wanted = on_memory(&config, &inputs);
        // Two nodes share what came in: about half of 576 goes to the servers, the other half to the peer.
        let (sent, steered) = (wanted[0].len(), wanted[1].len());
        let answered = wanted[0].iter().filter(|f| f[..6] == host_mac(9).0).count();
        assert!(sent > 200 && steered > 200 && answered == 2, "{sent} {steered} {answered}");
        let got = under_capsule(&config, &inputs);
        for (got, wanted) in got.iter().zip(&wanted) {
            let first = got.iter().zip(wanted).position(|(g, w)| g != w);
            assert!(got == wanted, "frame {first:?} differs (of {} and {})", got.len(), wanted.len());
        }
        // Another cluster's node balances otherwise: the comparison can fail.
        assert!(got != on_memory(&configuration("0f0e0d0c0b0a09080706050403020100"), &inputs));
    });
}
