//! An index from 64-bit hashes to entry numbers, in lines of one cache line each.
//!
//! A hash names a home line and an alternate one. An item stands at home unless home is full; the home line counts what
//! spilled, so that nearly every question, also one whose answer is no, touches one line. A slot holds the entry
//! number and eight more bits of the hash; whether the entry is the one meant, the caller decides by its whole key, so
//! there are no false hits. Sized for a mean of nine items in fifteen slots: 7.1 bytes an item.
#![allow(unsafe_code)]

use crate::base::hash::{mix, reduce};
use crate::base::limits::MAX_FLOWS;

const SLOTS: usize = 15;
const MEAN_LOAD: usize = 9;
const EMPTY: u32 = u32::MAX;
const ENTRY_BITS: u32 = 24;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;

const _: () = assert!(MAX_FLOWS <= ENTRY_MASK as usize, "the highest entry number is the empty mark");

#[derive(Clone)]
#[repr(C, align(64))]
struct Line {
    slots: [u32; SLOTS],
    /// Items whose home is this line and that stand in their alternate.
    spilled: u32,
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
        Self { lines: vec![Line { slots: [EMPTY; SLOTS], spilled: 0 }; lines].into_boxed_slice() }
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

    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash as u32) << ENTRY_BITS
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
        let hits = Self::matches(line, Self::tag(hash));
        if hits == 0 { None } else { Some(line.slots[hits.trailing_zeros() as usize] & ENTRY_MASK) }
    }

    /// A bit for each slot of `line` with this tag.
    #[inline(always)]
    fn matches(line: &Line, tag: u32) -> u32 {
        let mut hits = 0;
        for (i, slot) in line.slots.iter().enumerate() {
            hits |= u32::from((slot ^ tag) <= ENTRY_MASK && *slot != EMPTY) << i;
        }
        hits
    }

    /// The entry under `hash` that `is` recognises.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = &self.lines[self.home(hash)];
        Self::find_in(home, hash, &mut is).or_else(|| {
            if home.spilled == 0 {
                return None;
            }
            Self::find_in(&self.lines[self.alternate(hash)], hash, &mut is)
        })
    }

    #[inline(always)]
    fn find_in(line: &Line, hash: u64, is: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut hits = Self::matches(line, Self::tag(hash));
        while hits != 0 {
            let entry = line.slots[hits.trailing_zeros() as usize] & ENTRY_MASK;
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
        if Self::replace(&mut self.lines[home], EMPTY, slot) {
            return Ok(());
        }
        if !Self::replace(&mut self.lines[alternate], EMPTY, slot) {
            return Err(Full);
        }
        self.lines[home].spilled += 1;
        Ok(())
    }

    /// Takes `entry` under `hash` out; `false` if it wasn't there.
    pub fn remove(&mut self, hash: u64, entry: u32) -> bool {
        let slot = Self::tag(hash) | entry;
        let (home, alternate) = (self.home(hash), self.alternate(hash));
        if Self::replace(&mut self.lines[home], slot, EMPTY) {
            return true;
        }
        if self.lines[home].spilled > 0 && Self::replace(&mut self.lines[alternate], slot, EMPTY) {
            self.lines[home].spilled -= 1;
            return true;
        }
        false
    }

    fn replace(line: &mut Line, old: u32, new: u32) -> bool {
        match line.slots.iter_mut().find(|slot| **slot == old) {
            Some(slot) => {
                *slot = new;
                true
            }
            None => false,
        }
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
