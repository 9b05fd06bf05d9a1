//! The forwarding snapshot that workers read: immutable, compiled by `manage`, swapped whole.

use serde::Serialize;

/// Transport protocols that virtual servers are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// How a packet reaches the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingress {
    /// The node and core that own the flow's bucket.
    Steered,
    /// Whoever receives it, without state.
    Local,
}
