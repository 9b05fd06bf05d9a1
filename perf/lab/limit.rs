//! What the same work costs without the architecture: bare loops over the same port, as lean as they could be written. They
//! know the family, serve one virtual server, check no lengths beyond the first, expire nothing, and count nothing.

use crate::port::LabPort;
use crate::setup::{SERVERS, server_address};
use std::hint::black_box;
use steerage::base::hash::{mix, siphash13};
use steerage::base::limits::BURST;
use steerage::base::{FlowHash, FlowKey, HashKey, Mac, RealServerId};
use steerage::path::port::{Burst, Frame, Port};
use steerage::table::index::prefetch;
use steerage::table::large;
use steerage::table::maglev::{Maglev, Member};

const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 9, 21]);
/// The source of the outer header.
const TUNNEL: [u8; 4] = [10, 10, 0, 11];

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn le64(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
}

/// A tuple as words: two for IPv4 (addresses; ports and protocol), five for IPv6. None: not TCP or UDP without options or
/// extension headers.
trait Words<const W: usize> {
    fn read(frame: &[u8]) -> Option<[u64; W]>;
}

struct V4;
struct V6;

impl Words<2> for V4 {
    #[inline(always)]
    fn read(f: &[u8]) -> Option<[u64; 2]> {
        let f = f.get(..60)?;
        let wanted = f[12..15] == [8, 0, 0x45] && matches!(f[23], 6 | 17) && be16(f, 20) & 0x3fff == 0;
        let ports = u64::from(u32::from_le_bytes([f[34], f[35], f[36], f[37]]));
        wanted.then(|| [le64(f, 26), ports | u64::from(f[23]) << 32])
    }
}

impl Words<5> for V6 {
    #[inline(always)]
    fn read(f: &[u8]) -> Option<[u64; 5]> {
        let f = f.get(..62)?;
        let wanted = f[12..14] == [0x86, 0xdd] && f[14] >> 4 == 6 && matches!(f[20], 6 | 17);
        let ports = u64::from(u32::from_le_bytes([f[54], f[55], f[56], f[57]]));
        wanted.then(|| [le64(f, 22), le64(f, 30), le64(f, 38), le64(f, 46), ports | u64::from(f[20]) << 32])
    }
}

/// Receive, swap the Ethernet addresses, send.
pub fn io_only<P: Port>(port: &mut LabPort<P>, burst: &mut Burst<P::Frame>) {
    port.rx(burst);
    for frame in burst.iter_mut() {
        let (dst, src) = frame.head_mut()[..12].split_at_mut(6);
        dst.swap_with_slice(src);
    }
    port.tx(burst);
}

/// Stateless: parse, keyed hash, Maglev, outer IP header.
pub struct Stateless {
    key: HashKey,
    maglev: Maglev,
    /// Ethernet and outer header for each server, with the checksum of a length of zero.
    outer: Vec<[u8; 54]>,
    v6: bool,
}

impl Stateless {
    pub fn new(key: HashKey, slots: usize, v6: bool) -> Self {
        let members: Vec<_> = (0..SERVERS)
            .map(|i| Member { id: RealServerId(u32::from(i)), name_hash: mix(u64::from(i)), weight: 1 })
            .collect();
        let outer = (0..SERVERS).map(|i| {
            let mut out = [0; 54];
            out[..6].copy_from_slice(&SERVER_MAC.0);
            out[6] = 2;
            let address = server_address(i, v6).0;
            if v6 {
                out[12..20].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0]);
                out[20..22].copy_from_slice(&[41, 64]);
                out[22..26].copy_from_slice(&[0xfd, 0x10, 0, 0]);
                out[38..54].copy_from_slice(&address);
            } else {
                out[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 4]);
                out[26..30].copy_from_slice(&TUNNEL);
                out[30..34].copy_from_slice(&address[12..]);
                let sum = !steerage::wire::checksum::sum(&out[14..34]);
                out[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            out
        });
        Self { key, maglev: Maglev::build(key, &members, slots), outer: outer.collect(), v6 }
    }

    /// One burst; says how many of its frames were sent on.
    pub fn burst<P: Port>(&self, port: &mut LabPort<P>, burst: &mut Burst<P::Frame>) -> usize {
        if self.v6 { self.run::<5, V6, P>(port, burst) } else { self.run::<2, V4, P>(port, burst) }
    }

    #[inline(always)]
    fn run<const W: usize, T: Words<W>, P: Port>(
        &self,
        port: &mut LabPort<P>,
        burst: &mut Burst<P::Frame>,
    ) -> usize {
        port.rx(burst);
        let header = if W == 5 { 54 } else { 34 };
        let mut written = 0;
        // One pass: two, with the slots prefetched between them, were measured to be no faster.
        for frame in burst.iter_mut() {
            let Some(words) = T::read(frame.head()) else { continue };
            let hash = siphash13(self.key, words);
            let Some(server) = self.maglev.lookup(FlowHash(hash).slot()) else { continue };
            let len = (frame.len() - 14) as u16;
            if !frame.grow_front(header - 14) {
                continue;
            }
            let head = &mut frame.head_mut()[..header];
            head.copy_from_slice(&self.outer[server.index()][..header]);
            // The time to live is a hop's business; the inner packet follows at once.
            if W == 5 {
                head[18..20].copy_from_slice(&len.to_be_bytes());
            } else {
                let total = len + 20;
                head[16..18].copy_from_slice(&total.to_be_bytes());
                let sum = subtract(be16(head, 24), total);
                head[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let inner = &mut frame.head_mut()[header..];
            if W == 5 {
                inner[7] -= 1
            } else {
                age(inner)
            }
            written += 1;
        }
        port.tx(burst);
        black_box(written)
    }
}

/// A checksum after `word` was added to what it covers (RFC 1624 eqn. 4 with an old word of zero).
#[inline(always)]
fn subtract(checksum: u16, word: u16) -> u16 {
    let (sum, borrow) = checksum.overflowing_sub(word);
    sum.wrapping_sub(u16::from(borrow))
}

/// Counts an IPv4 header's time to live down.
#[inline(always)]
fn age(ip: &mut [u8]) {
    ip[8] -= 1;
    let (sum, carry) = be16(ip, 10).overflowing_add(0x0100);
    ip[10..12].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
}

/// A session: the tuple, and what to write instead with what that does to the two checksums.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slot<const W: usize> {
    key: [u64; W],
    snat: u32,
    snat_port: u16,
    server: u16,
    ip_delta: u16,
    l4_delta: u16,
}

/// NAT of known flows: parse, keyed hash, a probe of a table whose lines were asked for, rewrite.
pub struct Hit {
    key: HashKey,
    table: Table,
    /// Last bytes of the servers' addresses.
    servers: Vec<u32>,
}

enum Table {
    V4(Box<[Slot<2>]>),
    V6(Box<[Slot<5>]>),
}

fn words4(key: &FlowKey) -> [u64; 2] {
    let ports = u32::from_le_bytes(ports(key));
    let [s, d] = [key.src.v4_bytes(), key.dst.v4_bytes()].map(u32::from_le_bytes);
    [u64::from(s) | u64::from(d) << 32, u64::from(ports) | u64::from(key.protocol) << 32]
}

fn words6(key: &FlowKey) -> [u64; 5] {
    let ports = u32::from_le_bytes(ports(key));
    let (s, d) = (&key.src.0, &key.dst.0);
    [le64(s, 0), le64(s, 8), le64(d, 0), le64(d, 8), u64::from(ports) | u64::from(key.protocol) << 32]
}

fn ports(key: &FlowKey) -> [u8; 4] {
    let ([a, b], [c, d]) = (key.src_port.to_be_bytes(), key.dst_port.to_be_bytes());
    [a, b, c, d]
}

/// A place for each of `flows`, at most a quarter of all in use: from its own place on, the first free one, which next to always
/// is that or the one behind it.
fn fill<const W: usize>(key: HashKey, flows: impl Iterator<Item = [u64; W]>, count: usize) -> Box<[Slot<W>]> {
    let empty = Slot { key: [0; W], snat: 0, snat_port: 0, server: 0, ip_delta: 0, l4_delta: 0 };
    let places = (4 * count).next_power_of_two();
    let mut slots = large::filled(places, |_| empty);
    let mask = places - 1;
    for (i, words) in flows.enumerate() {
        let hash = siphash13(key, words);
        let mut at = hash as usize & mask;
        while slots[at].key != [0; W] {
            at = (at + 1) & mask;
        }
        let word = i as u32;
        slots[at] = Slot {
            key: words,
            snat: 0x6500_0a0a,
            snat_port: word as u16 | 0x1000,
            server: (i % usize::from(SERVERS)) as u16,
            ip_delta: word as u16,
            l4_delta: !(word as u16),
        };
    }
    slots
}

impl Hit {
    /// A table of `flows`, all of one family.
    pub fn new(key: HashKey, flows: impl Iterator<Item = FlowKey> + Clone, v6: bool) -> Self {
        let count = flows.clone().count();
        let table = if v6 {
            Table::V6(fill(key, flows.map(|k| words6(&k)), count))
        } else {
            Table::V4(fill(key, flows.map(|k| words4(&k)), count))
        };
        let last = |i| be32(&server_address(i, v6).0, 12);
        Self { key, table, servers: (0..SERVERS).map(last).collect() }
    }

    /// One burst; says how many of its frames were known.
    pub fn burst<P: Port>(&self, port: &mut LabPort<P>, burst: &mut Burst<P::Frame>) -> usize {
        match &self.table {
            Table::V4(slots) => self.run::<2, V4, P>(slots, port, burst),
            Table::V6(slots) => self.run::<5, V6, P>(slots, port, burst),
        }
    }

    #[inline(always)]
    fn run<const W: usize, T: Words<W>, P: Port>(
        &self,
        slots: &[Slot<W>],
        port: &mut LabPort<P>,
        burst: &mut Burst<P::Frame>,
    ) -> usize {
        port.rx(burst);
        let mask = slots.len() - 1;
        let mut found = arrayvec::ArrayVec::<([u64; W], usize), BURST>::new();
        for frame in burst.iter() {
            let words = T::read(frame.head()).unwrap_or([0; W]);
            let at = siphash13(self.key, words) as usize & mask;
            prefetch(&raw const slots[at]);
            found.push((words, at));
        }
        let mut known = 0;
        for (frame, (words, mut at)) in burst.iter_mut().zip(found) {
            while slots[at].key != words && slots[at].key != [0; W] {
                at = (at + 1) & mask;
            }
            let slot = &slots[at];
            known += usize::from(slot.key == words);
            let head = frame.head_mut();
            head[..6].copy_from_slice(&SERVER_MAC.0);
            let server = self.servers[usize::from(slot.server)];
            let l4 = if W == 5 {
                head[21] -= 1;
                head[34..38].copy_from_slice(&slot.snat.to_le_bytes());
                head[50..54].copy_from_slice(&server.to_be_bytes());
                54
            } else {
                age(&mut head[14..34]);
                let sum = subtract(be16(head, 24), slot.ip_delta);
                head[24..26].copy_from_slice(&sum.to_be_bytes());
                head[26..30].copy_from_slice(&slot.snat.to_le_bytes());
                head[30..34].copy_from_slice(&server.to_be_bytes());
                34
            };
            head[l4..l4 + 2].copy_from_slice(&slot.snat_port.to_be_bytes());
            let at = l4 + if words[W - 1] >> 32 == 6 { 16 } else { 6 };
            let sum = subtract(be16(head, at), slot.l4_delta);
            head[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        port.tx(burst);
        black_box(known)
    }
}
