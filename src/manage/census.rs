//! What the node still has of buckets that others own now, and of virtual servers that have left a group, as its workers count it
//! pass by pass.

use crate::base::{GroupId, Instant, VirtualServerId};
use crate::path::message::{Held, Kept};
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
    /// The View since which virtual servers have left the groups that they have.
    regrouped_in: u64,
    /// By virtual server, then by worker: when its last pass over those began, if it found no session.
    without: BTreeMap<VirtualServerId, Vec<Option<Instant>>>,
}

impl Census {
    /// Of so many workers, which haven't told anything yet.
    pub fn new(workers: usize) -> Self {
        Self { workers, placed: 0, told: BTreeMap::new(), regrouped_in: 0, without: BTreeMap::new() }
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

    /// Other virtual servers have left groups, by this version of the View.
    pub fn regrouped(&mut self, version: u64) {
        self.regrouped_in = version;
        self.without.clear();
    }

    /// A worker has ended a pass; `regrouped` are the virtual servers by which it has looked, if that is still so.
    pub fn kept(&mut self, kept: Kept, regrouped: &[VirtualServerId]) {
        if kept.regrouped_in != self.regrouped_in {
            return;
        }
        for (i, id) in regrouped.iter().skip(kept.first).take(64).enumerate() {
            let passes = self.without.entry(*id).or_insert_with(|| vec![None; self.workers]);
            if let Some(pass) = passes.get_mut(kept.worker.index()) {
                *pass = (kept.kept >> i & 1 == 0).then_some(kept.began);
            }
        }
    }

    /// The virtual servers of which no worker has found a session by a pass that began at `since` or later.
    pub fn left(&self, since: Instant) -> impl Iterator<Item = VirtualServerId> {
        let without = move |passes: &Vec<Option<Instant>>| {
            passes.iter().all(|pass| pass.is_some_and(|began| began >= since))
        };
        self.without.iter().filter(move |(_, passes)| without(passes)).map(|(id, _)| *id)
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

    #[test]
    fn all_workers_must_have_looked_for_a_virtual_server_since_it_left() {
        let regrouped: Vec<_> = (0..70).map(VirtualServerId).collect();
        let mut census = Census::new(2);
        census.regrouped(5);
        let mut told = |worker, regrouped_in, began, first, kept, since| {
            let worker = WorkerId(worker);
            let kept = Kept { worker, regrouped_in, began: Instant(began), first, kept };
            census.kept(kept, &regrouped);
            census.left(Instant(since)).map(|id| id.0).collect::<Vec<u32>>()
        };
        assert_eq!(told(0, 5, 100, 64, 0b10_1111, 100), [0; 0]);
        assert_eq!(told(1, 4, 100, 64, 0, 100), [0; 0], "by others");
        assert_eq!(told(1, 5, 99, 64, 0, 100), [0; 0], "before all went by it");
        assert_eq!(told(1, 5, 101, 64, 0b1_0000, 100), [0; 0]);
        assert_eq!(told(1, 5, 102, 64, 0, 100), [68]);
        assert_eq!(told(0, 5, 103, 64, 0b01_0000, 100), [64, 65, 66, 67, 69], "a worker's last pass counts");
        census.regrouped(6);
        assert_eq!(census.left(Instant(0)).count(), 0);
    }
}
