//! The configuration: a node file (this machine) that names a profile (tuning) and a cluster file (what all nodes share).
//!
//! Parse → check → either a [`Config`] in which every reference resolves, or every error at once, each with file and line.

mod check;
mod cluster_file;
mod error;
mod judged;
mod load;
mod node_file;
mod schema;
mod section;
mod shared;
mod slots;
#[cfg(test)]
mod tests;
mod value;

pub use error::{ConfigError, Errors};
pub use load::{load, load_from, objects, objects_from};
pub use slots::Slots;

use crate::base::{Addr, GroupId, HashKey, InterfaceId, NodeId, PortId, RealServerId};
use crate::cluster::namespace::{Key, Object, PersistenceSpec};
use crate::path::port::DeviceConfig;
use crate::view::{Forward, Ingress, Protocol};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node's index in `nodes`.
    pub me: NodeId,
    /// The Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Threads and their cores.
    pub workers: WorkerConfig,
    /// Table sizes (for each worker) and idle times.
    pub tables: TableConfig,
    /// DPDK's environment.
    pub dpdk: DpdkConfig,
    /// Packet devices; [`PortId`] is the index.
    pub ports: Vec<PortConfig>,
    /// IP interfaces on front ports; [`InterfaceId`] is the index. The backplane's address stands in `nodes`.
    pub interfaces: Vec<InterfaceConfig>,
    /// Static routes. A connected prefix of an interface is a route by itself and is not listed here.
    pub routes: Vec<RouteConfig>,
    /// How it takes part in the cluster's log; none: what all nodes share stands in their files, and stays as it is.
    pub log: Option<Arc<LogConfig>>,
    /// What all nodes share.
    pub cluster: ClusterConfig,
    /// Group and address pairs that SNAT picks from, by [`SnatId`](crate::base::SnatId).
    pub snats: Slots<SnatConfig>,
    /// VIPs of which there is something particular to say, by address.
    pub vips: BTreeMap<Addr, VipConfig>,
    /// Virtual servers, by [`VirtualServerId`](crate::base::VirtualServerId). One that a change leaves alone is shared with
    /// the configuration before.
    pub virtual_servers: Slots<Arc<VirtualServerConfig>>,
    /// One past the highest [`RealServerId`] that was ever given.
    pub real_server_ids: usize,
}

/// What a worker does when a turn found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Poll on: lowest latency, a whole core.
    Spin,
    /// Yield, and after a while sleep in short steps: for machines that others use too.
    Adaptive,
}

/// Worker threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How many; at least one.
    pub count: u16,
    /// Core of each worker; empty: not pinned.
    pub cores: Vec<usize>,
    /// Core of the management thread, if pinned.
    pub management_core: Option<usize>,
    /// What to do when there is nothing to do.
    pub idle: Idle,
}

/// Tables of one worker, and how long an idle entry lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Sessions of flows that this worker owns.
    pub sessions: usize,
    /// Steering sessions of flows that others own.
    pub steering_sessions: usize,
    /// Entries of the state that nodes share: this worker's, and copies of others'.
    pub shared_entries: usize,
    /// Whether steering decisions are cached at all (off: every packet is hashed to its node anew).
    pub steering_cache: bool,
    /// A TCP connection whose handshake isn't complete.
    pub half_open: Duration,
    /// An established TCP connection, unless its virtual server says otherwise.
    pub established: Duration,
    /// A TCP connection that has seen both FINs or a RST.
    pub closed: Duration,
    /// A UDP flow, unless its virtual server says otherwise.
    pub udp: Duration,
    /// A steering session.
    pub steering: Duration,
}

/// How DPDK's environment abstraction layer starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkConfig {
    /// Memory from hugepages (`--in-memory`) or ordinary pages (`--no-huge`).
    pub hugepages: bool,
    /// Megabytes reserved.
    pub memory_mb: u32,
    /// Buffers of each port's receive pool.
    pub buffers: u32,
    /// Bytes of packet data a buffer holds (headroom not counted).
    pub buffer_bytes: u16,
    /// Further EAL arguments, as they are.
    pub eal_args: Vec<String>,
}

/// How a node takes part in the cluster's log (MECHANISMS §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Where it stores it.
    pub directory: PathBuf,
    /// What it shows the other nodes; none for a cluster of one node.
    pub tls: Option<LogTls>,
    /// Whether it serves virtual servers that need no state while it has no lease.
    pub stateless_without_quorum: bool,
    /// Names and addresses of the witnesses of a new cluster, in the order of their numbers.
    pub witnesses: Vec<(String, String)>,
    /// What a new cluster begins with: the cluster file's objects, in its order.
    pub objects: Vec<(Key, Object)>,
}

/// Files by which nodes know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTls {
    /// Certificate of the cluster's authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// Towards clients, real servers and routers.
    Front,
    /// Towards the other nodes, and nothing else.
    Backplane,
}

/// A packet device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// What it is for.
    pub role: PortRole,
    /// The device.
    pub device: DeviceConfig,
}

/// An IP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The front port it is on.
    pub port: PortId,
    /// Its 802.1Q tag, if any.
    pub vlan: Option<u16>,
    /// Its own addresses, each with the length of the prefix that is on link.
    pub addresses: Vec<(Addr, u8)>,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Destination prefix.
    pub to: (Addr, u8),
    /// Gateway; on link of `interface`.
    pub via: Addr,
    /// The interface that reaches the gateway.
    pub interface: InterfaceId,
}

/// What all nodes share.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// Key of the flow hash.
    pub hash_key: HashKey,
    /// Key of control frames' MACs and of data frames' cookies.
    pub auth_key: HashKey,
    /// UDP port of steered packets for worker 0 of a node; worker `i` has `data_port + i`.
    pub data_port: u16,
    /// UDP port of control frames.
    pub control_port: u16,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a peer counts as down.
    pub suspicion: Duration,
    /// Length of the prefix that is on the backplane's link.
    pub backplane_prefix: u8,
    /// Slots of each Maglev table; a prime.
    pub maglev_slots: usize,
    /// All nodes, by [`NodeId`].
    pub nodes: Slots<NodeConfig>,
    /// Node groups, by [`GroupId`]. The group of all nodes, `all`, always exists and is the first.
    pub groups: Slots<GroupConfig>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its address on the backplane.
    pub backplane: Addr,
    /// Its workers.
    pub workers: u16,
    /// Its share of the buckets, relative to the others'.
    pub weight: u32,
    /// Where the others reach it on the management network.
    pub management: Option<SocketAddr>,
}

/// A node group (MECHANISMS §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// Its nodes, ascending.
    pub members: Vec<NodeId>,
    /// Nodes that serve while no member lives.
    pub backups: Vec<NodeId>,
}

/// A SNAT address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatConfig {
    /// The address.
    pub address: Addr,
    /// The group whose flows may use it.
    pub group: GroupId,
    /// The member that advertises it (answers ARP and ND for it).
    pub node: NodeId,
}

/// What is particular to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// The group whose members advertise it.
    pub group: GroupId,
    /// The member that advertises it while it lives.
    pub preferred: Option<NodeId>,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServerConfig {
    /// Log index of the last change of it, of one of its real servers or of its profile; zero if it was read from a file.
    pub revision: u64,
    /// Its name.
    pub name: String,
    /// The VIP.
    pub address: Addr,
    /// Port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The nodes that serve it.
    pub group: GroupId,
    /// Those that served it before and may still have sessions of it, and the log index of that change.
    pub former: Option<(GroupId, u64)>,
    /// How packets reach the real server.
    pub forward: Forward,
    /// Who handles a packet: its owner or its receiver.
    pub ingress: Ingress,
    /// How long its clients keep their real servers; none: not at all.
    pub persistence: Option<PersistenceSpec>,
    /// Life of an idle established flow.
    pub idle: Duration,
    /// Its real servers, ascending by id; at least one of weight above zero.
    pub real_servers: Vec<RealServerConfig>,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerConfig {
    /// Its id.
    pub id: RealServerId,
    /// Its name, unique within the virtual server.
    pub name: String,
    /// Its address.
    pub address: Addr,
    /// Its port; the virtual server's unless `nat` says otherwise.
    pub port: u16,
    /// Its share of new flows as people have set it; zero: none.
    pub set: u32,
    /// Its share of new flows as its health has it, too; relative to the others'.
    pub weight: u32,
    /// It isn't known to be down.
    pub up: bool,
}
