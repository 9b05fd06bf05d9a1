//! Memory for the large tables. A random question to a table of many megabytes misses the processor's address translations
//! as often as its caches, unless the table lies in large pages. And memory for what may become large, but mostly doesn't.
#![allow(unsafe_code)]

#[cfg(not(feature = "loom"))]
use std::ops::Range;
#[cfg(not(feature = "loom"))]
use std::ptr::NonNull;

/// `n` items in one array, `item(i)` at place `i`, made in order, for which the kernel is asked to use large pages
/// (`madvise(2)`, `MADV_HUGEPAGE`). Where it has none, or doesn't give any, the array lies in small ones.
///
/// # Panics
/// If `n` items are more than `isize::MAX` bytes; without so much memory the process ends, as with any array.
pub fn filled<T>(n: usize, item: impl FnMut(usize) -> T) -> Box<[T]> {
    let mut items = Vec::with_capacity(n);
    // Before they are written: pages are given at the first touch.
    advise(items.as_ptr(), n);
    items.extend((0..n).map(item));
    items.into_boxed_slice()
}

/// Asks for large pages, which is a wish: where they can't be had, all goes on with small ones.
fn advise<T>(at: *const T, n: usize) {
    const PAGE: usize = 4096;
    let start = at.addr().next_multiple_of(PAGE);
    let len = (at.addr() + n * size_of::<T>()).saturating_sub(start) / PAGE * PAGE;
    if len > 0 {
        // SAFETY: whole pages of memory that was just allocated; the advice changes neither what they hold nor who may use
        // them.
        let _ = unsafe { libc::madvise(std::ptr::without_provenance_mut(start), len, libc::MADV_HUGEPAGE) };
    }
}

/// What memory full of zeroes is a good value of.
///
/// # Safety
/// Whoever implements it vouches for that, and for values that may go without being dropped.
#[cfg(not(feature = "loom"))]
pub unsafe trait Zeroed {}

/// `n` items of zeroes in one array, of which those that nobody has touched take address space but no memory.
#[cfg(not(feature = "loom"))]
#[derive(Debug)]
pub struct Lazy<T> {
    at: NonNull<T>,
    n: usize,
}

// SAFETY: it owns its items, as a box does.
#[cfg(not(feature = "loom"))]
unsafe impl<T: Send> Send for Lazy<T> {}
// SAFETY: as above; a reference to it gives references to the items and nothing more.
#[cfg(not(feature = "loom"))]
unsafe impl<T: Sync> Sync for Lazy<T> {}

#[cfg(not(feature = "loom"))]
impl<T: Zeroed> Lazy<T> {
    /// An array of `n` items.
    ///
    /// # Panics
    /// If there is no room for them in the process's address space (`ulimit -v`, `vm.overcommit_memory=2`).
    pub fn new(n: usize) -> Self {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096, "a mapping begins with a page") };
        if n == 0 {
            return Self { at: NonNull::dangling(), n };
        }
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping of its own, at no particular place.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), n * size_of::<T>(), access, kind, -1, 0) };
        let at = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED);
        match at {
            Some(at) => Self { at, n },
            None => panic!("no address space for {n} items of {} bytes", size_of::<T>()),
        }
    }

    /// Has the kernel give memory to these items now (`madvise(2)`, `MADV_POPULATE_WRITE`), so that nobody waits for it when
    /// they are first touched. What they hold stays, also while others change it. Kernels before 5.14 don't do it.
    pub fn populate(&self, items: Range<usize>) {
        const PAGE: usize = 4096;
        let bytes = |item: usize| item.min(self.n) * size_of::<T>();
        let (start, end) = (bytes(items.start) / PAGE * PAGE, bytes(items.end));
        if start < end {
            let start = self.at.as_ptr().cast::<u8>().wrapping_add(start);
            // SAFETY: pages of our own mapping, whose contents the advice leaves as they are.
            let _ = unsafe {
                libc::madvise(
                    start.cast(),
                    end - (start.addr() - self.at.addr().get()),
                    libc::MADV_POPULATE_WRITE,
                )
            };
        }
    }
}

#[cfg(not(feature = "loom"))]
impl<T> std::ops::Deref for Lazy<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is as long, belongs to us for as long as we live, and its zeroes are good items.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.n) }
    }
}

#[cfg(not(feature = "loom"))]
impl<T> Drop for Lazy<T> {
    fn drop(&mut self) {
        if self.n > 0 {
            // SAFETY: our own mapping, which nobody can use any more; its items need not be dropped.
            unsafe { libc::munmap(self.at.as_ptr().cast(), self.n * size_of::<T>()) };
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;
    use crate::table::counter::Counter;

    /// Kibibytes of memory that the process has now.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    }

    #[test]
    fn what_is_not_touched_takes_no_memory() {
        const ITEMS: usize = 1 << 30;
        let before = resident();
        let lazy = Lazy::<Counter>::new(ITEMS);
        lazy[0].inc();
        lazy[ITEMS - 1].add(2);
        assert_eq!(
            (lazy.len(), lazy[0].get(), lazy[ITEMS / 2].get(), lazy[ITEMS - 1].get()),
            (ITEMS, 1, 0, 2)
        );
        lazy.populate(0..1000);
        lazy.populate(ITEMS - 1000..usize::MAX);
        assert_eq!((lazy[0].get(), lazy[ITEMS - 1].get()), (1, 2), "what is there stays");
        assert!(resident() < before + (64 << 10), "8 GiB would have been {before} KiB and much more");
        drop(lazy);
        let none = Lazy::<Counter>::new(0);
        none.populate(0..1);
        assert!(none.is_empty());
    }
}
