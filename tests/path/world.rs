//! A small cluster on memory ports, in virtual time: whole nodes, a switch between their backplanes, and hosts that answer
//! ARP and neighbour discovery. What the nodes send to hosts is collected for the test to judge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steerage::base::{Addr, Incarnation, Instant, Mac};
use steerage::io::memory::{self, MemoryLink, MemoryPools, MemoryPort};
use steerage::manage::config::{self, Config, Slots, VirtualServerConfig};
use steerage::manage::stats::Stats;
use steerage::node::Node;
use steerage::view::Buckets;
use steerage::wire::arp::{Arp, Operation};
use steerage::wire::eth::{self, Eth, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::ipv6;

pub const BUFFERS: usize = 4096;

/// What differs between tests.
pub struct Spec {
    pub nodes: usize,
    pub workers: usize,
    /// Lines for the node files' `[tables]`.
    pub tables: &'static str,
    /// MTU of the front ports.
    pub front_mtu: u16,
    /// Groups, SNAT addresses and virtual servers of the cluster file.
    pub cluster: String,
}

impl Default for Spec {
    fn default() -> Self {
        Self { nodes: 3, workers: 1, tables: "", front_mtu: 1500, cluster: standard(None) }
    }
}

/// The servers 10.10.0.21–24 and fd10::21–24 behind 10.99.0.1 (nat), .2 (dsr-l2), .3 (ipip), .4 (gue) and fd99::1–4, TCP
/// and UDP port 80; SNAT addresses 10.10.0.101 and on, one a node. With `weight_of_first` server 21 gets that weight.
pub fn standard(weight_of_first: Option<u32>) -> String {
    let mut out = String::new();
    for i in 1..=3 {
        for address in [format!("10.10.0.10{i}"), format!("fd10::10{i}")] {
            out += &format!("[[snat]]\naddress = \"{address}\"\nnode = \"n{i}\"\n");
        }
    }
    for (i, forward) in ["nat", "dsr-l2", "ipip", "gue"].iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            for family in [4, 6] {
                let vip = if family == 4 { format!("10.99.0.{}", i + 1) } else { format!("fd99::{}", i + 1) };
                out += &virtual_server(
                    &format!("{forward}-{protocol}-{family}"),
                    &vip,
                    protocol,
                    forward,
                    "all",
                );
                if let Some(weight) = weight_of_first {
                    out = out.replacen("weight = 1 #21", &format!("weight = {weight}"), 1);
                }
            }
        }
    }
    out
}

/// A virtual server on port 80 with the four servers of its VIP's family.
pub fn virtual_server(name: &str, vip: &str, protocol: &str, forward: &str, group: &str) -> String {
    let mut out = format!(
        "[[virtual_server]]\nname = \"{name}\"\naddress = \"{vip}\"\nport = 80\nprotocol = \"{protocol}\"\n\
         forward = \"{forward}\"\ngroup = \"{group}\"\n"
    );
    for server in 21..=24 {
        let address = if vip.contains(':') { format!("fd10::{server}") } else { format!("10.10.0.{server}") };
        out += &format!(
            "[[virtual_server.real_server]]\nname = \"s{server}\"\naddress = \"{address}\"\nweight = 1 #{server}\n"
        );
    }
    out
}

/// One node with a NAT and a DSR virtual server.
pub fn single() -> Spec {
    let mut cluster = "[[snat]]\naddress = \"10.10.0.101\"\nnode = \"n1\"\n".to_owned();
    cluster += &virtual_server("nat", "10.99.0.1", "tcp", "nat", "all");
    cluster += &virtual_server("dsr", "10.99.0.2", "tcp", "dsr-l2", "all");
    Spec { nodes: 1, cluster, ..Spec::default() }
}

/// One node with the far ends of its ports.
pub struct Appliance {
    pub node: Node<MemoryPort>,
    pub front: Vec<MemoryLink>,
    back: Vec<MemoryLink>,
    pub pools: MemoryPools,
}

impl Appliance {
    /// The far end of its first backplane queue.
    pub fn back_link(&self) -> &MemoryLink {
        &self.back[0]
    }
}

pub struct World {
    pub now: Instant,
    pub nodes: Vec<Appliance>,
    spec: Spec,
    /// Frames that nodes sent to hosts: the node's index and the bytes.
    pub sent: VecDeque<(usize, Vec<u8>)>,
    hosts: BTreeMap<Addr, Mac>,
    /// Backplane frames so far.
    pub backplane_frames: usize,
    /// What nodes were given, in order of their versions.
    placements: Vec<Vec<Buckets>>,
    /// Nodes that have stopped: they neither send nor take anything.
    stopped: BTreeSet<usize>,
}

pub fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

pub fn front_mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, node as u8])
}

fn back_mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, node as u8])
}

pub fn host_mac(address: Addr) -> Mac {
    Mac([2, 0, 0, 0, 9, address.0[15]])
}

pub fn load(spec: &Spec, number: usize) -> Config {
    let shared = if spec.tables.starts_with("shared_entries") { "" } else { "shared_entries = 8192\n" };
    let node = format!(
        "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n{number}\"\nadmin_socket = \"/n.sock\"\n\
         [tables]\nsessions = 4096\nsteering_sessions = 4096\n{shared}{}\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = {}\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.1{number}/24\", \"fd10::1{number}/64\"]\n\
         [[interface]]\nname = \"tagged\"\nport = \"front\"\nvlan = 7\naddresses = [\"10.70.0.1{number}/24\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.10.0.254\"\n\
         [[route]]\nto = \"fd77::/16\"\nvia = \"fd10::fe\"\n",
        spec.tables, spec.front_mtu,
    );
    let mut cluster =
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n".to_string();
    for i in 1..=spec.nodes {
        let workers = spec.workers;
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"10.20.0.1{i}\"\nworkers = {workers}\n");
        if spec.tables.contains("[log]") {
            cluster += &format!("management = \"10.30.0.1{i}:6601\"\n");
        }
    }
    cluster += &spec.cluster;
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(node.clone()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None).unwrap_or_else(|e| panic!("{e}"))
}

impl World {
    /// Nodes that have found each other and their servers.
    pub fn new(spec: Spec) -> Self {
        let mut hosts = BTreeMap::new();
        for host in [1, 2, 21, 22, 23, 24, 254] {
            let v6 = if host == 254 { "fd10::fe".to_string() } else { format!("fd10::{host}") };
            for address in [format!("10.10.0.{host}"), v6] {
                hosts.insert(addr(&address), host_mac(addr(&address)));
            }
        }
        hosts.insert(addr("10.70.0.1"), host_mac(addr("10.70.0.1")));
        let mut world = Self {
            now: Instant::ZERO,
            nodes: Vec::new(),
            spec,
            sent: VecDeque::new(),
            hosts,
            backplane_frames: 0,
            placements: Vec::new(),
            stopped: BTreeSet::new(),
        };
        for number in 1..=world.spec.nodes {
            let node = world.start(number, 1);
            world.nodes.push(node);
        }
        world.settle();
        world
    }

    fn start(&self, number: usize, incarnation: u32) -> Appliance {
        self.start_by(&load(&self.spec, number), incarnation)
    }

    fn start_by(&self, config: &Config, incarnation: u32) -> Appliance {
        let number = config.me.index() + 1;
        let pools = MemoryPools::new(BUFFERS, 2048);
        let (front_device, front) = memory::open(&config.ports[0].device, front_mac(number), &pools, 1024);
        let (back_device, back) = memory::open(&config.ports[1].device, back_mac(number), &pools, 1024);
        let devices = vec![front_device, back_device];
        let node = Node::new(config, Incarnation(incarnation), devices, self.now).unwrap();
        Appliance { node, front, back, pools }
    }

    /// Kills a node and starts it again as another life.
    pub fn restart(&mut self, number: usize, incarnation: u32) {
        self.nodes[number - 1] = self.start(number, incarnation);
        self.stopped.remove(&number);
    }

    /// The same; to it no real server has weight, as where those that have are down.
    pub fn restart_without_weights(&mut self, number: usize, incarnation: u32) {
        let mut config = load(&self.spec, number);
        let servers = config.virtual_servers.iter().map(|(id, server)| {
            let mut server = VirtualServerConfig::clone(server);
            server.real_servers.iter_mut().for_each(|real| real.weight = 0);
            (id, Arc::new(server))
        });
        config.virtual_servers = Slots::new(config.virtual_servers.slots(), servers.collect::<Vec<_>>());
        self.nodes[number - 1] = self.start_by(&config, incarnation);
    }

    /// Kills and starts it with another cluster file, which the nodes that start later have, too.
    pub fn restart_as(&mut self, number: usize, incarnation: u32, cluster: String) {
        self.spec.cluster = cluster;
        self.restart(number, incarnation);
    }

    /// Takes a node's power away.
    pub fn stop(&mut self, number: usize) {
        self.stopped.insert(number);
    }

    /// Gives the groups their buckets, at one node.
    pub fn place(&mut self, number: usize, buckets: &[Buckets]) {
        if !self.placements.iter().any(|placed| placed == buckets) {
            self.placements.push(buckets.to_vec());
            self.decide(self.placements.len() as u32);
        }
        let version = self.placements.iter().position(|placed| placed == buckets).unwrap() as u32 + 1;
        self.place_as(number, version, buckets);
    }

    /// All nodes know of this version of what is decided.
    pub fn decide(&mut self, version: u32) {
        self.nodes.iter_mut().for_each(|node| node.node.manager().decide(version));
    }

    /// The same, as a version that the caller counts.
    pub fn place_as(&mut self, number: usize, version: u32, buckets: &[Buckets]) {
        self.nodes[number - 1].node.manager().place(version, buckets.to_vec());
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.step();
            let now = self.now;
            let ready = |a: &mut Appliance| {
                let stats = a.node.manager().stats(now);
                stats.ready && stats.peers.iter().all(|p| p.up) && stats.view == stats.view_adopted
            };
            if self.nodes.iter_mut().all(ready) {
                self.run(3100); // until the announcements are over
                self.sent.clear();
                return;
            }
        }
        panic!("the nodes don't find each other");
    }

    /// One millisecond: a turn of every node, then what they sent arrives.
    pub fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for i in (0..self.nodes.len()).filter(|i| !self.stopped.contains(&(i + 1))) {
            self.nodes[i].node.turn(self.now);
        }
        for i in 0..self.nodes.len() {
            let back: Vec<_> = self.nodes[i].back.iter().flat_map(MemoryLink::collect_all).collect();
            back.into_iter().for_each(|frame| self.switch(i, frame));
            let front: Vec<_> = self.nodes[i].front.iter().flat_map(MemoryLink::collect_all).collect();
            front.into_iter().for_each(|frame| self.host(i, frame));
        }
    }

    pub fn run(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    /// Carries a frame from one backplane to the others.
    fn switch(&mut self, from: usize, frame: Vec<u8>) {
        self.backplane_frames += 1;
        let dst = Eth::new(&frame[..]).unwrap().dst();
        for (i, node) in self.nodes.iter().enumerate() {
            if i != from && !self.stopped.contains(&(i + 1)) && (dst.is_multicast() || dst == back_mac(i + 1))
            {
                // Flow steering of a device: the data port picks the queue, all else goes to the first.
                let port = usize::from(u16::from_be_bytes([frame[36], frame[37]]));
                let queue =
                    port.checked_sub(6600).filter(|q| frame[23] == 17 && *q < node.back.len()).unwrap_or(0);
                assert!(node.back[queue].inject(&frame), "the backplane takes all");
            }
        }
    }

    /// Answers as a host's stack would if someone looks for it; else keeps the frame for the test.
    fn host(&mut self, node: usize, frame: Vec<u8>) {
        let answer = match Eth::new(&frame[..]).unwrap().ethertype() {
            ethertype::ARP if frame[20..22] == [0, 1] => self.arp_answer(&frame, 14),
            ethertype::VLAN if frame[16..18] == [8, 6] => self.arp_answer(&frame, 18),
            ethertype::IPV6 if frame[20] == 58 && frame[54] == 135 => self.discovery_answer(&frame),
            _ => return self.sent.push_back((node, frame)),
        };
        if let Some(answer) = answer {
            assert!(self.nodes[node].front[0].inject(&answer));
        }
    }

    fn arp_answer(&self, frame: &[u8], at: usize) -> Option<Vec<u8>> {
        let question = Arp::parse(&frame[at..]).ok().filter(|m| m.operation == Operation::Request)?;
        let mac = *self.hosts.get(&question.target)?;
        let mut out = frame.to_vec();
        let vlan = (at == 18).then_some(7);
        eth::write(&mut out, question.sender_mac, mac, vlan, ethertype::ARP);
        let answer = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: question.target,
            target_mac: question.sender_mac,
            target: question.sender,
        };
        answer.write(&mut out[at..]);
        Some(out)
    }

    fn discovery_answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let question = Neighbour::parse(&frame[54..]).ok()?;
        let mac = *self.hosts.get(&question.target)?;
        let asker = Addr(frame[22..38].try_into().unwrap());
        let mut out = vec![0; 54 + icmp::ND_LEN];
        eth::write(&mut out, question.mac?, mac, None, ethertype::IPV6);
        ipv6::write(&mut out[14..], 0, 0, icmp::ND_LEN as u16, 58, 255, question.target, asker);
        let answer = Neighbour {
            advertisement: true,
            solicited: true,
            overrides: true,
            target: question.target,
            mac: Some(mac),
        };
        answer.write(&mut out[54..], question.target, asker);
        Some(out)
    }

    /// Makes node `number` (from 1) receive a frame, on the queue of its first worker.
    pub fn inject(&mut self, number: usize, frame: &[u8]) {
        assert!(self.nodes[number - 1].front[0].inject(frame), "the lane is full");
    }

    /// Injects, lets it pass, and gives what came out: the number of the node that sent it, and the frame.
    pub fn exchange(&mut self, number: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.inject(number, frame);
        self.run(8);
        self.take()
    }

    /// What the nodes sent to hosts since the last time, with the sender's number.
    pub fn take(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.sent.drain(..).map(|(i, frame)| (i + 1, frame)).collect()
    }

    pub fn stats(&mut self, number: usize) -> Stats {
        let now = self.now;
        self.nodes[number - 1].node.manager().stats(now)
    }

    /// A counter of one node, all workers.
    pub fn count(&mut self, number: usize, name: &str) -> u64 {
        self.stats(number).totals.counters[name]
    }

    /// Dropped packets of one node for one reason.
    pub fn drops(&mut self, number: usize, reason: &str) -> u64 {
        self.stats(number).totals.drops.get(reason).copied().unwrap_or(0)
    }

    /// A counter of all nodes.
    pub fn sum(&mut self, name: &str) -> u64 {
        (1..=self.nodes.len()).map(|n| self.count(n, name)).sum()
    }

    /// All buffers that aren't in a test's hands must be back.
    pub fn assert_no_leak(&mut self) {
        self.run(1200); // what waits for a neighbour gives up
        self.sent.clear();
        let whole = BUFFERS + BUFFERS / 4;
        // Between two heartbeats nothing is on its way.
        for _ in 0..20 {
            if self.nodes.iter().all(|a| a.pools.free() == whole) {
                break;
            }
            self.step();
        }
        for (i, a) in self.nodes.iter().enumerate() {
            assert_eq!(a.pools.free(), whole, "buffers of n{}", i + 1);
        }
    }
}
