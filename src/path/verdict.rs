//! Why a packet goes no further. Each reason has a counter of its own.

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Verdict {
            $($(#[$doc])* $name,)*
        }

        impl Verdict {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name under which statistics show it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

verdicts! {
    /// Too short for Ethernet, or for the VLAN tag that it announces.
    EthernetMalformed = "ethernet_malformed",
    /// To another station's Ethernet address (an unlearnt one, flooded by a switch).
    NotOurMac = "not_our_mac",
    /// With a VLAN tag that no interface has, without one where all have one, or with two.
    UnknownVlan = "unknown_vlan",
    /// Neither IP nor ARP.
    UnknownEthertype = "unknown_ethertype",
    /// An impossible ARP message.
    ArpMalformed = "arp_malformed",
    /// ARP or neighbour discovery for addresses that we don't answer for, or of no news.
    NeighbourIgnored = "neighbour_ignored",
    /// An IP header that contradicts itself or the frame's length.
    IpMalformed = "ip_malformed",
    /// A wrong IPv4 header checksum.
    IpChecksum = "ip_checksum",
    /// A source that can't be one (multicast, broadcast, loopback, unspecified, IPv4-mapped, an address of ours, or the
    /// destination itself), or a packet to one host in a frame to all.
    BadAddress = "bad_address",
    /// A part of a datagram; ports are only in the first one.
    Fragment = "fragment",
    /// More or stranger IPv6 extension headers than we walk.
    ExtensionHeaders = "extension_headers",
    /// An impossible TCP, UDP or ICMP header, or SYN together with FIN or RST.
    TransportMalformed = "transport_malformed",
    /// A destination that is neither ours nor the cluster's.
    NotOurAddress = "not_our_address",
    /// An address of the cluster, but no virtual server at this port and protocol.
    NoVirtualServer = "no_virtual_server",
    /// A backplane frame on a front port.
    BackplaneOnFront = "backplane_on_front",
    /// Something on the backplane that is no backplane frame.
    StrayOnBackplane = "stray_on_backplane",
    /// A backplane frame with a header that we can't read.
    BackplaneMalformed = "backplane_malformed",
    /// A backplane frame without the cookie of its sender's life.
    BackplaneCookie = "backplane_cookie",
    /// A backplane frame from a life of its sender that is over.
    BackplaneIncarnation = "backplane_incarnation",
    /// A control frame that is unreadable or not authentic.
    ControlRefused = "control_refused",
    /// A steered packet that has come as far as packets go, at a node that can't take it: for nodes that disagree it has gone
    /// round, or one that was asked has begun another life.
    StageExhausted = "stage_exhausted",
    /// The end of a NATed flow's handshake, before other nodes could go on with it; the client sends again.
    Unshared = "unshared",
    /// The group has no node, or the bucket's owner is gone and its lease may go on.
    NoOwner = "no_owner",
    /// The ring to the worker that owns the flow is full.
    RingFull = "ring_full",
    /// No room for a new NAT session.
    SessionTableFull = "session_table_full",
    /// A new NAT session while this node has no lease, or the last owner of its bucket may still have one.
    NoLease = "no_lease",
    /// The node's lease ended while the turn went on whose output this was.
    LeaseOver = "lease_over",
    /// No free SNAT port for this bucket and real server.
    SnatExhausted = "snat_exhausted",
    /// In the middle of a NATed connection that we don't know.
    NoSession = "no_session",
    /// The virtual server has no real server that takes new flows.
    NoRealServer = "no_real_server",
    /// Its time to live is used up.
    TtlExpired = "ttl_expired",
    /// Larger than the way out, and not to be fragmented: the sender was told.
    TooBig = "too_big",
    /// Larger than the way out; the sender was told often enough, or can't be told.
    TooBigSilent = "too_big_silent",
    /// No route to its destination.
    NoRoute = "no_route",
    /// The next hop didn't tell its Ethernet address in time, or too many packets wait for one.
    NeighbourUnresolved = "neighbour_unresolved",
    /// No headroom for a header, or no free buffer.
    NoBuffer = "no_buffer",
    /// The device's transmit queue is full.
    TxFull = "tx_full",
    /// An ICMP message that we have no use for.
    IcmpIgnored = "icmp_ignored",
}
