//! Drives a whole node by choices: frames of every kind on every port, right and wrong, and time. Judges each frame that
//! comes out, and that all buffers come back.

use crate::draw::Draw;
use crate::packet::{self, Packet, chain, spoil};
use crate::solo::{Side, Solo, VIPS, backplane_frame, host_mac, v6_address, vip};
use std::collections::VecDeque;
use std::time::Duration;
use steerage::base::{Addr, FlowHash, FlowKey, Incarnation, Instant, NodeId, NodeSet, WorkerId};
use steerage::io::memory::MemoryFrame;
use steerage::path::port::RxChecksum;
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::control::Heartbeat;
use steerage::wire::eth::{Eth, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::ipv4::Ipv4;
use steerage::wire::ipv6::{self, Ipv6};
use steerage::wire::tcp::flags::{ACK, FIN, RST, SYN};
use steerage::wire::{checksum, eth, gue, protocol};

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

    /// A packet that a peer steers here.
    fn steered(&mut self, draw: &mut Draw) {
        let inner = match draw.below(4) {
            0 => self.recent.back().cloned(),
            1 => self.to_servers.back().map(|p| p.answer(ACK)),
            _ => None,
        };
        let inner = inner.unwrap_or_else(|| self.any_packet(draw));
        let mut bytes = inner.ip();
        spoil(draw, &mut bytes, 0);
        // What is steered was checked where it came in: a wrong IPv4 checksum can't come from a peer.
        if let Ok(ip) = Ipv4::new(&bytes[..])
            && !ip.checksum_ok()
        {
            packet::ipv4_checksum(&mut bytes);
        }
        let sender = NodeId(draw.one_of(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 0, 3, 0xffff]));
        let life = self.solo.lives.get(usize::from(sender.0).wrapping_sub(1)).copied().unwrap_or(1);
        let incarnation = Incarnation(match draw.below(16) {
            14 => life.wrapping_sub(1),
            15 => life.wrapping_add(1),
            _ => life,
        });
        let mut hash = self.solo.config.cluster.hash_key.flow(&FlowKey::new(
            inner.src,
            inner.dst,
            inner.src_port,
            inner.dst_port,
            if inner.flags.is_some() { protocol::TCP } else { protocol::UDP },
        ));
        if draw.once_in(32) {
            hash = FlowHash(hash.0 ^ u64::from(draw.byte()));
        }
        let mut cookie = backplane::cookie(self.solo.config.cluster.auth_key, sender, incarnation);
        if draw.once_in(16) {
            cookie ^= 1 << draw.below(64);
        }
        let stage = draw.one_of(&[
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::PreviousOwner,
            Stage::Returned,
            Stage::FragmentOwner,
            Stage::Receive,
        ]);
        let mut payload = Vec::with_capacity(backplane::HEADER_LEN + bytes.len());
        payload.resize(backplane::HEADER_LEN, 0);
        let decided = draw.below(3) as u32;
        Header { stage, sender, incarnation, decided, hash, cookie }.write(&mut payload);
        if draw.once_in(32) {
            let (at, value) = (draw.below(backplane::HEADER_LEN), draw.byte());
            payload[at] = value;
        }
        payload.extend(&bytes);
        let workers = self.solo.config.workers.count;
        let port = self.solo.config.cluster.data_port + (draw.below(usize::from(workers) * 8) as u16 / 8);
        let mut frame = backplane_frame(NodeId(sender.0 & 3), port, &payload);
        let inside = frame.len() - bytes.len();
        if draw.once_in(8) {
            spoil(draw, &mut frame, 14);
            if frame.len() >= inside + bytes.len() {
                frame[inside..inside + bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.inject(draw, Side::Back, &frame, false);
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

    /// ARP and neighbour discovery.
    fn neighbour(&mut self, draw: &mut Draw) {
        let side = draw.one_of(&[Side::Front, Side::Front, Side::Narrow, Side::Back]);
        let tag = draw.one_of(&[None, None, Some(7), Some(9)]);
        let at = if tag.is_some() { 18 } else { 14 };
        let who = draw.byte();
        let net: [u8; 3] = match (side, tag) {
            (Side::Back, _) => [10, 20, 0],
            (_, Some(7)) => [10, 70, 0],
            (_, Some(9)) => [10, 90, 0],
            _ => [10, 10, 0],
        };
        let mac = host_mac(draw.one_of(&[who, who, who, 1]));
        let (us, v6) = (draw.one_of(&[11, 11, 101, 102, 50, who]), draw.once_in(2));
        let mut frame = vec![0; at];
        if v6 {
            eth::write(&mut frame, side.mac(), mac, tag, ethertype::IPV6);
            let first = if tag == Some(9) { 0xfd90 } else { 0xfd10 };
            let src = match draw.below(8) {
                7 => Addr::UNSPECIFIED,
                _ => v6_address(first, u16::from(who)),
            };
            let ours = match draw.below(4) {
                3 => vip(1, true),
                _ => v6_address(first, 0x11),
            };
            let advertisement = draw.once_in(2);
            let dst = draw.one_of(&[ours, ours, icmp::solicited_node(ours), v6_address(0xff02, 1)]);
            let message = Neighbour {
                advertisement,
                solicited: draw.once_in(2),
                overrides: draw.once_in(2),
                target: if advertisement { draw.one_of(&[src, src, ours]) } else { ours },
                mac: (!draw.once_in(4)).then_some(mac),
            };
            let mut bytes = [0; icmp::ND_LEN];
            let len = message.write(&mut bytes, src, dst);
            let mut header = [0; ipv6::HEADER_LEN];
            let hops = draw.one_of(&[255, 255, 255, 254]);
            ipv6::write(&mut header, 0, 0, len as u16, protocol::ICMPV6, hops, src, dst);
            frame.extend(header);
            frame.extend(&bytes[..len]);
            // Of a message that comes back as an advertisement, the tail is cut off or grown.
            if draw.once_in(4) {
                frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 0x11]);
            }
        } else {
            eth::write(
                &mut frame,
                draw.one_of(&[side.mac(), steerage::base::Mac([0xff; 6])]),
                mac,
                tag,
                ethertype::ARP,
            );
            frame.resize(at + arp::LEN, 0);
            let address = |last| Addr::v4([net[0], net[1], net[2], last]);
            let message = Arp {
                operation: draw.one_of(&[Operation::Request, Operation::Reply]),
                sender_mac: mac,
                sender: address(who),
                target_mac: side.mac(),
                target: if draw.once_in(4) { vip(1, false) } else { address(us) },
            };
            message.write(&mut frame[at..]);
        }
        spoil(draw, &mut frame, at);
        self.inject(draw, side, &frame, false);
    }

    /// Echoes, and errors that quote something.
    fn icmp(&mut self, draw: &mut Draw) {
        let mut from = self.any_packet(draw);
        from.extra.clear();
        let v6 = !from.src.is_v4();
        let kind =
            if v6 { draw.one_of(&[128, 128, 128, 129, 2, 1, 3]) } else { draw.one_of(&[8, 8, 8, 0, 3, 11]) };
        let mut message = vec![kind, draw.one_of(&[0, 0, 0, 4]), 0, 0, 0, 0, 5, 0];
        match draw.below(3) {
            0 => message.extend(vec![9; draw.below(256)]),
            1 => message.extend(self.to_servers.back().map_or(vec![1; 40], Packet::ip)),
            _ => message.extend(from.ip()),
        }
        message.truncate(1400);
        let mut ip = vec![0; if v6 { 40 } else { 20 }];
        if v6 {
            let pseudo = checksum::pseudo_header(from.src, from.dst, protocol::ICMPV6, message.len());
            let sum = !checksum::add(pseudo, checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ipv6::write(&mut ip, 0, 0, message.len() as u16, protocol::ICMPV6, 64, from.src, from.dst);
        } else {
            let sum = !checksum::sum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = steerage::wire::ipv4::Header {
                tos: 0,
                total_len: (20 + message.len()) as u16,
                id: 1,
                flags_and_offset: 0,
                ttl: 64,
                protocol: protocol::ICMP,
                src: from.src,
                dst: from.dst,
            };
            header.write(&mut ip);
        }
        ip.extend(message);
        let side = if draw.once_in(8) { Side::Back } else { Side::Front };
        let mut frame = packet::frame(side, host_mac(from.src.0[15]), None, &ip);
        spoil(draw, &mut frame, 14);
        self.inject(draw, side, &frame, false);
    }

    /// Authentic heartbeats with any content, and spoiled ones.
    fn control(&mut self, draw: &mut Draw) {
        self.beats += 1;
        let sender = NodeId(draw.one_of(&[1, 2, 1, 2, 0, 3, 0xffff]));
        let life = match self.solo.lives.get_mut(usize::from(sender.0).wrapping_sub(1)) {
            Some(life) => {
                // Another life begins.
                *life += u32::from(draw.once_in(8));
                *life
            }
            None => 1,
        };
        let old = draw.once_in(8);
        let beat = Heartbeat {
            sender,
            incarnation: Incarnation(life - u32::from(old)),
            counter: if draw.once_in(4) { 1 } else { self.beats },
            view: 1,
            configuration: u64::from(draw.byte()),
            index: 0,
            prepared: 0,
            hears: NodeSet::EMPTY,
            ready: draw.once_in(2),
            turns: (0..draw.below(65)).map(|i| i as u32).collect(),
        };
        let mut frame = self.solo.heartbeat(&beat);
        if draw.once_in(4) {
            let (at, value) = (42 + draw.below(64), draw.byte());
            frame.get_mut(at).into_iter().for_each(|b| *b = value);
        }
        spoil(draw, &mut frame, 14);
        let side = if draw.once_in(8) { Side::Front } else { Side::Back };
        self.inject(draw, side, &frame, false);
    }

    /// What doesn't belong on the backplane, or on no data port.
    fn stray(&mut self, draw: &mut Draw) {
        let frame = match draw.below(3) {
            0 => packet::frame(Side::Back, host_mac(12), None, &self.any_packet(draw).ip()),
            1 => {
                let port = draw.one_of(&[1, 6598, 6599, 6600, 6602, 65535]);
                let len = draw.below(80);
                backplane_frame(NodeId(1), port, &draw.bytes(len))
            }
            _ => {
                let mut frame = backplane_frame(NodeId(1), 6600, b"");
                frame[26..30].copy_from_slice(&[10, 20, 0, 13]);
                packet::ipv4_checksum(&mut frame[14..]);
                frame
            }
        };
        let side = if draw.once_in(4) { Side::Front } else { Side::Back };
        let mut frame = frame;
        frame[..6].copy_from_slice(&side.mac().0);
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

/// Whether a frame that the node sent is one that it may send. If a NATed packet for a real server, that packet.
///
/// # Panics
/// If not.
pub fn judge(side: Side, frame: &[u8]) -> Option<Packet> {
    let header = Eth::new(frame).expect("a frame has an Ethernet header");
    assert_eq!(header.src(), side.mac(), "the port's own address");
    let at = if header.ethertype() == ethertype::VLAN { 18 } else { 14 };
    let kind = u16::from_be_bytes([frame[at - 2], frame[at - 1]]);
    let packet = &frame[at..];
    let mtu = if side == Side::Back { 1700 } else { 1500 };
    assert!(packet.len() <= mtu, "{} bytes on {side:?}", packet.len());
    match kind {
        ethertype::ARP => {
            Arp::parse(packet).expect("an ARP message");
            None
        }
        ethertype::IPV4 | ethertype::IPV6 => inside(side, packet, kind == ethertype::IPV4),
        other => panic!("ethertype {other:#06x} sent"),
    }
}

/// Judges an IP packet that fills its frame.
fn inside(side: Side, packet: &[u8], v4: bool) -> Option<Packet> {
    let (src, number, at) = if v4 {
        let ip = Ipv4::new(packet).expect("an IPv4 header");
        assert!(ip.checksum_ok(), "IPv4 checksum");
        assert_eq!(ip.total_len(), packet.len(), "IPv4 length");
        assert!(ip.ttl() > 0 && !ip.is_fragment());
        (ip.src(), ip.protocol(), ip.header_len())
    } else {
        let ip = Ipv6::new(packet).expect("an IPv6 header");
        assert_eq!(ip.total_len(), packet.len(), "IPv6 length");
        assert!(ip.hop_limit() > 0);
        let upper = ipv6::upper(packet).expect("an IPv6 chain");
        (ip.src(), upper.protocol, upper.offset)
    };
    let (own_v4, own_v6) = (Addr::v4([10, 10, 0, 11]), v6_address(0xfd10, 0x11));
    let behind = &packet[at..];
    let ports = || (u16::from_be_bytes([behind[0], behind[1]]), u16::from_be_bytes([behind[2], behind[3]]));
    match number {
        protocol::IPV4 | protocol::IPV6 => {
            assert_eq!(side, Side::Front, "tunnels lead to real servers");
            whole(behind);
        }
        protocol::UDP if side == Side::Back => {
            assert_eq!(src, Addr::v4([10, 20, 0, 11]));
            if ports().1 != 6599 {
                let header = Header::parse(&behind[8..]).expect("our own header");
                assert_eq!(header.sender, NodeId(0));
                assert!([Stage::Owner, Stage::Returned].contains(&header.stage), "{:?}", header.stage);
                whole(&behind[8 + backplane::HEADER_LEN..]);
            }
        }
        protocol::UDP if ports().1 == gue::PORT && [own_v4, own_v6].contains(&src) => whole(&behind[8..]),
        protocol::TCP | protocol::UDP => return translated(packet, src),
        _ => {}
    }
    None
}

/// The packet in a tunnel is as long as it says.
fn whole(packet: &[u8]) {
    let len = match packet.first().map(|b| b >> 4) {
        Some(4) => Ipv4::new(packet).expect("an inner IPv4 header").total_len(),
        Some(6) => Ipv6::new(packet).expect("an inner IPv6 header").total_len(),
        other => panic!("version {other:?} in a tunnel"),
    };
    assert_eq!(len, packet.len(), "inner length");
}

/// A packet from a SNAT address went to a real server.
fn translated(packet: &[u8], src: Addr) -> Option<Packet> {
    let snat = match src.is_v4() {
        true => src.v4_bytes()[..3] == [10, 10, 0] && (101..=103).contains(&src.v4_bytes()[3]),
        false => src.0[..2] == [0xfd, 0x10] && src.0[14] == 1 && (1..=3).contains(&src.0[15]),
    };
    snat.then(|| Packet::read(packet)).flatten()
}
