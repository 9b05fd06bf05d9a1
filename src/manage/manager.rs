//! The management side of a node, as a value: hears the workers' events, keeps neighbours and peers, publishes Views.

pub mod checks;
mod figures;
pub mod heartbeats;
pub mod seat;

use super::announce::Announcements;
use super::census::Census;
use super::compile;
use super::config::Config;
use super::explain::inquiry::{Inquiries, Ticket};
use super::explain::{self, ExplainError, Explanation, Request};
use super::neighbour::Neighbours;
use super::peer::{Peers, Turns};
use super::probe;
use super::refusals::Refusals;
use crate::base::{Incarnation, Instant, NodeId};
use crate::path::counters::Counters;
use crate::path::message::{CHANNEL, Command, Event};
use crate::path::port::{DeviceMonitor, PortCaps};
use crate::table::exact::ExactMap;
use crate::table::lease::Lease;
use crate::table::publish::Publisher;
use crate::view::{Buckets, View};
use crate::wire::backplane;
use crate::wire::control::Heartbeat;
use checks::Checks;
use crossbeam_channel::{Receiver, Sender};
use heartbeats::Courier;
use seat::Seat;
use std::sync::Arc;
use tracing::warn;

/// Events that one turn takes.
const EVENT_SLICE: usize = 1024;

/// A device as the manager sees it.
pub struct Device {
    /// Its name in the configuration.
    pub name: String,
    /// What it is and can do.
    pub caps: PortCaps,
    /// Its counters.
    pub monitor: Box<dyn DeviceMonitor>,
}

/// A worker as the manager sees it.
pub struct WorkerLink {
    /// Its counters.
    pub counters: Arc<Counters>,
    /// To it.
    pub commands: Sender<Command>,
}

/// See the module's text.
pub struct Manager {
    config: Config,
    incarnation: Incarnation,
    views: Publisher<View>,
    events: Receiver<Event>,
    heartbeats_in: Receiver<Heartbeat>,
    workers: Vec<WorkerLink>,
    devices: Vec<Device>,
    neighbours: Neighbours,
    peers: Peers,
    announcements: Announcements,
    started: Instant,
    heartbeat_due: Instant,
    heartbeats: u64,
    commands_lost: u64,
    refusals: Refusals,
    digest: u64,
    inquiries: Inquiries,
    lease: Arc<Lease>,
    census: Census,
    seat: Option<Seat>,
    courier: Option<Box<dyn Courier>>,
    checks: Option<Checks>,
    own_turns: Turns,
    /// One of this node's workers stands still.
    stuck: bool,
}

impl Manager {
    /// A manager that has published its first View through `views`; the workers read its `lease`.
    pub fn new(
        config: Config,
        incarnation: Incarnation,
        (views, lease): (Publisher<View>, Arc<Lease>),
        (events, heartbeats_in): (Receiver<Event>, Receiver<Heartbeat>),
        workers: Vec<WorkerLink>,
        devices: Vec<Device>,
        now: Instant,
    ) -> Self {
        let view = views.current();
        // With a log it is what is decided that nodes compare.
        let digest = if config.log.is_none() { compile::digest(&config) } else { 0 };
        let (neighbours, announcements) = (
            Neighbours::new(&view.hops, now),
            Announcements::new(&view.services, view.advertised.keys(), now),
        );
        let peers = Peers::new(config.me, config.cluster.nodes.slots(), config.cluster.suspicion);
        let census = Census::new(workers.len());
        Self {
            config,
            incarnation,
            views,
            events,
            heartbeats_in,
            workers,
            devices,
            neighbours,
            peers,
            announcements,
            started: now,
            heartbeat_due: now,
            heartbeats: 0,
            commands_lost: 0,
            refusals: Refusals::default(),
            digest,
            inquiries: Inquiries::default(),
            lease,
            census,
            seat: None,
            courier: None,
            checks: None,
            own_turns: Turns::default(),
            stuck: false,
        }
    }

    /// One turn: events in, timers, heartbeats out, and a new View if anything that it says has changed. `true` if there
    /// were events.
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut changed = false;
        let mut busy = false;
        for _ in 0..EVENT_SLICE {
            let Ok(event) = self.events.try_recv() else { break };
            busy = true;
            match event {
                Event::Resolve(neighbour) => self.neighbours.resolve(neighbour, now),
                Event::Heard { neighbour, mac, asked_us } => {
                    self.neighbours.heard(neighbour, mac, asked_us, now)
                }
                Event::Known(known) => self.inquiries.answered(known),
                Event::Held(held) => self.census.told(held),
                Event::Learnt(group, learnt) => self.note_learnt(group, learnt, now),
                Event::Mended { group, bucket, copy, entries } => {
                    let name = |node: NodeId| {
                        self.config.cluster.nodes.get(node.index()).map_or("?", |known| known.name.as_str())
                    };
                    warn!(
                        "shared state of bucket {bucket} of group {group}: {entries} entries differed at node {}, and are written again",
                        name(copy)
                    );
                }
                Event::Kept(kept) => self.census.kept(kept, &self.views.current().regrouped),
            }
        }
        for _ in 0..CHANNEL {
            let Ok(beat) = self.heartbeats_in.try_recv() else { break };
            changed |= self.heard(&beat, now);
            self.peers.heard_on_backplane(&beat, now);
        }
        changed |= self.hear_courier(now);
        let nodes = &self.config.cluster.nodes;
        changed |= self
            .peers
            // One that was removed may fall silent, too.
            .turn(now, |node| {
                let name = nodes.get(node.index()).map_or("?", |known| known.name.as_str());
                warn!("node {name} is silent: it counts as down");
            });
        self.ask_and_announce(now);
        changed |= self.neighbours.take_changed();
        changed |= self.follow(now);
        self.check(now);
        if now >= self.heartbeat_due {
            self.heartbeat_due = now + self.config.cluster.heartbeat;
            self.send_heartbeats(now);
        }
        if changed {
            self.publish(now);
        }
        self.views.collect();
        busy
    }

    /// Worker 0 sends what the manager has to say: it has a queue on every port.
    fn ask_and_announce(&mut self, now: Instant) {
        let Self { neighbours, announcements, views, workers, commands_lost, .. } = self;
        let services = &views.current().services;
        let commands = &workers[0].commands;
        neighbours.turn(now, |n| {
            let interface = &services.interfaces[n.interface.index()];
            if let Some(command) = probe::ask(n.interface, interface, n.address)
                && commands.try_send(command).is_err()
            {
                *commands_lost += 1;
            }
        });
        // They can wait, heartbeats can't: half of the channel stays free for those.
        if !self.lease.holds(now) {
            return;
        }
        announcements.turn(services, now, |command| {
            commands.len() < CHANNEL / 2 && commands.try_send(command).is_ok()
        });
    }

    /// It is decided whose buckets are to be whose, by this version of such decisions; no node goes by it before all know.
    pub fn decide(&mut self, version: u32) {
        let mut view = self.next_view();
        view.decided = version;
        view.link(Some(self.views.current()));
        self.views.publish(view);
    }

    /// Gives every group its buckets, in the order of the groups, from the next View on, by this version of such decisions.
    pub fn place(&mut self, version: u32, buckets: Vec<Buckets>) {
        let mut view = self.next_view();
        (view.in_force, view.decided) = (version, view.decided.max(version));
        view.place(buckets);
        view.link(Some(self.views.current()));
        self.census.placed(view.placed);
        self.views.publish(view);
    }

    /// Until then the node may open NAT sessions. (A node starts with a lease that doesn't end.)
    pub fn lease(&self, until: Instant) {
        self.lease.set(until);
    }

    /// The life that this node leads.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What the workers go by, or will in their next turn.
    pub fn view(&self) -> &View {
        self.views.current()
    }

    /// Whether the node's lease holds.
    pub fn leased(&self, now: Instant) -> bool {
        self.lease.holds(now)
    }

    /// What this node still has of buckets that others own now.
    pub fn census(&self) -> &Census {
        &self.census
    }

    fn next_view(&self) -> View {
        let view = self.views.current();
        View { version: view.version + 1, ..view.clone() }
    }

    /// Publishes the View that follows from what is known now.
    fn publish(&mut self, now: Instant) {
        let mut view = self.next_view();
        let mut moved = false;
        let mut stale = self.seat.as_mut().is_some_and(Seat::take_stale);
        if let Some(compiled) = self.in_force(now) {
            let (version, leaving) = (view.version, view.leaving);
            view = View {
                version,
                placed: view.placed,
                placed_by_group: view.placed_by_group,
                leaving,
                advertised: view.advertised,
                buckets: view.buckets,
                ..compiled
            };
            (moved, stale) = (true, true);
        }
        for hop in view.hops.iter_mut().filter(|hop| !hop.is_vacant()) {
            let mac = self.neighbours.mac(hop.place());
            moved |= hop.mac != mac;
            hop.mac = mac;
        }
        view.neighbours = ExactMap::build(self.neighbours.known());
        for (i, node) in view.nodes.iter_mut().enumerate() {
            let id = NodeId(i as u16);
            let peer = self.peers.get(id);
            let (incarnation, up) = match &self.seat {
                Some(seat) if id == self.config.me => {
                    (self.incarnation, seat.life(id) == (self.incarnation, true))
                }
                Some(seat) => seat.life(id),
                None if id == self.config.me => (self.incarnation, true),
                None => (peer.incarnation, peer.up),
            };
            // Frames bear the life of their sender.
            moved |= id == self.config.me && node.incarnation != incarnation;
            (node.incarnation, node.up) = (incarnation, up);
            node.cookie = backplane::cookie(self.config.cluster.auth_key, id, incarnation);
        }
        if stale {
            let (placed, version) = (view.placed, view.decided);
            let ours = self.decided(&mut view, now);
            // Frames bear it.
            moved |= view.decided != version;
            if view.placed != placed {
                self.census.placed(view.placed);
            }
            let new: Vec<_> = ours.iter().copied().filter(|a| view.advertised.get(a).is_none()).collect();
            if !new.is_empty() || ours.len() != view.advertised.len() {
                view.advertised = Arc::new(ExactMap::build(ours.into_iter().map(|a| (a, ()))));
            }
            self.announcements.retain(|address| view.advertised.get(address).is_some());
            if !new.is_empty() {
                self.announcements = Announcements::new(&view.services, new, now);
            }
        }
        // Of the nodes adjacencies say only what a life of this one never changes: addresses, and its own name and cookie.
        if moved {
            view.link(Some(self.views.current()));
        }
        self.views.publish(view);
    }

    /// Whether the node can serve: every next hop has told its address, or has had its chance, and no worker stands still.
    fn able(&self) -> bool {
        self.neighbours.settled() && !self.stuck
    }

    /// Whether the node serves: it is able to, and if others have a say in it, they let it.
    pub fn ready(&self, now: Instant) -> bool {
        self.able() && self.lease.holds(now) && self.seat.as_ref().is_none_or(Seat::serves)
    }

    /// Whether it serves virtual servers that need no state: those it serves, if it is told so, without a lease, too.
    pub fn stateless_ready(&self, now: Instant) -> bool {
        let by_itself = self.views.current().stateless_without_lease;
        self.able() && (by_itself || self.lease.holds(now)) && self.seat.as_ref().is_none_or(Seat::serves)
    }

    /// Asks what becomes of a tuple's packets. The answer comes out of [`Self::explained`] in a later turn, once all workers
    /// have told what they know of the flow, or one hasn't in time.
    pub fn explain(&mut self, request: Request, now: Instant) -> Ticket {
        let meta = explain::meta(self.views.current(), &request).ok();
        self.inquiries.open(request, meta, self.workers.iter().map(|worker| &worker.commands), now)
    }

    /// An explanation that is ready, or why there is none.
    pub fn explained(&mut self, now: Instant) -> Option<(Ticket, Result<Explanation, ExplainError>)> {
        let (ticket, request, known) = self.inquiries.ended(now)?;
        let view = self.views.current();
        Some((ticket, known.and_then(|k| explain::explain(view, &self.config, &request, Some(&k), now))))
    }
}
