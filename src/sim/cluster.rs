//! The cluster's files, and one of its nodes with the far ends of its ports.

use super::oracle::{ESTABLISHED, HALF_OPEN};
use super::plan::{Change, Method, NODES, Plan, SERVER_PORT, SERVERS, Serving, front, ip6, server, snat};
use crate::base::{Addr, Incarnation, Instant, Mac};
use crate::io::memory::{self, MemoryLink, MemoryPools, MemoryPort};
use crate::manage::compile;
use crate::manage::config::{self, Config};
use crate::node::Node;
use crate::path::port::PortCaps;
use crate::view::View;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;

/// The cluster's key.
pub const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Data buffers of a node.
const BUFFERS: usize = 1024;
const BUFFER_BYTES: usize = 1792;
/// Frames that fit a queue.
const DEPTH: usize = 1024;
/// Sessions of a worker, and as many steering sessions.
const SESSIONS: usize = 1024;

/// A node's Ethernet address in front.
pub fn front_mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, node as u8])
}

/// A node's Ethernet address on the backplane.
pub fn back_mac(node: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, node as u8])
}

/// The node that has one of those.
pub fn node_of(mac: Mac) -> Option<usize> {
    match mac.0 {
        [2, 0, 0, 0, 1 | 2, node] => Some(usize::from(node)),
        _ => None,
    }
}

fn backplane(plan: &Plan, node: usize) -> Addr {
    let last = 11 + node as u8;
    if plan.backplane_v6 { ip6(0xfd20, last) } else { Addr::v4([10, 20, 0, last]) }
}

/// The configuration of a node, whose cluster file differs from the others' in `change`.
fn configuration(plan: &Plan, node: usize, change: Change) -> Config {
    let workers = if change == Change::Workers { 3 } else { plan.workers };
    let queues = if change == Change::Workers { workers } else { plan.front_queues };
    let (half_open, established) = (HALF_OPEN.as_millis(), ESTABLISHED.as_millis());
    let file = format!(
        "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n{}\"\nadmin_socket = \"/n.sock\"\n\
         [tables]\nsessions = {SESSIONS}\nsteering_sessions = {SESSIONS}\n\
         [timeouts]\nhalf_open = \"{half_open}ms\"\nclosed = \"{half_open}ms\"\n\
         established = \"{established}ms\"\nudp = \"{established}ms\"\nsteering = \"{established}ms\"\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = 1500\nqueues = {queues}\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"{}/24\", \"{}/64\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"{}\"\n[[route]]\nto = \"fd77::/16\"\nvia = \"{}\"\n",
        node + 1,
        front(false, 11 + node as u8),
        front(true, 11 + node as u8),
        front(false, 254),
        front(true, 254),
    );
    let mut cluster = format!("[cluster]\nkey = \"{:032x}\"\nmaglev_slots = 509\n", u128::from_be_bytes(KEY));
    for i in 0..NODES {
        let workers = if i == node { workers } else { plan.workers };
        let weight = if change == Change::Weights && i != node { 3 } else { 1 };
        cluster += &format!(
            "[[node]]\nname = \"n{}\"\nbackplane = \"{}\"\nworkers = {workers}\nweight = {weight}\n",
            i + 1,
            backplane(plan, i)
        );
        for v6 in [false, true] {
            cluster += &format!("[[snat]]\naddress = \"{}\"\nnode = \"n{}\"\n", snat(v6, i), i + 1);
        }
    }
    let members: Vec<_> =
        (0..NODES).filter(|n| *n != plan.outsider).map(|n| format!("\"n{}\"", n + 1)).collect();
    cluster += &format!("[[group]]\nname = \"some\"\nmembers = [{}]\n", members.join(", "));
    for (method, v6, protocol, serving) in Method::ALL
        .into_iter()
        .flat_map(|m| [false, true].map(|v6| (m, v6)))
        .flat_map(|(m, v6)| ["tcp", "udp"].map(|p| (m, v6, p)))
        .flat_map(|(m, v6, p)| Serving::ALL.map(|s| (m, v6, p, s)))
        .filter(|(method, _, _, serving)| *method != Method::Nat || !serving.local())
    {
        let (vip, family, port) = (method.vip(v6), if v6 { 6 } else { 4 }, serving.port());
        cluster += &format!(
            "[[virtual_server]]\nname = \"{protocol}-{}-{family}-{port}\"\naddress = \"{vip}\"\nport = {port}\n\
             protocol = \"{protocol}\"\nforward = \"{}\"\n{}",
            vip.v4_bytes()[3],
            method.forward(),
            match serving {
                Serving::Steered => "",
                Serving::Local => "ingress = \"local\"\n",
                Serving::LocalGroup => "ingress = \"local\"\ngroup = \"some\"\n",
            }
        );
        let port = if method == Method::Nat { format!("port = {SERVER_PORT}\n") } else { String::new() };
        for i in 0..SERVERS {
            let weight = if change == Change::Servers && i + 1 == SERVERS { 9 } else { 1 };
            cluster += &format!(
                "[[virtual_server.real_server]]\nname = \"s{i}\"\naddress = \"{}\"\nweight = {weight}\n{port}",
                server(method.server_v6(v6), i)
            );
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(file.clone()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    match config::load_from(&read, Path::new("node.toml"), None) {
        Ok(config) => config,
        Err(errors) => panic!("the simulator's own configuration is wrong: {errors}"),
    }
}

/// Frames that passed the ports of a node in its present life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Into front queues.
    pub front_in: u64,
    /// Out of them.
    pub front_out: u64,
    /// Into backplane queues.
    pub back_in: u64,
    /// Out of them.
    pub back_out: u64,
    /// ARP and neighbour discovery into either.
    pub lookups_in: u64,
    /// Answers of that kind out.
    pub answers_out: u64,
    /// Questions and claims out.
    pub asked_out: u64,
}

/// A part that has read the clock and then lost its core, and until when.
pub type Sleep = Option<(Instant, Instant)>;

/// A frame in a worker's front queue that another owns.
#[derive(Debug)]
pub struct Waiting {
    /// Which one of all frames given to that queue.
    pub number: u64,
    /// The hash of its tuple.
    pub hash: u64,
    /// The owner's node.
    pub owner: usize,
    /// The flow of which it is an undamaged packet.
    pub flow: Option<u32>,
}

/// What a worker must decide by hashing.
#[derive(Debug, Default)]
pub struct Hashing {
    /// Frames given to its front queue so far.
    pub queued: u64,
    /// Of those, the ones that it has not taken yet and isn't the owner of.
    pub waiting: VecDeque<Waiting>,
    /// Tuples that it has seen, by hash, and in which life of their owner.
    pub seen: BTreeSet<(u64, u32)>,
}

/// One life of a node.
pub struct Appliance {
    /// It.
    pub node: Node<MemoryPort>,
    /// The far ends of its front queues.
    pub front: Vec<MemoryLink>,
    /// The far ends of its backplane queues.
    pub back: Vec<MemoryLink>,
    /// Its buffers.
    pub pools: MemoryPools,
    /// How many of them there are.
    pub buffers: usize,
    /// What it decides by, as far as that is in its files.
    pub view: View,
    /// Its workers.
    pub workers: usize,
    /// What passed its ports.
    pub tally: Tally,
    /// By worker, the manager last.
    pub sleeps: Vec<Sleep>,
    /// By worker.
    pub hashing: Vec<Hashing>,
    /// The life of each node that all its workers know of.
    pub known: [u32; NODES],
    /// It may know more by now.
    pub unsure: bool,
}

impl Appliance {
    /// Starts a node.
    pub fn start(plan: &Plan, index: usize, life: u32, change: Change, now: Instant) -> Self {
        let config = configuration(plan, index, change);
        let pools = MemoryPools::new(BUFFERS, BUFFER_BYTES);
        let macs = [front_mac(index), back_mac(index)];
        let ((front_device, front), (back_device, back)) = (
            memory::open(&config.ports[0].device, macs[0], &pools, DEPTH),
            memory::open(&config.ports[1].device, macs[1], &pools, DEPTH),
        );
        let caps: Vec<_> =
            config.ports.iter().zip(macs).map(|(port, mac)| PortCaps { mac, mtu: port.device.mtu }).collect();
        let life = Incarnation(life);
        let built = compile::compile(&config, life, &caps).map_err(|e| e.to_string()).and_then(|view| {
            let node = Node::new(&config, life, vec![front_device, back_device], now);
            node.map(|node| (view, node)).map_err(|e| e.to_string())
        });
        let (view, node) = match built {
            Ok(built) => built,
            Err(error) => panic!("the simulator's own configuration is wrong: {error}"),
        };
        let workers = usize::from(config.workers.count);
        Self {
            node,
            front,
            back,
            buffers: pools.free(),
            pools,
            view,
            workers,
            tally: Tally::default(),
            sleeps: vec![None; workers + 1],
            hashing: (0..workers).map(|_| Hashing::default()).collect(),
            known: [0; NODES],
            unsure: true,
        }
    }

    /// Ends its life. All buffers must be back then; if not, how many are free, of how many.
    pub fn end(self) -> Result<(), (usize, usize)> {
        let Self { node, front, back, pools, buffers, .. } = self;
        drop((node, front, back));
        let free = pools.free();
        if free == buffers { Ok(()) } else { Err((free, buffers)) }
    }
}
