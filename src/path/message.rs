//! What workers and the management thread tell each other, over bounded channels.

use super::meta::Meta;
use crate::base::limits::{HEAD_BYTES, MAX_NODES};
use crate::base::{Bucket, FlowKey, GroupId, Instant, InterfaceId, Mac, NodeId, RealServerId, WorkerId};
use crate::table::session::{Direction, Session};
use crate::table::steering::Steering;
use crate::view::{BucketSet, Learnt, Neighbour};
use crate::wire::control;
use arrayvec::ArrayVec;

/// From a worker to the management thread. (Peers' heartbeats, which must not be lost among these, have a channel of their
/// own.)
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "workers don't allocate")]
pub enum Event {
    /// A packet waits for this neighbour.
    Resolve(Neighbour),
    /// A neighbour has told its Ethernet address.
    Heard {
        /// Who.
        neighbour: Neighbour,
        /// Its Ethernet address.
        mac: Mac,
        /// It asked us, so it is about to send us something: worth knowing even if nobody waits for it.
        asked_us: bool,
    },
    /// The answer to [`Command::LookUp`].
    Known(Known),
    /// What a worker still has of a group's buckets that another node owns now.
    Held(Held),
    /// A copy of a bucket of this group, which this node owns, is complete.
    Learnt(GroupId, Learnt),
    /// A node's copy of a bucket that this node owns lacked so many entries, or had them otherwise: they are written again.
    Mended {
        /// The bucket's group.
        group: GroupId,
        /// The bucket.
        bucket: Bucket,
        /// Whose copy.
        copy: NodeId,
        /// How many.
        entries: u32,
    },
    /// Of which virtual servers that have left a group a worker still has sessions.
    Kept(Kept),
}

/// Virtual servers of which a worker has sessions of the group before: in buckets that another node owns in their group, or with a
/// SNAT address of that one; by one whole pass over its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who has looked.
    pub worker: WorkerId,
    /// By what it did so: [`regrouped_in`](crate::view::View::regrouped_in).
    pub regrouped_in: u64,
    /// When it began. What was opened since may be missing.
    pub began: Instant,
    /// It looked for 64 of [`regrouped`](crate::view::View::regrouped) at most: from this one on.
    pub first: usize,
    /// A bit for each of them of which there is a session.
    pub kept: u64,
}

/// The sessions that a worker found in buckets of one group of which its node is the previous owner, by one whole pass over
/// its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who has counted.
    pub worker: WorkerId,
    /// The placement by which it did so: [`placed`](crate::view::View::placed).
    pub placed: u64,
    /// When it began. What was opened since may be missing.
    pub began: Instant,
    /// The group.
    pub group: GroupId,
    /// Sessions.
    pub sessions: u32,
    /// The buckets that they are in.
    pub buckets: BucketSet,
}

/// What a worker knows of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The question that this answers.
    pub ticket: u64,
    /// Who answers.
    pub worker: WorkerId,
    /// Its session: the client's tuple, which way a packet with the tuple in question goes, and the session.
    pub session: Option<(FlowKey, Direction, Session)>,
    /// Its steering session, be it void or not.
    pub steering: Option<Steering>,
    /// The real server that its client keeps.
    pub kept: Option<RealServerId>,
}

/// From the management thread to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Send this Ethernet frame on that interface's port.
    Transmit {
        /// What it says is only true while the node's lease holds.
        promise: bool,
        /// The interface.
        interface: InterfaceId,
        /// The frame, VLAN tag included.
        frame: ArrayVec<u8, HEAD_BYTES>,
    },
    /// Send this control message to that node.
    Control {
        /// The node.
        node: NodeId,
        /// The message.
        message: ArrayVec<u8, { control::MAX_LEN }>,
    },
    /// Tell what you know of the flow of such a packet ([`Event::Known`]); nothing changes by that.
    LookUp {
        /// To stand in the answer.
        ticket: u64,
        /// The packet's facts, its hash included.
        meta: Meta,
    },
}

/// Messages that a channel holds. One round of heartbeats to every peer must fit.
pub const CHANNEL: usize = 1024;

const _: () = assert!(CHANNEL >= 4 * MAX_NODES);
