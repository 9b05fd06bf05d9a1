//! Counters that one core writes and anyone reads.

use crate::base::sync::atomic::{AtomicU64, Ordering};
use std::ops::Index;

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

    /// The count: never torn, perhaps a moment old.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// `N` counters of one writing core, on cache lines that no other core's counters share. They are indexed by a number or
/// by an enum that converts into one (`impl From<E> for usize`).
#[derive(Debug)]
#[repr(align(64))]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize, I: Into<usize>> Index<I> for Counters<N> {
    type Output = Counter;

    #[inline(always)]
    fn index(&self, index: I) -> &Counter {
        &self.0[index.into()]
    }
}

impl<const N: usize> Counters<N> {
    /// All counts, in index order; each is exact, but they aren't taken at one moment.
    pub fn get(&self) -> [u64; N] {
        std::array::from_fn(|i| self.0[i].get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Fruit {
        Apple,
        Pear,
    }

    impl From<Fruit> for usize {
        fn from(fruit: Fruit) -> Self {
            fruit as usize
        }
    }

    proptest! {
        #[test]
        fn sums(adds in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..50)) {
            let counters = Counters::<2>::default();
            let mut model = [0u64; 2];
            for (pear, n) in adds {
                let fruit = if pear { Fruit::Pear } else { Fruit::Apple };
                counters[fruit].add(n);
                counters[fruit].inc();
                model[usize::from(pear)] = model[usize::from(pear)].wrapping_add(n).wrapping_add(1);
                prop_assert_eq!(counters[fruit].get(), model[usize::from(pear)]);
            }
            prop_assert_eq!(counters.get(), model);
        }
    }

    #[test]
    fn blocks_share_no_line() {
        assert_eq!(align_of::<Counters<3>>(), 64);
        assert_eq!(size_of::<Counters<3>>(), 64);
        assert_eq!(size_of::<Counters<9>>(), 128);
    }

    #[test]
    fn a_reader_sees_the_writer() {
        let counters = Counters::<1>::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| counters[0usize].inc()));
            let mut last = 0;
            while last < 100_000 {
                let now = counters[0usize].get();
                assert!(now >= last);
                last = now;
                std::thread::yield_now();
            }
        });
        assert_eq!(counters[0usize].get(), 100_000);
    }
}
