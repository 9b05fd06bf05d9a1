//! A hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987, scheme 7).
//!
//! Time is counted in ticks of 2^20 ns. A level is 64 slots; a slot of level `l` spans `64^l` ticks. A timer stands on the
//! level of the highest base-64 digit in which its due tick differs from the wheel's current tick, in the slot of its own
//! digit; when the current tick gets that digit, the slot's timers *cascade*: they move to lower levels, at the latest to
//! the slot of level 0 that is their tick. Eight levels hold any [`Instant`], so no timer is too far away.
//!
//! A timer is moved at most seven times, and a bitmap a level finds the next occupied slot without walking empty ones; so
//! [`Wheel::advance`] does work in proportion to its budget only, whatever time has passed.

use crate::base::Instant;
use std::time::Duration;

/// log2 of the nanoseconds in one tick.
const TICK_SHIFT: u32 = 20;
/// The granularity of the wheel: 1.05 ms. A timer fires at the first tick boundary at or after its instant.
pub const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 8;
/// The end of the list of free entries.
const END: u32 = u32::MAX;

const _: () = assert!(LEVELS as u32 * DIGIT_BITS > u64::BITS - TICK_SHIFT, "every instant has a slot");

/// Names a scheduled timer until it fires or is cancelled; afterwards it names nothing, though its place be reused (up
/// to 2^32 times).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// The wheel holds as many timers as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another timer")]
pub struct Full;

/// A member of a circular doubly linked list.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

struct Entry<T> {
    /// The tick in which it fires; never before the wheel's current tick.
    due: u64,
    generation: u32,
    /// None: free.
    value: Option<T>,
}

/// Up to a fixed number of timers, each carrying a `T`.
pub struct Wheel<T> {
    entries: Box<[Entry<T>]>,
    /// One link for each entry, then one for each slot: the head of the slot's list.
    links: Box<[Link]>,
    /// By level: the slots that aren't empty.
    occupied: [u64; LEVELS],
    /// The first free entry; the others follow by `next`.
    free: u32,
    /// The current tick. All earlier ones are done; this one may be done in part.
    tick: u64,
    len: usize,
}

impl<T: Copy> Wheel<T> {
    /// A wheel for `capacity` timers; allocates all that it will ever need.
    ///
    /// # Panics
    /// If the capacity is 2^31 or more.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity < 1 << 31, "a wheel of {capacity} timers");
        let entries = (0..capacity).map(|_| Entry { due: 0, generation: 0, value: None }).collect();
        let link = |i: usize| {
            if i < capacity {
                Link { prev: END, next: if i + 1 < capacity { i as u32 + 1 } else { END } }
            } else {
                Link { prev: i as u32, next: i as u32 }
            }
        };
        Self {
            entries,
            links: (0..capacity + LEVELS * SLOTS).map(link).collect(),
            occupied: [0; LEVELS],
            free: if capacity > 0 { 0 } else { END },
            tick: 0,
            len: 0,
        }
    }

    /// Timers that are scheduled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Schedules `value` to fire at `at`; if that is past, at the next [`Self::advance`].
    ///
    /// # Errors
    /// [`Full`] if there is no room.
    pub fn schedule(&mut self, at: Instant, value: T) -> Result<TimerId, Full> {
        let index = self.free;
        if index == END {
            return Err(Full);
        }
        self.free = self.links[index as usize].next;
        let entry = &mut self.entries[index as usize];
        entry.due = at.0.div_ceil(1 << TICK_SHIFT).max(self.tick);
        entry.value = Some(value);
        let generation = entry.generation;
        self.len += 1;
        self.place(index);
        Ok(TimerId { index, generation })
    }

    /// Takes a timer out; says whether it was still scheduled.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let scheduled = self
            .entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.value.is_some() && entry.generation == id.generation);
        if scheduled {
            self.unlink(id.index);
            self.release(id.index);
        }
        scheduled
    }

    /// Fires the timers that are due at `now`, tick by tick, in no particular order within a tick. Stops after `budget`
    /// steps (a step fires one timer, or moves one to a lower level) and resumes there at the next call. Returns whether
    /// everything due has fired. A `now` before that of an earlier call fires nothing.
    pub fn advance(&mut self, now: Instant, budget: usize, mut fire: impl FnMut(T)) -> bool {
        let target = now.0 >> TICK_SHIFT;
        let mut budget = budget;
        while self.tick <= target {
            // No timer is ever placed in a current slot above level 0, so the levels' order doesn't matter.
            for level in 1..LEVELS {
                while let Some(index) = self.first(level) {
                    if budget == 0 {
                        return false;
                    }
                    budget -= 1;
                    self.unlink(index);
                    self.place(index);
                }
            }
            while let Some(index) = self.first(0) {
                if budget == 0 {
                    return false;
                }
                budget -= 1;
                self.unlink(index);
                if let Some(value) = self.release(index) {
                    fire(value);
                }
            }
            if self.tick == target {
                break;
            }
            self.tick = self.next_tick().map_or(target, |next| next.min(target));
        }
        true
    }

    /// A time before which no timer fires; none if none is scheduled. It is exact if the next timer stands on the lowest
    /// level; else it is the time at which that timer moves down, so that a caller who sleeps until then and advances wakes
    /// at most once a level for it.
    pub fn next_due(&self) -> Option<Instant> {
        let pending = (0..LEVELS).any(|level| self.first(level).is_some());
        let tick = if pending { self.tick } else { self.next_tick()? };
        Some(Instant(tick.saturating_mul(1 << TICK_SHIFT)))
    }

    /// The digit of the current tick on `level`.
    #[inline]
    fn digit(&self, level: usize) -> usize {
        (self.tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
    }

    /// The link of a slot's list head.
    #[inline]
    fn head(&self, level: usize, digit: usize) -> usize {
        self.entries.len() + level * SLOTS + digit
    }

    /// The first timer in the slot of `level` that the current tick lies in.
    #[inline]
    fn first(&self, level: usize) -> Option<u32> {
        let digit = self.digit(level);
        let is_occupied = self.occupied[level] >> digit & 1 == 1;
        is_occupied.then(|| self.links[self.head(level, digit)].next)
    }

    /// The first tick of the nearest occupied slot; the current tick's own slots must be empty.
    fn next_tick(&self) -> Option<u64> {
        // Every slot of a level that is still ahead lies within the current slot of the level above, so the lowest level
        // that has one has the nearest one.
        (0..LEVELS).find_map(|level| {
            // Slots behind are empty, since their time was worked off; so is the current one, whenever we are asked.
            let ahead = self.occupied[level];
            debug_assert_eq!(ahead & !(u64::MAX << self.digit(level) << 1), 0);
            let shift = level as u32 * DIGIT_BITS;
            let above = self.tick >> (shift + DIGIT_BITS) << DIGIT_BITS;
            (ahead != 0).then(|| (above | u64::from(ahead.trailing_zeros())) << shift)
        })
    }

    /// Appends an entry to the slot that its due tick belongs to.
    fn place(&mut self, index: u32) {
        let due = self.entries[index as usize].due;
        let level = ((due ^ self.tick) | 1).ilog2() / DIGIT_BITS;
        let digit = (due >> (level * DIGIT_BITS)) as usize % SLOTS;
        let head = self.head(level as usize, digit);
        let last = self.links[head].prev;
        self.links[index as usize] = Link { prev: last, next: head as u32 };
        self.links[last as usize].next = index;
        self.links[head].prev = index;
        self.occupied[level as usize] |= 1 << digit;
    }

    fn unlink(&mut self, index: u32) {
        let Link { prev, next } = self.links[index as usize];
        self.links[prev as usize].next = next;
        self.links[next as usize].prev = prev;
        if prev == next {
            // Only the head is both neighbours: the slot is empty now.
            let slot = prev as usize - self.entries.len();
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let value = entry.value.take();
        self.links[index as usize].next = self.free;
        self.free = index;
        self.len -= 1;
        value
    }
}

#[cfg(test)]
mod tests;
