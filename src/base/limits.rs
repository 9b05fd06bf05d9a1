//! Every bound of the appliance, and how they hang together.

/// Packets handled together: one receive call, one pass of each stage.
pub const BURST: usize = 32;
/// Placement buckets of a group. A SNAT port's low 12 bits are its bucket, so this can't be anything else.
pub const BUCKETS: usize = 4096;
/// Nodes of one cluster.
pub const MAX_NODES: usize = 64;
/// Workers of one node.
pub const MAX_WORKERS: usize = 64;
/// Network devices of one node.
pub const MAX_PORTS: usize = 16;
/// IP interfaces of one node.
pub const MAX_INTERFACES: usize = 64;
/// Node groups of one cluster.
pub const MAX_GROUPS: usize = 64;
/// SNAT addresses of one cluster.
pub const MAX_SNATS: usize = 4096;
/// Virtual servers of one cluster.
pub const MAX_VIRTUAL_SERVERS: usize = 16_384;
/// Real servers of one virtual server.
pub const MAX_REAL_SERVERS: usize = 4096;
/// Flows in one worker's table: an index slot has 24 bits for the entry.
pub const MAX_FLOWS: usize = (1 << 24) - 1;
/// Static routes of one node.
pub const MAX_ROUTES: usize = 1024;
/// Neighbours (ARP and ND entries) that a node keeps.
pub const MAX_NEIGHBOURS: usize = 16_384;
/// Slots of a Maglev table unless configured otherwise (Eisenbud et al., NSDI 2016, §5.3): a prime.
pub const MAGLEV_SLOTS: usize = 65_537;
/// Frames that wait in one worker until a neighbour has answered.
pub const MAX_HELD: usize = 64;
/// Of those, frames for one neighbour.
pub const MAX_HELD_EACH: usize = 8;
/// Frames in the ring between two workers of a node.
pub const RING_FRAMES: usize = 1024;
/// Bytes that a stage may rely on being contiguous at the front of a frame, if the frame is that long.
pub const HEAD_BYTES: usize = 192;
/// IPv6 extension headers that are walked, and the bytes they may fill together.
pub const MAX_EXT_HEADERS: usize = 8;
/// See [`MAX_EXT_HEADERS`].
pub const MAX_EXT_BYTES: usize = 256;
/// Entries of a flow table that one turn looks at for expiry.
pub const SWEEP_SLICE: usize = 64;
/// Bytes that Steerage may put in front of a packet: Ethernet, VLAN, IPv6, UDP, backplane header.
pub const HEADROOM: usize = 128;

/// Whether `n` is a prime, as the slots of a Maglev table have to be. By trial division: they are bounded to some millions.
pub fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

const _: () = assert!(BUCKETS == 1 << 12);
const _: () = assert!(BURST.is_power_of_two() && RING_FRAMES.is_power_of_two() && RING_FRAMES >= BURST);
const _: () = assert!(MAX_NODES <= 64, "sets of nodes are 64-bit masks");
const _: () = assert!(MAX_VIRTUAL_SERVERS * MAX_REAL_SERVERS <= 1 << 26);
const _: () = assert!(HEADROOM >= 14 + 4 + 40 + 8 + 32);
