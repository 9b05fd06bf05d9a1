//! Memory for the large tables. A random question to a table of many megabytes misses the processor's address translations
//! as often as its caches, unless the table lies in large pages.
#![allow(unsafe_code)]

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
