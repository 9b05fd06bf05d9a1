//! A thin port around a real one, the same for a whole worker and for the bare loops that it is compared with: it writes the
//! next flow's frame into each buffer that it receives.

use crate::traffic::Traffic;
use std::collections::VecDeque;
use steerage::base::{Addr, Mac};
use steerage::path::port::{Burst, DeviceMonitor, DeviceStats, Frame, Pool, Port, PortCaps};
use steerage::wire::arp::{Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{ND_LEN, Neighbour};
use steerage::wire::ipv6;

/// Where a port's empty buffers come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// The pool: a port in memory, from which nothing comes by itself.
    Pool,
    /// The device's receive call: DPDK's net_null, which always gives a burst.
    #[cfg(feature = "dpdk")]
    Device,
}

/// What a port does.
pub enum Mode {
    /// Everyone is there: it answers questions for Ethernet addresses, and receives what was put in.
    World(VecDeque<Vec<u8>>),
    /// Nothing comes.
    Silent,
    /// Frames come without end.
    Load(Traffic),
    /// The same, and the bytes 26..38 of each frame sent (IPv4: addresses and ports) or 22..58 (IPv6) are kept.
    Record(Traffic, Vec<Sent>),
}

/// Source and destination of a frame sent.
#[derive(Clone, Copy)]
pub struct Sent {
    pub src: (Addr, u16),
    pub dst: (Addr, u16),
}

/// See the module's text.
pub struct LabPort<P: Port> {
    /// None once the real port was taken back.
    inner: Option<P>,
    caps: PortCaps,
    buffers: Buffers,
    pub mode: Mode,
}

impl<P: Port> LabPort<P> {
    pub fn new(inner: P, buffers: Buffers) -> Self {
        let caps = inner.caps().clone();
        Self { inner: Some(inner), caps, buffers, mode: Mode::World(VecDeque::new()) }
    }

    /// The real port; what is left receives nothing.
    pub fn take(&mut self) -> Option<P> {
        self.mode = Mode::Silent;
        self.inner.take()
    }
}

impl<P: Port> Port for LabPort<P> {
    type Frame = P::Frame;

    fn caps(&self) -> &PortCaps {
        &self.caps
    }

    // Whoever calls it has it in the same way, however many there are.
    #[inline(always)]
    fn rx(&mut self, into: &mut Burst<P::Frame>) -> usize {
        let Some(inner) = &mut self.inner else { return 0 };
        match &mut self.mode {
            Mode::Load(traffic) | Mode::Record(traffic, _) => {
                let first = into.len();
                match self.buffers {
                    Buffers::Pool => {
                        while !into.is_full() {
                            let Some(frame) = inner.alloc(Pool::Data) else { break };
                            into.push(frame);
                        }
                    }
                    #[cfg(feature = "dpdk")]
                    Buffers::Device => {
                        inner.rx(into);
                    }
                }
                for frame in &mut into[first..] {
                    assert!(traffic.fill(frame), "buffers are longer than the frames");
                }
                into.len() - first
            }
            Mode::World(queue) => {
                let first = into.len();
                while !into.is_full() {
                    let Some(bytes) = queue.pop_front() else { break };
                    let mut frame = inner.alloc(Pool::Data).expect("a free buffer");
                    assert!(frame.grow_back(bytes.len()));
                    frame.head_mut().copy_from_slice(&bytes);
                    into.push(frame);
                }
                into.len() - first
            }
            Mode::Silent => 0,
        }
    }

    #[inline]
    fn tx(&mut self, from: &mut Burst<P::Frame>) -> usize {
        match &mut self.mode {
            Mode::World(queue) => queue.extend(from.iter().filter_map(|frame| answer(frame.head()))),
            Mode::Record(_, sent) => sent.extend(from.iter().map(|frame| read(frame.head()))),
            Mode::Load(_) | Mode::Silent => {}
        }
        match &mut self.inner {
            Some(inner) => inner.tx(from),
            None => std::mem::take(from).len(),
        }
    }

    #[inline]
    fn alloc(&mut self, pool: Pool) -> Option<P::Frame> {
        self.inner.as_mut()?.alloc(pool)
    }
}

/// Source and destination of a UDP or TCP packet without options in an untagged frame.
fn read(frame: &[u8]) -> Sent {
    let v6 = frame[12] == 0x86;
    let address = |at: usize| {
        if v6 {
            let at = 22 + 16 * at;
            Addr(frame[at..at + 16].try_into().expect("sixteen bytes"))
        } else {
            let at = 26 + 4 * at;
            Addr::v4(frame[at..at + 4].try_into().expect("four bytes"))
        }
    };
    let l4 = if v6 { 54 } else { 34 };
    let port = |at: usize| u16::from_be_bytes([frame[l4 + at], frame[l4 + at + 1]]);
    Sent { src: (address(0), port(0)), dst: (address(1), port(2)) }
}

/// The Ethernet address of any host.
pub fn mac_of(host: Addr) -> Mac {
    Mac([2, 0, 0, host.0[13], 9, host.0[15]])
}

/// What the host that is asked for answers to ARP or a neighbour solicitation; none: the frame is no question.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    if frame[12..14] == [8, 6] {
        let question = Arp::parse(&frame[14..]).ok()?;
        if question.operation != Operation::Request || question.sender == question.target {
            return None;
        }
        let mut out = frame.to_vec();
        let mac = mac_of(question.target);
        eth::write(&mut out, question.sender_mac, mac, None, ethertype::ARP);
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: question.target,
            target_mac: question.sender_mac,
            target: question.sender,
        };
        reply.write(&mut out[14..]);
        return Some(out);
    }
    if frame[12..14] != [0x86, 0xdd] || frame[20] != 58 || frame[54] != 135 {
        return None;
    }
    let question = Neighbour::parse(&frame[54..]).ok()?;
    let asker = Addr(frame[22..38].try_into().ok()?);
    let mac = mac_of(question.target);
    let mut out = vec![0; 54 + ND_LEN];
    eth::write(&mut out, question.mac?, mac, None, ethertype::IPV6);
    ipv6::write(&mut out[14..], 0, 0, ND_LEN as u16, 58, 255, question.target, asker);
    let answer = Neighbour {
        advertisement: true,
        solicited: true,
        overrides: true,
        target: question.target,
        mac: Some(mac),
    };
    answer.write(&mut out[54..], question.target, asker);
    Some(out)
}

/// Says of a device only that it is up.
pub struct Up;

impl DeviceMonitor for Up {
    fn stats(&mut self) -> DeviceStats {
        DeviceStats { link_up: true, ..DeviceStats::default() }
    }
}
