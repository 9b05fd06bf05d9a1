//! A frame in a DPDK buffer.

use crate::base::limits::HEAD_BYTES;
use crate::path::port::{Frame, RxChecksum};
use dpdk_sys::rte_mbuf;
use std::ptr::NonNull;

/// One frame: an mbuf, or a chain of them. It is the only owner of its segments; they go back to their pools when it is
/// dropped, on whatever thread.
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf isn't tied to the thread that allocated it: pools take buffers back from any thread, and this value is
// the only owner (reference count 1).
unsafe impl Send for Mbuf {}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own the chain, and its pools' memory outlives every frame (see `Eal`).
        unsafe { dpdk_sys::steerage_free(self.0.as_ptr()) }
    }
}

impl Mbuf {
    /// Takes a frame from `pool`, without bytes.
    ///
    /// # Safety
    /// `pool` is a packet buffer pool of this process.
    #[inline]
    pub(super) unsafe fn alloc(pool: NonNull<dpdk_sys::rte_mempool>) -> Option<Self> {
        // SAFETY: the caller's promise.
        NonNull::new(unsafe { dpdk_sys::steerage_alloc(pool.as_ptr()) }).map(Self)
    }

    #[inline(always)]
    fn header(&self) -> &rte_mbuf {
        // SAFETY: the pointer is to a live mbuf that nobody else may change.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    /// Segments of the frame.
    #[inline(always)]
    pub(super) fn segments(&self) -> u16 {
        self.header().nb_segs
    }

    /// Clears all offload flags: those of the device that the frame was received from mean nothing if that device has no
    /// offloads (a software device hands on what the sender set).
    #[inline(always)]
    pub(super) fn clear_flags(&mut self) {
        self.header_mut().ol_flags = 0;
    }

    /// Whether [`Frame::head`] holds as much as stages rely on.
    #[inline(always)]
    pub(super) fn head_is_whole(&self) -> bool {
        self.segments() == 1 || usize::from(self.header().data_len) >= HEAD_BYTES.min(self.len())
    }

    /// Copies bytes of later segments to the first until it holds [`HEAD_BYTES`] or the whole frame. `false` if they
    /// don't fit, or the chain is shorter than it says.
    #[cold]
    pub(super) fn gather_head(&mut self) -> bool {
        let wanted = HEAD_BYTES.min(self.len());
        loop {
            let first = self.header_mut();
            let held = usize::from(first.data_len);
            if held >= wanted {
                return true;
            }
            let end = usize::from(first.data_off) + held;
            let Some(mut next) = NonNull::new(first.next) else { return false };
            if end + (wanted - held) > usize::from(first.buf_len) {
                return false;
            }
            // SAFETY: a segment of our chain, distinct from the first.
            let second = unsafe { next.as_mut() };
            let n = (wanted - held).min(usize::from(second.data_len));
            // SAFETY: `end` is within the first segment's buffer.
            let to = unsafe { first.buf_addr.cast::<u8>().add(end) };
            // SAFETY: `data_off` is within the second segment's buffer.
            let from = unsafe { second.buf_addr.cast::<u8>().add(usize::from(second.data_off)) };
            // SAFETY: `n` bytes are free behind `end`, by the check above, and `n` are data of the second segment;
            // segments don't share buffers.
            unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
            first.data_len += n as u16;
            second.data_off += n as u16;
            second.data_len -= n as u16;
            if second.data_len == 0 {
                first.next = std::mem::replace(&mut second.next, std::ptr::null_mut());
                first.nb_segs -= 1;
                // SAFETY: just taken out of the chain, so nothing refers to it any more.
                unsafe { dpdk_sys::steerage_free_segment(next.as_ptr()) };
            }
        }
    }

    /// Moves all bytes to the first segment; `false`, and no change, if they don't fit.
    #[cold]
    pub(super) fn gather_all(&mut self) -> bool {
        // SAFETY: we own the chain.
        unsafe { dpdk_sys::steerage_linearize(self.0.as_ptr()) == 0 }
    }
}

impl Frame for Mbuf {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        let m = self.header();
        // SAFETY: `data_off` is within the buffer.
        let start = unsafe { m.buf_addr.cast::<u8>().add(usize::from(m.data_off)) };
        // SAFETY: `data_off + data_len <= buf_len` holds for every mbuf, all of it was mapped as zeros and so is
        // initialised, and the borrow of `self` keeps it alive and unchanged.
        unsafe { std::slice::from_raw_parts(start, usize::from(m.data_len)) }
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        let m = self.header_mut();
        // SAFETY: as in `head`.
        let start = unsafe { m.buf_addr.cast::<u8>().add(usize::from(m.data_off)) };
        // SAFETY: as in `head`; the borrow of `self` is exclusive and nobody else owns the segment.
        unsafe { std::slice::from_raw_parts_mut(start, usize::from(m.data_len)) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.header().pkt_len as usize
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> bool {
        let m = self.header_mut();
        if n > usize::from(m.data_off) {
            return false;
        }
        m.data_off -= n as u16;
        m.data_len += n as u16;
        m.pkt_len += n as u32;
        true
    }

    #[inline]
    fn shrink_front(&mut self, n: usize) -> bool {
        let m = self.header_mut();
        if n > usize::from(m.data_len) {
            return false;
        }
        m.data_off += n as u16;
        m.data_len -= n as u16;
        m.pkt_len -= n as u32;
        true
    }

    #[inline]
    fn grow_back(&mut self, n: usize) -> bool {
        let m = self.header_mut();
        let room = usize::from(m.buf_len) - usize::from(m.data_off) - usize::from(m.data_len);
        if m.nb_segs != 1 || n > room {
            return false;
        }
        m.data_len += n as u16;
        m.pkt_len += n as u32;
        true
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        let m = self.header_mut();
        if len >= m.pkt_len as usize {
            return;
        }
        if m.nb_segs == 1 {
            m.data_len = len as u16;
            m.pkt_len = len as u32;
        } else {
            cut_chain(self, len);
        }
    }

    #[inline(always)]
    fn rx_checksum(&self) -> RxChecksum {
        match self.header().ol_flags & dpdk_sys::STEERAGE_MBUF_RX_IP_CKSUM_MASK {
            dpdk_sys::STEERAGE_MBUF_RX_IP_CKSUM_GOOD => RxChecksum::Good,
            dpdk_sys::STEERAGE_MBUF_RX_IP_CKSUM_BAD => RxChecksum::Bad,
            // Both bits: right as far as the device could see, but not looked at as a whole.
            _ => RxChecksum::Unknown,
        }
    }
}

/// Cuts a chain of segments to `len` bytes, fewer than it has.
#[cold]
fn cut_chain(frame: &mut Mbuf, len: usize) {
    let mut left = len;
    let mut kept = 1;
    let mut segment = frame.0;
    loop {
        // SAFETY: a segment of our chain; no other reference to one is alive.
        let m = unsafe { segment.as_mut() };
        let held = usize::from(m.data_len);
        match NonNull::new(m.next) {
            Some(next) if left > held => {
                left -= held;
                kept += 1;
                segment = next;
            }
            rest => {
                m.data_len = left.min(held) as u16;
                m.next = std::ptr::null_mut();
                if let Some(rest) = rest {
                    // SAFETY: the rest of the chain, which nothing refers to any more.
                    unsafe { dpdk_sys::steerage_free(rest.as_ptr()) };
                }
                break;
            }
        }
    }
    let m = frame.header_mut();
    m.nb_segs = kept;
    m.pkt_len = len as u32;
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
