//! What openraft is made of here.

use crate::cluster::fences::Fences;
use crate::cluster::log::{Replica, ReplicaId};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

openraft::declare_raft_types!(
    /// The types that the log gives to openraft.
    pub Types:
        D = Batch,
        R = Applied,
        NodeId = u64,
        Node = Peer,
        SnapshotData = Cursor<Vec<u8>>,
);

/// One proposal as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The entry's bytes.
    pub bytes: Vec<u8>,
    /// What it fences.
    pub fences: Fences,
}

/// The proposals that share one place in openraft's log: those that waited while the one before was written. So however many
/// wait, each round takes one write to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// In their order.
    pub proposals: Vec<Proposal>,
}

/// Proposals that are written together, at most.
const BATCH: usize = 256;
/// Bytes of them, at most; a longer one goes alone.
const BATCH_BYTES: usize = 1 << 20;

impl Batch {
    /// Puts `first`, and what `next` gives, into one batch, as far as they fit. Behind it: who proposed each, and what no
    /// longer fitted.
    pub fn gather<W>(
        first: (Proposal, W),
        mut next: impl FnMut() -> Option<(Proposal, W)>,
    ) -> (Self, Vec<W>, Option<(Proposal, W)>) {
        let mut bytes = first.0.bytes.len();
        let (mut batch, mut waiting) = (Self { proposals: vec![first.0] }, vec![first.1]);
        while batch.proposals.len() < BATCH {
            let Some((proposal, who)) = next() else { break };
            bytes += proposal.bytes.len();
            if bytes > BATCH_BYTES {
                return (batch, waiting, Some((proposal, who)));
            }
            batch.proposals.push(proposal);
            waiting.push(who);
        }
        (batch, waiting, None)
    }

    /// What it fences.
    pub fn fences(&self) -> Fences {
        self.proposals.iter().map(|proposal| &proposal.fences).collect()
    }
}

/// The index of a batch's first proposal; of the last one before it, plus one, if it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied(pub u64);

/// How a replica is known to openraft, beside its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// See [`Replica::name`].
    pub name: String,
    /// See [`Replica::address`].
    pub address: String,
}

impl From<&Replica> for Peer {
    fn from(replica: &Replica) -> Self {
        Self { name: replica.name.clone(), address: replica.address.clone() }
    }
}

/// openraft's log entry.
pub type Entry = openraft::Entry<Types>;
/// openraft's place of an entry.
pub type LogId = openraft::LogId<u64>;
/// openraft's vote.
pub type Vote = openraft::Vote<u64>;
/// A membership with its place.
pub type StoredMembership = openraft::StoredMembership<u64, Peer>;
/// What a snapshot says of itself.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
/// openraft's storage error.
pub type StorageError = openraft::StorageError<u64>;
/// openraft's handle.
pub type Raft = openraft::Raft<Types>;

/// The replicas of `membership`, the lowest number first.
pub fn replicas(membership: &StoredMembership) -> Vec<Replica> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    let each = membership.nodes().map(|(id, peer)| Replica {
        id: replica_id(*id),
        name: peer.name.clone(),
        address: peer.address.clone(),
        votes: voters.contains(id),
    });
    each.collect()
}

/// The replica that openraft calls `id`. (All were made from a [`ReplicaId`].)
pub fn replica_id(id: u64) -> ReplicaId {
    ReplicaId(u16::try_from(id).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_what_fits() {
        let gather = |lengths: &[usize]| {
            let mut rest = lengths
                .iter()
                .enumerate()
                .map(|(n, length)| (Proposal { bytes: vec![0; *length], fences: Fences::NONE }, n));
            let first = rest.next().unwrap();
            let (batch, waiting, kept) = Batch::gather(first, || rest.next());
            assert_eq!(batch.proposals.len(), waiting.len());
            (waiting.len(), kept.map(|(_, who)| who))
        };
        assert_eq!(gather(&[3 * BATCH_BYTES, 1]), (1, Some(1)), "a long one goes alone");
        assert_eq!(gather(&[1, BATCH_BYTES, 1]), (1, Some(1)));
        assert_eq!(gather(&[1, 2, 3]), (3, None));
        assert_eq!(gather(&[1; BATCH + 9]), (BATCH, None));
    }
}
