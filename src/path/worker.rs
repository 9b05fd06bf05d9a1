//! One worker: a core's queues, tables and one turn of its loop.

use super::backplane::{self, Received};
use super::census::Census;
use super::counters::Counters;
use super::egress::{Egress, Handoff, QUESTIONS_A_SECOND};
use super::icmp;
use super::message::{Command, Event, Known};
use super::meta::{Batch, Kind};
use super::parse::{self, Intake};
use super::port::{Burst, Frame, Pool, Port};
use super::promise::ReadClock;
use super::shared::{Client, Shared};
use super::stages::Core;
use super::steer::{self, Destination};
use super::verdict::Verdict;
use crate::base::limits::{BURST, SWEEP_SLICE};
use crate::base::{Incarnation, Instant, Pace, PortId, WorkerId};
use crate::table::publish::Subscriber;
use crate::table::ring::Consumer;
use crate::table::session::SessionTable;
use crate::table::steering::SteeringTable;
use crate::view::{Node, View};
use crate::wire::backplane::Stage;
use arrayvec::ArrayVec;
use crossbeam_channel::Receiver;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// How often the slow chores of a worker run: packets that wait, allowances.
const CHORES: Duration = Duration::from_millis(100);
/// Commands of the management thread that a turn carries out.
const COMMAND_SLICE: usize = 8;
/// In this time the expiry cursor passes every entry, as far as the slice of each turn allows.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// See the module's text.
pub struct Worker<P: Port> {
    view: Subscriber<View>,
    core: Core<P>,
    rings: Vec<Consumer<Handoff<P::Frame>>>,
    commands: Receiver<Command>,
    batch: Batch<P::Frame>,
    received: Burst<P::Frame>,
    handed: ArrayVec<Handoff<P::Frame>, BURST>,
    chores_due: Instant,
    second_ends: Instant,
    swept: Pace,
    census: Census,
    /// The node's life, and whether it was let in.
    life: Incarnation,
    up: bool,
}

/// What a worker is made of; see [`Worker::new`].
pub struct Parts<P: Port> {
    /// Which worker of its node.
    pub id: WorkerId,
    /// Where it finds the View.
    pub view: Subscriber<View>,
    /// Its queues and rings out.
    pub egress: Egress<P>,
    /// Rings in, from each sibling.
    pub rings: Vec<Consumer<Handoff<P::Frame>>>,
    /// From the management thread.
    pub commands: Receiver<Command>,
    /// Room for sessions.
    pub sessions: usize,
    /// Hashes that a session may stand under: 2 if any virtual server does NAT, else 1.
    pub session_names: usize,
    /// Room for steering sessions.
    pub steering_sessions: usize,
    /// Its part of what the nodes share.
    pub shared: Shared,
}

impl<P: Port> Worker<P> {
    /// A worker at rest. All its memory is allocated here.
    pub fn new(mut parts: Parts<P>) -> Self {
        parts.egress.counters.view.set(parts.view.get().version);
        parts.egress.number_by(parts.view.get());
        let Node { incarnation: life, up, .. } = *parts.view.get().this_node();
        Self {
            view: parts.view,
            core: Core {
                id: parts.id,
                sessions: SessionTable::new(parts.sessions, parts.session_names),
                steering: SteeringTable::new(parts.steering_sessions, 1),
                shared: parts.shared,
                awaiting: ArrayVec::new(),
                egress: parts.egress,
            },
            rings: parts.rings,
            commands: parts.commands,
            batch: Batch::default(),
            received: Burst::new(),
            handed: ArrayVec::new(),
            chores_due: Instant::ZERO,
            second_ends: Instant::ZERO,
            swept: Pace::default(),
            census: Census::default(),
            life,
            up,
        }
    }

    /// Which worker of its node this is.
    pub fn id(&self) -> WorkerId {
        self.core.id
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.core.egress.counters
    }

    /// Its ports, by port id: for tests and the simulator, which own both ends.
    pub fn port_mut(&mut self, port: PortId) -> Option<&mut P> {
        self.core.egress.ports[port.index()].queue.as_mut()
    }

    /// From now on this clock, of which turns are given the time, is read again before promises leave.
    pub fn read_clock_by(&mut self, clock: ReadClock) {
        self.core.egress.promises.read_clock_by(clock);
    }

    /// One turn: backplane, siblings, front; then a bounded slice of everything else. `true` if there was anything to do.
    pub fn turn(&mut self, now: Instant) -> bool {
        if self.view.refresh() {
            let view = self.view.get();
            let Node { incarnation, up, .. } = *view.this_node();
            // What it has taken on in another life is void, and so is what it has before it was let in: whose it was then it
            // could not know.
            if self.life != incarnation || up && !self.up {
                self.core.begin(view);
            }
            (self.life, self.up) = (incarnation, up);
            self.core.shared.look_at(view);
            self.core.egress.number_by(view);
            self.core.egress.retry_held(view, now);
        }
        let mut busy = self.receive(now, true);
        busy |= self.receive_from_siblings(now);
        busy |= self.receive(now, false);
        busy |= self.obey(now);
        self.chores(now);
        busy |= self.core.share(self.view.get(), now);
        self.core.egress.flush();
        self.sweep(now);
        let counters = &self.core.egress.counters;
        counters.turns.inc();
        counters.busy_turns.add(u64::from(busy));
        busy
    }

    /// A burst from each port of one role.
    fn receive(&mut self, now: Instant, from_backplane: bool) -> bool {
        let view = self.view.get();
        let mut busy = false;
        for port in 0..self.core.egress.ports.len() {
            let slot = &mut self.core.egress.ports[port];
            if slot.backplane != from_backplane {
                continue;
            }
            let Some(queue) = &mut slot.queue else { continue };
            let count = queue.rx(&mut self.received);
            if count == 0 {
                continue;
            }
            let intake = Intake::new(view, PortId(port as u8), slot.caps.mac);
            busy = true;
            let counters = &self.core.egress.counters;
            if from_backplane {
                counters.backplane_rx.add(count as u64)
            } else {
                counters.rx.add(count as u64)
            }
            for frame in self.received.drain(..) {
                if from_backplane {
                    Self::take_backplane(view, &mut self.core, &mut self.batch, frame, &intake, now);
                } else {
                    Self::take_front(view, &mut self.core, &mut self.batch, frame, &intake, now);
                }
            }
            self.core.process(view, &mut self.batch, now);
        }
        busy
    }

    /// Reads a frame from a front port.
    #[inline(always)]
    fn take_front(
        view: &View,
        core: &mut Core<P>,
        batch: &mut Batch<P::Frame>,
        mut frame: P::Frame,
        intake: &Intake,
        now: Instant,
    ) {
        let link = match core.link(&frame, view, intake) {
            Ok(link) => link,
            Err(why) => return core.no_ip(view, frame, why, now),
        };
        let meta = batch.slot();
        match parse::front(&mut frame, &link, view.hash_key, meta) {
            Ok(()) if meta.kind == Kind::Icmp => icmp::receive(view, &mut core.egress, frame, meta, now),
            Ok(()) => {
                // What any node balances by itself has no session and needs none.
                if !view.services.local.is_empty() {
                    meta.local = steer::local(view, meta);
                }
                if meta.local.is_none() {
                    core.sessions.flows().prefetch_index(meta.hash);
                }
                batch.push(frame);
            }
            Err(verdict) => core.egress.drop(frame, verdict),
        }
    }

    /// Reads a frame from the backplane.
    #[inline(always)]
    fn take_backplane(
        view: &View,
        core: &mut Core<P>,
        batch: &mut Batch<P::Frame>,
        mut frame: P::Frame,
        intake: &Intake,
        now: Instant,
    ) {
        let link = match core.link(&frame, view, intake) {
            Ok(link) => link,
            Err(why) => return core.no_ip(view, frame, why, now),
        };
        let meta = batch.slot();
        match backplane::receive(&mut frame, view, &link, meta) {
            Ok(Received::Packet) => {
                core.egress.counters.steered_in.inc();
                if (Stage::FirstOwner..Stage::Returned).contains(&meta.stage) {
                    core.egress.counters.handover_in.inc();
                }
                core.sessions.flows().prefetch_index(meta.hash);
                batch.push(frame);
            }
            Ok(Received::Local) => icmp::receive(view, &mut core.egress, frame, meta, now),
            Ok(Received::Control(offset)) => backplane::control(view, &core.egress, frame, offset),
            Ok(Received::Records(offset)) => core.records(view, frame, offset, now),
            Err(verdict) => core.egress.drop(frame, verdict),
        }
    }

    /// A burst from each sibling.
    fn receive_from_siblings(&mut self, now: Instant) -> bool {
        let view = self.view.get();
        let mut busy = false;
        for ring in &mut self.rings {
            let count = ring.pop_burst(&mut self.handed);
            if count == 0 {
                continue;
            }
            busy = true;
            self.core.egress.counters.ring_in.add(count as u64);
            for handed in self.handed.drain(..) {
                match handed {
                    Handoff::Packet(frame, meta, in_force) => {
                        self.core.sessions.flows().prefetch_index(meta.hash);
                        let slot = self.batch.slot();
                        *slot = meta;
                        // It was compared with what another View goes by: that proves nothing here.
                        if in_force != view.in_force {
                            slot.sender_knows = Ordering::Less;
                        }
                        self.batch.push(frame);
                    }
                    Handoff::Records(frame, offset) => self.core.records(view, frame, offset, now),
                    Handoff::Transmit(frame, port, promise) => {
                        self.core.egress.transmit_for(port, frame, promise, now);
                    }
                }
            }
            self.core.process(view, &mut self.batch, now);
        }
        busy
    }

    /// What the management thread wants sent.
    fn obey(&mut self, now: Instant) -> bool {
        let view = self.view.get();
        let egress = &mut self.core.egress;
        for done in 0..COMMAND_SLICE {
            let Ok(command) = self.commands.try_recv() else { return done > 0 };
            match command {
                Command::LookUp { ticket, meta } => {
                    let (session, steering) =
                        steer::known(view, &self.core.sessions, &self.core.steering, &meta);
                    let client = match steer::destination(view, &meta) {
                        Ok(Destination::Service(id)) => Client::of(view, id, &meta.key),
                        _ => None,
                    };
                    let kept = client.and_then(|client| self.core.shared.known_of(view, &client, now));
                    let known = Known { ticket, worker: self.core.id, session, steering, kept };
                    egress.tell(Event::Known(known));
                }
                Command::Control { node, message } => {
                    backplane::send_control(view, egress, node, &message, now)
                }
                Command::Transmit { promise: true, .. } if !egress.promises.may(now) => {
                    egress.counters.count_drop(Verdict::LeaseOver);
                }
                Command::Transmit { interface, frame: bytes, .. } => {
                    let port = view.services.interfaces[interface.index()].port;
                    let frame = egress
                        .alloc(port, Pool::Data)
                        .and_then(|mut f| f.grow_back(bytes.len()).then_some(f));
                    match frame {
                        Some(mut frame) => {
                            frame.head_mut()[..bytes.len()].copy_from_slice(&bytes);
                            egress.transmit(port, frame);
                        }
                        None => egress.counters.count_drop(Verdict::NoBuffer),
                    }
                }
            }
        }
        true
    }

    /// What needn't be done in every turn.
    fn chores(&mut self, now: Instant) {
        if now < self.chores_due {
            return;
        }
        self.chores_due = now + CHORES;
        let egress = &mut self.core.egress;
        if egress.held() > 0 {
            egress.retry_held(self.view.get(), now);
        }
        if now >= self.second_ends {
            self.second_ends = now + Duration::from_secs(1);
            egress.errors_left = icmp::ERRORS_A_SECOND;
            egress.questions_left = QUESTIONS_A_SECOND;
        }
        let core = &self.core;
        let own = core.sessions.flows().len() - core.shared.elsewhere();
        core.egress.counters.sessions.set(own as u64);
        core.egress.counters.steering_sessions.set(core.steering.len() as u64);
    }

    /// Expiry: moves the cursors of both tables on by as many entries as the time since the last turn asks for, up to a
    /// slice.
    fn sweep(&mut self, now: Instant) {
        let view = self.view.get();
        let core = &mut self.core;
        let room = core.sessions.flows().capacity().max(core.steering.capacity());
        let steps = self.swept.due(now, room, SWEEP_PERIOD, SWEEP_SLICE);
        if steps == 0 {
            return;
        }
        // What is inherited meanwhile may stand where the pass has been.
        let counts = Census::is_due(view) && core.shared.rests();
        if counts {
            self.census.begin(view, core.sessions.flows().capacity(), now);
        } else {
            self.census.stop();
        }
        for _ in 0..steps {
            let stays = core.expire_session(view, now);
            core.expire_steering(view, now);
            if counts {
                self.census.visited(view, &core.sessions, stays, core.id, &core.egress);
            }
        }
    }
}
