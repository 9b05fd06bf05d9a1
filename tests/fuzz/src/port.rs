//! A memory port whose frames may be in several segments, as a device gives them that splits long packets.

use steerage::base::limits::HEAD_BYTES;
use steerage::io::memory::{MemoryFrame, MemoryMonitor, MemoryPort};
use steerage::path::port::{Burst, Frame, Pool, Port, PortCaps, RxChecksum};

/// A memory frame of which only the first segment can be seen.
#[derive(Debug)]
pub struct ChainedFrame {
    inner: MemoryFrame,
    /// Bytes of the first segment; all of them in a frame of one segment.
    first: usize,
    chained: bool,
}

impl ChainedFrame {
    /// A received frame. Its own last byte says how long its first segment is: if odd, that many bytes longer than the least
    /// that ports promise. So the same bytes are always split alike, and a fuzzer can choose.
    fn received(inner: MemoryFrame) -> Self {
        let bytes = inner.head();
        let first = match bytes.last() {
            Some(last) if last % 2 == 1 => (HEAD_BYTES + usize::from(*last)).min(bytes.len()),
            _ => bytes.len(),
        };
        Self { chained: first < bytes.len(), first, inner }
    }
}

impl Frame for ChainedFrame {
    fn head(&self) -> &[u8] {
        &self.inner.head()[..self.first]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.inner.head_mut()[..self.first]
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let grown = self.inner.grow_front(n);
        self.first += if grown { n } else { 0 };
        grown
    }

    fn shrink_front(&mut self, n: usize) -> bool {
        let shrunk = n <= self.first && self.inner.shrink_front(n);
        self.first -= if shrunk { n } else { 0 };
        shrunk
    }

    fn grow_back(&mut self, n: usize) -> bool {
        let grown = !self.chained && self.inner.grow_back(n);
        self.first += if grown { n } else { 0 };
        grown
    }

    fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
        self.first = self.first.min(self.inner.len());
    }

    fn rx_checksum(&self) -> RxChecksum {
        self.inner.rx_checksum()
    }
}

/// A [`MemoryPort`] with [`ChainedFrame`]s.
pub struct ChainedPort(MemoryPort);

impl ChainedPort {
    /// Splits what `inner` receives.
    pub fn new(inner: MemoryPort) -> Self {
        Self(inner)
    }

    /// Reads the port's counters.
    pub fn monitor(&self) -> MemoryMonitor {
        self.0.monitor()
    }
}

impl Port for ChainedPort {
    type Frame = ChainedFrame;

    fn caps(&self) -> &PortCaps {
        self.0.caps()
    }

    fn rx(&mut self, into: &mut Burst<ChainedFrame>) -> usize {
        assert!(into.is_empty(), "a worker asks for a burst when it has room for one");
        let mut received = Burst::new();
        self.0.rx(&mut received);
        into.extend(received.into_iter().map(ChainedFrame::received));
        into.len()
    }

    fn tx(&mut self, from: &mut Burst<ChainedFrame>) -> usize {
        let mut whole: Burst<MemoryFrame> = from.drain(..).map(|frame| frame.inner).collect();
        self.0.tx(&mut whole)
    }

    fn alloc(&mut self, pool: Pool) -> Option<ChainedFrame> {
        let inner = self.0.alloc(pool)?;
        Some(ChainedFrame { first: inner.len(), chained: false, inner })
    }
}
