//! A bounded ring from one core to one other, moved in bursts.
//!
//! Each side owns one index and keeps a copy of the last value it saw of the other's, so that a burst costs one release
//! store and, only when that copy doesn't suffice, one acquire load of the other core's cache line (Lamport, "Proving the
//! correctness of multiprocess programs", 1977; the cached index is from Giacomoni et al., "FastForward", PPoPP 2008, and
//! its successors). Indices count items since the start and wrap; a slot is its index modulo the capacity.
#![allow(unsafe_code)]

use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Arc, UnsafeCell};
use arrayvec::ArrayVec;
use std::mem::MaybeUninit;

/// A value with cache lines of its own: two, because the adjacent-line prefetcher of x86 fetches lines in pairs.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Items ever put in; the producer writes it.
    tail: Line<AtomicUsize>,
    /// Items ever taken out; the consumer writes it.
    head: Line<AtomicUsize>,
}

// SAFETY: a slot is touched by one side at a time. The producer writes slots in `[tail, head + capacity)` and gives them
// away with the release store of `tail`; the consumer reads slots in `[head, tail)` and gives them back with the release
// store of `head`. `T: Send` because the values change threads; no `&T` is ever shared, so `T: Sync` isn't needed.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }

    /// Moves the value out of slot `index`.
    ///
    /// # Safety
    /// The slot holds a value that happens-before this call, the caller alone may touch it, and afterwards it counts as
    /// empty.
    #[inline(always)]
    unsafe fn take(&self, index: usize) -> T {
        self.slot(index).with_mut(|slot| {
            // SAFETY: the caller vouches for a value that only it may touch; `MaybeUninit<T>` has the layout of `T`.
            unsafe { slot.cast::<T>().read() }
        })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both sides are gone, and the count of the `Arc` has ordered all they did before this.
        let tail = self.tail.0.load(Ordering::Relaxed);
        let mut head = self.head.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: `[head, tail)` holds values that nobody took, and `&mut self` says that nobody else is here.
            drop(unsafe { self.take(head) });
            head = head.wrapping_add(1);
        }
    }
}

/// The side that puts values in. Dropping it leaves what was put in to the consumer.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// The truth of `shared.tail`, which this side alone writes.
    tail: usize,
    /// `shared.head` as last seen: never ahead of the truth, so there is at least as much room as it says.
    head_seen: usize,
}

/// The side that takes values out, in the order in which they were put in.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The truth of `shared.head`, which this side alone writes.
    head: usize,
    /// `shared.tail` as last seen: never ahead of the truth, so there are at least as many values as it says.
    tail_seen: usize,
}

/// A ring of `capacity_pow2` values. Values still inside when both sides are gone are dropped by the later of the two.
///
/// # Panics
/// If the capacity is not a power of two.
pub fn ring<T: Send>(capacity_pow2: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity_pow2.is_power_of_two(), "a ring of {capacity_pow2} items");
    let shared = Arc::new(Shared {
        slots: (0..capacity_pow2).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        tail: Line(AtomicUsize::new(0)),
        head: Line(AtomicUsize::new(0)),
    });
    (Producer { shared: shared.clone(), tail: 0, head_seen: 0 }, Consumer { shared, head: 0, tail_seen: 0 })
}

impl<T> Producer<T> {
    /// The number of values that fit now, as far as this side knows; asks the consumer's line only if fewer than
    /// `wanted` are known to fit.
    #[inline]
    fn room(&mut self, wanted: usize) -> usize {
        let capacity = self.shared.slots.len();
        let room = capacity - self.tail.wrapping_sub(self.head_seen);
        if room >= wanted {
            return room;
        }
        // Acquire: pairs with the consumer's release, so its reads of the freed slots come before our writes to them.
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        capacity - self.tail.wrapping_sub(self.head_seen)
    }

    /// Writes `value` into the slot `ahead` items behind the tail; [`Self::give`] hands it over.
    #[inline(always)]
    fn put(&mut self, ahead: usize, value: T) {
        self.shared.slot(self.tail.wrapping_add(ahead)).with_mut(|slot| {
            // SAFETY: callers put only as many as `room` said fit, so the consumer is done with this slot, and it won't
            // look at it before `give`.
            unsafe { slot.write(MaybeUninit::new(value)) }
        });
    }

    #[inline(always)]
    fn give(&mut self, count: usize) {
        self.tail = self.tail.wrapping_add(count);
        // Release: pairs with the consumer's acquire, so it sees the values that the index promises.
        self.shared.tail.0.store(self.tail, Ordering::Release);
    }

    /// Moves values from the front of `from` into the ring, as many as fit, and returns how many; those that don't fit
    /// stay in `from` in their order.
    #[inline]
    pub fn push_burst<const N: usize>(&mut self, from: &mut ArrayVec<T, N>) -> usize {
        let count = self.room(from.len()).min(from.len());
        if count == 0 {
            return 0;
        }
        for (ahead, value) in from.drain(..count).enumerate() {
            self.put(ahead, value);
        }
        self.give(count);
        count
    }

    /// Puts one value in.
    ///
    /// # Errors
    /// Hands the value back if the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.room(1) == 0 {
            return Err(value);
        }
        self.put(0, value);
        self.give(1);
        Ok(())
    }

    /// Values in the ring; the consumer may have taken some of them in the meantime.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.0.load(Ordering::Relaxed))
    }

    /// Whether the consumer has taken everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Consumer<T> {
    /// Moves values from the ring to the end of `into`, as many as there are and as `into` has room for, and returns how
    /// many.
    #[inline]
    pub fn pop_burst<const N: usize>(&mut self, into: &mut ArrayVec<T, N>) -> usize {
        let wanted = into.remaining_capacity();
        let mut held = self.tail_seen.wrapping_sub(self.head);
        if held < wanted {
            // Acquire: pairs with the producer's release, so the values that the index promises are there.
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            held = self.tail_seen.wrapping_sub(self.head);
        }
        let count = held.min(wanted);
        if count == 0 {
            return 0;
        }
        into.extend((0..count).map(|ahead| {
            // SAFETY: the slot lies in `[head, tail_seen)`, whose values we acquired; the producer won't reuse it before
            // the store of `head` below, and each index is visited once.
            unsafe { self.shared.take(self.head.wrapping_add(ahead)) }
        }));
        self.head = self.head.wrapping_add(count);
        // Release: pairs with the producer's acquire, so our reads of these slots come before its next writes to them.
        self.shared.head.0.store(self.head, Ordering::Release);
        count
    }

    /// Values in the ring; the producer may have put in more in the meantime.
    pub fn len(&self) -> usize {
        self.shared.tail.0.load(Ordering::Relaxed).wrapping_sub(self.head)
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc as StdArc;

    #[derive(Clone, Debug)]
    enum Op {
        Push(usize),
        PushOne,
        Pop(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![(0..9usize).prop_map(Op::Push), Just(Op::PushOne), (0..9usize).prop_map(Op::Pop)]
    }

    proptest! {
        #[test]
        fn behaves_like_a_bounded_queue(log in 0..5u32, ops in proptest::collection::vec(op(), 0..200)) {
            let capacity = 1usize << log;
            // Boxes, so that a value lost or taken twice is a leak or a double free as well as a wrong number.
            let (mut tx, mut rx) = ring::<Box<u32>>(capacity);
            let mut model = VecDeque::new();
            let mut serial = 0u32;
            for op in ops {
                match op {
                    Op::Push(n) => {
                        let mut burst: ArrayVec<Box<u32>, 8> = (0..n.min(8) as u32).map(|i| Box::new(serial + i)).collect();
                        let fits = burst.len().min(capacity - model.len());
                        let rest: Vec<_> = burst[fits..].to_vec();
                        prop_assert_eq!(tx.push_burst(&mut burst), fits);
                        prop_assert_eq!(burst.as_slice(), rest.as_slice());
                        model.extend((0..fits as u32).map(|i| serial + i));
                        serial += fits as u32;
                    }
                    Op::PushOne => {
                        let pushed = tx.push(Box::new(serial));
                        if model.len() == capacity {
                            prop_assert_eq!(pushed, Err(Box::new(serial)));
                        } else {
                            prop_assert_eq!(pushed, Ok(()));
                            model.push_back(serial);
                            serial += 1;
                        }
                    }
                    Op::Pop(filled) => {
                        let mut burst: ArrayVec<Box<u32>, 8> = (0..filled.min(8)).map(|_| Box::new(u32::MAX)).collect();
                        let wanted = burst.remaining_capacity().min(model.len());
                        prop_assert_eq!(rx.pop_burst(&mut burst), wanted);
                        let expected: Vec<u32> = model.drain(..wanted).collect();
                        let taken: Vec<u32> = burst.drain(filled.min(8)..).map(|b| *b).collect();
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(tx.len(), model.len());
                prop_assert_eq!(rx.len(), model.len());
                prop_assert_eq!(rx.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn indices_may_wrap() {
        let (mut tx, mut rx) = ring::<u8>(4);
        let start = usize::MAX - 1;
        tx.shared.tail.0.store(start, Ordering::Relaxed);
        tx.shared.head.0.store(start, Ordering::Relaxed);
        (tx.tail, tx.head_seen, rx.head, rx.tail_seen) = (start, start, start, start);
        for lap in 0..3 {
            let mut burst = ArrayVec::from([lap, lap + 1, lap + 2, lap + 3, lap + 4]);
            assert_eq!(tx.push_burst(&mut burst), 4);
            assert_eq!(tx.len(), 4);
            let mut out = ArrayVec::<u8, 8>::new();
            assert_eq!(rx.pop_burst(&mut out), 4);
            assert_eq!(out.as_slice(), [lap, lap + 1, lap + 2, lap + 3]);
        }
    }

    #[test]
    fn the_later_side_drops_the_rest() {
        for consumer_first in [false, true] {
            let token = StdArc::new(());
            let (mut tx, mut rx) = ring(8);
            for _ in 0..6 {
                tx.push(token.clone()).unwrap();
            }
            let mut two = ArrayVec::<_, 2>::new();
            assert_eq!(rx.pop_burst(&mut two), 2);
            drop(two);
            assert_eq!(StdArc::strong_count(&token), 5);
            if consumer_first {
                drop(rx);
                assert_eq!(StdArc::strong_count(&token), 5);
                drop(tx);
            } else {
                drop(tx);
                assert_eq!(StdArc::strong_count(&token), 5);
                drop(rx);
            }
            assert_eq!(StdArc::strong_count(&token), 1);
        }
    }

    #[test]
    fn order_survives_two_threads() {
        const ITEMS: u64 = 200_000;
        let (mut tx, mut rx) = ring::<u64>(64);
        let producer = std::thread::spawn(move || {
            let mut next = 0;
            let mut burst = ArrayVec::<u64, 32>::new();
            while next < ITEMS || !burst.is_empty() {
                while next < ITEMS && burst.try_push(next).is_ok() {
                    next += 1;
                }
                if tx.push_burst(&mut burst) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        let mut burst = ArrayVec::<u64, 32>::new();
        while expected < ITEMS {
            if rx.pop_burst(&mut burst) == 0 {
                std::thread::yield_now();
            }
            for value in burst.drain(..) {
                assert_eq!(value, expected);
                expected += 1;
            }
        }
        producer.join().unwrap();
        assert!(rx.is_empty());
    }
}
