//! What a whole worker turn costs a packet, on memory ports: `cargo bench --no-default-features --bench turn`.
//!
//! Each row is the median of several runs of a few hundred milliseconds; the memory ports' own cost (a copy in, a free out)
//! is measured in the same run and stands in a row of its own.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::path::Path;
use std::time::{Duration, Instant as Clock};
use steerage::base::limits::BURST;
use steerage::base::rng::Rng;
use steerage::base::{Addr, Incarnation, Instant, Mac, PortId, WorkerId};
use steerage::io::OpenDevice;
use steerage::io::memory::{MemoryLink, MemoryPools, MemoryPort};
use steerage::manage::config;
use steerage::node::Node;
use steerage::path::port::{Burst, Port, PortCaps};
use steerage::wire::arp::{Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::{ipv4, ipv6, udp};

const RUNS: usize = 7;
const PACKETS: usize = 2_000_000;
const FRONT: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// UDP packets of 64-byte frames (IPv6: of the shortest that hold the headers), one a flow, in random order.
fn flows(count: usize, v6: bool, vip_last: u8) -> (Vec<Vec<u8>>, Vec<u32>) {
    let frames = (0..count as u32).map(|i| {
        let mut out = vec![0; if v6 { 14 + 48 + 2 } else { 60 }];
        let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        eth::write(&mut out, FRONT, Mac([2, 0, 0, 0, 9, 1]), None, kind);
        let port = 1024 + (i & 0x7fff) as u16;
        let high = (i >> 15) as u16;
        if v6 {
            let mut src = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
            src[12..14].copy_from_slice(&high.to_be_bytes());
            let dst = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, vip_last];
            ipv6::write(&mut out[14..], 0, 0, 10, 17, 64, Addr(src), Addr(dst));
            udp::write_tunnel(&mut out[54..], port, 80, 2);
        } else {
            let [h, l] = high.to_be_bytes();
            let header = ipv4::Header {
                tos: 0,
                total_len: 46,
                id: 0,
                flags_and_offset: ipv4::DONT_FRAGMENT,
                ttl: 64,
                protocol: 17,
                src: Addr::v4([192, 168, h, l]),
                dst: Addr::v4([10, 99, 0, vip_last]),
            };
            header.write(&mut out[14..]);
            udp::write_tunnel(&mut out[34..], port, 80, 18);
        }
        out
    });
    let mut order: Vec<_> = (0..count as u32).collect();
    let mut rng = Rng::new(1);
    for i in (1..count).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    (frames.collect(), order)
}

fn load(nodes: usize, sessions: usize) -> config::Config {
    let node = format!(
        "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = 1\n\
         [tables]\nsessions = {sessions}\nsteering_sessions = {sessions}\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.10.0.254\"\n[[route]]\nto = \"::/0\"\nvia = \"fd10::fe\"\n"
    );
    let mut cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n".to_string();
    for i in 1..=nodes {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"10.20.0.1{i}\"\nworkers = 1\n");
    }
    // Enough SNAT addresses for a million flows: four servers and fifteen ports a bucket of each address.
    for i in 0..32 {
        cluster += &format!("[[snat]]\naddress = \"10.10.0.{}\"\nnode = \"n1\"\n", 101 + i);
        cluster += &format!("[[snat]]\naddress = \"fd10::1:{i:x}\"\nnode = \"n1\"\n");
    }
    for (last, forward, ingress) in
        [(1, "nat", "steered"), (2, "dsr-l2", "steered"), (3, "ipip", "steered"), (4, "ipip", "local")]
    {
        for v6 in [false, true] {
            let vip = if v6 { format!("fd99::{last}") } else { format!("10.99.0.{last}") };
            cluster += &format!(
                "[[virtual_server]]\nname = \"v{last}-{v6}\"\naddress = \"{vip}\"\nport = 80\nprotocol = \"udp\"\n\
                 forward = \"{forward}\"\ningress = \"{ingress}\"\n"
            );
            for s in 21..=24 {
                let real = if v6 { format!("fd10::{s}") } else { format!("10.10.0.{s}") };
                cluster +=
                    &format!("[[virtual_server.real_server]]\nname = \"s{s}\"\naddress = \"{real}\"\n");
            }
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("n") => Ok(node.clone()),
        Some("c") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("n"), None).unwrap_or_else(|e| panic!("{e}"))
}

struct Bench {
    node: Node<MemoryPort>,
    now: Instant,
}

impl Bench {
    /// A node whose neighbours are known and whose front port then receives these packets for ever.
    fn new(nodes: usize, flows: (Vec<Vec<u8>>, Vec<u32>), sessions: usize) -> Self {
        let config = load(nodes, sessions);
        let caps = |last, mtu| PortCaps { mac: Mac([2, 0, 0, 0, last, 1]), mtu, tx_ipv4_checksum: false };
        let (front, front_link) = MemoryPort::link(caps(1, 1500), MemoryPools::new(4096, 2048), 1024);
        let (back, back_link) = MemoryPort::link(caps(2, 1700), MemoryPools::new(4096, 2048), 1024);
        let open = |port: MemoryPort| OpenDevice { monitor: Box::new(port.monitor()), queues: vec![port] };
        let now = Instant::ZERO;
        let node = Node::new(&config, Incarnation(1), vec![open(front), open(back)], now).unwrap();
        let mut bench = Self { node, now };
        for _ in 0..4000 {
            bench.now = bench.now + Duration::from_millis(1);
            bench.node.turn(bench.now);
            for link in [&front_link, &back_link] {
                link.collect_all().iter().for_each(|frame| answer(link, frame));
            }
        }
        assert!(bench.node.manager().ready());
        let void = MemoryPort::generator(caps(2, 1700), MemoryPools::new(4096, 2048), vec![], vec![]);
        *bench.node.port(WorkerId(0), PortId(1)).unwrap() = void;
        // First each flow twice in a row: a UDP flow of one packet is the first to go when room is short.
        let (templates, order) = flows;
        let pairs: Vec<_> = (0..templates.len() as u32).flat_map(|i| [i, i]).collect();
        let packets = pairs.len().next_multiple_of(BURST);
        bench.receive(MemoryPort::generator(
            caps(1, 1500),
            MemoryPools::new(4096, 2048),
            templates.clone(),
            pairs,
        ));
        bench.run(packets);
        bench.receive(MemoryPort::generator(caps(1, 1500), MemoryPools::new(4096, 2048), templates, order));
        bench.run(packets);
        bench
    }

    fn receive(&mut self, port: MemoryPort) {
        *self.node.port(WorkerId(0), PortId(0)).unwrap() = port;
    }

    /// Nanoseconds a packet of so many packets through whole turns.
    fn run(&mut self, packets: usize) -> f64 {
        let start = Clock::now();
        let worker = self.node.worker(WorkerId(0));
        for _ in 0..packets / BURST {
            self.now = self.now + Duration::from_nanos(50 * BURST as u64);
            worker.turn(self.now);
        }
        start.elapsed().as_nanos() as f64 / packets as f64
    }

    fn count(&mut self, name: &str) -> u64 {
        self.node.manager().stats(self.now).totals.counters[name]
    }

    fn dropped(&mut self) -> u64 {
        self.node.manager().stats(self.now).totals.drops_total
    }
}

/// Answers ARP and neighbour solicitations for everyone.
fn answer(link: &MemoryLink, frame: &[u8]) {
    use steerage::wire::icmp::{ND_LEN, Neighbour};
    if frame[12..14] == [8, 6] {
        let question = Arp::parse(&frame[14..]).unwrap();
        if question.operation == Operation::Request && question.sender != question.target {
            let mac = Mac([2, 0, 0, 0, 9, question.target.0[15]]);
            let mut out = frame.to_vec();
            eth::write(&mut out, question.sender_mac, mac, None, ethertype::ARP);
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: mac,
                sender: question.target,
                target_mac: question.sender_mac,
                target: question.sender,
            };
            reply.write(&mut out[14..]);
            link.inject(&out);
        }
    } else if frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135 {
        let question = Neighbour::parse(&frame[54..]).unwrap();
        let mac = Mac([2, 0, 0, 0, 9, question.target.0[15]]);
        let asker = Addr(frame[22..38].try_into().unwrap());
        let mut out = vec![0; 54 + ND_LEN];
        eth::write(&mut out, question.mac.unwrap(), mac, None, ethertype::IPV6);
        ipv6::write(&mut out[14..], 0, 0, ND_LEN as u16, 58, 255, question.target, asker);
        let answer = Neighbour {
            advertisement: true,
            solicited: true,
            overrides: true,
            target: question.target,
            mac: Some(mac),
        };
        answer.write(&mut out[54..], question.target, asker);
        link.inject(&out);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(name: &str, v6: bool, flows: usize, ns: Vec<f64>) {
    let (least, most) = (ns.iter().copied().fold(f64::MAX, f64::min), ns.iter().copied().fold(0.0, f64::max));
    let ns = median(ns);
    let family = if v6 { "IPv6" } else { "IPv4" };
    println!(
        "{name:<16} {family} {flows:>8} flows {ns:>7.1} ns ({least:.1}-{most:.1}) {:>6.2} Mpps",
        1e3 / ns
    );
}

fn main() {
    // Words behind `--` pick rows: all must stand in "name family flows".
    let words: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str, v6, count: usize| {
        let text = format!("{name} {} {count}", if v6 { "IPv6" } else { "IPv4" });
        words.iter().all(|w| text.split(' ').any(|t| t == w))
    };
    for v6 in [false, true] {
        for count in [1, 65_536, 1_000_000] {
            if wanted("port_alone", v6, count) {
                row("port_alone", v6, count, port_alone(count, v6));
            }
            for (name, vip, nodes) in [
                ("dsr_ipip_local", 4, 1),
                ("dsr_ipip", 3, 1),
                ("dsr_l2", 2, 1),
                ("nat_hit", 1, 1),
                ("steered_out", 2, 2),
            ] {
                if !wanted(name, v6, count) {
                    continue;
                }
                let (mut templates, mut order) = flows(count, v6, vip);
                if name == "steered_out" {
                    keep_foreign(&mut templates, &mut order, v6);
                }
                let total = order.len();
                let mut bench = Bench::new(nodes, (templates, order), 1_250_000);
                let (dropped, before) = (bench.dropped(), bench.count("rx"));
                let ns = (0..RUNS).map(|_| bench.run(PACKETS)).collect();
                let lost = bench.dropped() - dropped;
                assert!(lost * 1000 < bench.count("rx") - before, "{name}: {lost} dropped");
                row(name, v6, total, ns);
            }
        }
    }
}

/// What the memory port costs by itself.
fn port_alone(count: usize, v6: bool) -> Vec<f64> {
    let (templates, order) = flows(count, v6, 1);
    let caps = PortCaps { mac: FRONT, mtu: 1500, tx_ipv4_checksum: false };
    let mut port = MemoryPort::generator(caps, MemoryPools::new(4096, 2048), templates, order);
    let mut burst = Burst::new();
    let mut run = || {
        let start = Clock::now();
        for _ in 0..PACKETS / BURST {
            port.rx(&mut burst);
            port.tx(&mut burst);
        }
        start.elapsed().as_nanos() as f64 / PACKETS as f64
    };
    (0..RUNS).map(|_| run()).collect()
}

/// Keeps the flows that the first of two nodes does not own.
fn keep_foreign(templates: &mut Vec<Vec<u8>>, order: &mut Vec<u32>, v6: bool) {
    let config = load(2, 1024);
    let weights = [(steerage::base::NodeId(0), 1), (steerage::base::NodeId(1), 1)];
    let seed = steerage::base::hash::siphash13_bytes(config.cluster.hash_key, b"all");
    let placement = steerage::table::placement::Placement::initial(seed, &weights);
    let key = config.cluster.hash_key;
    let foreign = |frame: &Vec<u8>| {
        let (src, dst, l4) = if v6 {
            (Addr(frame[22..38].try_into().unwrap()), Addr(frame[38..54].try_into().unwrap()), 54)
        } else {
            (Addr::v4(frame[26..30].try_into().unwrap()), Addr::v4(frame[30..34].try_into().unwrap()), 34)
        };
        let port = u16::from_be_bytes([frame[l4], frame[l4 + 1]]);
        let flow = steerage::base::FlowKey::new(src, dst, port, 80, 17);
        placement.owner(key.flow(&flow).bucket()) == Some(steerage::base::NodeId(1))
    };
    templates.retain(foreign);
    if templates.is_empty() {
        // One flow, and it is ours: take the first that isn't.
        let (others, _) = flows(64, v6, 2);
        templates.extend(others.into_iter().find(foreign));
    }
    order.retain(|i| (*i as usize) < templates.len());
}
