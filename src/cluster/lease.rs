//! The right to serve state, for a while, which a majority of the log's voters renews (MECHANISMS §0).
//!
//! The holder counts from when it *sent* the request, so its right ends before any voter thinks it does. A voter stops
//! acknowledging as soon as an entry that takes the node out is in its log; so when that entry is committed, a majority no
//! longer renews, and whoever takes over need only wait for [`successor_waits`].

use super::log::ReplicaId;
use crate::base::Instant;
use crate::base::planted::{self, Bug};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How much faster than another's a clock may run, in thousandths.
const DRIFT: u32 = 50;
/// Requests whose time of sending is remembered; an answer to an older one is worth nothing by then.
const REMEMBERED: usize = 64;

/// How long a successor leaves alone what a lease of `duration` may still cover, counted from the commit that ended it.
pub fn successor_waits(duration: Duration) -> Duration {
    duration * (1000 + DRIFT) / 1000
}

/// One node's lease.
#[derive(Clone, Debug)]
pub struct Lease {
    duration: Duration,
    voters: Vec<ReplicaId>,
    sent: VecDeque<(u64, Instant)>,
    acknowledged: BTreeMap<ReplicaId, u64>,
    last: u64,
}

impl Lease {
    /// No lease yet.
    pub fn new(duration: Duration) -> Self {
        Self { duration, voters: Vec::new(), sent: VecDeque::new(), acknowledged: BTreeMap::new(), last: 0 }
    }

    /// What a renewal is good for from now on.
    pub fn lasts(&mut self, duration: Duration) {
        self.duration = duration;
    }

    /// The voters from now on. What they have acknowledged counts.
    pub fn set_voters(&mut self, voters: Vec<ReplicaId>) {
        self.acknowledged.retain(|voter, _| voters.contains(voter));
        self.voters = voters;
    }

    /// Gives up what it has: nothing that was sent before counts any more.
    pub fn give_up(&mut self) {
        self.sent.clear();
        self.acknowledged.clear();
    }

    /// A new request to all voters is about to be sent: its token, higher than all before.
    pub fn ask(&mut self, now: Instant) -> u64 {
        self.last += 1;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// A voter has acknowledged a request.
    pub fn acknowledged(&mut self, voter: ReplicaId, token: u64) {
        if token <= self.last && self.voters.contains(&voter) {
            let latest = self.acknowledged.entry(voter).or_default();
            *latest = token.max(*latest);
        }
    }

    /// When it ends, by what is known now; none if there is none.
    pub fn until(&self) -> Option<Instant> {
        if self.voters.is_empty() {
            return None;
        }
        let mut tokens: Vec<_> = self.acknowledged.values().copied().collect();
        tokens.sort_unstable_by(|a, b| b.cmp(a));
        // The newest request that this many voters, or more, have acknowledged: each answer vouches for all before it.
        let token = *tokens.get(self.voters.len() / 2)?;
        let (_, sent) = self.sent.iter().find(|(t, _)| *t >= token).filter(|(t, _)| *t == token)?;
        let counted =
            if planted::is(Bug::LeaseFromAnswer) { self.sent.back().map(|(_, at)| at) } else { Some(sent) };
        counted.map(|at| *at + self.duration)
    }

    /// Whether it holds.
    pub fn holds(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    #[test]
    fn a_majority_renews_from_the_time_of_sending() {
        let mut lease = Lease::new(350 * MS);
        assert_eq!(lease.until(), None, "no voters, no lease");
        lease.set_voters([0, 1, 1000].map(ReplicaId).to_vec());
        let first = lease.ask(at(100));
        lease.acknowledged(ReplicaId(0), first);
        assert!(!lease.holds(at(101)), "one of three");
        lease.acknowledged(ReplicaId(7), first);
        assert!(!lease.holds(at(101)), "a stranger");
        lease.acknowledged(ReplicaId(1000), first);
        assert_eq!(lease.until(), Some(at(450)));
        let second = lease.ask(at(200));
        lease.acknowledged(ReplicaId(1), second);
        lease.acknowledged(ReplicaId(1), first);
        assert_eq!(lease.until(), Some(at(450)), "the second has one voter, the first all");
        lease.acknowledged(ReplicaId(0), second);
        assert_eq!(lease.until(), Some(at(550)));
        lease.acknowledged(ReplicaId(1000), 99);
        assert_eq!(lease.until(), Some(at(550)), "what was never asked");
        lease.give_up();
        assert!(!lease.holds(at(201)));
    }

    #[test]
    fn fewer_voters_need_a_majority_of_their_own() {
        let mut lease = Lease::new(350 * MS);
        lease.set_voters([0, 1, 2, 3, 4].map(ReplicaId).to_vec());
        let token = lease.ask(at(0));
        [0, 1, 2].iter().for_each(|v| lease.acknowledged(ReplicaId(*v), token));
        assert!(lease.holds(at(349)) && !lease.holds(at(350)));
        lease.set_voters([2, 3, 4].map(ReplicaId).to_vec());
        assert!(!lease.holds(at(1)), "of these, one has acknowledged it");
        lease.set_voters(vec![ReplicaId(2)]);
        assert!(lease.holds(at(1)));
    }

    #[test]
    fn a_successor_outwaits_a_clock_that_runs_slow() {
        // The holder's clock runs 4 % slower than the successor's, which began to wait when the holder sent its last request.
        assert!(successor_waits(350 * MS) > 350 * MS * 104 / 100);
    }
}
