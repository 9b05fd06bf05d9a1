//! One capture through a node as the simulator has it (memory ports behind its wires, virtual time), and through the same node on
//! DPDK's `net_pcap`: the same frames go out, byte for byte and in the same order.

use super::*;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use steerage::base::rng::Rng;
use steerage::base::{Addr, FlowKey, Incarnation, Mac, NodeId};
use steerage::io::fault::Wire;
use steerage::io::memory::{self, MemoryPools};
use steerage::manage::config::{self, Config};
use steerage::node::Node;
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::{ipv6, protocol};

/// `net_pcap` gives its devices these addresses, one after the other.
const FRONT: Mac = Mac([2, b'p', b'c', b'a', b'p', 0]);
const BACK: Mac = Mac([2, b'p', b'c', b'a', b'p', 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 2, 2]);
const PEER_LIFE: Incarnation = Incarnation(3);
const SYN: u8 = 2;
const ACK: u8 = 16;
const METHODS: [&str; 4] = ["nat", "dsr-l2", "ipip", "gue"];

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

fn host_mac(address: Addr) -> Mac {
    Mac([2, 0, 0, 0, 9, address.0[15]])
}

/// Node n1 of two, each way to a server in both families.
fn configuration() -> Config {
    let node = "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = 1500\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.10.0.254\"\n\
         [[route]]\nto = \"fd77::/16\"\nvia = \"fd10::fe\"\n";
    let mut cluster =
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n".to_string();
    for i in [1, 2] {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"10.20.0.1{i}\"\nworkers = 1\n");
        for address in [format!("10.10.0.10{i}"), format!("fd10::10{i}")] {
            cluster += &format!("[[snat]]\naddress = \"{address}\"\nnode = \"n{i}\"\n");
        }
    }
    for (i, forward) in METHODS.iter().enumerate() {
        for (protocol, v6) in [("tcp", false), ("udp", false), ("tcp", true), ("udp", true)] {
            let vip = vip(i, v6);
            let family = if v6 { 6 } else { 4 };
            cluster += &format!(
                "[[virtual_server]]\nname = \"{forward}-{protocol}-{family}\"\naddress = \"{vip}\"\nport = 80\n\
                 protocol = \"{protocol}\"\nforward = \"{forward}\"\n"
            );
            for server in [21, 22] {
                let address = if v6 { format!("fd10::{server}") } else { format!("10.10.0.{server}") };
                cluster += &format!(
                    "[[virtual_server.real_server]]\nname = \"s{server}\"\naddress = \"{address}\"\n{}",
                    if i == 0 { "port = 8080\n" } else { "" }
                );
            }
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(node.to_string()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None).unwrap_or_else(|e| panic!("{e}"))
}

fn vip(method: usize, v6: bool) -> String {
    if v6 { format!("fd99::{}", method + 1) } else { format!("10.99.0.{}", method + 1) }
}

/// A TCP packet with these control bits, or without any a UDP packet.
fn packet(key: &FlowKey, flags: Option<u8>, ttl: u8, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|i| i as u8).collect();
    let ip = |step: PacketBuilderStep<etherparse::Ethernet2Header>| match (key.src.ip(), key.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => step.ipv4(src.octets(), dst.octets(), ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => step.ipv6(src.octets(), dst.octets(), ttl),
        other => panic!("{other:?}"),
    };
    let step = ip(PacketBuilder::ethernet2(host_mac(key.src).0, FRONT.0));
    let mut out = Vec::new();
    match flags {
        Some(flags) => {
            let mut header = TcpHeader::new(key.src_port, key.dst_port, 1000, 4096);
            (header.syn, header.ack, header.fin) = (flags & SYN != 0, flags & ACK != 0, flags & 1 != 0);
            step.tcp_header(header).write(&mut out, &payload).unwrap();
        }
        None => step.udp(key.src_port, key.dst_port).write(&mut out, &payload).unwrap(),
    }
    out
}

/// `host` asks the node for `target`, or answers that it has its own address.
fn arp_frame(host: Addr, mac: Mac, node: (Addr, Mac), operation: Operation) -> Vec<u8> {
    let mut out = vec![0; eth::HEADER_LEN + arp::LEN];
    let to = if operation == Operation::Reply { node.1 } else { Mac::BROADCAST };
    eth::write(&mut out, to, mac, None, ethertype::ARP);
    let message = Arp { operation, sender_mac: mac, sender: host, target_mac: node.1, target: node.0 };
    message.write(&mut out[eth::HEADER_LEN..]);
    out
}

fn discovery_frame(host: Addr, node: Addr, advertisement: bool) -> Vec<u8> {
    let mut out = vec![0; eth::HEADER_LEN + ipv6::HEADER_LEN + icmp::ND_LEN];
    let (mac, to) = if advertisement {
        (FRONT, node)
    } else {
        (icmp::multicast_mac(icmp::solicited_node(node)), icmp::solicited_node(node))
    };
    eth::write(&mut out, mac, host_mac(host), None, ethertype::IPV6);
    let packet = &mut out[eth::HEADER_LEN..];
    ipv6::write(packet, 0, 0, icmp::ND_LEN as u16, protocol::ICMPV6, 255, host, to);
    let target = if advertisement { host } else { node };
    let message = Neighbour {
        advertisement,
        solicited: advertisement,
        overrides: advertisement,
        target,
        mac: Some(host_mac(host)),
    };
    message.write(&mut packet[ipv6::HEADER_LEN..], host, to);
    out
}

/// Fills up to whole bursts, so that what follows comes a turn later.
fn turn_over(frames: &mut Vec<Vec<u8>>, bursts: usize) {
    let stranger = arp_frame(
        addr("10.10.0.77"),
        host_mac(addr("10.10.0.77")),
        (addr("10.10.0.78"), Mac::default()),
        Operation::Request,
    );
    frames.resize((frames.len().div_ceil(BURST) + bursts) * BURST, stranger);
}

fn keys() -> Vec<(FlowKey, Option<u8>)> {
    let mut all = Vec::new();
    for i in 0..64u16 {
        let (v6, tcp, method) = (i & 1 == 1, i & 2 == 2, usize::from(i >> 2 & 3));
        let client = if v6 { "fd77::5" } else { "192.168.1.5" };
        let number = if tcp { protocol::TCP } else { protocol::UDP };
        let key = FlowKey::new(addr(client), addr(&vip(method, v6)), 40_000 + i, 80, number);
        all.push((key, tcp.then_some(SYN)));
    }
    all
}

/// What comes in, in front and on the backplane.
fn inputs(config: &Config) -> [Vec<Vec<u8>>; 2] {
    let (own4, own6) = (addr("10.10.0.11"), addr("fd10::11"));
    let mut front = vec![
        arp_frame(addr("10.10.0.1"), host_mac(addr("10.10.0.1")), (own4, Mac::default()), Operation::Request),
        discovery_frame(addr("fd10::1"), own6, false),
        discovery_frame(addr("fd10::1"), addr("fd99::1"), false),
    ];
    turn_over(&mut front, 0);
    for host in ["10.10.0.21", "10.10.0.22", "10.10.0.254"].map(addr) {
        front.push(arp_frame(host, host_mac(host), (own4, FRONT), Operation::Reply));
    }
    for host in ["fd10::21", "fd10::22", "fd10::fe"].map(addr) {
        front.push(discovery_frame(host, own6, true));
    }
    turn_over(&mut front, 1);
    let peer = (addr("10.20.0.11"), BACK);
    let mut back = vec![arp_frame(addr("10.20.0.12"), PEER, peer, Operation::Reply)];
    turn_over(&mut back, 2);
    for (i, (key, flags)) in keys().into_iter().enumerate() {
        front.push(packet(&key, flags, 64, 10 + i));
        front.push(packet(&key, flags.map(|_| ACK), 64, 100 + i));
        // The same from another client's port, steered here by the peer.
        let key = FlowKey::new(key.src, key.dst, key.src_port + 1000, key.dst_port, key.protocol);
        back.push(steered(config, &key, &packet(&key, flags, 64, 20 + i)[eth::HEADER_LEN..]));
    }
    front.extend(wrong());
    [front, back]
}

/// What a node refuses, or answers with an error.
fn wrong() -> Vec<Vec<u8>> {
    let keys = keys();
    let mut out = Vec::new();
    for (key, flags) in &keys[..16] {
        out.push(packet(key, *flags, 1, 10));
        out.push(packet(key, *flags, 64, 1430)); // too big for tunnels
        let elsewhere = FlowKey::new(key.src, key.dst, key.src_port, 81, key.protocol);
        out.push(packet(&elsewhere, *flags, 64, 10));
        let mut damaged = packet(key, *flags, 64, 10);
        damaged[20] ^= 1;
        out.push(damaged);
        let mut cut = packet(key, *flags, 64, 10);
        cut.truncate(40);
        out.push(cut);
    }
    out.push(packet(&keys[2].0, Some(SYN | 1), 64, 10));
    let mut other = packet(&keys[0].0, None, 64, 10);
    other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
    out.push(other);
    let mut unknown = packet(&keys[0].0, None, 64, 10);
    unknown[12..14].copy_from_slice(&[0x88, 0xb5]);
    out.push(unknown);
    let mut echo = Vec::new();
    let step = PacketBuilder::ethernet2([2, 0, 0, 0, 9, 1], FRONT.0).ipv4([10, 10, 0, 1], [10, 99, 0, 1], 64);
    step.icmpv4_echo_request(1, 2).write(&mut echo, &[7; 40]).unwrap();
    out.push(echo);
    let mut rng = Rng::new(1);
    for _ in 0..100 {
        let mut noise: Vec<u8> = (0..14 + rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        noise[..6].copy_from_slice(&FRONT.0);
        noise[12..14].copy_from_slice([[8, 0], [8, 6], [0x86, 0xdd]][rng.below(3) as usize].as_slice());
        out.push(noise);
    }
    out
}

/// A frame from the peer with a client's packet inside.
fn steered(config: &Config, key: &FlowKey, packet: &[u8]) -> Vec<u8> {
    let header = Header {
        stage: Stage::Owner,
        sender: NodeId(1),
        incarnation: PEER_LIFE,
        decided: 0,
        hash: config.cluster.hash_key.flow(key),
        cookie: backplane::cookie(config.cluster.auth_key, NodeId(1), PEER_LIFE),
    };
    let mut inside = vec![0; backplane::HEADER_LEN];
    header.write(&mut inside);
    inside.extend(packet);
    let mut out = Vec::new();
    let step = PacketBuilder::ethernet2(PEER.0, BACK.0).ipv4([10, 20, 0, 12], [10, 20, 0, 11], 64);
    step.udp(50_000, 6600).write(&mut out, &inside).unwrap();
    out
}

/// What a real server answers to a NATed packet that the node sent it.
fn reply(frame: &[u8]) -> Option<Vec<u8>> {
    if frame[12..14] == [8, 6] || frame.len() < 60 {
        return None;
    }
    let v4 = frame[12..14] == [8, 0];
    let (number, src, dst, ports) = if v4 {
        let v4 = |at: usize| Addr::v4(frame[at..at + 4].try_into().unwrap());
        (frame[23], v4(26), v4(30), 34)
    } else {
        let v6 = |at: usize| Addr(frame[at..at + 16].try_into().unwrap());
        (frame[20], v6(22), v6(38), 54)
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let key = FlowKey::new(dst, src, 8080, port(ports), number);
    let nat = port(ports + 2) == 8080;
    nat.then(|| packet(&key, (number == protocol::TCP).then_some(SYN | ACK), 64, 30))
}

/// A millisecond a turn until all is taken and answered; what was refused.
fn live<P: Port>(config: &Config, devices: Vec<OpenDevice<P>>, frames: usize) -> BTreeMap<&'static str, u64> {
    let mut now = steerage::base::Instant::ZERO;
    let mut node = Node::new(config, Incarnation(7), devices, now).unwrap();
    for _ in 0..frames.div_ceil(BURST) + 120 {
        now = now + Duration::from_millis(1);
        node.turn(now);
    }
    let mut drops = node.manager().stats(now).totals.drops;
    drops.retain(|_, count| *count > 0);
    drops
}

type Run = ([Vec<Vec<u8>>; 2], BTreeMap<&'static str, u64>);

/// What comes out of a wire of the simulator's that loses, doubles, delays and damages nothing.
fn carried(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut wire, now) = (Wire::new(1), steerage::base::Instant::ZERO);
    frames.into_iter().for_each(|frame| assert_eq!(wire.send(frame, now).copies, 1));
    std::iter::from_fn(|| wire.receive(now)).collect()
}

fn simulated(config: &Config, inputs: &[Vec<Vec<u8>>; 2]) -> Run {
    let pools = MemoryPools::new(4096, 2048);
    let opened: Vec<_> = config
        .ports
        .iter()
        .zip([FRONT, BACK])
        .map(|(port, mac)| memory::open(&port.device, mac, &pools, 2048))
        .collect();
    let (devices, links): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
    for (frames, links) in inputs.iter().zip(&links) {
        assert!(carried(frames.clone()).iter().all(|frame| links[0].inject(frame)));
    }
    let drops = live(config, devices, inputs.iter().map(Vec::len).max().unwrap());
    ([0, 1].map(|port| carried(links[port][0].collect_all())), drops)
}

fn on_net_pcap(config: &Config, inputs: &[Vec<Vec<u8>>; 2]) -> Run {
    let dir = std::env::temp_dir().join(format!("steerage-dpdk-captures-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |port: &str, what: &str| dir.join(format!("{port}.{what}.pcap"));
    let devices: Vec<_> = ["front", "back"]
        .iter()
        .zip(inputs)
        .enumerate()
        .map(|(i, (port, frames))| {
            std::fs::write(file(port, "in"), capture::capture(frames)).unwrap();
            let (rx, tx) = (file(port, "in"), file(port, "out"));
            let name = format!("net_pcap{i},rx_pcap={},tx_pcap={}", rx.display(), tx.display());
            DeviceConfig { mtu: config.ports[i].device.mtu, ..device(port, &name) }
        })
        .collect();
    let devices = open(&eal(false, 128), &devices, &FEW).unwrap();
    for (device, mac) in devices.iter().zip([FRONT, BACK]) {
        assert_eq!(device.queues[0].caps().mac, mac, "net_pcap numbers its addresses");
    }
    let drops = live(config, devices, inputs.iter().map(Vec::len).max().unwrap());
    let written = ["front", "back"].map(|port| capture::frames(&std::fs::read(file(port, "out")).unwrap()));
    std::fs::remove_dir_all(&dir).unwrap();
    (written, drops)
}

#[test]
fn a_node_on_net_pcap_sends_what_it_sends_in_the_simulator() {
    child("captures::a_node_on_net_pcap_sends_what_it_sends_in_the_simulator", true, || {
        let config = configuration();
        let mut inputs = inputs(&config);
        // What comes before the servers' answers is the same in both runs, so these fit the second one, too.
        let (openers, _) = simulated(&config, &inputs);
        let replies: Vec<_> = openers[0].iter().filter_map(|frame| reply(frame)).collect();
        assert!(replies.len() > 10, "{} NATed packets", replies.len());
        inputs[0].extend(replies);
        let (memory, dropped) = simulated(&config, &inputs);
        let (pcap, also) = on_net_pcap(&config, &inputs);
        for (port, (memory, pcap)) in memory.iter().zip(&pcap).enumerate() {
            let differ = memory.iter().zip(pcap).position(|(a, b)| a != b);
            assert_eq!(differ, None, "the first frame of port {port} that differs");
            assert_eq!(memory.len(), pcap.len(), "frames of port {port}");
        }
        assert_eq!(dropped, also);
        // The comparison can fail: another byte in makes another byte out.
        let last = inputs[0].last_mut().unwrap();
        *last.last_mut().unwrap() ^= 1;
        assert_ne!(simulated(&config, &inputs).0, pcap);
        // That much happened at all.
        for reason in
            ["ttl_expired", "no_virtual_server", "ip_checksum", "ip_malformed", "not_our_mac", "too_big"]
        {
            assert!(dropped.contains_key(reason), "no {reason} in {dropped:?}");
        }
        let of = |kind: [u8; 2]| memory[0].iter().filter(|f| f[12..14] == kind).count();
        assert!(of([8, 0]) > 50 && of([0x86, 0xdd]) > 50 && of([8, 6]) > 1);
        let tunnels = |proto: u8| memory[0].iter().filter(|f| f[12..14] == [8, 0] && f[23] == proto).count();
        assert!(tunnels(protocol::IPV4) > 5 && tunnels(protocol::UDP) > 5 && tunnels(protocol::ICMP) > 0);
        assert!(memory[1].len() > 50, "{} frames to the peer", memory[1].len());
    });
}
