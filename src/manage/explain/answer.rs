//! An explanation as a value: the admin API gives it as JSON, the command line as text.

use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// What becomes of the packets of a tuple, and why. Parts that a packet doesn't come to are none.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The tuple, as it was asked for.
    pub tuple: TupleSaid,
    /// The node whose configuration and state this was read from.
    pub told_by: String,
    /// It was a running node: sessions were asked for. Else it is what its files say of a fresh flow.
    pub live: bool,
    /// Version of the View.
    pub view: u64,
    /// Who receives the packet.
    pub receiver: Receiver,
    /// The virtual server.
    pub virtual_server: Option<VirtualServerSaid>,
    /// The keyed hash of the tuple, in hexadecimal.
    pub hash: Option<String>,
    /// The bucket.
    pub bucket: Option<BucketSaid>,
    /// Who owns the flow.
    pub owner: Option<OwnerSaid>,
    /// The owner's session, if it was asked and has one.
    pub session: Option<SessionSaid>,
    /// The real server.
    pub real_server: Option<RealServerSaid>,
    /// What is done to the packet.
    pub rewrite: Option<Rewrite>,
    /// Where it goes from the owner; none if that is another node, whose routes and neighbours only it knows.
    pub next_hop: Option<NextHop>,
    /// The packet goes no further.
    pub dropped: Option<Dropped>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// A tuple.
#[derive(Clone, Debug, Serialize)]
pub struct TupleSaid {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

/// Who receives the packet.
#[derive(Clone, Debug, Serialize)]
pub struct Receiver {
    /// The node.
    pub node: String,
    /// What each of its workers does with the packet, if the device gives it to that one. Empty: the node was not asked.
    pub workers: Vec<Arrival>,
    /// The worker that the rest speaks of, if its tables decide: another one would hash.
    pub worker: Option<u16>,
    /// Why this node.
    pub why: String,
}

/// What a receiving worker does.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// The worker.
    pub id: u16,
    /// What it decides by.
    pub by: By,
    /// The node that it gives the packet to; none if it drops it.
    pub node: Option<String>,
    /// That node's worker.
    pub worker: Option<u16>,
}

/// What a receiver decides by (MECHANISMS §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// It has the flow's session.
    Session,
    /// It has a steering session.
    SteeringSession,
    /// It has neither, and asks the tuple.
    Tuple,
}

/// A virtual server.
#[derive(Clone, Debug, Serialize)]
pub struct VirtualServerSaid {
    /// Its name.
    pub name: String,
    /// VIP and port.
    pub address: SocketAddr,
    /// How packets reach its real servers.
    pub forward: crate::view::Forward,
    /// Who handles a packet.
    pub ingress: crate::view::Ingress,
    /// The group that serves it.
    pub group: String,
    /// Why this one.
    pub why: String,
}

/// A bucket.
#[derive(Clone, Debug, Serialize)]
pub struct BucketSaid {
    /// Its number.
    pub number: u16,
    /// Why this one.
    pub why: String,
}

/// Who owns a flow.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerSaid {
    /// The node.
    pub node: String,
    /// Its worker; none: whichever received the packet.
    pub worker: Option<u16>,
    /// The core that this worker is pinned to, if this node's files say so.
    pub core: Option<usize>,
    /// How the packet comes there from its receiver; none if the owner is the receiver.
    pub steered: Option<Steered>,
    /// Why this one.
    pub why: String,
}

/// A frame from node to node.
#[derive(Clone, Debug, Serialize)]
pub struct Steered {
    /// The receiver's address on the backplane, and a port by the flow's hash.
    pub source: SocketAddr,
    /// The owner's address there; the port names its worker.
    pub destination: SocketAddr,
    /// The way out, if the receiver was asked.
    pub next_hop: Option<NextHop>,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionSaid {
    /// How far the flow has come.
    pub state: &'static str,
    /// `forward`: from the client; `reply`: from the real server.
    pub direction: &'static str,
    /// The client.
    pub client: SocketAddr,
    /// What it talks to.
    pub virtual_server: SocketAddr,
    /// Seconds since its last packet; times are kept in steps of 134 ms.
    pub idle_s: f64,
    /// After so many idle seconds it is forgotten.
    pub lifetime_s: f64,
}

/// A real server.
#[derive(Clone, Debug, Serialize)]
pub struct RealServerSaid {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Its share of new flows; with zero it takes none.
    pub weight: u32,
    /// The Maglev slot that the flow's hash names.
    pub slot: usize,
    /// Slots of the table.
    pub slots: usize,
    /// Slots of this server.
    pub own_slots: usize,
    /// Why this one.
    pub why: String,
}

/// What is done to a packet. Fields that its kind doesn't have are left out.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Rewrite {
    /// Addresses and ports are replaced, as the session says.
    Nat {
        /// The new source.
        source: SocketAddr,
        /// The new destination.
        destination: SocketAddr,
        /// Why these.
        why: String,
    },
    /// Addresses and ports are replaced; source address and port will be chosen with the flow's first packet.
    NatNew {
        /// SNAT addresses in the order of preference: those that the owner advertises, then the others of the group.
        sources: Vec<IpAddr>,
        /// How many of them are the owner's own.
        own: usize,
        /// The port's low 12 bits.
        port_class: u16,
        /// The ports of that class.
        ports: Vec<u16>,
        /// The new destination.
        destination: SocketAddr,
        /// Why these.
        why: String,
    },
    /// Only the Ethernet destination: the next hop's.
    DsrL2 {
        /// The reason.
        why: String,
    },
    /// IP in IP.
    Ipip {
        /// Source of the outer header; none where only the owner knows its address on the way.
        outer_source: Option<IpAddr>,
        /// Its destination.
        outer_destination: IpAddr,
        /// The reason.
        why: String,
    },
    /// Generic UDP encapsulation.
    Gue {
        /// Source of the outer header; none where only the owner knows its address on the way.
        outer_source: Option<IpAddr>,
        /// Its destination.
        outer_destination: IpAddr,
        /// UDP source port.
        outer_source_port: u16,
        /// UDP destination port.
        outer_destination_port: u16,
        /// The reason.
        why: String,
    },
}

/// Where a packet goes.
#[derive(Clone, Debug, Serialize)]
pub struct NextHop {
    /// The neighbour.
    pub address: IpAddr,
    /// Its Ethernet address, if it is known.
    pub mac: Option<String>,
    /// The interface.
    pub interface: String,
    /// Its 802.1Q tag.
    pub vlan: Option<u16>,
    /// The port that it leaves by.
    pub port: String,
    /// Why there.
    pub why: String,
}

/// Why a packet goes no further.
#[derive(Clone, Debug, Serialize)]
pub struct Dropped {
    /// The counter that counts it.
    pub reason: &'static str,
    /// In words.
    pub why: String,
}
