//! What a node tells of itself, as values: the admin API, the command line and Prometheus all show these.

use crate::path::counters::{Counters, FlowCounters};
use crate::path::port::DeviceStats;
use crate::path::verdict::Verdict;
use crate::view::{Forward, Ingress, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A node's statistics. All counts are since its start.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// The node's name.
    pub node: String,
    /// Its life.
    pub incarnation: u32,
    /// It can serve: every next hop has told its Ethernet address, or has been asked for it in vain.
    pub ready: bool,
    /// It serves virtual servers that need no state.
    pub stateless_ready: bool,
    /// The View that it last published.
    pub view: u64,
    /// The oldest View that a worker still uses.
    pub view_adopted: u64,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// By worker.
    pub workers: Vec<WorkerStats>,
    /// All workers together.
    pub totals: Totals,
    /// By device.
    pub ports: Vec<PortStats>,
    /// By virtual server.
    pub virtual_servers: Vec<VirtualServerStats>,
    /// The other nodes.
    pub peers: Vec<PeerStats>,
    /// Next hops and on-link neighbours.
    pub neighbours: Vec<NeighbourStats>,
}

/// One worker's counters; the names are those of [`Counters`].
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStats {
    /// Which worker.
    pub id: u16,
    /// Every single counter by name.
    #[serde(flatten)]
    pub counters: BTreeMap<&'static str, u64>,
    /// Dropped packets by [`Verdict`]; those that never happened are left out.
    pub drops: BTreeMap<&'static str, u64>,
}

impl WorkerStats {
    /// The counters of worker `id` now.
    pub fn read(id: u16, counters: &Counters) -> Self {
        let drops = Verdict::ALL.iter().map(|v| (v.name(), counters.drops[*v as usize].get()));
        Self { id, counters: counters.each().collect(), drops: drops.filter(|(_, n)| *n > 0).collect() }
    }
}

/// Sums over the workers.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Every single counter by name.
    #[serde(flatten)]
    pub counters: BTreeMap<&'static str, u64>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Dropped packets.
    pub drops_total: u64,
}

impl Totals {
    /// Adds up what the workers say. (`view` is no count, and left out.)
    pub fn of(workers: &[WorkerStats]) -> Self {
        let mut totals = Self { counters: BTreeMap::new(), drops: BTreeMap::new(), drops_total: 0 };
        for worker in workers {
            for (name, n) in worker.counters.iter().filter(|(name, _)| **name != "view") {
                *totals.counters.entry(name).or_default() += n;
            }
            for (name, n) in &worker.drops {
                *totals.drops.entry(name).or_default() += n;
                totals.drops_total += n;
            }
        }
        totals
    }
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub struct PortStats {
    /// Its name in the configuration.
    pub name: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Largest layer-3 packet.
    pub mtu: u16,
    /// The device's own counters.
    #[serde(flatten)]
    pub device: DeviceStats,
}

/// Traffic of a virtual or real server through this node.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Traffic {
    /// New flows.
    pub connections: u64,
    /// Packets towards the real servers.
    pub packets_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Packets towards the clients (NAT only).
    pub packets_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Sessions now.
    pub sessions: u64,
}

impl Traffic {
    /// Adds one worker's share.
    pub fn count(&mut self, counters: &FlowCounters) {
        self.connections += counters.connections.get();
        self.packets_in += counters.packets_in.get();
        self.bytes_in += counters.bytes_in.get();
        self.packets_out += counters.packets_out.get();
        self.bytes_out += counters.bytes_out.get();
        self.sessions += counters.sessions.get();
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.sessions += other.sessions;
    }
}

/// A virtual server.
#[derive(Clone, Debug, Serialize)]
pub struct VirtualServerStats {
    /// Its name.
    pub name: String,
    /// The VIP.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The group that serves it.
    pub group: String,
    /// This node is a member of that group.
    pub member: bool,
    /// How packets reach its real servers.
    pub forward: Forward,
    /// Who handles a packet.
    pub ingress: Ingress,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Its real servers.
    pub real_servers: Vec<RealServerStats>,
}

/// A real server.
#[derive(Clone, Debug, Serialize)]
pub struct RealServerStats {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Another node.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStats {
    /// Its name.
    pub name: String,
    /// Its life; zero until it was heard.
    pub incarnation: u32,
    /// Heard within the suspicion time.
    pub up: bool,
    /// It says that it is ready.
    pub ready: bool,
    /// Milliseconds since it was heard; none if never.
    pub heard_ms_ago: Option<u64>,
    /// The View that it runs (its own count).
    pub view: u64,
    /// Its cluster file says what ours says; false also while it hasn't been heard.
    pub same_configuration: bool,
    /// The share of its buckets in the group of all nodes.
    pub buckets: usize,
}

/// A neighbour.
#[derive(Clone, Debug, Serialize)]
pub struct NeighbourStats {
    /// The interface.
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<String>,
}
