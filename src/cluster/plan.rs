//! What to move and repair next in a placement, so that it comes to rest with every member at its share.
//!
//! A bucket changes hands in three committed steps: its next owner *learns* (it stands by, incomplete), is *complete* (it says
//! so itself), and *owns*. A few buckets are under way at a time, so that moving costs little beside traffic. At rest each
//! member owns its exact share, rounded up or down. Which of the two changes only if it must, so a member that leaves takes
//! nobody else's buckets along.

use super::place::{Crowd, MAX_REPLICAS, Map, Place, Replica, Share};
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, NodeId, NodeSet};
use serde::{Deserialize, Serialize};

/// One bucket's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The node stands by from now on, incomplete.
    Learn(Bucket, NodeId),
    /// The node has all of the bucket's state.
    Complete(Bucket, NodeId),
    /// The node owns the bucket.
    Own(Bucket, NodeId),
    /// The node stands by no longer.
    Forget(Bucket, NodeId),
}

impl Step {
    /// The node that gets something to do by it.
    pub fn adds(&self) -> Option<NodeId> {
        match *self {
            Self::Learn(_, node) | Self::Complete(_, node) | Self::Own(_, node) => Some(node),
            Self::Forget(..) => None,
        }
    }
}

impl Map {
    /// What nodes of this set that learn have to say once they have all.
    pub fn learners(&self, nodes: NodeSet) -> Vec<Step> {
        let learners = self.iter().flat_map(|(bucket, place)| {
            place.replicas.iter().filter(|r| !r.complete).map(move |r| (bucket, r.node))
        });
        learners.filter(|(_, node)| nodes.contains(*node)).map(|(b, n)| Step::Complete(b, n)).collect()
    }

    /// Takes steps that were planned on a predecessor of this placement: those that don't apply any more are left out. Whether
    /// any did.
    pub fn take(&mut self, steps: &[Step]) -> bool {
        let (epoch, stay) = (self.next_epoch(), self.next_stay());
        let mut taken = false;
        for step in steps {
            let (Step::Learn(bucket, node)
            | Step::Complete(bucket, node)
            | Step::Own(bucket, node)
            | Step::Forget(bucket, node)) = *step;
            if bucket.index() >= BUCKETS {
                continue;
            }
            let shares = self.shares_state();
            let place = self.get_mut(bucket);
            let before = place.replicas.len();
            taken |= match step {
                Step::Learn(..) if place.owner == Some(node) || place.has_replica(node) => false,
                Step::Learn(..) => place.replicas.try_push(Replica { node, complete: false, stay }).is_ok(),
                // What there is to be learnt nobody else can say.
                Step::Complete(..) if shares => false,
                Step::Complete(..) => {
                    let learner = place.replicas.iter_mut().find(|r| r.node == node && !r.complete);
                    learner.map(|r| r.complete = true).is_some()
                }
                Step::Own(..) if place.owner == Some(node) => false,
                Step::Own(..) => {
                    let ready = place.owner.is_none()
                        || place.replicas.iter().any(|r| r.node == node && r.complete)
                        || planted::is(Bug::IncompleteOwns) && place.has_replica(node);
                    if ready {
                        place.own(node, true, epoch, stay);
                        self.begin(epoch);
                    }
                    ready
                }
                Step::Forget(..) => {
                    place.replicas.retain(|r| r.node != node);
                    place.replicas.len() < before
                }
            };
        }
        if taken {
            self.began(stay);
        }
        taken
    }
}

/// The next steps of a group's placement: at most `limit` buckets are under way to another owner, and as many to a node that
/// is to stand by. `shares` are the members that live; one that is being drained has weight zero, and an owner that isn't
/// among them is drained, too. `copies`: of each bucket, the owner's counted, at most [`MAX_REPLICAS`]. Empty: the placement
/// is at rest, or waits for those who learn.
pub fn next(map: &Map, shares: &[Share], copies: usize, limit: usize) -> Vec<Step> {
    let counts: Vec<_> = shares.iter().map(|s| map.count(s.node)).collect();
    let owed = targets(&counts, shares).into_iter().zip(counts).map(|(t, c)| t as i64 - c as i64);
    let mut plan = Plan {
        map,
        shares,
        owed: owed.collect(),
        crowd: Crowd::of(map),
        copies: copies.min(MAX_REPLICAS),
        given: Vec::new(),
        steps: Vec::new(),
        moving: vec![false; BUCKETS],
    };
    plan.choose();
    plan.give_unowned();
    let under_way = plan.hand_over(limit);
    plan.teach(limit.saturating_sub(under_way));
    plan.repair(limit);
    plan.steps
}

/// Where the number of buckets of each member should be: its share rounded down or up, whichever is nearer to what it has,
/// and all of them together. Without any weight, where it is.
fn targets(counts: &[usize], shares: &[Share]) -> Vec<usize> {
    let total: u64 = shares.iter().map(|s| u64::from(s.weight)).sum();
    if total == 0 {
        return counts.to_vec();
    }
    let part = |i: &usize| BUCKETS as u64 * u64::from(shares[*i].weight);
    let low = |i: &usize| (part(i) / total) as usize;
    let high = |i: &usize| part(i).div_ceil(total) as usize;
    let mut targets: Vec<_> = (0..shares.len()).map(|i| counts[i].clamp(low(&i), high(&i))).collect();
    let mut order: Vec<_> = (0..shares.len()).collect();
    order.sort_unstable_by_key(|i| (std::cmp::Reverse(part(i) % total), shares[*i].node));
    let sum: usize = targets.iter().sum();
    // Largest remainders first when there are buckets left, smallest first when there are too few; as the low bounds sum to
    // at most all buckets and the high ones to at least as many, one round each suffices.
    for i in order
        .iter()
        .filter(|i| targets[**i] < high(i))
        .take(BUCKETS.saturating_sub(sum))
        .copied()
        .collect::<Vec<_>>()
    {
        targets[i] += 1;
    }
    for i in order
        .iter()
        .rev()
        .filter(|i| targets[**i] > low(i))
        .take(sum.saturating_sub(BUCKETS))
        .copied()
        .collect::<Vec<_>>()
    {
        targets[i] -= 1;
    }
    targets
}

struct Plan<'a> {
    map: &'a Map,
    shares: &'a [Share],
    /// Buckets that each member still has to get; below zero, to give.
    owed: Vec<i64>,
    crowd: Crowd,
    copies: usize,
    /// What members that have too many give away.
    given: Vec<Bucket>,
    /// By bucket: its owner is about to change.
    moving: Vec<bool>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn member(&self, node: NodeId) -> Option<usize> {
        self.shares.iter().position(|s| s.node == node)
    }

    /// What a member has too many goes as it came, the latest first: so what one gets when another fails isn't kept at the
    /// cost of what it had. An owner that is no member gives all. A bucket whose previous owner still has sessions stays, or
    /// there would be two to be asked for them.
    fn choose(&mut self) {
        let may_go = |(_, place): &(Bucket, &Place)| place.owner.is_some() && place.previous.is_none();
        let mut latest: Vec<_> = self.map.iter().filter(may_go).collect();
        latest.sort_by_key(|(_, place)| std::cmp::Reverse(place.epoch));
        let mut surplus: Vec<_> = self.owed.iter().map(|owed| -owed).collect();
        for (bucket, place) in latest {
            let Some(i) = place.owner.and_then(|owner| self.member(owner)) else {
                self.given.push(bucket);
                continue;
            };
            if surplus[i] > 0 {
                surplus[i] -= 1;
                self.given.push(bucket);
            }
        }
    }

    fn moves(&mut self, bucket: Bucket, to: usize) {
        self.moving[bucket.index()] = true;
        self.owed[to] -= 1;
    }

    fn most_owed(&self) -> Option<usize> {
        (0..self.owed.len())
            .filter(|i| self.owed[*i] > 0)
            .max_by_key(|i| (self.owed[*i], self.shares[*i].node))
    }

    /// Buckets without an owner have nothing to be learnt.
    fn give_unowned(&mut self) {
        for (bucket, _) in self.map.iter().filter(|(_, place)| place.owner.is_none()) {
            let Some(to) = self.most_owed() else { return };
            self.moves(bucket, to);
            self.steps.push(Step::Own(bucket, self.shares[to].node));
        }
    }

    /// Who stands by, has learnt all and is owed a bucket takes it over; who still learns is waited for. The number of both.
    fn hand_over(&mut self, limit: usize) -> usize {
        let mut under_way = 0;
        for complete in [true, false] {
            for i in 0..self.given.len() {
                let bucket = self.given[i];
                if self.moving[bucket.index()] {
                    continue;
                }
                let heirs = self.map.get(bucket).replicas.iter().filter(|r| r.complete == complete);
                let owed = heirs.filter_map(|r| self.member(r.node)).filter(|i| self.owed[*i] > 0);
                let Some(to) = owed.max_by_key(|i| self.owed[*i]) else { continue };
                if under_way >= limit {
                    return under_way;
                }
                under_way += 1;
                self.moves(bucket, to);
                if complete || planted::is(Bug::IncompleteOwns) {
                    self.steps.push(Step::Own(bucket, self.shares[to].node));
                }
            }
        }
        under_way
    }

    /// Members that are owed buckets begin to learn those of members that have too many.
    fn teach(&mut self, limit: usize) {
        let mut left = limit;
        for i in 0..self.given.len() {
            let bucket = self.given[i];
            let place = self.map.get(bucket);
            if self.moving[bucket.index()] {
                continue;
            }
            let Some(to) = self.most_owed().filter(|_| left > 0) else { return };
            let node = self.shares[to].node;
            if place.has_replica(node) || place.replicas.is_full() {
                continue; // it learns already, for another reason
            }
            left -= 1;
            self.moves(bucket, to);
            self.steps.push(Step::Learn(bucket, node));
        }
    }

    /// Buckets with too few that stand by get more; those with too many lose, once the others have learnt all, first who is no
    /// member, or drained, and then the last.
    fn repair(&mut self, limit: usize) {
        let mut left = limit;
        for (bucket, place) in self.map.iter() {
            if self.moving[bucket.index()] || place.owner.is_none() {
                continue;
            }
            let stays = |node| self.member(node).is_some_and(|i| self.shares[i].weight > 0);
            let good = place.replicas.iter().filter(|r| stays(r.node)).count();
            let complete = place.replicas.iter().filter(|r| stays(r.node) && r.complete).count();
            let wanted = self.copies.saturating_sub(1);
            if good < wanted
                && left > 0
                && !place.replicas.is_full()
                && let Some(node) = self.crowd.stand_by(place, self.shares)
            {
                left -= 1;
                self.crowd.add(place.owner, node);
                self.steps.push(Step::Learn(bucket, node));
                continue;
            }
            let others = self.shares.iter().filter(|s| s.weight > 0 && Some(s.node) != place.owner).count();
            let leaver =
                place.replicas.iter().find(|r| !stays(r.node)).filter(|_| complete >= wanted.min(others));
            let spare = place.replicas.last().filter(|_| complete > wanted);
            if let Some(replica) = leaver.or(spare) {
                self.steps.push(Step::Forget(bucket, replica.node));
            }
        }
    }
}

#[cfg(test)]
mod tests;
