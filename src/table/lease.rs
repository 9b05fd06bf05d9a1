//! The right to make promises in the cluster's name, as a node's workers see it (MECHANISMS §0).

use crate::base::Instant;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// Until when this node may do what another would do in its place were it thought dead. The management thread writes, any
/// worker reads; a single word, so relaxed loads and stores do.
#[derive(Debug)]
pub struct Lease(AtomicU64);

impl Lease {
    /// For ever: nobody else is there to take over.
    pub fn unlimited() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Holds until then; that may be sooner than before.
    pub fn set(&self, until: Instant) {
        self.0.store(until.0, Ordering::Relaxed);
    }

    /// Until when it holds.
    #[inline(always)]
    pub fn until(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }

    /// Whether it still holds at `now`.
    #[inline(always)]
    pub fn holds(&self, now: Instant) -> bool {
        now.0 < self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_at_its_instant() {
        let lease = Lease::unlimited();
        assert!(lease.holds(Instant(u64::MAX - 1)));
        lease.set(Instant(10));
        assert!(lease.holds(Instant(9)) && !lease.holds(Instant(10)));
        lease.set(Instant(20));
        assert!(lease.holds(Instant(10)));
        lease.set(Instant::ZERO);
        assert!(!lease.holds(Instant::ZERO));
    }
}
