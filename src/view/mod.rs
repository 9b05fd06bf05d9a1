//! The forwarding snapshot that workers read: immutable, compiled by `manage`, swapped whole.
//!
//! All that decides where a packet goes is in here, so that two nodes with the same View decide alike. The large parts are
//! shared between successive Views: a change costs what it changes, not what there is.

mod adjacency;
mod buckets;
pub mod chain;

pub use adjacency::{Adjacencies, Adjacency, Packet, Reach, ServerWay};
pub use buckets::{BucketSet, Buckets, Chains, Learnt, Quarantine};

use crate::base::limits::{BUCKETS, MAX_GROUPS, MAX_NODES};
use crate::base::{
    Addr, Bucket, FlowKey, GroupId, HashKey, Incarnation, InterfaceId, Mac, NodeId, PortId, RealServerId,
    SnatId, VirtualServerId, WorkerId,
};
use crate::table::chunks::Chunks;
use crate::table::exact::{ExactKey, ExactMap, Filter};
use crate::table::maglev::Maglev;
use crate::table::route::RouteTable;
use crate::wire::{eth, protocol, vlan};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Transport protocols that virtual servers are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

/// How a packet reaches the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// Full NAT: both addresses and both ports rewritten; replies come back through the cluster.
    Nat,
    /// Destination MAC rewritten; the server answers the client itself.
    DsrL2,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213); the server answers the client itself.
    Ipip,
    /// Generic UDP encapsulation, variant 1 (draft-ietf-intarea-gue §4); the server answers the client itself.
    Gue,
}

/// Who handles a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingress {
    /// The node and core that own the flow's bucket.
    Steered,
    /// Whoever receives it, without state.
    Local,
}

/// A node of the cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its life; zero until it was heard.
    pub incarnation: Incarnation,
    /// The cookie of that life's data frames.
    pub cookie: u64,
    /// Its address on the backplane.
    pub backplane: Addr,
    /// The next hop there; none for this node.
    pub hop: Option<HopId>,
    /// Its workers.
    pub workers: u16,
    /// Heard within the suspicion time; where nodes decide together: let in to serve, by what is decided.
    pub up: bool,
}

/// A node group (MECHANISMS §2).
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its nodes, a bit each.
    pub members: u64,
    /// SNAT addresses of the group in the order in which this node tries them: its own first.
    pub snats: Vec<SnatId>,
    /// How many of those this node advertises itself.
    pub own_snats: usize,
}

impl Group {
    /// Whether `node` is a member.
    pub fn has(&self, node: NodeId) -> bool {
        self.members >> node.0 & 1 == 1
    }
}

/// How long clients of a virtual server keep their real server, and which are one (MECHANISMS §3 point 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Ticks since a client's last connection.
    pub ticks: u32,
    /// Length of the prefix that makes IPv4 clients one.
    pub v4: u8,
    /// Of IPv6 clients.
    pub v6: u8,
}

impl Persistence {
    /// The client that a tuple to a virtual server comes from, as a tuple: it has the prefix for its address, and no port.
    #[inline]
    pub fn client(&self, key: &FlowKey) -> FlowKey {
        let len = if key.is_v4() { 96 + u32::from(self.v4) } else { u32::from(self.v6) };
        let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
        let prefix = Addr((u128::from_be_bytes(key.src.0) & mask).to_be_bytes());
        FlowKey::new(prefix, key.dst, 0, key.dst_port, key.protocol)
    }
}

/// A virtual server.
#[derive(Clone, Debug)]
pub struct VirtualServer {
    /// Its name.
    pub name: String,
    /// The VIP.
    pub address: Addr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The nodes that serve it.
    pub group: GroupId,
    /// Those that served it before, and may still have sessions of it.
    pub former: Option<GroupId>,
    /// How packets reach its real servers.
    pub forward: Forward,
    /// Who handles a packet.
    pub ingress: Ingress,
    /// How long its clients keep their real servers; none: not at all.
    pub persistence: Option<Persistence>,
    /// Ticks that an idle established flow lives.
    pub idle_ticks: u32,
    /// Which real server takes a new flow.
    pub maglev: Maglev,
}

/// A real server of one virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// The virtual server.
    pub virtual_server: VirtualServerId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Addr,
    /// Its port.
    pub port: u16,
    /// IP protocol of its virtual server.
    pub protocol: u8,
    /// How packets reach it.
    pub forward: Forward,
    /// Whether those packets are IPv4: by the address of its virtual server.
    pub v4: bool,
    /// Next hop towards it; none if this node doesn't serve it and has no way to it.
    pub hop: Option<HopId>,
    /// Source of the outer header towards it, when tunnelled.
    pub tunnel_source: Addr,
    /// It isn't known to be down: clients that have it may keep it, be its weight zero.
    pub up: bool,
}

impl RealServer {
    /// Whether it was removed, and this is its place.
    pub fn is_gone(&self) -> bool {
        self.name.is_empty()
    }
}

/// A SNAT address.
#[derive(Clone, Copy, Debug)]
pub struct Snat {
    /// The address.
    pub address: Addr,
    /// The group whose flows use it.
    pub group: GroupId,
    /// The node that advertises it.
    pub node: NodeId,
}

/// An IP interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The port it is on.
    pub port: PortId,
    /// Its 802.1Q tag.
    pub vlan: Option<u16>,
    /// The port's Ethernet address.
    pub mac: Mac,
    /// Largest layer-3 packet.
    pub mtu: u16,
    /// Its addresses with the prefixes that are on link.
    pub addresses: Vec<(Addr, u8)>,
    /// The interface between the nodes, on which no client's packet is taken.
    pub backplane: bool,
}

impl Interface {
    /// Bytes of the Ethernet header, tag included, of frames that leave by it.
    #[inline(always)]
    pub fn link_header_len(&self) -> usize {
        eth::HEADER_LEN + if self.vlan.is_some() { vlan::TAG_LEN } else { 0 }
    }

    /// The interface's own address for talking to `peer`: the one whose prefix holds it, else any of its family.
    pub fn source_for(&self, peer: Addr) -> Option<Addr> {
        let of_family = |(a, _): &&(Addr, u8)| a.is_v4() == peer.is_v4();
        let covering = self.addresses.iter().filter(of_family).find(|(a, len)| prefix_holds(*a, *len, peer));
        covering.or_else(|| self.addresses.iter().find(of_family)).map(|(a, _)| *a)
    }
}

/// Whether `addr` lies in the prefix of `len` bits that `network` lies in. Lengths are those of the family.
pub fn prefix_holds(network: Addr, len: u8, addr: Addr) -> bool {
    if network.is_v4() != addr.is_v4() {
        return false;
    }
    let bits = if network.is_v4() { u32::from(len) + 96 } else { u32::from(len) };
    let [a, b] = [network, addr].map(|x| u128::from_be_bytes(x.0));
    bits == 0 || (a ^ b) >> (128 - bits.min(128)) == 0
}

/// Number of a next hop in [`View::hops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HopId(pub u32);

/// A neighbour that the configuration makes us send to: a gateway, a real server on link, a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface it is on.
    pub interface: InterfaceId,
    /// Its address there.
    pub address: Addr,
    /// Its Ethernet address, once it has told.
    pub mac: Option<Mac>,
}

impl Hop {
    /// What stands where a next hop was that nothing needs any more: the others keep their numbers.
    pub const VACANT: Self = Self { interface: InterfaceId(0), address: Addr::UNSPECIFIED, mac: None };

    /// Whether it is none.
    pub fn is_vacant(&self) -> bool {
        self.address == Addr::UNSPECIFIED
    }

    /// Where it is.
    pub fn place(&self) -> Neighbour {
        Neighbour { interface: self.interface, address: self.address }
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through a gateway.
    Via(HopId),
    /// The destination is on link.
    OnLink(InterfaceId),
}

/// A neighbour's place: interface and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub interface: InterfaceId,
    /// The address.
    pub address: Addr,
}

/// What an address that we answer to is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// An address of one of this node's interfaces.
    Interface,
    /// A node's address on the backplane: nobody's business in front.
    Backplane,
    /// A VIP, served by a group.
    Vip,
    /// A SNAT address.
    Snat {
        /// Which.
        id: SnatId,
    },
}

/// A service as packets name it.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Service {
    /// Destination address.
    pub address: Addr,
    /// Destination port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl PartialEq for Service {
    /// Without a branch: packets ask for services that exist.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let address = u128::from_ne_bytes(self.address.0) ^ u128::from_ne_bytes(other.address.0);
        let rest = u32::from(self.port ^ other.port) | u32::from(self.protocol ^ other.protocol) << 16;
        (address as u64 | (address >> 64) as u64 | u64::from(rest)) == 0
    }
}

/// Not keyed: the keys are the configuration's own, and packets that aim at empty slots still find them in a few probes.
#[inline(always)]
fn addr_bits(addr: &Addr, salt: u64) -> u64 {
    let word = u128::from_le_bytes(addr.0);
    let (low, high) =
        (word as u64 ^ salt ^ 0x9e37_79b9_7f4a_7c15, (word >> 64) as u64 ^ 0xd6e8_feb8_6659_fd93);
    let product = u128::from(low) * u128::from(high);
    ((product >> 64) as u64 ^ product as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl ExactKey for Addr {
    #[inline(always)]
    fn bits(&self) -> u64 {
        addr_bits(self, 0)
    }
}

impl ExactKey for Service {
    #[inline(always)]
    fn bits(&self) -> u64 {
        addr_bits(&self.address, u64::from(self.port) << 8 | u64::from(self.protocol))
    }
}

impl ExactKey for Neighbour {
    #[inline(always)]
    fn bits(&self) -> u64 {
        addr_bits(&self.address, u64::from(self.interface.0))
    }
}

/// The part of a View that changes with the configuration only.
#[derive(Clone, Debug)]
pub struct Services {
    /// Virtual servers by what packets say.
    pub by_service: ExactMap<Service, VirtualServerId>,
    /// All addresses that are ours or the cluster's.
    pub owned: ExactMap<Addr, Owned>,
    /// Rules most addresses out as one of those.
    pub owned_filter: Filter,
    /// The [`Ingress::Local`] ones that this node serves, by what packets say.
    pub local: ExactMap<Service, VirtualServerId>,
    /// Virtual servers by id.
    pub virtual_servers: Vec<VirtualServer>,
    /// Real servers by id.
    pub real_servers: Chunks<RealServer>,
    /// SNAT addresses by id.
    pub snats: Vec<Snat>,
    /// Groups by id.
    pub groups: Vec<Group>,
    /// This node's interfaces by id.
    pub interfaces: Vec<Interface>,
    /// Interface of a (port, VLAN) pair: `port << 16 | VLAN`, VLAN 0 for untagged; few, so a sorted list.
    pub interface_of: Vec<(u32, InterfaceId)>,
    /// Where other addresses are reached.
    pub routes: RouteTable<Route>,
}

/// Idle times that don't hang on a virtual server, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A TCP handshake.
    pub half_open: u32,
    /// A closed TCP connection.
    pub closed: u32,
    /// A steering session.
    pub steering: u32,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct View {
    /// Higher in every View that this node publishes.
    pub version: u64,
    /// This node.
    pub me: NodeId,
    /// Key of the flow hash.
    pub hash_key: HashKey,
    /// Key of cookies and control frames.
    pub auth_key: HashKey,
    /// UDP port of worker 0's data frames.
    pub data_port: u16,
    /// UDP port of control frames.
    pub control_port: u16,
    /// Whether steering decisions are cached.
    pub steering_cache: bool,
    /// Whether virtual servers that need no state are served without a lease.
    pub stateless_without_lease: bool,
    /// Idle times.
    pub timeouts: Timeouts,
    /// The cluster.
    pub nodes: Vec<Node>,
    /// All that changes with the configuration only.
    pub services: Arc<Services>,
    /// The VIPs and SNAT addresses that this node answers ARP and ND for.
    pub advertised: Arc<ExactMap<Addr, ()>>,
    /// By group: whose its buckets are. See [`Self::place`].
    pub buckets: Arc<[Buckets]>,
    /// The version since which they are as they are.
    pub placed: u64,
    /// The same, by group.
    pub placed_by_group: Arc<[u64]>,
    /// The versions of what the nodes decide: the one that this follows from, and the latest that this node knows of. Their low
    /// bits; 0 where nothing is decided.
    pub in_force: u32,
    /// See [`Self::in_force`].
    pub decided: u32,
    /// The groups, a bit each, in which this node is a bucket's previous owner.
    pub leaving: u64,
    /// The virtual servers that are another group's by what is decided, but not in force yet, ascending; and whose.
    pub regrouping: Arc<[(VirtualServerId, GroupId)]>,
    /// Those that have left a group, in which there may be sessions of them, ascending.
    pub regrouped: Arc<[VirtualServerId]>,
    /// The version since which those are as they are.
    pub regrouped_in: u64,
    /// Next hops by id; a number that isn't used any more is [`Hop::VACANT`].
    pub hops: Vec<Hop>,
    /// The version since which the numbers mean what they do. They change with this machine's interfaces and routes only.
    pub numbered: u64,
    /// The headers in front of packets, which follow from all of the above: see [`Self::link`].
    pub adjacencies: Adjacencies,
    /// All neighbours that are known: the next hops, and clients on the link.
    pub neighbours: ExactMap<Neighbour, Mac>,
}

/// The node and worker that own a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// Its worker.
    pub worker: WorkerId,
}

impl View {
    /// Makes the adjacencies, after a change of the services, next hops or nodes. What is as it was in the View before is shared
    /// with it.
    pub fn link(&mut self, before: Option<&View>) {
        self.adjacencies = Adjacencies::build(self, before);
    }

    /// This node's entry.
    pub fn this_node(&self) -> &Node {
        &self.nodes[self.me.index()]
    }

    /// Whether the address is one of ours or the cluster's, and what it is.
    #[inline(always)]
    pub fn owned(&self, address: &Addr) -> Option<Owned> {
        if self.services.owned_filter.may_hold(address) { self.services.owned.get(address) } else { None }
    }

    /// The virtual server that a packet is for.
    #[inline]
    pub fn virtual_server(&self, key: &FlowKey) -> Option<VirtualServerId> {
        let service = Service { address: key.dst, port: key.dst_port, protocol: key.protocol };
        self.services.by_service.get(&service)
    }

    /// The tuple of the replies to a NATed flow: from the real server to the SNAT address and port.
    #[inline]
    pub fn reply_key(&self, real: RealServerId, snat: SnatId, port: u16) -> FlowKey {
        let real = &self.services.real_servers[real.index()];
        FlowKey::new(real.address, self.services.snats[snat.index()].address, real.port, port, real.protocol)
    }

    /// The group whose a virtual server is about to be, if that is another.
    #[inline]
    pub fn regrouping(&self, id: VirtualServerId) -> Option<GroupId> {
        let at = self.regrouping.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        self.regrouping.get(at).map(|(_, group)| *group)
    }

    /// The Ethernet address of a neighbour, if it is known.
    #[inline]
    pub fn mac_of(&self, neighbour: Neighbour) -> Option<Mac> {
        self.neighbours.get(&neighbour)
    }

    /// The interface of a frame received on `port` with this tag (zero: none).
    #[inline]
    pub fn interface_of(&self, port: PortId, vlan: u16) -> Option<InterfaceId> {
        let wanted = u32::from(port.0) << 16 | u32::from(vlan);
        self.services.interface_of.iter().find(|(k, _)| *k == wanted).map(|(_, id)| *id)
    }
}

/// The bucket that a SNAT port names: its low 12 bits (MECHANISMS §4 point 5).
#[inline]
pub fn snat_bucket(port: u16) -> Bucket {
    Bucket(port % BUCKETS as u16)
}

const _: () = assert!(MAX_NODES <= u64::BITS as usize, "Group::members has a bit a node");
const _: () = assert!(MAX_GROUPS <= u64::BITS as usize, "View::leaving has a bit a group");
