//! Packet devices in memory: a test's hands on both ends, two ports back to back, or an endless source for benches.

mod pool;

pub use pool::{MemoryFrame, MemoryPool};

use super::{DeviceConfig, OpenDevice};
use crate::base::Mac;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::path::port::{Burst, DeviceMonitor, DeviceStats, Frame, Pool, Port, PortCaps, RxChecksum};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// What stands around the layer-3 packet: Ethernet and one 802.1Q tag.
pub(super) const ETHERNET_BYTES: usize = 14 + 4;

/// A port's buffers.
#[derive(Clone, Debug)]
pub struct MemoryPools {
    /// For received frames and answers to them.
    pub data: MemoryPool,
    /// For control frames.
    pub control: MemoryPool,
}

impl MemoryPools {
    /// `buffers` data buffers and a quarter as many control buffers of `bytes` bytes.
    pub fn new(buffers: usize, bytes: usize) -> Self {
        Self { data: MemoryPool::new(buffers, bytes), control: MemoryPool::new((buffers / 4).max(1), bytes) }
    }

    /// An empty frame of a pool.
    #[inline]
    pub fn alloc(&self, pool: Pool) -> Option<MemoryFrame> {
        match pool {
            Pool::Data => self.data.alloc(),
            Pool::Control => self.control.alloc(),
        }
    }

    /// Free buffers of both pools.
    pub fn free(&self) -> usize {
        self.data.free() + self.control.free()
    }
}

/// Frames on their way in one direction; bounded.
#[derive(Debug)]
struct Lane {
    frames: ArrayQueue<MemoryFrame>,
    overflow: AtomicU64,
}

impl Lane {
    fn new(depth: usize) -> Arc<Self> {
        Arc::new(Self { frames: ArrayQueue::new(depth.max(1)), overflow: AtomicU64::new(0) })
    }

    fn push(&self, frame: MemoryFrame) -> bool {
        let fits = self.frames.push(frame).is_ok();
        if !fits {
            self.overflow.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

/// Where received frames come from.
#[derive(Debug)]
enum Source {
    Lane(Arc<Lane>),
    /// Copies of `templates`, in `order`, for ever.
    Templates {
        templates: Vec<Vec<u8>>,
        order: Vec<u32>,
        next: usize,
    },
}

/// One queue's counters: the port writes, the monitor reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    rx_no_buffer: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    tx_errors: AtomicU64,
}

fn add(counter: &AtomicU64, n: usize) {
    // One writer, so no read-modify-write.
    counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
}

impl Counters {
    /// Frames and bytes received, and frames for which there was no buffer.
    pub(super) fn received(&self, packets: usize, bytes: usize, no_buffer: usize) {
        add(&self.rx_packets, packets);
        add(&self.rx_bytes, bytes);
        add(&self.rx_no_buffer, no_buffer);
    }

    /// Frames and bytes sent, and frames that could not be.
    pub(super) fn sent(&self, packets: usize, bytes: usize, errors: usize) {
        add(&self.tx_packets, packets);
        add(&self.tx_bytes, bytes);
        add(&self.tx_errors, errors);
    }
}

/// A queue pair in memory.
#[derive(Debug)]
pub struct MemoryPort {
    caps: PortCaps,
    pools: MemoryPools,
    source: Source,
    /// Where sent frames go; none: they are freed.
    sink: Option<Arc<Lane>>,
    counters: Arc<Counters>,
}

/// The far end of a [`MemoryPort`], in the hands of a test. Clones are the same link.
#[derive(Clone, Debug)]
pub struct MemoryLink {
    pool: MemoryPool,
    to_port: Arc<Lane>,
    from_port: Arc<Lane>,
}

impl MemoryPort {
    /// A port whose far end the caller holds; `depth` frames fit each direction.
    pub fn link(caps: PortCaps, pools: MemoryPools, depth: usize) -> (Self, MemoryLink) {
        let (to_port, from_port) = (Lane::new(depth), Lane::new(depth));
        let link =
            MemoryLink { pool: pools.data.clone(), to_port: to_port.clone(), from_port: from_port.clone() };
        (Self::new(caps, pools, Source::Lane(to_port), Some(from_port)), link)
    }

    /// Two ports back to back: what one sends the other receives, `depth` frames each way.
    pub fn pair(a: (PortCaps, MemoryPools), b: (PortCaps, MemoryPools), depth: usize) -> (Self, Self) {
        let (to_a, to_b) = (Lane::new(depth), Lane::new(depth));
        (
            Self::new(a.0, a.1, Source::Lane(to_a.clone()), Some(to_b.clone())),
            Self::new(b.0, b.1, Source::Lane(to_b), Some(to_a)),
        )
    }

    /// A port that receives copies of `templates` for ever, in the `order` of their indices (over and over; empty: as they
    /// stand), and frees what is sent. Indices past the end count from the start again.
    pub fn generator(caps: PortCaps, pools: MemoryPools, templates: Vec<Vec<u8>>, order: Vec<u32>) -> Self {
        let order = if order.is_empty() { (0..templates.len() as u32).collect() } else { order };
        let order = order.into_iter().map(|i| i.checked_rem(templates.len() as u32).unwrap_or(0)).collect();
        Self::new(caps, pools, Source::Templates { templates, order, next: 0 }, None)
    }

    fn new(caps: PortCaps, pools: MemoryPools, source: Source, sink: Option<Arc<Lane>>) -> Self {
        Self { caps, pools, source, sink, counters: Arc::default() }
    }

    /// Reads this port's counters, from any thread.
    pub fn monitor(&self) -> MemoryMonitor {
        MemoryMonitor { queues: vec![self.counters.clone()] }
    }

    /// Its buffers.
    pub fn pools(&self) -> &MemoryPools {
        &self.pools
    }
}

/// Opens a `memory` device as configured, with an own link for each queue.
pub fn open(
    config: &DeviceConfig,
    mac: Mac,
    pools: &MemoryPools,
    depth: usize,
) -> (OpenDevice<MemoryPort>, Vec<MemoryLink>) {
    let caps = PortCaps { mac, mtu: config.mtu };
    let (queues, links): (Vec<_>, Vec<_>) =
        (0..config.queues).map(|_| MemoryPort::link(caps.clone(), pools.clone(), depth)).unzip();
    let monitor = MemoryMonitor { queues: queues.iter().map(|q| q.counters.clone()).collect() };
    (OpenDevice { queues, monitor: Box::new(monitor) }, links)
}

impl MemoryLink {
    /// Makes the port receive `bytes`. `false` if no buffer is free, they don't fit one, or the lane is full.
    pub fn inject(&self, bytes: &[u8]) -> bool {
        self.inject_with(bytes, RxChecksum::Unknown)
    }

    /// The same from a device that has looked at the IPv4 checksum.
    pub fn inject_with(&self, bytes: &[u8], checksum: RxChecksum) -> bool {
        self.pool.frame(bytes).is_some_and(|mut frame| {
            frame.set_rx_checksum(checksum);
            self.to_port.push(frame)
        })
    }

    /// The next frame that the port has sent.
    pub fn collect(&self) -> Option<Vec<u8>> {
        self.from_port.frames.pop().map(|frame| frame.head().to_vec())
    }

    /// All frames that the port has sent, in order.
    pub fn collect_all(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.collect()).collect()
    }

    /// Frames that found a direction full: towards the port, and from it.
    pub fn overflow(&self) -> (u64, u64) {
        (self.to_port.overflow.load(Ordering::Relaxed), self.from_port.overflow.load(Ordering::Relaxed))
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn caps(&self) -> &PortCaps {
        &self.caps
    }

    fn rx(&mut self, into: &mut Burst<MemoryFrame>) -> usize {
        let first = into.len();
        let mut no_buffer = 0;
        match &mut self.source {
            Source::Lane(lane) => {
                while !into.is_full() {
                    let Some(frame) = lane.frames.pop() else { break };
                    into.push(frame);
                }
            }
            Source::Templates { templates, order, next } => {
                while !into.is_full() && !templates.is_empty() {
                    let Some(frame) = self.pools.data.frame(&templates[order[*next] as usize]) else {
                        no_buffer = 1;
                        break;
                    };
                    into.push(frame);
                    *next = if *next + 1 == order.len() { 0 } else { *next + 1 };
                }
            }
        }
        let n = into.len() - first;
        if n + no_buffer > 0 {
            self.counters.received(n, into[first..].iter().map(Frame::len).sum(), no_buffer);
        }
        n
    }

    fn tx(&mut self, from: &mut Burst<MemoryFrame>) -> usize {
        let (mut sent, mut bytes, mut refused) = (0, 0, 0);
        for frame in from.drain(..) {
            let len = frame.len();
            if !sendable(&self.caps, len) {
                refused += 1;
                continue;
            }
            if self.sink.as_ref().is_none_or(|lane| lane.push(frame)) {
                sent += 1;
                bytes += len;
            } else {
                refused += 1;
            }
        }
        self.counters.sent(sent, bytes, refused);
        refused
    }

    #[inline]
    fn alloc(&mut self, pool: Pool) -> Option<MemoryFrame> {
        self.pools.alloc(pool)
    }
}

/// Whether a device takes a frame of `len` bytes.
pub(super) fn sendable(caps: &PortCaps, len: usize) -> bool {
    (14..=usize::from(caps.mtu) + ETHERNET_BYTES).contains(&len)
}

/// Reads the counters of memory ports.
#[derive(Clone, Debug)]
pub struct MemoryMonitor {
    pub(super) queues: Vec<Arc<Counters>>,
}

impl DeviceMonitor for MemoryMonitor {
    fn stats(&mut self) -> DeviceStats {
        let sum =
            |of: fn(&Counters) -> &AtomicU64| self.queues.iter().map(|q| of(q).load(Ordering::Relaxed)).sum();
        DeviceStats {
            link_up: true,
            rx_packets: sum(|q| &q.rx_packets),
            rx_bytes: sum(|q| &q.rx_bytes),
            rx_no_buffer: sum(|q| &q.rx_no_buffer),
            tx_packets: sum(|q| &q.tx_packets),
            tx_bytes: sum(|q| &q.tx_bytes),
            tx_errors: sum(|q| &q.tx_errors),
            ..DeviceStats::default()
        }
    }
}

#[cfg(test)]
mod tests;
