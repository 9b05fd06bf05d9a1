//! One worker's queue pair.

use super::device::Device;
use super::frame::Mbuf;
use super::pool::PacketPool;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::path::port::{Burst, DeviceMonitor, DeviceStats, Frame, Pool, Port, PortCaps};
use std::sync::Arc;

/// What stands around the layer-3 packet: Ethernet and one 802.1Q tag.
pub(super) const ETHERNET_BYTES: u32 = 14 + 4;
/// Shorter than an Ethernet header; some devices stop the queue at such a frame.
const LEAST_FRAME: u32 = 14;

/// A queue pair's own counters. The worker writes, the management thread reads.
#[derive(Debug, Default)]
pub(super) struct QueueCounters {
    /// Received frames whose start couldn't be made contiguous.
    rx_refused: AtomicU64,
    /// Frames that the device can't send: too long, too short, or too many pieces.
    tx_refused: AtomicU64,
}

fn count(counter: &AtomicU64, n: usize) {
    // One writer, so no read-modify-write.
    counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
}

/// A queue pair of a DPDK device.
#[derive(Debug)]
pub struct DpdkPort {
    caps: PortCaps,
    port: u16,
    queue: u16,
    rx_checksums: bool,
    max_segments: u16,
    /// Longest frame, without check sequence.
    max_frame: u32,
    data: Arc<PacketPool>,
    control: Arc<PacketPool>,
    counters: Arc<QueueCounters>,
    /// Last: the device is closed after the queue's other parts are gone.
    _device: Arc<Device>,
}

impl DpdkPort {
    pub(super) fn new(device: &Arc<Device>, queue: u16) -> (Self, Arc<QueueCounters>) {
        let counters = Arc::new(QueueCounters::default());
        let port = Self {
            caps: device.caps.clone(),
            port: device.id,
            queue,
            rx_checksums: device.rx_checksums,
            max_segments: device.max_segments,
            max_frame: u32::from(device.caps.mtu) + ETHERNET_BYTES,
            data: device.data.clone(),
            control: device.control.clone(),
            counters: counters.clone(),
            _device: device.clone(),
        };
        (port, counters)
    }

    /// Free buffers of a pool, those in threads' caches included; exact only while nothing moves.
    pub fn free_buffers(&self, pool: Pool) -> usize {
        self.pool(pool).free()
    }

    /// Bytes from one buffer of a pool to the next.
    pub fn buffer_stride(&self, pool: Pool) -> usize {
        self.pool(pool).stride()
    }

    fn pool(&self, pool: Pool) -> &PacketPool {
        match pool {
            Pool::Data => &self.data,
            Pool::Control => &self.control,
        }
    }

    /// Makes received frames as stages expect them; those that can't be are dropped and counted.
    #[cold]
    fn gather(&self, into: &mut Burst<Mbuf>, first: usize) {
        let mut i = first;
        while i < into.len() {
            if into[i].head_is_whole() || into[i].gather_head() {
                i += 1;
            } else {
                into.remove(i);
                count(&self.counters.rx_refused, 1);
            }
        }
    }

    /// Whether the device takes `frame` as it is.
    #[inline(always)]
    fn sendable(&self, frame: &Mbuf) -> bool {
        let len = frame.len() as u32;
        len.wrapping_sub(LEAST_FRAME) <= self.max_frame - LEAST_FRAME && frame.segments() <= self.max_segments
    }

    /// Takes out what the device can't send, and returns how many those were.
    #[cold]
    fn sift(&self, from: &mut Burst<Mbuf>) -> usize {
        let before = from.len();
        // Some drivers copy a frame into a buffer of their own without a look at its length, and only its first segment.
        from.retain(|frame| {
            self.sendable(frame)
                || ((LEAST_FRAME..=self.max_frame).contains(&(frame.len() as u32)) && frame.gather_all())
        });
        let refused = before - from.len();
        count(&self.counters.tx_refused, refused);
        refused
    }
}

impl Port for DpdkPort {
    type Frame = Mbuf;

    fn caps(&self) -> &PortCaps {
        &self.caps
    }

    #[inline]
    fn rx(&mut self, into: &mut Burst<Mbuf>) -> usize {
        let first = into.len();
        let room = into.remaining_capacity() as u16;
        if room == 0 {
            return 0;
        }
        // SAFETY: the array has `room` free elements behind its `first`.
        let free = unsafe { into.as_mut_ptr().add(first) };
        // SAFETY: the device runs as long as `_device` lives; only this value uses the queue, and `&mut self` makes that one
        // thread at a time; an `Mbuf` is a pointer to an mbuf, and `free` has room for `room` of them.
        let n = unsafe { dpdk_sys::steerage_rx_burst(self.port, self.queue, free.cast(), room) };
        // SAFETY: the driver wrote `n <= room` pointers to mbufs that are now ours alone.
        unsafe { into.set_len(first + usize::from(n)) };
        let mut whole = true;
        for frame in &mut into[first..] {
            if !self.rx_checksums {
                frame.clear_flags();
            }
            whole &= frame.head_is_whole();
        }
        if !whole {
            self.gather(into, first);
        }
        into.len() - first
    }

    #[inline]
    fn tx(&mut self, from: &mut Burst<Mbuf>) -> usize {
        let mut refused = 0;
        if !from.iter().all(|frame| self.sendable(frame)) {
            refused = self.sift(from);
        }
        let n = from.len() as u16;
        if n == 0 {
            return refused;
        }
        let frames = from.as_mut_ptr();
        // SAFETY: shorter than before; the frames behind belong to the call below now.
        unsafe { from.set_len(0) };
        // SAFETY: the device runs and the queue is ours, as in `rx`; the array holds `n` mbufs that this call gives away.
        let left = unsafe { dpdk_sys::steerage_tx_burst(self.port, self.queue, frames.cast(), n) };
        refused + usize::from(left)
    }

    #[inline]
    fn alloc(&mut self, pool: Pool) -> Option<Mbuf> {
        self.pool(pool).alloc()
    }
}

/// Reads the counters of a device.
#[derive(Debug)]
pub(super) struct DpdkMonitor {
    pub device: Arc<Device>,
    pub queues: Vec<Arc<QueueCounters>>,
}

impl DeviceMonitor for DpdkMonitor {
    fn stats(&mut self) -> DeviceStats {
        let mut stats = self.device.stats();
        for queue in &self.queues {
            stats.rx_errors += queue.rx_refused.load(Ordering::Relaxed);
            stats.tx_errors += queue.tx_refused.load(Ordering::Relaxed);
        }
        stats
    }
}
