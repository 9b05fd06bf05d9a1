//! Faults between memory ports: a wire, from one end to the other, that loses, doubles, delays, overtakes and damages frames
//! as its seed and its rates say.
//!
//! Damage is one flipped bit of an IP frame: what a device's memory does and no frame check sequence sees. Other frames
//! stay whole, because ARP has no checksum: a station can't but believe a damaged answer, and does so for as long as it
//! believes any. One bit, because the Internet checksum sees every such one (RFC 1071), so that what an end host takes must
//! be right.

use crate::base::Instant;
use crate::base::rng::Rng;
use crate::wire::eth::{self, Eth, ethertype};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The whole of a rate.
pub const ALL: u64 = 10_000;

/// What a wire does to frames. Rates are of [`ALL`]; the default is a wire without faults and without delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Frames that are lost.
    pub loss: u64,
    /// Frames of which a second one arrives, some time later.
    pub duplicate: u64,
    /// Frames that those behind them may overtake.
    pub reorder: u64,
    /// Frames in which a bit is flipped.
    pub corrupt: u64,
    /// Time that every frame takes.
    pub delay: Duration,
    /// Most time that may be added to that; frames keep their order.
    pub jitter: Duration,
    /// Most time by which an overtaken frame, or a second one, is late.
    pub late: Duration,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How many of it arrive.
    pub copies: u32,
    /// They are damaged.
    pub corrupted: bool,
}

/// Frames under way in one direction. See the module's text.
#[derive(Debug)]
pub struct Wire {
    rng: Rng,
    rates: Rates,
    /// By time of arrival, then by order of sending.
    under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    sent: u64,
    /// When the last frame that isn't late arrives.
    last: Instant,
}

impl Wire {
    /// A wire without faults.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        Self { rng, rates: Rates::default(), under_way: BinaryHeap::new(), sent: 0, last: Instant::ZERO }
    }

    /// Changes what happens to frames from now on.
    pub fn set(&mut self, rates: Rates) {
        self.rates = rates;
    }

    fn happens(&mut self, rate: u64) -> bool {
        rate > 0 && self.rng.below(ALL) < rate
    }

    /// Up to `most`, in nanoseconds.
    fn some(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if most == 0 { 0 } else { self.rng.below(most) })
    }

    /// Takes a frame, and says what becomes of it.
    pub fn send(&mut self, mut frame: Vec<u8>, now: Instant) -> Fate {
        if self.happens(self.rates.loss) {
            return Fate { copies: 0, corrupted: false };
        }
        let corrupted = self.happens(self.rates.corrupt) && self.damage(&mut frame);
        let mut arrival = (now + self.rates.delay + self.some(self.rates.jitter)).max(self.last);
        if self.happens(self.rates.reorder) {
            arrival = arrival + self.some(self.rates.late);
        } else {
            self.last = arrival;
        }
        let copies = if self.happens(self.rates.duplicate) {
            let second = arrival + self.some(self.rates.late);
            self.put(second, frame.clone());
            2
        } else {
            1
        };
        self.put(arrival, frame);
        Fate { copies, corrupted }
    }

    fn put(&mut self, at: Instant, frame: Vec<u8>) {
        self.sent += 1;
        self.under_way.push(Reverse((at, self.sent, frame)));
    }

    /// Flips a bit behind the Ethernet header of an IP frame; `false` if it is another.
    fn damage(&mut self, frame: &mut [u8]) -> bool {
        let ip = Eth::new(&*frame)
            .is_ok_and(|header| matches!(header.ethertype(), ethertype::IPV4 | ethertype::IPV6));
        let bits = frame.len().saturating_sub(eth::HEADER_LEN) as u64 * 8;
        if !ip || bits == 0 {
            return false;
        }
        let bit = self.rng.below(bits) as usize;
        frame[eth::HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
        true
    }

    /// The next frame that has arrived.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        let Reverse((at, ..)) = self.under_way.peek()?;
        if *at > now {
            return None;
        }
        self.under_way.pop().map(|Reverse((.., frame))| frame)
    }

    /// Frames that have not arrived yet.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }
}
