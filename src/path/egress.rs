//! The way out: next hop, Ethernet header, transmit queues, and the rings to sibling workers.

use super::counters::Counters;
use super::message::Event;
use super::meta::Meta;
use super::port::{Burst, Frame, Pool, Port, PortCaps};
use super::verdict::Verdict;
use crate::base::limits::{MAX_HELD, MAX_HELD_EACH};
use crate::base::{Addr, Instant, InterfaceId, Mac, PortId, WorkerId};
use crate::table::ring::Producer;
use crate::view::{HopId, Neighbour, Route, View};
use crate::wire::control::Heartbeat;
use crate::wire::eth::{self, ethertype};
use crate::wire::ipv4;
use arrayvec::ArrayVec;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::time::Duration;

/// How long a packet waits for a neighbour's answer: as long as a client's stack waits before it sends again.
const HOLD: Duration = Duration::from_secs(1);

/// Neighbours that a worker asks for in a second.
pub const QUESTIONS_A_SECOND: u32 = 500;

/// What one worker hands to another of its node.
pub enum Handoff<F> {
    /// A packet of a flow that the other owns; the frame starts at its IP header.
    Packet(F, Meta),
    /// A finished Ethernet frame for a port on which the sender has no queue.
    Transmit(F, PortId),
}

/// Where a packet is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To a next hop of the configuration.
    Hop(HopId),
    /// By the routes.
    Address(Addr),
}

/// What the IP header in front needs yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Nothing.
    Complete,
    /// If it is IPv4, its checksum.
    WithoutChecksum,
}

/// One worker's share of a port.
pub struct PortSlot<P: Port> {
    /// Its queue pair; none if the device has fewer queues than the node workers.
    pub queue: Option<P>,
    /// How many workers have one: the first so many.
    pub queues: u16,
    /// What the device is and can do.
    pub caps: PortCaps,
    /// Whether it leads to the other nodes only.
    pub backplane: bool,
    out: Burst<P::Frame>,
}

impl<P: Port> PortSlot<P> {
    /// A share with an empty transmit buffer.
    pub fn new(queue: Option<P>, queues: u16, caps: PortCaps, backplane: bool) -> Self {
        Self { queue, queues, caps, backplane, out: Burst::new() }
    }
}

/// The way to a sibling.
struct RingSlot<F> {
    ring: Producer<Handoff<F>>,
    out: Burst<Handoff<F>>,
}

struct Held<F> {
    frame: F,
    towards: Towards,
    outer: Outer,
    until: Instant,
}

/// See the module's text.
pub struct Egress<P: Port> {
    me: WorkerId,
    /// By port id.
    pub ports: Vec<PortSlot<P>>,
    rings: Vec<Option<RingSlot<P::Frame>>>,
    held: ArrayVec<Held<P::Frame>, MAX_HELD>,
    events: Sender<Event>,
    heartbeats: Sender<Heartbeat>,
    /// This worker's counters.
    pub counters: Arc<Counters>,
    /// "Too big" messages that may still be sent in this second.
    pub errors_left: u32,
    /// Neighbours that may still be asked for in this second.
    pub questions_left: u32,
}

impl<P: Port> Egress<P> {
    /// `rings` by worker id, none at `me`.
    pub fn new(
        me: WorkerId,
        ports: Vec<PortSlot<P>>,
        rings: Vec<Option<Producer<Handoff<P::Frame>>>>,
        (events, heartbeats): (Sender<Event>, Sender<Heartbeat>),
        counters: Arc<Counters>,
    ) -> Self {
        let rings = rings.into_iter().map(|r| r.map(|ring| RingSlot { ring, out: Burst::new() })).collect();
        Self {
            me,
            ports,
            rings,
            held: ArrayVec::new(),
            events,
            heartbeats,
            counters,
            errors_left: 0,
            questions_left: 0,
        }
    }

    /// Frees a packet that goes no further, and counts why.
    #[inline]
    pub fn drop(&self, frame: P::Frame, verdict: Verdict) {
        drop(frame);
        self.counters.count_drop(verdict);
    }

    /// Tells the management thread something; it may be lost, and is then counted.
    pub fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.counters.events_lost.inc();
        }
    }

    /// Passes a peer's heartbeat on. It has a channel of its own, so that no chatter in front can crowd it out.
    pub fn tell_heartbeat(&self, heartbeat: Heartbeat) {
        if self.heartbeats.try_send(heartbeat).is_err() {
            self.counters.events_lost.inc();
        }
    }

    /// An empty frame for a port, from whichever port of this worker can give one.
    pub fn alloc(&mut self, port: PortId, pool: Pool) -> Option<P::Frame> {
        let own = self.ports[port.index()].queue.as_mut().and_then(|q| q.alloc(pool));
        own.or_else(|| self.ports.iter_mut().find_map(|p| p.queue.as_mut().and_then(|q| q.alloc(pool))))
    }

    /// Sends an IP packet: finds its next hop, puts an Ethernet header in front and queues it. A packet whose neighbour
    /// isn't resolved yet waits a while.
    #[inline]
    pub fn send(&mut self, view: &View, frame: P::Frame, towards: Towards, outer: Outer, now: Instant) {
        match resolve(view, towards) {
            Ok((interface, Ok(mac))) => self.link(view, frame, interface, mac, outer),
            Ok((_, Err(neighbour))) => self.hold(frame, towards, outer, neighbour, now),
            Err(verdict) => self.drop(frame, verdict),
        }
    }

    #[inline]
    fn link(&mut self, view: &View, mut frame: P::Frame, interface: InterfaceId, dst: Mac, outer: Outer) {
        let interface = &view.services.interfaces[interface.index()];
        if frame.len() > usize::from(interface.mtu) {
            return self.drop(frame, Verdict::TooBigSilent);
        }
        let v4 = frame.head().first().is_some_and(|b| b >> 4 == 4);
        let l2 = eth::HEADER_LEN + if interface.vlan.is_some() { crate::wire::vlan::TAG_LEN } else { 0 };
        if !frame.grow_front(l2) {
            return self.drop(frame, Verdict::NoBuffer);
        }
        let kind = if v4 { ethertype::IPV4 } else { ethertype::IPV6 };
        eth::write(frame.head_mut(), dst, interface.mac, interface.vlan, kind);
        if outer == Outer::WithoutChecksum && v4 {
            if self.ports[interface.port.index()].caps.tx_ipv4_checksum {
                frame.offload_ipv4_checksum(l2, ipv4::MIN_HEADER_LEN);
            } else {
                ipv4::fill_checksum(&mut frame.head_mut()[l2..]);
            }
        }
        self.transmit(interface.port, frame);
    }

    /// Queues a finished Ethernet frame on a port.
    #[inline]
    pub fn transmit(&mut self, port: PortId, frame: P::Frame) {
        let slot = &mut self.ports[port.index()];
        if slot.queue.is_none() {
            let worker = WorkerId(self.me.0 % slot.queues);
            return self.hand(worker, Handoff::Transmit(frame, port));
        }
        slot.out.push(frame);
        if slot.out.is_full() {
            self.flush_port(port.index());
        }
    }

    fn flush_port(&mut self, port: usize) {
        let slot = &mut self.ports[port];
        let Some(queue) = &mut slot.queue else { return };
        let count = slot.out.len() as u64;
        let unsent = queue.tx(&mut slot.out) as u64;
        let sent = if slot.backplane { &self.counters.backplane_tx } else { &self.counters.tx };
        sent.add(count - unsent);
        self.counters.drops[Verdict::TxFull as usize].add(unsent);
    }

    /// Hands something to a sibling.
    #[inline]
    pub fn hand(&mut self, worker: WorkerId, what: Handoff<P::Frame>) {
        match self.rings.get_mut(worker.index()) {
            Some(Some(slot)) => {
                slot.out.push(what);
                if slot.out.is_full() {
                    self.flush_ring(worker.index());
                }
            }
            _ => debug_assert!(false, "worker {worker} is not a sibling of {}", self.me),
        }
    }

    fn flush_ring(&mut self, worker: usize) {
        let Some(Some(slot)) = self.rings.get_mut(worker) else { return };
        let count = slot.out.len();
        slot.ring.push_burst(&mut slot.out);
        self.counters.ring_out.add((count - slot.out.len()) as u64);
        self.counters.drops[Verdict::RingFull as usize].add(slot.out.len() as u64);
        slot.out.clear();
    }

    /// Gives all that is queued to devices and siblings.
    pub fn flush(&mut self) {
        for port in 0..self.ports.len() {
            if !self.ports[port].out.is_empty() {
                self.flush_port(port);
            }
        }
        for worker in 0..self.rings.len() {
            self.flush_ring(worker);
        }
    }

    #[cold]
    fn hold(&mut self, frame: P::Frame, towards: Towards, outer: Outer, neighbour: Neighbour, now: Instant) {
        let waiting = self.held.iter().filter(|h| h.towards == towards).count();
        // The management thread asks again by itself; that one packet waits is enough for it to know.
        // Next hops of the configuration it asks for anyway; for others a flood of strangers must not fill its table.
        if waiting == 0 && matches!(towards, Towards::Address(_)) && self.questions_left > 0 {
            self.questions_left -= 1;
            self.tell(Event::Resolve(neighbour));
        }
        if waiting >= MAX_HELD_EACH {
            return self.drop(frame, Verdict::NeighbourUnresolved);
        }
        if self.held.is_full() {
            // Who has waited longest is the least likely to be answered.
            let oldest = self.held.remove(0);
            self.drop(oldest.frame, Verdict::NeighbourUnresolved);
        }
        self.held.push(Held { frame, towards, outer, until: now + HOLD });
    }

    /// Sends the waiting packets whose neighbour has answered, and gives up on those that waited too long. To be called
    /// when there is a new View, and now and then.
    #[cold]
    pub fn retry_held(&mut self, view: &View, now: Instant) {
        for Held { frame, towards, outer, until } in std::mem::take(&mut self.held) {
            match resolve(view, towards) {
                Ok((interface, Ok(mac))) => self.link(view, frame, interface, mac, outer),
                Ok((_, Err(_))) if now < until => self.held.push(Held { frame, towards, outer, until }),
                Ok((_, Err(neighbour))) => {
                    // It may have been forgotten by now; were it only asked for when nothing waits, a sender that never
                    // rests would never be answered again.
                    if matches!(towards, Towards::Address(_)) && self.questions_left > 0 {
                        self.questions_left -= 1;
                        self.tell(Event::Resolve(neighbour));
                    }
                    self.drop(frame, Verdict::NeighbourUnresolved);
                }
                Err(verdict) => self.drop(frame, verdict),
            }
        }
    }

    /// Packets that wait for a neighbour.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// Interface and Ethernet address of the next hop, or the neighbour that has to tell it.
#[inline]
fn resolve(view: &View, towards: Towards) -> Result<(InterfaceId, Result<Mac, Neighbour>), Verdict> {
    let hop = match towards {
        Towards::Hop(hop) => hop,
        Towards::Address(address) => match view.services.routes.lookup(address).ok_or(Verdict::NoRoute)? {
            Route::Via(hop) => hop,
            Route::OnLink(interface) => {
                let neighbour = Neighbour { interface, address };
                return Ok((interface, view.mac_of(neighbour).ok_or(neighbour)));
            }
        },
    };
    let hop = &view.hops[hop.0 as usize];
    let neighbour = Neighbour { interface: hop.interface, address: hop.address };
    Ok((hop.interface, hop.mac.ok_or(neighbour)))
}
