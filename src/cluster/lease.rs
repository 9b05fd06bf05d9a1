//! The right to serve state, for a while, which a majority of the log's voters renews (MECHANISMS §0).
//!
//! The holder counts from when it *sent* the request, and nothing that was committed before then takes it out ([`Log::renew`]).
//! So the entry that takes it out is committed after that, and whoever takes over need only wait for [`successor_waits`] from
//! its commit.
//!
//! [`Log::renew`]: super::log::Log::renew

use crate::base::Instant;
use crate::base::planted::{self, Bug};
use std::collections::VecDeque;
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
    sent: VecDeque<(u64, Instant)>,
    /// When the latest request that was granted had been sent.
    renewed: Option<Instant>,
    last: u64,
}

impl Lease {
    /// No lease yet.
    pub fn new(duration: Duration) -> Self {
        Self { duration, sent: VecDeque::new(), renewed: None, last: 0 }
    }

    /// What a renewal is good for from now on.
    pub fn lasts(&mut self, duration: Duration) {
        self.duration = duration;
    }

    /// Gives up what it has: nothing that was sent before counts any more.
    pub fn give_up(&mut self) {
        self.sent.clear();
        self.renewed = None;
    }

    /// A new request to the voters is about to be sent: its token, higher than all before.
    pub fn ask(&mut self, now: Instant) -> u64 {
        self.last += 1;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// The voters have granted a request.
    pub fn renewed(&mut self, token: u64) {
        let sent = self.sent.iter().find(|(asked, _)| *asked == token).map(|(_, at)| *at);
        self.renewed = self.renewed.max(sent);
    }

    /// When it ends, by what is known now; none if there is none.
    pub fn until(&self) -> Option<Instant> {
        let sent = self.renewed?;
        let counted =
            if planted::is(Bug::LeaseFromAnswer) { self.sent.back().map(|(_, at)| *at) } else { Some(sent) };
        counted.map(|at| at + self.duration)
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
    fn it_counts_from_the_time_of_sending() {
        let mut lease = Lease::new(350 * MS);
        assert_eq!(lease.until(), None);
        let first = lease.ask(at(100));
        assert!(!lease.holds(at(101)), "asked for, not granted");
        lease.renewed(99);
        assert_eq!(lease.until(), None, "what was never asked");
        let second = lease.ask(at(200));
        lease.renewed(first);
        assert_eq!(lease.until(), Some(at(450)));
        assert!(lease.holds(at(449)) && !lease.holds(at(450)));
        lease.renewed(second);
        lease.renewed(first);
        assert_eq!(lease.until(), Some(at(550)), "answers may come in any order");
        lease.lasts(400 * MS);
        assert_eq!(lease.until(), Some(at(600)));
    }

    #[test]
    fn what_was_given_up_does_not_come_back() {
        let mut lease = Lease::new(350 * MS);
        let (granted, open) = (lease.ask(at(0)), lease.ask(at(50)));
        lease.renewed(granted);
        lease.give_up();
        lease.renewed(open);
        assert_eq!(lease.until(), None, "another life has asked for it");
        let own = lease.ask(at(60));
        lease.renewed(own);
        assert!(lease.holds(at(61)));
    }

    #[test]
    fn what_was_asked_long_ago_is_forgotten() {
        let mut lease = Lease::new(350 * MS);
        let first = lease.ask(at(0));
        (1..=REMEMBERED as u32).for_each(|n| _ = lease.ask(at(n)));
        lease.renewed(first);
        assert_eq!(lease.until(), None);
    }

    #[test]
    fn a_successor_outwaits_a_clock_that_runs_slow() {
        // The holder's clock runs 4 % slower than the successor's, which began to wait when the holder sent its last request.
        assert!(successor_waits(350 * MS) > 350 * MS * 104 / 100);
    }
}
