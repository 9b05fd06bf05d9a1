//! The way out: next hop, Ethernet header, transmit queues, and the rings to sibling workers.

use super::counters::Counters;
use super::message::Event;
use super::meta::Meta;
use super::port::{Burst, Frame, Pool, Port, PortCaps};
use super::promise::Promises;
use super::verdict::Verdict;
use crate::base::limits::{MAX_HELD, MAX_HELD_EACH};
use crate::base::planted::{self, Bug};
use crate::base::{Addr, FlowHash, Instant, PortId, WorkerId};
use crate::table::ring::Producer;
use crate::view::{Adjacency, HopId, Neighbour, Packet, Reach, Route, View};
use crate::wire::control::Heartbeat;
use crate::wire::eth::{self, ethertype};
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
    /// A packet of a flow that the other owns; the frame starts at its IP header. The version is the one in force where its meta
    /// was made.
    Packet(F, Meta, u32),
    /// A control frame with records of shared state for the other, whose message starts at this offset.
    Records(F, usize),
    /// A finished Ethernet frame for a port on which the sender has no queue; and whether it may hold a promise.
    Transmit(F, PortId, bool),
}

/// Where a packet is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To a next hop of the configuration.
    Hop(HopId),
    /// By the routes.
    Address(Addr),
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
    until: Instant,
    /// There may be a promise in it.
    promise: bool,
}

/// See the module's text.
pub struct Egress<P: Port> {
    me: WorkerId,
    /// By port id.
    pub ports: Vec<PortSlot<P>>,
    rings: Vec<Option<RingSlot<P::Frame>>>,
    held: ArrayVec<Held<P::Frame>, MAX_HELD>,
    /// By which View's numbers they wait for next hops: [`View::numbered`].
    numbered: u64,
    events: Sender<Event>,
    heartbeats: Sender<Heartbeat>,
    /// What it may promise.
    pub promises: Promises,
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
        promises: Promises,
        counters: Arc<Counters>,
    ) -> Self {
        let rings = rings.into_iter().map(|r| r.map(|ring| RingSlot { ring, out: Burst::new() })).collect();
        Self {
            me,
            ports,
            rings,
            held: ArrayVec::new(),
            numbered: 0,
            events,
            heartbeats,
            promises,
            counters,
            errors_left: 0,
            questions_left: 0,
        }
    }

    /// Frees a packet that goes no further, and counts why.
    #[cold]
    #[inline(never)]
    pub fn drop(&self, frame: P::Frame, verdict: Verdict) {
        if planted::is(Bug::BufferForgotten) {
            std::mem::forget(frame);
        } else {
            drop(frame);
        }
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

    /// Sends an IP packet of any kind: finds its next hop, puts an Ethernet header in front and queues it. A packet whose
    /// neighbour isn't resolved yet waits a while.
    #[inline]
    pub fn send(&mut self, view: &View, frame: P::Frame, towards: Towards, now: Instant) {
        let hop = match towards {
            Towards::Hop(hop) => hop,
            Towards::Address(address) => match view.services.routes.lookup(address) {
                Some(Route::Via(hop)) => hop,
                Some(Route::OnLink(interface)) => {
                    return self.send_on_link(view, frame, Neighbour { interface, address }, now);
                }
                None => return self.drop(frame, Verdict::NoRoute),
            },
        };
        let adjacency = &view.adjacencies.hops[hop.0 as usize];
        let len = frame.len();
        if len > usize::from(adjacency.mtu) {
            return self.drop(frame, Verdict::TooBigSilent);
        }
        let v4 = is_v4(&frame);
        self.forward(frame, adjacency, towards, &Packet { len, v4, class: 0, hash: FlowHash(0) }, 0, now);
    }

    fn send_on_link(&mut self, view: &View, mut frame: P::Frame, neighbour: Neighbour, now: Instant) {
        let interface = &view.services.interfaces[neighbour.interface.index()];
        if frame.len() > usize::from(interface.mtu) {
            return self.drop(frame, Verdict::TooBigSilent);
        }
        let Some(mac) = view.mac_of(neighbour) else {
            if !self.waits(Towards::Address(neighbour.address)) {
                self.ask(neighbour);
            }
            return self.hold(frame, Towards::Address(neighbour.address), now);
        };
        let kind = if is_v4(&frame) { ethertype::IPV4 } else { ethertype::IPV6 };
        let l2 = interface.link_header_len();
        if !frame.grow_front(l2) {
            return self.drop(frame, Verdict::NoBuffer);
        }
        eth::write(frame.head_mut(), mac, interface.mac, interface.vlan, kind);
        self.transmit(interface.port, frame);
    }

    /// Sends a packet along an adjacency that has a route and behind whose headers it fits. `towards` is where it goes if it
    /// has to wait; `worker` see [`Adjacency::write`].
    #[inline(always)]
    pub fn forward(
        &mut self,
        mut frame: P::Frame,
        adjacency: &Adjacency,
        towards: Towards,
        packet: &Packet,
        worker: u16,
        now: Instant,
    ) {
        let (len, l2) = adjacency.lengths();
        if !frame.grow_front(len) {
            return self.drop(frame, Verdict::NoBuffer);
        }
        adjacency.write(frame.head_mut(), packet, worker);
        if adjacency.reach != Reach::Yes {
            // Of an unresolved neighbour's headers only those behind Ethernet's are right.
            return match frame.shrink_front(l2) {
                true => self.hold(frame, towards, now),
                false => self.drop(frame, Verdict::NoBuffer),
            };
        }
        self.transmit(adjacency.port, frame);
    }

    /// Queues a finished Ethernet frame on a port.
    #[inline(always)]
    pub fn transmit(&mut self, port: PortId, frame: P::Frame) {
        let slot = &mut self.ports[port.index()];
        if slot.queue.is_none() {
            let worker = WorkerId(self.me.0 % slot.queues);
            let promise = self.promises.made();
            return self.hand(worker, Handoff::Transmit(frame, port, promise));
        }
        slot.out.push(frame);
        if slot.out.is_full() {
            self.flush_port(port.index());
        }
    }

    #[inline(never)]
    fn flush_port(&mut self, port: usize) {
        let slot = &mut self.ports[port];
        let Some(queue) = &mut slot.queue else { return };
        let count = slot.out.len() as u64;
        if !slot.backplane && !self.promises.hold() {
            slot.out.clear();
            self.counters.drops[Verdict::LeaseOver as usize].add(count);
            return;
        }
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
        if !self.promises.hold() {
            slot.out.clear();
            self.counters.drops[Verdict::LeaseOver as usize].add(count as u64);
            return;
        }
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
        self.promises.settle();
    }

    /// Whether a packet waits for that neighbour already; then it has been asked for, and the management thread asks again by
    /// itself for a while. Next hops of the configuration it asks for anyway.
    fn waits(&self, towards: Towards) -> bool {
        self.held.iter().any(|h| h.towards == towards)
    }

    /// Has the management thread ask for a neighbour that isn't a next hop of the configuration.
    fn ask(&mut self, neighbour: Neighbour) {
        if self.questions_left > 0 {
            self.questions_left -= 1;
            self.tell(Event::Resolve(neighbour));
        }
    }

    #[cold]
    fn hold(&mut self, frame: P::Frame, towards: Towards, now: Instant) {
        let waiting = self.held.iter().filter(|h| h.towards == towards).count();
        if waiting >= MAX_HELD_EACH {
            return self.drop(frame, Verdict::NeighbourUnresolved);
        }
        if self.held.is_full() {
            // Who has waited longest is the least likely to be answered.
            let oldest = self.held.remove(0);
            self.drop(oldest.frame, Verdict::NeighbourUnresolved);
        }
        let promise = self.promises.made();
        self.held.push(Held { frame, towards, until: now + HOLD, promise });
    }

    /// From now on next hops have the numbers that this View says. If those are others, the packets that wait for next hops go: which
    /// neighbours were meant can't be told any more.
    pub fn number_by(&mut self, view: &View) {
        if self.numbered == view.numbered {
            return;
        }
        self.numbered = view.numbered;
        for held in std::mem::take(&mut self.held) {
            match held.towards {
                Towards::Hop(_) => self.drop(held.frame, Verdict::NeighbourUnresolved),
                Towards::Address(_) => self.held.push(held),
            }
        }
    }

    /// The node's life is over, and with it what it has promised: the packets that wait for next hops and say so must not leave in
    /// the next one.
    pub fn drop_promised(&mut self) {
        for held in std::mem::take(&mut self.held) {
            if held.promise {
                self.drop(held.frame, Verdict::LeaseOver);
            } else {
                self.held.push(held);
            }
        }
    }

    /// Sends the waiting packets whose neighbour has answered, and gives up on those that waited too long. To be called
    /// when there is a new View, and now and then.
    #[cold]
    pub fn retry_held(&mut self, view: &View, now: Instant) {
        // Frames for one neighbour mostly give up together: one question will do for all.
        let mut asked: ArrayVec<Towards, MAX_HELD> = ArrayVec::new();
        for held in std::mem::take(&mut self.held) {
            if held.promise && !self.promises.may(now) {
                self.drop(held.frame, Verdict::LeaseOver);
            } else if resolved(view, held.towards) {
                self.send(view, held.frame, held.towards, now);
            } else if now < held.until {
                self.held.push(held);
            } else {
                // It may have been forgotten by now: were it asked for only when nothing waits, a sender that never rests
                // would never be answered again.
                if let Towards::Address(address) = held.towards
                    && !asked.contains(&held.towards)
                    && let Some(Route::OnLink(interface)) = view.services.routes.lookup(address)
                {
                    asked.push(held.towards);
                    self.ask(Neighbour { interface, address });
                }
                self.drop(held.frame, Verdict::NeighbourUnresolved);
            }
        }
    }

    /// Queues what a sibling has made for a port on which it has no queue.
    pub fn transmit_for(&mut self, port: PortId, frame: P::Frame, promise: bool, now: Instant) {
        if promise && !self.promises.may(now) {
            return self.drop(frame, Verdict::LeaseOver);
        }
        self.transmit(port, frame);
    }

    /// Packets that wait for a neighbour.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

fn is_v4<F: Frame>(frame: &F) -> bool {
    frame.head().first().is_some_and(|b| b >> 4 == 4)
}

/// Whether a packet that waits need wait no longer.
fn resolved(view: &View, towards: Towards) -> bool {
    let hop = match towards {
        Towards::Hop(hop) => hop,
        Towards::Address(address) => match view.services.routes.lookup(address) {
            Some(Route::Via(hop)) => hop,
            Some(Route::OnLink(interface)) => return view.mac_of(Neighbour { interface, address }).is_some(),
            None => return true,
        },
    };
    let hop = &view.hops[hop.0 as usize];
    hop.mac.is_some() || hop.is_vacant()
}
