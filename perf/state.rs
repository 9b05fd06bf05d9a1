//! What shared state costs on this machine, the work of the other node counted: `cargo bench --no-default-features --bench state`.
//!
//! Two shards stand in one thread, and what one sends the other gets at once, as bytes. So a write's time is the processor time of
//! the owner and of its copy together, without links.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant as Clock};
use steerage::asdr::{Bounds, Chain, Copy, Event, Key, Kind, Moment, Operation, Outbox, Shard, Ticket};
use steerage::base::hash::mix;
use steerage::base::limits::BUCKETS;
use steerage::base::{Bucket, GroupId, HashKey, Instant, NodeId};
use steerage::wire::state::{MAX_RECORD, Record};

const ENTRIES: usize = 1_000_000;
const SAMPLES: usize = 200_000;
const GROUP: GroupId = GroupId(0);
/// Bytes of a frame that records may fill.
const FRAME: usize = 1400;
/// Writes that are begun before their records are taken along.
const BATCH: usize = 32;

fn main() {
    // As a session: the client's and the virtual server's addresses and ports; a real server, a SNAT address and port, a state.
    rows("NAT session", 40, 20);
    // As a client's: virtual server and address; a real server.
    rows("persistence", 18, 4);
}

/// Records in frames, in one direction.
#[derive(Default)]
struct Link {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox for Link {
    fn send(&mut self, _: NodeId, record: &Record<'_>) {
        let mut bytes = [0; MAX_RECORD];
        let len = record.write(&mut bytes);
        if self.frames.back().is_none_or(|frame| frame.len() + len > FRAME) {
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            self.frames.push_back(frame);
        }
        if let Some(frame) = self.frames.back_mut() {
            frame.extend_from_slice(&bytes[..len]);
        }
    }
}

struct Pair {
    shards: [Shard; 2],
    links: [Link; 2],
    now: Instant,
}

fn shard(node: u16, size: usize) -> Shard {
    let mut entries = [16; 3];
    entries[usize::from(size > 32)] = ENTRIES + ENTRIES / 16;
    let patience = Duration::from_secs(1);
    let again = Duration::from_millis(10);
    let bounds = Bounds {
        entries,
        groups: 1,
        worker: (0, 1),
        busy: 4096,
        waiters: 8192,
        again,
        patience,
        grace: patience,
        audit: Duration::from_secs(10),
    };
    Shard::new(NodeId(node), HashKey([1, 2]), bounds)
}

fn copy(node: u16, since: u32, complete: bool) -> Copy {
    Copy { node: NodeId(node), since, complete }
}

impl Pair {
    fn moment(&self) -> Moment {
        Moment { now: self.now, lease: self.now + Duration::from_secs(1) }
    }

    fn adopt(&mut self, which: usize, chain: &Chain) {
        let m = self.moment();
        for bucket in (0..BUCKETS as u16).map(Bucket) {
            self.shards[which].adopt(m, GROUP, bucket, chain, &mut self.links[which]);
        }
    }

    /// Takes all records to where they go, and those that answer them.
    fn deliver(&mut self) {
        let m = self.moment();
        loop {
            let Some(from) = [0, 1].into_iter().find(|from| !self.links[*from].frames.is_empty()) else {
                return;
            };
            while let Some(frame) = self.links[from].frames.pop_front() {
                let mut rest = &frame[..];
                while let Ok((record, behind)) = Record::parse(rest) {
                    let out = &mut self.links[1 - from];
                    self.shards[1 - from].receive(m, NodeId(from as u16), &record, out);
                    rest = behind;
                }
                self.links[from].spare.push(frame);
            }
        }
    }

    fn ask(&mut self, which: usize, number: usize, len: usize, operation: Operation) -> bool {
        let (bucket, key) = key(number, len);
        let m = self.moment();
        let ticket = Ticket(number as u64);
        let out = &mut self.links[which];
        black_box(self.shards[which].ask(m, (GROUP, bucket), &key, operation, ticket, out)).is_some()
    }
}

/// The key of a number, and its bucket.
fn key(number: usize, len: usize) -> (Bucket, Key) {
    let hash = mix(number as u64);
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&hash.to_be_bytes());
    (Bucket((hash % BUCKETS as u64) as u16), Key::new(Kind::Persistence, &bytes[..len]).expect("a short key"))
}

fn row(what: &str, value: f64, unit: &str) {
    println!("{what:<64} {value:>12.1} {unit}");
}

fn quantile(times: &mut [u64], q: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * q) as usize] as f64
}

fn rows(name: &str, len: usize, value: usize) {
    let size = len + value;
    let begin = Instant(1_000_000_000_000);
    let mut pair = Pair { shards: [shard(0, size), shard(1, size)], links: Default::default(), now: begin };
    let both =
        Chain { epoch: 1, owner: Some(copy(0, 0, true)), copies: [copy(1, 0, true)].into_iter().collect() };
    (0..2).for_each(|which| pair.adopt(which, &both));
    let set = |byte: u8| Operation::Set { value: std::iter::repeat_n(byte, value).collect(), ticks: 0 };
    let start = Clock::now();
    for batch in 0..ENTRIES / BATCH {
        (0..BATCH).for_each(|i| _ = pair.ask(0, batch * BATCH + i, len, set(1)));
        pair.deliver();
        while pair.shards[0].answer().is_some() {}
    }
    let each = start.elapsed().as_nanos() as f64 / ENTRIES as f64;
    row(&format!("{name}: a new entry at both, {BATCH} at a time"), each, "ns");
    let (entries, bytes) = pair.shards[0].size();
    row(&format!("{name}: memory an entry, of {entries}"), bytes as f64 / entries as f64, "bytes");

    let pick = |i: usize| mix(i as u64) as usize % (ENTRIES / BATCH * BATCH);
    let start = Clock::now();
    (0..SAMPLES).for_each(|i| assert!(pair.ask(0, pick(i), len, Operation::Read)));
    row(&format!("{name}: a read of an owned key"), start.elapsed().as_nanos() as f64 / SAMPLES as f64, "ns");

    let start = Clock::now();
    for batch in 0..SAMPLES / BATCH {
        (0..BATCH).for_each(|i| _ = pair.ask(0, pick(batch * BATCH + i), len, set(2)));
        pair.deliver();
        while pair.shards[0].answer().is_some() {}
    }
    let each = start.elapsed().as_nanos() as f64 / SAMPLES as f64;
    row(&format!("{name}: a replicated write, {BATCH} at a time"), each, "ns");

    let mut times: Vec<u64> = (0..SAMPLES)
        .map(|i| {
            let start = Clock::now();
            pair.ask(0, pick(i), len, set(3));
            pair.deliver();
            assert!(pair.shards[0].answer().is_some());
            start.elapsed().as_nanos() as u64
        })
        .collect();
    row(&format!("{name}: a replicated write alone, median"), quantile(&mut times, 0.5), "ns");
    row(&format!("{name}: the same, 99th percentile"), quantile(&mut times, 0.99), "ns");

    // The owner comes back with nothing.
    pair.shards[0] = shard(0, size);
    let back =
        Chain { epoch: 2, owner: Some(copy(0, 1, false)), copies: [copy(1, 0, true)].into_iter().collect() };
    let start = Clock::now();
    [1, 0].into_iter().for_each(|which| pair.adopt(which, &back));
    pair.ask(0, pick(0), len, Operation::Read);
    pair.deliver();
    assert!(pair.shards[0].answer().is_some(), "the first read is answered by a hunt");
    row(
        &format!("{name}: an owner is back: until its first hunted read"),
        start.elapsed().as_micros() as f64,
        "µs",
    );
    // Told of again and again, as nobody commits it.
    let mut whole = [false; BUCKETS];
    while whole.contains(&false) {
        pair.now = pair.now + Duration::from_micros(100);
        let m = pair.moment();
        for which in 0..2 {
            pair.shards[which].turn(m, &mut pair.links[which]);
        }
        pair.deliver();
        while let Some(Event::Complete { bucket, .. }) = pair.shards[0].event() {
            whole[bucket.index()] = true;
        }
    }
    let (entries, _) = pair.shards[0].size();
    row(&format!("{name}: until it has all {entries} entries"), start.elapsed().as_millis() as f64, "ms");
}
