//! What a worker may do only while its node's lease holds: promise a port or an address that another would promise in its
//! place were it thought dead (MECHANISMS §0).
//!
//! A turn goes by the time at which it began. One that stalls may find the lease over when its output is about to leave; so
//! the clock is read again before output leaves that has a promise in it, and if the lease is over none of it does.

use crate::base::Instant;
use crate::table::lease::Lease;
use std::sync::Arc;

/// Reads the clock that turns are given the time of.
pub type ReadClock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// See the module's text.
pub struct Promises {
    lease: Arc<Lease>,
    clock: Option<ReadClock>,
    /// There is one in what has not left yet.
    made: bool,
}

impl Promises {
    /// By the node's lease. Until it has a clock, turns take no time.
    pub fn new(lease: Arc<Lease>) -> Self {
        Self { lease, clock: None, made: false }
    }

    /// From now on output waits for a look at this clock.
    pub fn read_clock_by(&mut self, clock: ReadClock) {
        self.clock = Some(clock);
    }

    /// Whether a promise may be made in the turn that began at `now`. What leaves next has it in it.
    #[inline]
    pub fn may(&mut self, now: Instant) -> bool {
        let holds = self.lease.holds(now);
        self.made |= holds;
        holds
    }

    /// Until when promises may be made.
    pub fn until(&self) -> Instant {
        self.lease.until()
    }

    /// Whether there is a promise in what leaves next.
    pub fn made(&self) -> bool {
        self.made
    }

    /// Whether what has been promised, if anything, may leave.
    #[inline]
    pub fn hold(&self) -> bool {
        !self.made || self.still_leased()
    }

    #[cold]
    fn still_leased(&self) -> bool {
        self.clock.as_ref().is_none_or(|clock| self.lease.holds(clock()))
    }

    /// All has left, or was dropped.
    pub fn settle(&mut self) {
        self.made = false;
    }
}
