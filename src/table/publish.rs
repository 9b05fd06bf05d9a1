//! Publication of immutable snapshots from one thread to a fixed set of pollers, with quiescent-state reclamation.
//!
//! There is one *newest* snapshot, and each snapshot has a generation, counted from zero. Each subscriber announces, in a
//! cache line of its own, the generation of the snapshot it uses. The rules:
//!
//! 1. `newest` only ever moves to a higher generation, and a snapshot is owned by the shared part from before it becomes
//!    the newest until it is collected.
//! 2. A subscriber that announces `g` uses nothing older than `g`: it loads `newest` (at least `g`, by 1 and because a
//!    thread never sees one word go backwards), and announces the new generation only when it has let the old one go.
//! 3. The publisher drops a snapshot only if it isn't the newest and its generation lies below every announcement.
//!
//! So the snapshot that a subscriber uses, or is about to take, is never below its own announcement, and therefore never
//! dropped; there is no window between load and announcement, and no fence is needed. The release store of the
//! announcement and the publisher's acquire load order the last use before the drop.
//!
//! A subscriber that doesn't call [`Subscriber::refresh`] keeps its snapshot and all newer ones alive. One that is dropped
//! announces infinity. When the publisher goes first, the snapshots live until the last subscriber goes.
#![allow(unsafe_code)]

use super::ring::Line;
use crate::base::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::base::sync::{Arc, UnsafeCell};
use std::collections::VecDeque;
use std::ptr::NonNull;

/// The announcement of a subscriber that is gone.
const GONE: u64 = u64::MAX;

struct Snapshot<T> {
    generation: u64,
    value: T,
}

struct Shared<T> {
    newest: Line<AtomicPtr<Snapshot<T>>>,
    /// By subscriber: the generation it uses.
    announced: Box<[Line<AtomicU64>]>,
    /// Every living snapshot, oldest first, the newest last; each came from a `Box`. The publisher alone touches it, and
    /// after the publisher only `drop`.
    owned: UnsafeCell<VecDeque<NonNull<Snapshot<T>>>>,
}

// SAFETY: the snapshots belong to the shared part, which may be dropped on any of the threads, hence `T: Send`; they are
// read by several threads, hence `T: Sync`. `owned` is reached only through the one `Publisher` (mutably only through
// `&mut Publisher`) and by `drop`.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; the other fields are atomics.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

/// Drops a snapshot.
///
/// # Safety
/// `snapshot` came from `Box::into_raw`, no one uses it or will, and it is dropped this once.
unsafe fn free<T>(snapshot: NonNull<Snapshot<T>>) {
    // SAFETY: the caller vouches for it.
    drop(unsafe { Box::from_raw(snapshot.as_ptr()) });
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let owned = self.owned.with_mut(|owned| {
            // SAFETY: `&mut self`: publisher and subscribers are gone, ordered before this by the count of the `Arc`.
            std::mem::take(unsafe { &mut *owned })
        });
        for snapshot in owned {
            // SAFETY: nobody is left to use it, and the list, which held each snapshot once, has been taken.
            unsafe { free(snapshot) };
        }
    }
}

/// The side that makes snapshots and drops them.
pub struct Publisher<T: Send + Sync> {
    shared: Arc<Shared<T>>,
    newest: NonNull<Snapshot<T>>,
}

// SAFETY: the pointer stands for a snapshot that `shared` owns, and `Shared` may change threads and be shared.
unsafe impl<T: Send + Sync> Send for Publisher<T> {}

/// One polling reader.
pub struct Subscriber<T: Send + Sync> {
    shared: Arc<Shared<T>>,
    /// Which announcement is ours.
    index: usize,
    /// The snapshot in use; its generation is the one announced.
    held: NonNull<Snapshot<T>>,
}

// SAFETY: as for `Publisher`; the subscriber's use of the snapshot is `&T`, and `T: Sync`.
unsafe impl<T: Send + Sync> Send for Subscriber<T> {}

/// A publisher whose first snapshot, generation zero, is `first`, and `subscribers` readers that already use it.
pub fn channel<T: Send + Sync>(first: T, subscribers: usize) -> (Publisher<T>, Vec<Subscriber<T>>) {
    let first = NonNull::from(Box::leak(Box::new(Snapshot { generation: 0, value: first })));
    let shared = Arc::new(Shared {
        newest: Line(AtomicPtr::new(first.as_ptr())),
        announced: (0..subscribers).map(|_| Line(AtomicU64::new(0))).collect(),
        owned: UnsafeCell::new(VecDeque::from([first])),
    });
    let readers =
        (0..subscribers).map(|index| Subscriber { shared: shared.clone(), index, held: first }).collect();
    (Publisher { shared, newest: first }, readers)
}

impl<T: Send + Sync> Publisher<T> {
    fn newest(&self) -> &Snapshot<T> {
        // SAFETY: the newest snapshot is never collected (rule 3), and only `&mut self` makes another one the newest.
        unsafe { self.newest.as_ref() }
    }

    /// Makes `value` the newest snapshot and returns its generation. Subscribers see it at their next refresh; the one
    /// before it lives until [`Self::collect`] finds that nobody can hold it. Never waits.
    pub fn publish(&mut self, value: T) -> u64 {
        let generation = self.generation() + 1;
        let newest = NonNull::from(Box::leak(Box::new(Snapshot { generation, value })));
        self.shared.owned.with_mut(|owned| {
            // SAFETY: only the publisher touches the list, and `&mut self` is the only way here.
            unsafe { &mut *owned }.push_back(newest);
        });
        self.newest = newest;
        // Release: pairs with the subscriber's acquire, so that it sees a finished snapshot.
        self.shared.newest.0.store(newest.as_ptr(), Ordering::Release);
        generation
    }

    /// Drops, on this thread, the snapshots that no subscriber can hold any more.
    pub fn collect(&mut self) {
        let horizon = self.adopted_generation();
        while let Some(snapshot) = self.shared.owned.with_mut(|owned| {
            // SAFETY: only the publisher touches the list, and `&mut self` is the only way here.
            let owned = unsafe { &mut *owned };
            let oldest = *owned.front()?;
            // SAFETY: what is in the list has not been dropped.
            let generation = unsafe { oldest.as_ref() }.generation;
            // The horizon is at most the newest generation, so the newest snapshot always stays.
            if generation < horizon { owned.pop_front() } else { None }
        }) {
            // SAFETY: it lies below every announcement, so nobody uses it (rule 2), and the acquire loads behind
            // `horizon` ordered the last uses before this; it has just left the list.
            unsafe { free(snapshot) };
        }
    }

    /// The newest snapshot.
    pub fn current(&self) -> &T {
        &self.newest().value
    }

    /// The generation of the newest snapshot; the first one's is zero.
    pub fn generation(&self) -> u64 {
        self.newest().generation
    }

    /// The lowest generation that a living subscriber uses; the newest if there is no subscriber. Whatever a subscriber
    /// did with older ones happens-before the return.
    pub fn adopted_generation(&self) -> u64 {
        // Acquire: pairs with the release of the announcement, so that the last use of an older snapshot comes before
        // its drop.
        let announced = self.shared.announced.iter().map(|line| line.0.load(Ordering::Acquire));
        announced.fold(self.generation(), u64::min)
    }

    /// Whether every living subscriber uses the newest snapshot.
    pub fn adopted(&self) -> bool {
        self.adopted_generation() == self.generation()
    }

    /// Snapshots that are no longer the newest and not yet dropped.
    pub fn retired(&self) -> usize {
        self.shared.owned.with(|owned| {
            // SAFETY: only the publisher touches the list, and all that change it need `&mut self`.
            unsafe { &*owned }.len() - 1
        })
    }
}

impl<T: Send + Sync> Subscriber<T> {
    /// Takes up the newest snapshot; says whether it is a new one. Wait-free: one load if there is nothing new, else one
    /// store more.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        // Acquire: pairs with the publisher's release, so that the snapshot is finished.
        let newest = self.shared.newest.0.load(Ordering::Acquire);
        // The held snapshot is alive, so an equal address can't be a new snapshot in old memory.
        if newest == self.held.as_ptr() {
            return false;
        }
        let Some(newest) = NonNull::new(newest) else { return false };
        self.held = newest;
        // Release: what was done with the old snapshot comes before the publisher's drop of it.
        self.shared.announced[self.index].0.store(self.generation(), Ordering::Release);
        true
    }

    fn held(&self) -> &Snapshot<T> {
        // SAFETY: our announcement is at most this snapshot's generation (in `refresh` lower, from the load on), so it is
        // not collected (rule 3); and `shared`, which owns it, lives at least as long as `self`.
        unsafe { self.held.as_ref() }
    }

    /// The snapshot in use.
    #[inline]
    pub fn get(&self) -> &T {
        &self.held().value
    }

    /// The generation of the snapshot in use.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.held().generation
    }
}

impl<T: Send + Sync> Drop for Subscriber<T> {
    fn drop(&mut self) {
        // Release: as in `refresh`.
        self.shared.announced[self.index].0.store(GONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc as StdArc;
    use std::sync::atomic::AtomicUsize;

    /// Counts the living snapshots.
    struct Probe(u64, StdArc<AtomicUsize>);

    impl Probe {
        fn new(value: u64, alive: &StdArc<AtomicUsize>) -> Self {
            alive.fetch_add(1, Ordering::Relaxed);
            Self(value, alive.clone())
        }
    }

    impl Drop for Probe {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Publish,
        Collect,
        Refresh(usize),
        Leave(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Publish),
            4 => Just(Op::Collect),
            6 => (0..4usize).prop_map(Op::Refresh),
            1 => (0..4usize).prop_map(Op::Leave),
        ]
    }

    proptest! {
        #[test]
        fn keeps_exactly_what_may_be_held(
            readers in 0..4usize,
            ops in proptest::collection::vec(op(), 0..80),
            publisher_first in any::<bool>(),
        ) {
            let alive = StdArc::new(AtomicUsize::new(0));
            let (mut publisher, subscribers) = channel(Probe::new(0, &alive), readers);
            let mut subscribers: Vec<_> = subscribers.into_iter().map(Some).collect();
            let mut held: Vec<Option<u64>> = vec![Some(0); readers];
            let (mut newest, mut oldest) = (0u64, 0u64);
            for op in ops {
                match op {
                    Op::Publish => {
                        newest += 1;
                        prop_assert_eq!(publisher.publish(Probe::new(newest, &alive)), newest);
                    }
                    Op::Collect => {
                        publisher.collect();
                        oldest = held.iter().flatten().copied().min().unwrap_or(newest);
                    }
                    Op::Refresh(i) => {
                        if let Some(Some(subscriber)) = subscribers.get_mut(i) {
                            prop_assert_eq!(subscriber.refresh(), held[i] != Some(newest));
                            held[i] = Some(newest);
                        }
                    }
                    Op::Leave(i) => {
                        if i < readers {
                            subscribers[i] = None;
                            held[i] = None;
                        }
                    }
                }
                for (subscriber, held) in subscribers.iter().zip(&held) {
                    prop_assert_eq!(subscriber.as_ref().map(|s| s.get().0), *held);
                    prop_assert_eq!(subscriber.as_ref().map(|s| s.generation()), *held);
                }
                let adopted = held.iter().flatten().copied().min().unwrap_or(newest);
                prop_assert_eq!(publisher.current().0, newest);
                prop_assert_eq!(publisher.adopted_generation(), adopted);
                prop_assert_eq!(publisher.adopted(), adopted == newest);
                prop_assert_eq!(publisher.retired() as u64, newest - oldest);
                prop_assert_eq!(alive.load(Ordering::Relaxed) as u64, newest - oldest + 1);
            }
            if publisher_first {
                drop(publisher);
                for (subscriber, held) in subscribers.iter_mut().zip(held) {
                    prop_assert_eq!(subscriber.as_ref().map(|s| s.get().0), held);
                    if let Some(subscriber) = subscriber {
                        subscriber.refresh();
                        prop_assert_eq!(subscriber.get().0, newest);
                    }
                }
                drop(subscribers);
            } else {
                drop(subscribers);
                drop(publisher);
            }
            prop_assert_eq!(alive.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn readers_see_whole_snapshots_in_order() {
        const LAST: u64 = 20_000;
        let (mut publisher, subscribers) = channel([0u64; 16], 2);
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|mut subscriber| {
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while seen < LAST {
                        if !subscriber.refresh() {
                            std::thread::yield_now();
                        }
                        let snapshot = subscriber.get();
                        assert!(snapshot.iter().all(|&x| x == snapshot[0]));
                        assert!(snapshot[0] >= seen);
                        seen = snapshot[0];
                    }
                })
            })
            .collect();
        for i in 1..=LAST {
            publisher.publish([i; 16]);
            publisher.collect();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        publisher.collect();
        assert_eq!(publisher.retired(), 0);
    }
}
