//! What the node still has of buckets that others own now, as its workers count it pass by pass.

use crate::base::{GroupId, Instant};
use crate::path::message::Held;
use crate::view::BucketSet;
use std::collections::BTreeMap;

/// Sessions that the node has in buckets of one group that have left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// All of these were counted since then; what was opened since may be missing.
    pub began: Instant,
    /// How many.
    pub sessions: u64,
    /// The buckets that they are in.
    pub buckets: BucketSet,
}

/// See the module's text.
pub struct Census {
    workers: usize,
    placed: u64,
    /// By group, then by worker: its last pass by this placement.
    told: BTreeMap<GroupId, Vec<Option<Held>>>,
}

impl Census {
    /// Of so many workers, which haven't told anything yet.
    pub fn new(workers: usize) -> Self {
        Self { workers, placed: 0, told: BTreeMap::new() }
    }

    /// There is a new placement, of this version of the View: what was counted by others says nothing about it.
    pub fn placed(&mut self, version: u64) {
        self.placed = version;
        self.told.clear();
    }

    /// A worker has ended a pass.
    pub fn told(&mut self, held: Held) {
        if held.placed != self.placed {
            return;
        }
        let passes = self.told.entry(held.group).or_insert_with(|| vec![None; self.workers]);
        if let Some(pass) = passes.get_mut(held.worker.index()) {
            *pass = Some(held);
        }
    }

    /// What the node has of the group's buckets that have left it by the present placement, at each worker's last count.
    /// None: none has left, or a worker hasn't counted yet.
    pub fn holding(&self, group: GroupId) -> Option<Holding> {
        let mut passes = self.told.get(&group)?.iter().copied();
        let first = passes.next()??;
        let mut all =
            Holding { began: first.began, sessions: u64::from(first.sessions), buckets: first.buckets };
        for pass in passes {
            let pass = pass?;
            all.began = all.began.min(pass.began);
            all.sessions += u64::from(pass.sessions);
            all.buckets.extend(&pass.buckets);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Bucket, WorkerId};

    fn pass(worker: u16, placed: u64, bucket: u16) -> Held {
        let mut buckets = BucketSet::EMPTY;
        buckets.insert(Bucket(bucket));
        let began = Instant(100 - u64::from(worker));
        Held { worker: WorkerId(worker), placed, began, group: GroupId(1), sessions: 2, buckets }
    }

    #[test]
    fn all_workers_must_have_counted_by_the_present_placement() {
        let mut census = Census::new(2);
        census.placed(5);
        census.told(pass(0, 5, 7));
        assert_eq!(census.holding(GroupId(1)), None, "worker 1 hasn't");
        census.told(pass(1, 4, 9));
        assert_eq!(census.holding(GroupId(1)), None, "that was the placement before");
        census.told(pass(1, 5, 4095));
        let holding = census.holding(GroupId(1)).unwrap();
        assert_eq!((holding.sessions, holding.began), (4, Instant(99)));
        let buckets: Vec<u16> = (0..4096).filter(|b| holding.buckets.has(Bucket(*b))).collect();
        assert_eq!(buckets, [7, 4095]);
        assert_eq!(census.holding(GroupId(0)), None);
        census.told(Held { sessions: 0, buckets: BucketSet::EMPTY, ..pass(0, 5, 7) });
        assert_eq!(census.holding(GroupId(1)).unwrap().sessions, 2, "a worker's last pass counts");
        census.placed(6);
        assert_eq!(census.holding(GroupId(1)), None);
    }
}
