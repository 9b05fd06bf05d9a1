//! An index from 64-bit hashes to entry numbers, in lines of one cache line each.
//!
//! A hash names a home line and an alternate one. An item stands at home unless home is full; the home line counts what
//! spilled, so that nearly every question, also one whose answer is no, touches one line. A slot holds the entry
//! number and eight more bits of the hash; whether the entry is the one meant, the caller decides by its whole key, so
//! there are no false hits. Sized for a mean of nine items in fifteen slots: 7.1 bytes an item.
#![allow(unsafe_code)]

use super::large;
use crate::base::hash::{mix, reduce};
use crate::base::limits::MAX_FLOWS;

const SLOTS: usize = 15;
const MEAN_LOAD: usize = 9;
const EMPTY: u32 = u32::MAX;
const ENTRY_BITS: u32 = 24;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;
const TAG_MASK: u32 = !ENTRY_MASK;

const _: () = assert!(MAX_FLOWS <= ENTRY_MASK as usize + 1, "an index slot has 24 bits for the entry");

/// Fifteen slots, and the number of items whose home is this line and that stand in their alternate.
#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u32; SLOTS + 1]);

impl Line {
    const NONE: Self = Self([EMPTY; SLOTS + 1]).with_spilled(0);

    const fn with_spilled(mut self, n: u32) -> Self {
        self.0[SLOTS] = n;
        self
    }

    #[inline(always)]
    fn spilled(&self) -> u32 {
        self.0[SLOTS]
    }

    /// A bit for each slot that is `wanted` in the bits of `mask`.
    #[inline(always)]
    fn matches(&self, mask: u32, wanted: u32) -> u32 {
        lanes::equal(&self.0, mask, wanted) & ((1 << SLOTS) - 1)
    }

    /// Replaces a slot that is `old` by `new`; `false` if there is none.
    #[inline]
    fn replace(&mut self, old: u32, new: u32) -> bool {
        let hits = self.matches(u32::MAX, old);
        if hits != 0 {
            self.0[hits.trailing_zeros() as usize] = new;
        }
        hits != 0
    }
}

/// Both lines of a hash are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// See the module's text.
pub struct Index {
    lines: Box<[Line]>,
}

impl Index {
    /// An index for up to `items` items.
    pub fn new(items: usize) -> Self {
        assert!(items <= 2 * MAX_FLOWS, "an index slot has {ENTRY_BITS} bits for the entry");
        let lines = items.div_ceil(MEAN_LOAD).max(2);
        Self { lines: large::filled(lines, |_| Line::NONE) }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        reduce(hash, self.lines.len() as u64) as usize
    }

    /// Any line but the home one.
    #[inline]
    fn alternate(&self, hash: u64) -> usize {
        let lines = self.lines.len();
        let other = self.home(hash) + 1 + reduce(mix(hash), lines as u64 - 1) as usize;
        if other >= lines { other - lines } else { other }
    }

    /// The top byte of a slot. All ones is what an empty slot has, so no hash gets that.
    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        ((hash as u32) << ENTRY_BITS).min(TAG_MASK - (1 << ENTRY_BITS))
    }

    /// Starts fetching the home line.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&raw const self.lines[self.home(hash)]);
    }

    /// The first entry whose slot could be that of `hash`, for a prefetch.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let line = &self.lines[self.home(hash)];
        let hits = line.matches(TAG_MASK, Self::tag(hash));
        if hits == 0 { None } else { Some(line.0[hits.trailing_zeros() as usize] & ENTRY_MASK) }
    }

    /// The entry under `hash` that `is` recognises.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = &self.lines[self.home(hash)];
        let tag = Self::tag(hash);
        Self::find_in(home, tag, &mut is).or_else(|| {
            if home.spilled() == 0 {
                return None;
            }
            Self::find_in(&self.lines[self.alternate(hash)], tag, &mut is)
        })
    }

    #[inline(always)]
    fn find_in(line: &Line, tag: u32, is: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut hits = line.matches(TAG_MASK, tag);
        while hits != 0 {
            let entry = line.0[hits.trailing_zeros() as usize] & ENTRY_MASK;
            if is(entry) {
                return Some(entry);
            }
            hits &= hits - 1;
        }
        None
    }

    /// Adds `entry` under `hash`. The caller knows that it isn't there yet.
    pub fn insert(&mut self, hash: u64, entry: u32) -> Result<(), Full> {
        let slot = Self::tag(hash) | entry;
        let (home, alternate) = (self.home(hash), self.alternate(hash));
        if self.lines[home].replace(EMPTY, slot) {
            return Ok(());
        }
        if !self.lines[alternate].replace(EMPTY, slot) {
            return Err(Full);
        }
        self.lines[home].0[SLOTS] += 1;
        Ok(())
    }

    /// Takes `entry` under `hash` out; `false` if it wasn't there.
    pub fn remove(&mut self, hash: u64, entry: u32) -> bool {
        let slot = Self::tag(hash) | entry;
        let (home, alternate) = (self.home(hash), self.alternate(hash));
        if self.lines[home].replace(slot, EMPTY) {
            return true;
        }
        if self.lines[home].spilled() > 0 && self.lines[alternate].replace(slot, EMPTY) {
            self.lines[home].0[SLOTS] -= 1;
            return true;
        }
        false
    }
}

/// Sixteen comparisons at once.
mod lanes {
    /// A bit for each of sixteen lanes that is `wanted` in the bits of `mask`.
    #[inline(always)]
    pub fn equal(lanes: &[u32; 16], mask: u32, wanted: u32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE2 is part of every x86-64.
        unsafe {
            equal_sse2(lanes, mask, wanted)
        }
        #[cfg(not(target_arch = "x86_64"))]
        lanes.iter().enumerate().fold(0, |hits, (i, lane)| hits | u32::from(lane & mask == wanted) << i)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse2")]
    #[inline]
    fn equal_sse2(lanes: &[u32; 16], mask: u32, wanted: u32) -> u32 {
        use std::arch::x86_64::{
            __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
            _mm_packs_epi32, _mm_set1_epi32,
        };
        let (mask, wanted) = (_mm_set1_epi32(mask as i32), _mm_set1_epi32(wanted as i32));
        let equal = |i: usize| {
            let four = lanes[i..i + 4].as_ptr().cast::<__m128i>();
            // SAFETY: the slice vouches for sixteen bytes; the load asks for no alignment.
            let four = unsafe { _mm_loadu_si128(four) };
            _mm_cmpeq_epi32(_mm_and_si128(four, mask), wanted)
        };
        // All ones and all zeros keep what they are when they are narrowed with saturation.
        let (low, high) = (_mm_packs_epi32(equal(0), equal(4)), _mm_packs_epi32(equal(8), equal(12)));
        _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
    }
}

/// Asks for a cache line; where the architecture has no such hint, nothing.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing that the program can see and can't fault, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
