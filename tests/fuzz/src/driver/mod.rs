//! Drives a whole node by choices: frames of every kind on every port, right and wrong, and time. Judges each frame that
//! comes out, and that all buffers come back.

mod hosts;
mod peers;

use crate::draw::Draw;
use crate::judge::judge;
use crate::packet::{self, Packet, chain, spoil};
use crate::solo::{Side, Solo, VIPS, host_mac, v6_address, vip};
use std::collections::VecDeque;
use std::time::Duration;
use steerage::base::{Addr, Instant, WorkerId};
use steerage::io::memory::MemoryFrame;
use steerage::path::port::RxChecksum;
use steerage::wire::protocol;
use steerage::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// Packets that are kept for later ones to follow up.
const KEPT: usize = 64;

/// See the module's text.
pub struct Driver {
    /// The node and its surroundings.
    pub solo: Solo,
    /// Clients' packets of late.
    recent: VecDeque<Packet>,
    /// What came out towards real servers by NAT, as they got it.
    to_servers: VecDeque<Packet>,
    /// Buffers that something else holds.
    seized: Vec<MemoryFrame>,
    /// Frames since the last turn.
    waiting: usize,
    /// Frames that a port took.
    pub injected: u64,
    /// Frames that came out and were judged.
    pub judged: u64,
    beats: u64,
}

impl Driver {
    /// Drives a settled node.
    pub fn new(solo: Solo) -> Self {
        Self {
            solo,
            recent: VecDeque::new(),
            to_servers: VecDeque::new(),
            seized: Vec::new(),
            waiting: 0,
            injected: 0,
            judged: 0,
            beats: 1 << 32,
        }
    }

    /// One choice, carried out. Now and then, and before a link is full, a turn.
    pub fn act(&mut self, draw: &mut Draw) {
        match draw.below(32) {
            0..=7 => self.client(draw),
            8..=10 => self.follow_up(draw),
            11..=13 => self.server(draw),
            14..=17 => self.steered(draw),
            18 => self.conversation(draw),
            19 => self.raw(draw),
            20 | 21 => self.neighbour(draw),
            22 | 23 => self.icmp(draw),
            24 => self.control(draw),
            25 => self.stray(draw),
            26 => self.resources(draw),
            27 => self.halt(draw),
            28 | 29 => self.tagged(draw),
            _ => self.time(draw),
        }
        if self.waiting >= 24 || draw.once_in(16) {
            self.step(Duration::from_micros(50));
        }
    }

    /// A turn of everything, and what comes of it.
    pub fn step(&mut self, time: Duration) {
        self.waiting = 0;
        let (to_servers, judged) = (&mut self.to_servers, &mut self.judged);
        self.solo.step(time, |side, frame| {
            *judged += 1;
            if let Some(packet) = judge(side, &frame) {
                if to_servers.len() == KEPT {
                    to_servers.pop_front();
                }
                to_servers.push_back(packet);
            }
        });
    }

    /// What was drawn to stand against the node ends; all buffers must come back once nothing waits any more.
    ///
    /// # Panics
    /// If some don't.
    pub fn finish(&mut self) {
        self.seized.clear();
        self.solo.lively = true;
        self.solo.node.manager().lease(Instant(u64::MAX));
        let total = self.solo.pools.data.total() + self.solo.pools.control.total();
        for _ in 0..60 {
            self.step(Duration::from_millis(50));
            if self.solo.pools.free() == total {
                return;
            }
        }
        panic!("{} of {total} buffers are back", self.solo.pools.free());
    }

    /// Sum of one of the workers' counters.
    pub fn sum(&mut self, of: impl Fn(&steerage::path::counters::Counters) -> u64) -> u64 {
        let workers = self.solo.config.workers.count;
        (0..workers).map(|i| of(self.solo.node.worker(WorkerId(i)).counters())).sum()
    }

    fn inject(&mut self, draw: &mut Draw, side: Side, frame: &[u8], intact: bool) {
        let queues = &self.solo.links[side as usize];
        let queue = draw.below(queues.len());
        let checksum = match draw.below(16) {
            14 if intact => RxChecksum::Good,
            15 => RxChecksum::Bad,
            _ => RxChecksum::Unknown,
        };
        self.waiting += 1;
        self.injected += u64::from(queues[queue].inject_with(frame, checksum));
    }

    fn remember(&mut self, packet: Packet) {
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(packet);
    }

    /// Sends a packet in front, sometimes spoiled.
    fn send(&mut self, draw: &mut Draw, packet: &Packet, tag: Option<u16>) {
        let side = if tag == Some(9) { Side::Narrow } else { Side::Front };
        let mut frame = packet::frame(side, host_mac(packet.src.0[15]), tag, &packet.ip());
        let before = frame.len();
        spoil(draw, &mut frame, if tag.is_some() { 18 } else { 14 });
        let intact = frame.len() == before && draw.once_in(4);
        if intact {
            frame.truncate(0);
            frame.extend(packet::frame(side, host_mac(packet.src.0[15]), tag, &packet.ip()));
        }
        self.inject(draw, side, &frame, intact);
    }

    /// Any client's packet to any address.
    fn any_packet(&mut self, draw: &mut Draw) -> Packet {
        let v6 = draw.once_in(2);
        let host = draw.byte();
        let src = match (draw.below(16), v6) {
            (15, false) => Addr::v4([203, 0, 113, host]),
            (15, true) => v6_address(0x2001, u16::from(host)),
            (13 | 14, false) => Addr::v4([10, 10, 0, host]),
            (13 | 14, true) => v6_address(0xfd10, u16::from(host)),
            (_, false) => Addr::v4([192, 168, draw.byte(), host]),
            (_, true) => v6_address(0xfd77, u16::from_be_bytes([draw.byte(), host])),
        };
        let dst = match (draw.below(20), v6) {
            (n, _) if n < 16 => vip(VIPS[n % VIPS.len()], v6),
            (16, false) => Addr::v4([10, 10, 0, draw.one_of(&[101, 102, 103])]),
            (16, true) => v6_address(0xfd10, draw.one_of(&[0x101, 0x102, 0x103])),
            (17, false) => Addr::v4([10, 10, 0, 11]),
            (17, true) => v6_address(0xfd10, 0x11),
            (18, false) => Addr::v4([10, 20, 0, 11]),
            (_, false) => Addr::v4([draw.byte(), 1, 1, 1]),
            (_, true) => v6_address(0xfd99, 0x99),
        };
        let tcp = !draw.once_in(3);
        let flags =
            draw.one_of(&[SYN, SYN, SYN, SYN | 0xc0, ACK, ACK | FIN, RST, SYN | FIN, SYN | RST, 0, 0xff]);
        let (first_extra, extra) = match draw.below(12) {
            10 if v6 => chain(draw, if tcp { protocol::TCP } else { protocol::UDP }),
            10 => {
                let words = draw.below(11);
                (0, vec![1; 4 * words])
            }
            _ => (0, Vec::new()),
        };
        Packet {
            src,
            dst,
            src_port: draw.word(),
            dst_port: if draw.once_in(24) { draw.one_of(&[81, 6599, 6600, 6601, 0]) } else { 80 },
            flags: tcp.then_some(flags),
            ttl: draw.one_of(&[64, 64, 64, 61, 255, 2, 1, 0]),
            dont_fragment: !draw.once_in(4),
            payload: match draw.below(16) {
                12 => 1400 + draw.below(80),
                13 => 1700,
                14 => 160 + draw.below(200),
                n => n,
            },
            extra,
            first_extra,
        }
    }

    fn client(&mut self, draw: &mut Draw) {
        let packet = self.any_packet(draw);
        self.send(draw, &packet, None);
        self.remember(packet);
    }

    fn follow_up(&mut self, draw: &mut Draw) {
        let Some(packet) = self.recent.get(draw.below(KEPT)).or(self.recent.back()).cloned() else { return };
        let flags = draw.one_of(&[ACK, ACK, ACK | FIN, RST, SYN, SYN | ACK]);
        self.send(draw, &packet.with_flags(flags), None);
    }

    fn server(&mut self, draw: &mut Draw) {
        let Some(got) = self.to_servers.get(draw.below(KEPT)).or(self.to_servers.back()).cloned() else {
            return;
        };
        let flags = draw.one_of(&[SYN | ACK, SYN | ACK, ACK, FIN | ACK, RST | ACK]);
        let tag = (got.dst.0[13] == 0 && got.dst.0[12] == 10 && got.dst.v4_bytes()[1] == 90
            || got.dst.0[..2] == [0xfd, 0x90])
        .then_some(9);
        self.send(draw, &got.answer(flags), tag);
    }

    /// A whole conversation, both sides right in all, each packet seen before the next is sent.
    fn conversation(&mut self, draw: &mut Draw) {
        let opening = Packet {
            src_port: draw.word(),
            dst_port: 80,
            flags: Some(SYN),
            ttl: 64,
            payload: 3,
            extra: Vec::new(),
            ..self.any_packet(draw)
        };
        let complete = !draw.once_in(4);
        self.converse(&opening, complete);
        if draw.once_in(2) {
            self.pass(&opening.with_flags(FIN | ACK));
        }
        self.remember(opening);
    }

    /// Opens a connection; the real server answers, and if `complete` the client has the last word. Returns how many packets
    /// came out on the other side.
    pub fn converse(&mut self, opening: &Packet, complete: bool) -> usize {
        let Some(got) = self.pass(opening) else { return 0 };
        let tag =
            (got.dst.is_v4() && got.dst.v4_bytes()[1] == 90 || got.dst.0[..2] == [0xfd, 0x90]).then_some(9);
        let side = if tag.is_some() { Side::Narrow } else { Side::Front };
        let frame = packet::frame(side, host_mac(got.dst.0[15]), tag, &got.answer(SYN | ACK).ip());
        self.injected += u64::from(self.solo.links[side as usize][0].inject(&frame));
        self.step(Duration::from_micros(50));
        self.step(Duration::from_micros(50));
        1 + usize::from(complete && self.pass(&opening.with_flags(ACK)).is_some())
    }

    /// What a client's packet becomes on the way to a NATed server, if it gets there in this node.
    fn pass(&mut self, packet: &Packet) -> Option<Packet> {
        self.to_servers.clear();
        let frame = packet::frame(Side::Front, host_mac(packet.src.0[15]), None, &packet.ip());
        self.injected += u64::from(self.solo.links[0][0].inject(&frame));
        let same = |p: &&Packet| p.flags == packet.flags && p.payload == packet.payload;
        // Once to this node's worker, once more over the ring to another, once more to a worker with a queue.
        for _ in 0..3 {
            self.step(Duration::from_micros(50));
            let found = self.to_servers.iter().rev().find(same).cloned();
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Any bytes on any port.
    fn raw(&mut self, draw: &mut Draw) {
        let side = draw.one_of(&Side::ALL);
        let len = draw.below(256);
        let mut frame = draw.bytes(len);
        if frame.len() >= 14 && !draw.once_in(4) {
            frame[..6].copy_from_slice(&side.mac().0);
        }
        self.inject(draw, side, &frame, false);
    }

    /// Someone else holds buffers, or lets them go; or the node has no lease for a moment.
    fn resources(&mut self, draw: &mut Draw) {
        self.seized.clear();
        let mut lease = Instant(u64::MAX);
        if draw.once_in(32) {
            let spare = draw.below(4);
            if spare == 0 {
                lease = self.solo.now;
            }
            self.seized.extend(std::iter::from_fn(|| self.solo.pools.control.alloc()));
            if draw.once_in(2) {
                self.seized.extend(std::iter::from_fn(|| self.solo.pools.data.alloc()));
            }
            self.seized.truncate(self.seized.len().saturating_sub(spare));
        }
        self.solo.node.manager().lease(lease);
    }

    /// One worker stands still while others work; or nobody takes what the node sends.
    fn halt(&mut self, draw: &mut Draw) {
        let worker = WorkerId(draw.below(usize::from(self.solo.config.workers.count)) as u16);
        for _ in 0..draw.below(8) {
            self.solo.now = self.solo.now + Duration::from_micros(10);
            self.solo.turn_alone(worker);
        }
    }

    fn tagged(&mut self, draw: &mut Draw) {
        let mut packet = self.any_packet(draw);
        let tag = draw.one_of(&[7, 9, 7, 9, 8, 4095, 0]);
        if packet.src.is_v4() {
            packet.src = Addr::v4([10, if tag == 7 { 70 } else { 90 }, 0, draw.byte()]);
        }
        self.send(draw, &packet, Some(tag));
    }

    fn time(&mut self, draw: &mut Draw) {
        let ms = draw.one_of(&[0, 1, 1, 10, 10, 100, 1000, 6000]);
        if draw.once_in(16) {
            self.solo.lively = !self.solo.lively;
        }
        if draw.once_in(16) {
            self.placement(draw);
        }
        self.step(Duration::from_millis(ms));
        if draw.once_in(128) {
            self.step(Duration::from_secs(1000));
        }
    }

    /// Lets a worker alone turn, at a time.
    pub fn turn_alone(&mut self, worker: u16, time: Duration) {
        self.solo.now = self.solo.now + time;
        self.solo.turn_alone(WorkerId(worker));
    }
}
