//! The places that a packet passes.

use std::fmt;

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Sent by a client.
    Client,
    /// Sent by a server.
    Server(u8),
    /// Given to a node's front queue.
    FrontIn(u8, u8),
    /// Given to a node's backplane queue.
    BackIn(u8, u8),
    /// Sent by a node to a host.
    FrontOut(u8),
    /// Sent by a node to another.
    BackOut(u8),
    /// For a node that is dead.
    Dead(u8),
    /// Lost, doubled and damaged by the wire.
    Lost,
    /// See [`Self::Lost`].
    Doubled,
    /// See [`Self::Lost`].
    Damaged,
    /// Taken by a client.
    AtClient,
    /// Taken by a server.
    AtServer(u8),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Client => write!(f, "sent by its client"),
            Self::Server(s) => write!(f, "sent by server {s}"),
            Self::FrontIn(n, q) => write!(f, "into n{}, front queue {q}", n + 1),
            Self::BackIn(n, q) => write!(f, "into n{}, backplane queue {q}", n + 1),
            Self::FrontOut(n) => write!(f, "out of n{}, front", n + 1),
            Self::BackOut(n) => write!(f, "out of n{}, backplane", n + 1),
            Self::Dead(n) => write!(f, "for n{}, which is dead", n + 1),
            Self::Lost => write!(f, "lost"),
            Self::Doubled => write!(f, "doubled"),
            Self::Damaged => write!(f, "damaged"),
            Self::AtClient => write!(f, "taken by its client"),
            Self::AtServer(s) => write!(f, "taken by server {s}"),
        }
    }
}
