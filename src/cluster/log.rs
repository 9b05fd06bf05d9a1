//! The contract of the replicated log (MECHANISMS §0, §6): opaque entries in one committed order, the same on every replica.
//!
//! A [`Log`] is a value that the management thread polls; no call waits for a disk or a peer. What it hands out comes through
//! [`Log::take`] alone, in one order. With *committed* is meant: durable on a majority of the voters, so that no crash of a
//! minority, and no restart of all, can lose it.

use super::fences::Fences;
use crate::base::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// Replicas that vote, at most (MECHANISMS §6): more would make each commit slower and no safer.
pub const MAX_VOTERS: usize = 7;
/// Bytes of one entry, at most.
pub const MAX_ENTRY: usize = 4 << 20;
/// Proposals of this replica whose outcome isn't known yet, at most.
pub const MAX_PROPOSALS: usize = 1024;

/// A process that holds the log: a node, by its [`NodeId`], or from [`ReplicaId::FIRST_WITNESS`] a witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u16);

impl ReplicaId {
    /// The lowest number of a witness: it votes and stores entries, but has no state machine.
    pub const FIRST_WITNESS: Self = Self(1000);

    /// The node that it is; none for a witness.
    pub fn node(self) -> Option<NodeId> {
        (self < Self::FIRST_WITNESS).then_some(NodeId(self.0))
    }
}

impl From<NodeId> for ReplicaId {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

impl std::fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A replica as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its number.
    pub id: ReplicaId,
    /// Its name, for which its certificate is made out.
    pub name: String,
    /// Where it takes connections of other replicas: `address:port` on the management network, or `name:port`.
    pub address: String,
    /// Whether it votes. One that doesn't is a learner: it gets every entry, and nothing waits for it.
    pub votes: bool,
}

/// Names a proposal, or a change of the replicas, to the one who made it. Tickets of one [`Log`] value count up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed, at this index (a change of the replicas: behind the entry at this index). Whatever [`Log::take`] gave
    /// before this (the entry itself, or a snapshot that holds it) includes it, so the proposer's state machine has it
    /// already.
    Committed(u64),
    /// It is not committed and will never be.
    Refused(Refusal),
    /// It may be committed, or may yet be: leadership was lost, or the leader was. Who proposes must be able to do so again.
    Unknown,
}

/// Why a proposal was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No majority of the voters is within reach of this replica, or no leader is elected yet.
    #[error("no leader: a majority of the voters is out of reach")]
    NoLeader,
    /// [`MAX_PROPOSALS`] are on their way, here or at the leader; or the log awaits a snapshot before it can grow.
    #[error("too many proposals are on their way")]
    Busy,
    /// More than [`MAX_ENTRY`] bytes.
    #[error("an entry of {0} bytes; at most {MAX_ENTRY} can be stored")]
    TooLong(usize),
    /// A set of replicas that can't be: the text says why.
    #[error("{0}")]
    Replicas(String),
    /// The log has stopped: see [`Output::Failed`].
    #[error("the log has stopped: {0}")]
    Failed(String),
}

/// What a log tells the management thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The next committed entry. On every replica the same bytes stand at the same index; the first is 1, each further one the
    /// next. Each comes once in the life of this value, or after [`Anew`](Self::Anew).
    Entry {
        /// Its place.
        index: u64,
        /// As proposed.
        bytes: Vec<u8>,
    },
    /// All state up to `index` is to be replaced by this. First of all if the replica has stored a snapshot; later if it was
    /// too far behind the others, whose entries have been compacted. Entries from `index + 1` on follow.
    Install {
        /// The last entry that the snapshot holds.
        index: u64,
        /// What [`Log::snapshot`] was given, here or on another replica.
        bytes: Vec<u8>,
    },
    /// The committed set of replicas, when it has changed and after the start: in order with the entries.
    Replicas(Vec<Replica>),
    /// What [`Log::restore`] has asked for begins: all entries and snapshots that came before are void. An
    /// [`Install`](Self::Install) may follow, and entries from behind it on; without one, entries from the first on.
    Anew,
    /// Who leads has changed, or whether a majority is within reach.
    Role {
        /// The leader that this replica follows, or itself; none while there is an election. A witness may lead for a moment.
        leader: Option<ReplicaId>,
        /// The leader's term: never falls.
        term: u64,
        /// Whether a majority was within reach a moment ago: the leader has heard it, or this replica the leader, within one
        /// election timeout. Not a lease: it says what proposals can hope for.
        quorum: bool,
    },
    /// The voters have renewed what [`Log::renew`] asked for under this token.
    Renewed {
        /// The token.
        token: u64,
    },
    /// What became of a proposal, or a change of the replicas. Comes exactly once for each ticket, unless the log fails.
    Outcome(Ticket, Outcome),
    /// Enough entries have gathered since the last snapshot: [`Log::snapshot`] should be called soon. Comes once for each.
    WantSnapshot,
    /// The log has stopped for good, for this reason (disk full, files damaged, a bug). Nothing comes after it; what was
    /// committed is still so on the others. Tickets without an outcome are [`Outcome::Unknown`].
    Failed(String),
}

/// A replica of the log.
pub trait Log {
    /// Proposes an entry; at any replica, the leader is found. Its outcome follows as [`Output::Outcome`]. `fences`: what it says of
    /// nodes to the replicas that store it, before and whether or not it is ever committed ([`Log::fenced`]).
    ///
    /// Two proposals of one replica may be committed in either order.
    fn propose(&mut self, bytes: Vec<u8>, fences: Fences) -> Ticket;

    /// Makes `replicas` the replicas of the log; at any replica, while it runs. Those that are new are brought up to date
    /// first, before any of them votes. A majority of the old voters and one of the new are needed. One change at a time:
    /// another is refused meanwhile.
    ///
    /// A voter that has lost what it stored must be taken out and put in again: it may not vote before (Ongaro 2014, §11.2).
    fn set_replicas(&mut self, replicas: Vec<Replica>) -> Ticket;

    /// The next thing that it has to tell; none: nothing new.
    fn take(&mut self) -> Option<Output>;

    /// Gives it the state machine's content after the entry (or snapshot) at `index`, which [`Log::take`] has given. It is
    /// stored, and earlier entries are forgotten once that is durable.
    fn snapshot(&mut self, index: u64, bytes: Vec<u8>);

    /// Has everything given anew ([`Output::Anew`]) to a state machine whose state can't be trusted any more, and so neither the
    /// snapshot that was made of it: one that the replica `from` has stored takes its place. If this replica has none, it needs
    /// none. If `from` has none that is as new, nothing comes but that it is asked to make one; this is to be called again then,
    /// perhaps with another. Until it has succeeded the replica doesn't lead, if another can.
    fn restore(&mut self, from: ReplicaId);

    /// The state machine is at an end, as what is decided is beyond its software: this replica doesn't lead from now on, if another
    /// can, and takes no proposals. To be called again as long as it leads.
    fn resign(&mut self);

    /// Asks the voters to renew the lease of this node's life ([`super::lease`]). If [`Output::Renewed`] comes, no entry that fences
    /// this life was committed before this was called. Nothing is stored or committed by it.
    ///
    /// So that this holds while voters change, too, the question names a membership M, the last that is known here to be
    /// committed; a majority of its voters must agree, of each of two sets if M is joint; and a voter agrees which has *stored* M,
    /// no membership with other voters behind it, and nothing that fences this life. Suppose that they agree though F, which
    /// fences it, was committed before:
    ///
    /// - If M stands behind F, whoever has stored M has stored F, and does not agree. So the leader that committed F had M in its
    ///   log. Let N be the first membership behind M in that log with other voters.
    /// - If there was no N yet, or nothing with other voters again behind it, a majority by M or by N has stored F. Either has a
    ///   voter in common with those who agree: M and N share a set of voters, of which both need a majority (Ongaro 2014, §4.3).
    ///   This voter does not agree.
    /// - If there was, N had been committed before that was appended, as there is one change at a time. So a majority by N has
    ///   stored N, and a voter among those who agree; what is committed is never cut off, so this one does not agree.
    fn renew(&mut self, token: u64, life: Incarnation);

    /// The lives of nodes that entries *stored* here fence, committed or not: all that they say, together. What an entry says
    /// is in it before this replica has acknowledged the entry, and until it is cut off again because a later leader never had
    /// it. So once a majority has stored a fence, one of any majority of the same voters shows it; when voters change, more is needed
    /// ([`Log::renew`]).
    fn fenced(&self) -> Fences;
}

impl<L: Log + ?Sized> Log for Box<L> {
    fn propose(&mut self, bytes: Vec<u8>, fences: Fences) -> Ticket {
        (**self).propose(bytes, fences)
    }

    fn set_replicas(&mut self, replicas: Vec<Replica>) -> Ticket {
        (**self).set_replicas(replicas)
    }

    fn take(&mut self) -> Option<Output> {
        (**self).take()
    }

    fn snapshot(&mut self, index: u64, bytes: Vec<u8>) {
        (**self).snapshot(index, bytes);
    }

    fn restore(&mut self, from: ReplicaId) {
        (**self).restore(from);
    }

    fn resign(&mut self) {
        (**self).resign();
    }

    fn renew(&mut self, token: u64, life: Incarnation) {
        (**self).renew(token, life);
    }

    fn fenced(&self) -> Fences {
        (**self).fenced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_no_node() {
        assert_eq!(ReplicaId(3).node(), Some(NodeId(3)));
        assert_eq!(ReplicaId::FIRST_WITNESS.node(), None);
    }
}
