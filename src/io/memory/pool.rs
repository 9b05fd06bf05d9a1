//! Buffers in ordinary memory: a bounded pool with a cache for each thread, like a packet device's.

use crate::base::limits::HEADROOM;
use crate::base::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::path::port::{Frame, RxChecksum};
use crossbeam_queue::ArrayQueue;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// Most buffers of one pool that a thread keeps to itself.
const CACHE: usize = 128;
/// Pools that a thread caches buffers of. The place of a pool is its number modulo this; pools that collide do without.
const CACHED_POOLS: usize = 8;

/// A bounded pool of equal buffers. Clones are the same pool. Buffers that are still in frames when the last clone goes are
/// freed with their frames.
#[derive(Clone, Debug)]
pub struct MemoryPool(Arc<Handle>);

/// Closes the pool when the last [`MemoryPool`] goes: its buffers refer to it, so it could never end by itself.
#[derive(Debug)]
struct Handle(Arc<Home>);

#[derive(Debug)]
struct Home {
    number: usize,
    total: usize,
    bytes: usize,
    /// Buffers that a thread may keep.
    cache: usize,
    free: ArrayQueue<Box<Buffer>>,
    closed: AtomicBool,
    /// How many buffers each thread's cache holds; written by that thread.
    cached: Mutex<Vec<Arc<AtomicUsize>>>,
}

#[derive(Debug)]
struct Buffer {
    start: usize,
    end: usize,
    checksum: RxChecksum,
    bytes: Box<[u8]>,
    home: Arc<Home>,
}

/// One frame in a buffer of a [`MemoryPool`].
#[derive(Debug)]
pub struct MemoryFrame(
    /// None only while it is dropped.
    Option<Box<Buffer>>,
);

static NEXT_NUMBER: std::sync::Mutex<usize> = Mutex::new(0);

thread_local! {
    static CACHES: RefCell<Caches> = const { RefCell::new(Caches([const { None }; CACHED_POOLS])) };
}

struct Caches([Option<Cache>; CACHED_POOLS]);

struct Cache {
    home: Arc<Home>,
    #[expect(
        clippy::vec_box,
        reason = "the boxes come from frames and go to frames; only pointers may move"
    )]
    buffers: Vec<Box<Buffer>>,
    count: Arc<AtomicUsize>,
}

impl MemoryPool {
    /// A pool of `buffers` buffers, each of which holds `bytes` bytes behind [`HEADROOM`].
    pub fn new(buffers: usize, bytes: usize) -> Self {
        let number = {
            let mut next = NEXT_NUMBER.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let home = Arc::new(Home {
            number,
            total: buffers,
            bytes,
            // A pool of few buffers must not strand them in the caches of threads that only free.
            cache: CACHE.min(buffers / 16),
            free: ArrayQueue::new(buffers.max(1)),
            closed: AtomicBool::new(false),
            cached: Mutex::new(Vec::new()),
        });
        for _ in 0..buffers {
            let bytes = vec![0; HEADROOM + bytes].into_boxed_slice();
            let (start, end, checksum) = (HEADROOM, HEADROOM, RxChecksum::Unknown);
            home.put(Box::new(Buffer { start, end, checksum, bytes, home: home.clone() }));
        }
        Self(Arc::new(Handle(home)))
    }

    /// An empty frame with [`HEADROOM`] in front, or none if all buffers are in use (or in other threads' caches).
    #[inline]
    pub fn alloc(&self) -> Option<MemoryFrame> {
        let home = &self.0.0;
        let cached = CACHES.try_with(|caches| match caches.try_borrow_mut() {
            Ok(mut caches) => caches.of(home).and_then(Cache::take),
            Err(_) => None,
        });
        let mut buffer = match cached {
            Ok(Some(buffer)) => buffer,
            _ => home.free.pop()?,
        };
        buffer.start = HEADROOM;
        buffer.end = HEADROOM;
        buffer.checksum = RxChecksum::Unknown;
        Some(MemoryFrame(Some(buffer)))
    }

    /// A frame that holds `bytes`; none if they don't fit or all buffers are in use.
    #[inline]
    pub fn frame(&self, bytes: &[u8]) -> Option<MemoryFrame> {
        if bytes.len() > self.bytes() {
            return None;
        }
        let mut frame = self.alloc()?;
        let buffer = frame.0.as_mut()?;
        buffer.end = HEADROOM + bytes.len();
        buffer.bytes[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        Some(frame)
    }

    /// Buffers that no frame uses, those in threads' caches included. Exact only while nothing moves.
    pub fn free(&self) -> usize {
        let home = &self.0.0;
        let cached = home.cached.lock().unwrap_or_else(PoisonError::into_inner);
        home.free.len() + cached.iter().map(|c| c.load(Ordering::Relaxed)).sum::<usize>()
    }

    /// All buffers.
    pub fn total(&self) -> usize {
        self.0.0.total
    }

    /// Bytes that a buffer holds behind its headroom.
    pub fn bytes(&self) -> usize {
        self.0.0.bytes
    }
}

impl Home {
    /// Puts a buffer where any thread finds it.
    fn put(&self, buffer: Box<Buffer>) {
        // There is room for all buffers, so none is lost here.
        drop(self.free.push(buffer));
        // Either the closing thread sees the buffer, or we see that it is closed.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.drain();
        }
    }

    fn drain(&self) {
        while self.free.pop().is_some() {}
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.0.drain();
        // The closing thread's own cache would otherwise keep its share until the thread ends.
        let _ = CACHES.try_with(|caches| {
            if let Ok(mut caches) = caches.try_borrow_mut() {
                caches.forget(&self.0);
            }
        });
    }
}

impl Caches {
    /// The cache of a pool; none if its place is taken by another that is in use, or it keeps none.
    #[inline]
    fn of(&mut self, home: &Arc<Home>) -> Option<&mut Cache> {
        let place = &mut self.0[home.number % CACHED_POOLS];
        let ours = matches!(place, Some(cache) if Arc::ptr_eq(&cache.home, home));
        if !ours {
            Cache::settle(place, home);
        }
        place.as_mut().filter(|cache| Arc::ptr_eq(&cache.home, home))
    }

    fn forget(&mut self, home: &Arc<Home>) {
        let place = &mut self.0[home.number % CACHED_POOLS];
        if matches!(place, Some(cache) if Arc::ptr_eq(&cache.home, home)) {
            *place = None;
        }
    }
}

impl Cache {
    /// Takes `place` for a pool, if it is empty or its owner is closed.
    #[cold]
    fn settle(place: &mut Option<Self>, home: &Arc<Home>) {
        let free = place.as_ref().is_none_or(|cache| cache.home.closed.load(Ordering::Relaxed));
        if !free || home.cache == 0 || home.closed.load(Ordering::Relaxed) {
            return;
        }
        let count = Arc::new(AtomicUsize::new(0));
        home.cached.lock().unwrap_or_else(PoisonError::into_inner).push(count.clone());
        *place = Some(Self { home: home.clone(), buffers: Vec::with_capacity(home.cache + 1), count });
    }

    #[inline]
    fn take(&mut self) -> Option<Box<Buffer>> {
        if self.buffers.is_empty() {
            for _ in 0..self.home.cache.div_ceil(2) {
                let Some(buffer) = self.home.free.pop() else { break };
                self.buffers.push(buffer);
            }
        }
        let buffer = self.buffers.pop();
        self.count.store(self.buffers.len(), Ordering::Relaxed);
        buffer
    }

    #[inline]
    fn give(&mut self, buffer: Box<Buffer>) {
        self.buffers.push(buffer);
        if self.buffers.len() > self.home.cache {
            let kept = self.home.cache / 2;
            for buffer in self.buffers.drain(kept..) {
                self.home.put(buffer);
            }
        }
        self.count.store(self.buffers.len(), Ordering::Relaxed);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for buffer in self.buffers.drain(..) {
            self.home.put(buffer);
        }
        self.home
            .cached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|c| !Arc::ptr_eq(c, &self.count));
    }
}

impl Drop for MemoryFrame {
    #[inline]
    fn drop(&mut self) {
        let mut left = self.0.take();
        // A thread that ends has no cache any more; then, and for a pool without one, the buffer goes to the common queue.
        let _ = CACHES.try_with(|caches| {
            let Ok(mut caches) = caches.try_borrow_mut() else { return };
            if let Some(cache) = left.as_ref().and_then(|buffer| caches.of(&buffer.home))
                && let Some(buffer) = left.take()
            {
                cache.give(buffer);
            }
        });
        if let Some(buffer) = left {
            let home = buffer.home.clone();
            home.put(buffer);
        }
    }
}

impl MemoryFrame {
    /// Says what a device would have found out about the IPv4 checksum.
    pub fn set_rx_checksum(&mut self, checksum: RxChecksum) {
        if let Some(b) = &mut self.0 {
            b.checksum = checksum;
        }
    }
}

impl Frame for MemoryFrame {
    #[inline]
    fn head(&self) -> &[u8] {
        match &self.0 {
            Some(b) => &b.bytes[b.start..b.end],
            None => &[],
        }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Some(b) => &mut b.bytes[b.start..b.end],
            None => &mut [],
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |b| b.end - b.start)
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> bool {
        match &mut self.0 {
            Some(b) if n <= b.start => {
                b.start -= n;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn shrink_front(&mut self, n: usize) -> bool {
        match &mut self.0 {
            Some(b) if n <= b.end - b.start => {
                b.start += n;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn grow_back(&mut self, n: usize) -> bool {
        match &mut self.0 {
            Some(b) if n <= b.bytes.len() - b.end => {
                b.end += n;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if let Some(b) = &mut self.0 {
            b.end = b.end.min(b.start.saturating_add(len));
        }
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        self.0.as_ref().map_or(RxChecksum::Unknown, |b| b.checksum)
    }
}

#[cfg(test)]
impl MemoryPool {
    /// Sees whether anything of the pool is left.
    pub(super) fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0.0))
    }
}

/// See [`MemoryPool::downgrade`].
#[cfg(test)]
pub(super) struct WeakPool(std::sync::Weak<Home>);

#[cfg(test)]
impl WeakPool {
    pub(super) fn upgrade(&self) -> Option<impl Sized + use<>> {
        self.0.upgrade()
    }
}
