//! The node that is measured: one of two, with a virtual server for each way that a packet can go.

use crate::measure::cpu_ns;
use crate::port::{Buffers, LabPort, Mode, Up, mac_of};
use crate::traffic::Envelope;
use std::io;
use std::path::Path;
use std::time::Duration;
use steerage::base::limits::{BURST, MAX_FLOWS};
use steerage::base::version::{Software, WireVersion};
use steerage::base::{Addr, FlowHash, Incarnation, Instant, NodeId, NodeSet, PortId, WorkerId};
use steerage::io::OpenDevice;
use steerage::manage::config::{self, Config};
use steerage::node::Node;
use steerage::path::port::{Port, PortCaps};
use steerage::view::Protocol;
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::control::{self, Heartbeat};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::{ipv4, protocol, udp};

/// Last byte of the VIP of each virtual server.
pub mod vip {
    /// NAT, UDP and TCP.
    pub const NAT: u8 = 1;
    /// Without state, by Ethernet address.
    pub const L2: u8 = 2;
    /// Without state, IP in IP.
    pub const IPIP: u8 = 3;
    /// Without state, GUE.
    pub const GUE: u8 = 4;
    /// With sessions on this node, IP in IP.
    pub const OWN: u8 = 5;
    /// With sessions on the other node, IP in IP.
    pub const OTHER: u8 = 6;
}

/// Real servers of each virtual server.
pub const SERVERS: u8 = 16;
/// SNAT addresses of each family: enough ports for sixteen million flows.
const SNATS: u16 = 64;
const PEER: NodeId = NodeId(1);
const PEER_LIFE: Incarnation = Incarnation(7);
const PEER_ADDRESS: Addr = Addr::v4([10, 20, 0, 12]);
const MY_ADDRESS: Addr = Addr::v4([10, 20, 0, 11]);

/// The configuration of the measured node.
///
/// # Panics
/// If it is wrong.
pub fn load(workers: usize, sessions: usize) -> Config {
    let sessions = sessions.min(MAX_FLOWS);
    let node = format!(
        "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = {workers}\n\
         [tables]\nsessions = {sessions}\nsteering_sessions = {sessions}\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.10.0.254\"\n[[route]]\nto = \"::/0\"\nvia = \"fd10::fe\"\n"
    );
    let mut cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n".to_string();
    for (i, address) in [(1, MY_ADDRESS), (2, PEER_ADDRESS)] {
        let address = address.ip();
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"{address}\"\nworkers = {workers}\n");
        cluster += &format!("[[group]]\nname = \"g{i}\"\nmembers = [\"n{i}\"]\n");
    }
    for i in 0..SNATS {
        for address in [format!("10.10.0.{}", 101 + i), format!("fd10::1:{i:x}")] {
            cluster += &format!("[[snat]]\naddress = \"{address}\"\nnode = \"n1\"\ngroup = \"g1\"\n");
        }
    }
    for (last, forward, ingress, group, protocol) in [
        (vip::NAT, "nat", "steered", 1, "udp"),
        (vip::NAT, "nat", "steered", 1, "tcp"),
        (vip::L2, "dsr-l2", "local", 1, "udp"),
        (vip::IPIP, "ipip", "local", 1, "udp"),
        (vip::GUE, "gue", "local", 1, "udp"),
        (vip::OWN, "ipip", "steered", 1, "udp"),
        (vip::OTHER, "ipip", "steered", 2, "udp"),
    ] {
        for v6 in [false, true] {
            let address = vip_address(last, v6).ip();
            cluster += &format!(
                "[[virtual_server]]\nname = \"{forward}-{protocol}-{last}-{v6}\"\naddress = \"{address}\"\nport = 80\n\
                 protocol = \"{protocol}\"\nforward = \"{forward}\"\ningress = \"{ingress}\"\ngroup = \"g{group}\"\n"
            );
            for s in 0..SERVERS {
                let real = server_address(s, v6).ip();
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

/// A VIP.
pub fn vip_address(last: u8, v6: bool) -> Addr {
    if v6 {
        Addr([0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    } else {
        Addr::v4([10, 99, 0, last])
    }
}

/// A real server.
pub fn server_address(i: u8, v6: bool) -> Addr {
    if v6 {
        Addr([0xfd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x21 + i])
    } else {
        Addr::v4([10, 10, 0, 21 + i])
    }
}

/// The node, and its virtual clock, which goes on by what a turn is said to take.
pub struct Lab<P: Port> {
    pub node: Node<LabPort<P>>,
    pub config: Config,
    pub now: Instant,
    /// Virtual time of a turn: a guess, until [`Self::pace`] has measured it.
    pub step: Duration,
}

pub const FRONT: PortId = PortId(0);
pub const BACK: PortId = PortId(1);
const FIRST: WorkerId = WorkerId(0);

impl<P: Port> Lab<P> {
    /// A node on these queues (one for each worker) that knows its neighbours and has heard its peer; nothing comes in yet.
    pub fn new(front: Vec<P>, back: Vec<P>, buffers: Buffers, sessions: usize) -> Self {
        let workers = front.len();
        let config = load(workers, sessions);
        let open = |queues: Vec<P>| OpenDevice {
            queues: queues.into_iter().map(|p| LabPort::new(p, buffers)).collect(),
            monitor: Box::new(Up),
        };
        let now = Instant::ZERO;
        let node = Node::new(&config, Incarnation(1), vec![open(front), open(back)], now)
            .unwrap_or_else(|e| panic!("{e}"));
        let mut lab = Self { node, config, now, step: Duration::from_nanos(40 * BURST as u64) };
        let caps = lab.back_caps();
        lab.beat(1, caps);
        for _ in 0..4000 {
            lab.now = lab.now + Duration::from_millis(1);
            lab.node.turn(lab.now);
        }
        assert!(lab.node.manager().ready(lab.now), "the node has not found its neighbours");
        // What it was heard to say is too old by now to count as a sign of life.
        let caps = lab.back_caps();
        lab.beat(2, caps);
        lab.node.turn(lab.now);
        lab.node.turn(lab.now);
        for worker in 0..workers {
            for port in [FRONT, BACK] {
                lab.port(worker, port).mode = Mode::Silent;
            }
        }
        lab
    }

    pub fn port(&mut self, worker: usize, port: PortId) -> &mut LabPort<P> {
        self.node.port(WorkerId(worker as u16), port).expect("each worker has a queue of each port")
    }

    fn back_caps(&mut self) -> PortCaps {
        self.port(0, BACK).caps().clone()
    }

    /// The peer says that it lives.
    fn beat(&mut self, counter: u64, caps: PortCaps) {
        let beat = Heartbeat {
            wire: WireVersion::OLDEST,
            speaks: WireVersion::OLDEST,
            software: Software::OWN,
            sender: PEER,
            incarnation: PEER_LIFE,
            counter,
            view: 1,
            configuration: 0,
            index: 0,
            prepared: 0,
            hears: NodeSet::EMPTY,
            ready: true,
            trouble: 0,
            turns: Default::default(),
        };
        let mut frame = vec![0; 42 + control::MAX_LEN];
        let len = beat.write(&mut frame[42..], self.config.cluster.auth_key);
        frame.truncate(42 + len);
        eth::write(&mut frame, caps.mac, mac_of(PEER_ADDRESS), None, ethertype::IPV4);
        let ip = ipv4::Header {
            tos: 0,
            total_len: (28 + len) as u16,
            id: 0,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            ttl: 64,
            protocol: protocol::UDP,
            src: PEER_ADDRESS,
            dst: MY_ADDRESS,
        };
        ip.write(&mut frame[14..]);
        let port = self.config.cluster.control_port;
        udp::write_tunnel(&mut frame[34..], port, port, len as u16);
        if let Mode::World(queue) = &mut self.port(0, BACK).mode {
            queue.push_back(frame);
        }
    }

    /// How the peer steers packets to the first worker.
    pub fn envelope(&self) -> Envelope {
        let cluster = &self.config.cluster;
        Envelope {
            mac: mac_of(PEER_ADDRESS),
            from: PEER_ADDRESS,
            to: MY_ADDRESS,
            header: Header {
                stage: Stage::Owner,
                sender: PEER,
                incarnation: PEER_LIFE,
                decided: 0,
                hash: FlowHash(0),
                cookie: backplane::cookie(cluster.auth_key, PEER, PEER_LIFE),
            },
            data_port: cluster.data_port,
        }
    }

    /// So many turns of the first worker.
    #[inline(never)]
    pub fn turns(&mut self, turns: usize) {
        let worker = self.node.worker(FIRST);
        for _ in 0..turns {
            self.now = self.now + self.step;
            worker.turn(self.now);
        }
    }

    /// So many turns, after which virtual time goes on by what they took on average, so that timers and expiry have the share
    /// that they have under full load.
    pub fn pace(&mut self, turns: usize) {
        let turn = cpu_ns(turns, || self.turns(turns));
        self.step = Duration::from_nanos(turn.round() as u64);
    }

    /// Packets that a virtual server's real servers were sent.
    pub fn packets_in(&mut self, vip: u8, protocol: Protocol, v6: bool) -> u64 {
        let address = vip_address(vip, v6).ip();
        let stats = self.node.manager().stats(self.now);
        let server = stats.virtual_servers.iter().find(|s| s.address == address && s.protocol == protocol);
        server.expect("each row's virtual server is configured").traffic.packets_in
    }

    pub fn counter(&mut self, name: &str) -> u64 {
        self.node.manager().stats(self.now).totals.counters[name]
    }

    pub fn dropped(&mut self) -> (u64, String) {
        let totals = self.node.manager().stats(self.now).totals;
        (totals.drops_total, format!("{:?}", totals.drops))
    }

    /// Gives the real ports back: first the front's, then the backplane's.
    pub fn release(mut self) -> (P, P) {
        let [front, back] = [FRONT, BACK].map(|p| self.port(0, p).take().expect("not taken before"));
        (front, back)
    }
}
