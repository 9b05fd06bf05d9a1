//! Counters that one core writes and anyone reads.
#![allow(unsafe_code)]

use crate::base::sync::atomic::{AtomicU64, Ordering};

/// A count with **one writing core** and any number of readers. It wraps at 2^64.
///
/// A relaxed load and a relaxed store compile to plain moves: no locked instruction, no fence. The price is that two
/// writers would lose counts; each core has counters of its own and the reader adds them up.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. For the one writing core only.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. For the one writing core only.
    #[inline(always)]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes `n` away: for counts of what is there now. For the one writing core only.
    #[inline(always)]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Replaces the count. For the one writing core only.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The count: never torn, perhaps a moment old.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Traffic of a real server; a virtual server's is that of its real servers together.
#[derive(Debug, Default)]
pub struct FlowCounters {
    /// New flows.
    pub connections: Counter,
    /// Packets towards the real servers.
    pub packets_in: Counter,
    /// Bytes of them, from the IP header on.
    pub bytes_in: Counter,
    /// Packets towards the clients (NAT only; others don't pass here).
    pub packets_out: Counter,
    /// Bytes of them.
    pub bytes_out: Counter,
    /// Sessions now.
    pub sessions: Counter,
}

#[cfg(not(feature = "loom"))]
pub use lazy::FlowTable;

#[cfg(not(feature = "loom"))]
mod lazy {
    use super::{Counter, FlowCounters};
    use crate::table::large::{Lazy, Zeroed};

    // SAFETY: a 64-bit integer (the atomic is one in memory), for which zero is a value, and nothing to drop.
    unsafe impl Zeroed for Counter {}
    // SAFETY: six of those.
    unsafe impl Zeroed for FlowCounters {}

    /// Counters by real server id, with room for more than there are.
    pub type FlowTable = Lazy<FlowCounters>;
}

/// Counters by real server id. (Loom's atomics aren't integers.)
#[cfg(feature = "loom")]
#[derive(Debug)]
pub struct FlowTable(Box<[FlowCounters]>);

#[cfg(feature = "loom")]
impl FlowTable {
    /// Zeroes.
    pub fn new(n: usize) -> Self {
        Self((0..n).map(|_| FlowCounters::default()).collect())
    }

    /// Nothing: they are there.
    pub fn populate(&self, _: std::ops::Range<usize>) {}
}

#[cfg(feature = "loom")]
impl std::ops::Deref for FlowTable {
    type Target = [FlowCounters];

    fn deref(&self) -> &[FlowCounters] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_takes_away_and_replaces() {
        let counter = Counter::default();
        counter.add(41);
        counter.inc();
        counter.sub(2);
        assert_eq!(counter.get(), 40);
        counter.set(7);
        assert_eq!(counter.get(), 7);
        counter.add(u64::MAX);
        assert_eq!(counter.get(), 6, "it wraps");
    }

    #[test]
    fn a_reader_sees_the_writer() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| counter.inc()));
            let mut last = 0;
            while last < 100_000 {
                let now = counter.get();
                assert!(now >= last);
                last = now;
                std::thread::yield_now();
            }
        });
        assert_eq!(counter.get(), 100_000);
    }
}
