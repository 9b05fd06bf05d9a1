//! Renewals of a node's lease: who asks, and who agrees, while voters change. Why that is enough stands at [`Log::renew`].
//!
//! [`Log::renew`]: crate::cluster::log::Log::renew

use crate::base::Incarnation;
use crate::cluster::log::Output;
use crate::run::log::core::Core;
use crate::run::log::frame::{Answer, Request};
use crate::run::log::types::{Entry, LogId, StoredMembership};
use openraft::EntryPayload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The sets of voters of a membership, of each of which a majority is needed: two while it is joint.
fn sets(membership: &StoredMembership) -> &[BTreeSet<u64>] {
    membership.membership().get_joint_config()
}

/// Whether these are a majority of each set of voters.
fn most(membership: &StoredMembership, agreed: &BTreeSet<u64>) -> bool {
    let sets = sets(membership);
    !sets.is_empty() && sets.iter().all(|set| set.intersection(agreed).count() > set.len() / 2)
}

/// The memberships that are stored at a replica, by their places: the last one of what was compacted, unless it isn't known, and
/// all behind it, committed or not.
#[derive(Debug, Default)]
pub struct Memberships(BTreeMap<u64, StoredMembership>);

impl Memberships {
    /// An entry has been stored.
    pub fn take(&mut self, entry: &Entry) {
        if let EntryPayload::Membership(new) = &entry.payload {
            let stored = StoredMembership::new(Some(entry.log_id), new.clone());
            self.0.insert(entry.log_id.index, stored);
        }
    }

    /// The entries from this index on were cut off.
    pub fn cut(&mut self, from: u64) {
        self.0.split_off(&from);
    }

    /// The entries up to this index were compacted.
    pub fn forget(&mut self, upto: u64) {
        let last = self.0.range(..=upto).next_back().map(|(index, _)| *index);
        self.0 = self.0.split_off(&last.unwrap_or(upto));
    }

    /// A snapshot that ends at this index has this as its last membership.
    pub fn rebase(&mut self, at: u64, last: StoredMembership) {
        self.0 = self.0.split_off(&(at + 1));
        if let Some(id) = *last.log_id() {
            self.0.insert(id.index, last);
        }
    }

    /// Whether this membership is stored here, and behind it none with other voters.
    pub fn keep(&self, asked: LogId) -> bool {
        let mut from = self.0.range(asked.index..).map(|(_, membership)| membership);
        let first = from.next().filter(|first| *first.log_id() == Some(asked));
        first.is_some_and(|first| from.all(|later| sets(later) == sets(first)))
    }
}

/// Asks every voter to renew the lease of this node's life, all at once, and says when a majority has.
pub fn ask(core: &Arc<Core>, token: u64, life: Incarnation, outputs: &mpsc::Sender<Output>) {
    let (core, outputs) = (core.clone(), outputs.clone());
    tokio::spawn(async move {
        let membership = core.machine.membership();
        let Some(by) = *membership.log_id() else { return };
        let mut asked = JoinSet::new();
        for voter in membership.voter_ids() {
            let core = core.clone();
            asked.spawn(async move { agrees(&core, voter, life, by).await.then_some(voter) });
        }
        let (mut agreed, mut said) = (BTreeSet::new(), false);
        // To the last one: a link finds out by what waits for an answer that its peer is silent.
        while let Some(answer) = asked.join_next().await {
            agreed.extend(answer.ok().flatten());
            if !said && most(&membership, &agreed) {
                said = true;
                // Nobody takes it when the log is being stopped.
                let _ = outputs.send(Output::Renewed { token }).await;
            }
        }
    });
}

/// Whether a voter, this replica perhaps, agrees in time.
async fn agrees(core: &Core, voter: u64, life: Incarnation, by: LogId) -> bool {
    if voter == core.id() {
        return core.renews(voter, life, by);
    }
    let Some(link) = core.link(voter) else { return false };
    let answer = timeout(core.timing.election_max, link.ask(Request::Renew(life, by))).await;
    matches!(answer, Ok(Ok(Answer::Renewed(true))))
}

#[cfg(test)]
mod tests;
