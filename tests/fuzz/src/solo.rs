//! One real node of a cluster of three, in virtual time, on memory ports. Its peers, hosts and routers are played here, as
//! far as it needs them: they answer its questions, and the peers' heartbeats come.

use crate::port::ChainedPort;
use std::io;
use std::path::Path;
use std::time::Duration;
use steerage::base::version::{Software, WireVersion};
use steerage::base::{Addr, Incarnation, Instant, Mac, NodeId, NodeSet, WorkerId};
use steerage::io::OpenDevice;
use steerage::io::memory::{MemoryLink, MemoryPools, MemoryPort};
use steerage::manage::compile;
use steerage::manage::config::{self, Config};
use steerage::node::Node;
use steerage::path::port::PortCaps;
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::control::{self, Heartbeat};
use steerage::wire::eth::{self, Eth, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::{ipv4, ipv6, udp};

/// Frames that fit a link in each direction.
pub const DEPTH: usize = 512;

/// What differs between uses.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Worker threads of the node.
    pub workers: u16,
    /// Sessions, and steering sessions, of a worker.
    pub sessions: usize,
    /// Data buffers of the node; a quarter as many control buffers.
    pub buffers: usize,
}

/// The node's devices, in the order of their configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clients and real servers; a queue for each worker.
    Front,
    /// A second one in front, tagged, with one queue.
    Narrow,
    /// The other nodes.
    Back,
}

impl Side {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Front, Self::Narrow, Self::Back];

    /// The Ethernet address of the node there.
    pub fn mac(self) -> Mac {
        Mac([2, 0, 0, 0, 1 + self as u8, 1])
    }
}

/// See the module's text.
pub struct Solo {
    /// The node.
    pub node: Node<ChainedPort>,
    /// The virtual time.
    pub now: Instant,
    /// All buffers.
    pub pools: MemoryPools,
    /// The configuration that it runs.
    pub config: Config,
    /// The far ends, by [`Side`] and queue.
    pub links: [Vec<MemoryLink>; 3],
    /// Whether questions are answered and heartbeats come.
    pub lively: bool,
    /// The lives of the two peers.
    pub lives: [u32; 2],
    /// Is handed each worker's turn, to carry it out: the place to measure it.
    pub around: fn(&mut dyn FnMut()),
    /// The peers' digest of the cluster file.
    digest: u64,
    beats: u64,
    beat_due: Instant,
}

/// The VIPs' last bytes: 1 to 4 are the four ways to a server, 5 without sessions, 6 of nodes 2 and 3 alone, 7 a tunnel over
/// the other family, 8 a server on the narrow device.
pub const VIPS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// A virtual IP, by its last byte.
pub fn vip(last: u8, v6: bool) -> Addr {
    if v6 { v6_address(0xfd99, u16::from(last)) } else { Addr::v4([10, 99, 0, last]) }
}

/// `first::last`.
pub fn v6_address(first: u16, last: u16) -> Addr {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&first.to_be_bytes());
    out[14..].copy_from_slice(&last.to_be_bytes());
    Addr(out)
}

/// The files of node 1: its own, and the cluster's.
pub fn files(plan: Plan) -> (String, String) {
    let Plan { workers, sessions, .. } = plan;
    let node = format!(
        "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n\
         [tables]\nsessions = {sessions}\nsteering_sessions = {sessions}\n[timeouts]\nestablished = \"15m\"\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
         [[port]]\nname = \"narrow\"\nrole = \"front\"\ndevice = \"memory\"\nqueues = 1\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[interface]]\nname = \"tagged\"\nport = \"front\"\nvlan = 7\naddresses = [\"10.70.0.11/24\"]\n\
         [[interface]]\nname = \"narrow\"\nport = \"narrow\"\nvlan = 9\naddresses = [\"10.90.0.11/24\", \"fd90::11/64\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.10.0.254\"\n[[route]]\nto = \"fd77::/16\"\nvia = \"fd10::fe\"\n"
    );
    let mut cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 31\n".to_owned();
    for i in 1..=3 {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"10.20.0.1{i}\"\nworkers = {workers}\n");
    }
    cluster += "[[group]]\nname = \"others\"\nmembers = [\"n2\", \"n3\"]\n";
    for i in 1..=3 {
        for address in [format!("10.10.0.10{i}"), format!("fd10::10{i}")] {
            cluster += &format!("[[snat]]\naddress = \"{address}\"\nnode = \"n{i}\"\n");
        }
    }
    for last in VIPS {
        let (forward, ingress, group) = match last {
            1 => ("nat", "steered", "all"),
            2 => ("dsr-l2", "steered", "all"),
            3 => ("ipip", "steered", "all"),
            4 => ("gue", "steered", "all"),
            5 => ("ipip", "local", "all"),
            6 => ("dsr-l2", "steered", "others"),
            7 => ("gue", "steered", "all"),
            _ => ("nat", "steered", "all"),
        };
        for v6 in [false, true] {
            for protocol in ["tcp", "udp"] {
                cluster += &format!(
                    "[[virtual_server]]\nname = \"v{last}-{protocol}-{v6}\"\naddress = \"{}\"\nport = 80\n\
                     protocol = \"{protocol}\"\nforward = \"{forward}\"\ningress = \"{ingress}\"\ngroup = \"{group}\"\n",
                    vip(last, v6).ip()
                );
                let servers = if last == 8 { 21..=21 } else { 21..=24 };
                for server in servers {
                    let net = match (last, v6) {
                        (7, false) | (1..=6, true) => "fd10::",
                        (8, true) => "fd90::",
                        (8, false) => "10.90.0.",
                        _ => "10.10.0.",
                    };
                    cluster += &format!(
                        "[[virtual_server.real_server]]\nname = \"s{server}\"\naddress = \"{net}{server}\"\n"
                    );
                }
            }
        }
    }
    (node, cluster)
}

/// Reads a node file that names `cluster.toml`.
pub fn load(node: &str, cluster: &str) -> Result<Config, config::Errors> {
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(node.to_owned()),
        Some("cluster.toml") => Ok(cluster.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None)
}

/// The configuration of node 1.
pub fn configuration(plan: Plan) -> Config {
    let (node, cluster) = files(plan);
    load(&node, &cluster).unwrap_or_else(|errors| panic!("{errors}"))
}

impl Solo {
    /// A node that has found its neighbours and peers.
    pub fn new(plan: Plan) -> Self {
        Self::with(configuration(plan), plan)
    }

    /// The same, of a configuration that was read before.
    pub fn with(config: Config, plan: Plan) -> Self {
        let pools = MemoryPools::new(plan.buffers, 2048);
        let mut links = [const { Vec::new() }; 3];
        let devices = Side::ALL.map(|side| {
            let port = &config.ports[side as usize].device;
            let caps = PortCaps { mac: side.mac(), mtu: port.mtu };
            let (queues, far): (Vec<_>, Vec<_>) =
                (0..port.queues).map(|_| MemoryPort::link(caps.clone(), pools.clone(), DEPTH)).unzip();
            links[side as usize] = far;
            let queues: Vec<_> = queues.into_iter().map(ChainedPort::new).collect();
            OpenDevice { monitor: Box::new(queues[0].monitor()), queues }
        });
        let now = Instant::ZERO;
        let node = Node::new(&config, Incarnation(1), devices.into(), now)
            .unwrap_or_else(|error| panic!("a configuration that passed its checks: {error}"));
        let digest = compile::digest(&config);
        let mut solo = Self {
            node,
            now,
            pools,
            config,
            links,
            lively: true,
            lives: [1, 1],
            around: |turn| turn(),
            digest,
            beats: 0,
            beat_due: now,
        };
        solo.settle();
        solo
    }

    fn settle(&mut self) {
        // Coarse steps do: nothing waits here for less than a heartbeat. The last ones are for what the neighbours told to
        // become a View, and for that to reach the workers.
        let mut left = 4;
        for _ in 0..80 {
            self.step(Duration::from_millis(50), |_, _| {});
            left -= u32::from(self.node.manager().ready(self.now));
            if left == 0 {
                return;
            }
        }
        panic!("the node doesn't find its neighbours");
    }

    /// Time goes on; a turn of the node; what it sent arrives. `sent` sees every frame that no one here answers.
    pub fn step(&mut self, time: Duration, sent: impl FnMut(Side, Vec<u8>)) {
        self.now = self.now + time;
        self.beat();
        for worker in 0..self.config.workers.count {
            self.turn_alone(WorkerId(worker));
        }
        self.node.manager().turn(self.now);
        self.deliver(sent);
    }

    /// A turn of one worker, and of nothing else.
    pub fn turn_alone(&mut self, worker: WorkerId) {
        let (worker, now) = (self.node.worker(worker), self.now);
        (self.around)(&mut || _ = worker.turn(now));
    }

    /// Heartbeats that are due.
    fn beat(&mut self) {
        if !self.lively || self.now < self.beat_due {
            return;
        }
        self.beat_due = self.now + Duration::from_millis(50);
        self.beats += 1;
        for peer in [1, 2] {
            let beat = Heartbeat {
                wire: WireVersion::OLDEST,
                speaks: WireVersion::NEWEST,
                software: Software::OWN,
                sender: NodeId(peer),
                incarnation: Incarnation(self.lives[usize::from(peer) - 1]),
                counter: self.beats,
                view: 1,
                configuration: self.digest,
                index: 0,
                prepared: 0,
                hears: NodeSet::EMPTY,
                ready: true,
                trouble: 0,
                turns: [1].into_iter().collect(),
            };
            let frame = self.heartbeat(&beat);
            self.links[Side::Back as usize][0].inject(&frame);
        }
    }

    /// A heartbeat as it comes over the backplane.
    pub fn heartbeat(&self, beat: &Heartbeat) -> Vec<u8> {
        let mut message = vec![0; control::MAX_LEN];
        let len = beat.write(&mut message, self.config.cluster.auth_key);
        backplane_frame(beat.sender, self.config.cluster.control_port, &message[..len])
    }

    /// What the node sent arrives: questions are answered, the rest is for `sent` to see.
    fn deliver(&mut self, mut sent: impl FnMut(Side, Vec<u8>)) {
        for side in Side::ALL {
            for link in &self.links[side as usize] {
                while let Some(frame) = link.collect() {
                    match answer(&frame) {
                        Some(answer) if self.lively => drop(link.inject(&answer)),
                        _ => sent(side, frame),
                    }
                }
            }
        }
    }
}

/// A UDP datagram from a peer's backplane address to node 1, from the Ethernet header on.
pub fn backplane_frame(from: NodeId, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(42 + payload.len());
    out.resize(42, 0);
    let last = 11u8.wrapping_add(from.0 as u8);
    eth::write(&mut out, Side::Back.mac(), host_mac(last), None, ethertype::IPV4);
    let header = ipv4::Header {
        tos: 0,
        total_len: (28 + payload.len()) as u16,
        id: 1,
        flags_and_offset: 0,
        ttl: 64,
        protocol: 17,
        src: Addr::v4([10, 20, 0, last]),
        dst: Addr::v4([10, 20, 0, 11]),
    };
    header.write(&mut out[14..]);
    udp::write_tunnel(&mut out[34..], 50_000, port, payload.len() as u16);
    out.extend(payload);
    out
}

/// The Ethernet address of who has an address with this last byte.
pub fn host_mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 9, last])
}

/// What the one who is asked for by a frame's ARP request or neighbour solicitation answers.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let header = Eth::new(frame).ok()?;
    let (asker_mac, vlan) = (header.src(), header.ethertype() == ethertype::VLAN);
    let at = if vlan { 18 } else { 14 };
    let tag = vlan.then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xfff);
    let packet = frame.get(at..)?;
    let mut out = vec![0; at];
    match frame[at - 2..at] {
        [0x08, 0x06] => {
            let question = Arp::parse(packet).ok().filter(|m| m.operation == Operation::Request)?;
            let last = question.target.0[15];
            if question.sender == question.target || absent(last) {
                return None;
            }
            eth::write(&mut out, asker_mac, host_mac(last), tag, ethertype::ARP);
            out.resize(at + arp::LEN, 0);
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: host_mac(last),
                sender: question.target,
                target_mac: question.sender_mac,
                target: question.sender,
            };
            reply.write(&mut out[at..]);
        }
        [0x86, 0xdd] if packet.get(6) == Some(&58) && packet.get(40) == Some(&135) => {
            let question = Neighbour::parse(&packet[40..]).ok()?;
            let (asker, last) = (Addr(packet[8..24].try_into().ok()?), question.target.0[15]);
            if asker == Addr::UNSPECIFIED || absent(last) {
                return None;
            }
            eth::write(&mut out, asker_mac, host_mac(last), tag, ethertype::IPV6);
            out.resize(at + ipv6::HEADER_LEN + icmp::ND_LEN, 0);
            let (len, to) = (icmp::ND_LEN as u16, asker);
            ipv6::write(&mut out[at..], 0, 0, len, 58, 255, question.target, to);
            let answer = Neighbour {
                advertisement: true,
                solicited: true,
                overrides: true,
                target: question.target,
                mac: Some(host_mac(last)),
            };
            answer.write(&mut out[at + ipv6::HEADER_LEN..], question.target, to);
        }
        _ => return None,
    }
    Some(out)
}

/// Whether nobody has an address with this last byte.
fn absent(last: u8) -> bool {
    (70..80).contains(&last)
}
