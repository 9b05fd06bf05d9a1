//! What is done with the packets of a burst, one stage after the other, and with the sessions that they made.

use super::backplane;
use super::egress::{Egress, Handoff};
use super::local;
use super::meta::{Batch, Meta};
use super::parse::{self, Intake, Link};
use super::port::{Frame, Port};
use super::rewrite;
use super::select::{self, Opened};
use super::shared::{Affinity, Client, Shared};
use super::steer::{self, Decision};
use super::track;
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{GroupId, Instant, VirtualServerId, WorkerId};
use crate::table::flow::EntryId;
use crate::table::session::{Direction, Session, SessionTable, State};
use crate::table::steering::SteeringTable;
use crate::view::{View, snat_bucket};
use crate::wire::backplane::Stage;
use crate::wire::control::Records;
use crate::wire::eth::ethertype;
use crate::wire::protocol;
use arrayvec::ArrayVec;
use std::cmp::Ordering;
use std::time::Duration;

/// Packets that wait until their flows are shared.
const AWAITING: usize = 64;
/// How long they do: many times what the backplane takes, and less than the client takes to send again.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a frame is that carries no IP packet.
pub enum NoIp {
    /// An ARP message.
    Arp(Link),
    /// Nothing that a node reads, and why.
    Refused(Verdict),
}

/// A packet that waits.
pub struct Awaiting<F> {
    frame: F,
    meta: Meta,
    until: Instant,
    /// By which View what its sender knows was compared.
    in_force: u32,
}

/// The mutable state that stages work on.
pub struct Core<P: Port> {
    /// Which worker of its node.
    pub id: WorkerId,
    /// Sessions of the flows that it owns.
    pub sessions: SessionTable,
    /// Where flows go that it received and doesn't own.
    pub steering: SteeringTable,
    /// Its part of what the nodes share.
    pub shared: Shared,
    /// Ends of handshakes that wait until other nodes could go on with their flows, and until when.
    pub awaiting: ArrayVec<Awaiting<P::Frame>, AWAITING>,
    /// Its queues and rings out.
    pub egress: Egress<P>,
}

impl<P: Port> Core<P> {
    /// Reads a frame's Ethernet header.
    #[inline(always)]
    pub fn link(&self, frame: &P::Frame, view: &View, intake: &Intake) -> Result<Link, NoIp> {
        let link = parse::link(frame.head(), view, intake).map_err(NoIp::Refused)?;
        match link.ethertype {
            ethertype::IPV4 | ethertype::IPV6 => Ok(link),
            ethertype::ARP => Err(NoIp::Arp(link)),
            _ => Err(NoIp::Refused(Verdict::UnknownEthertype)),
        }
    }

    /// Answers an ARP message; drops what is nothing to a node.
    #[cold]
    pub fn no_ip(&mut self, view: &View, frame: P::Frame, why: NoIp, now: Instant) {
        match why {
            NoIp::Arp(link) => local::arp(view, &mut self.egress, frame, &link, now),
            NoIp::Refused(verdict) => self.egress.drop(frame, verdict),
        }
    }

    /// The stages behind parsing, for a burst whose index lines are on their way.
    #[inline]
    pub fn process(&mut self, view: &View, batch: &mut Batch<P::Frame>, now: Instant) {
        // Whose index line names no session will most likely want the steering table.
        let mut strangers: u32 = 0;
        for (i, meta) in batch.meta().iter().enumerate() {
            if meta.local.is_none()
                && !self.sessions.flows().prefetch_entry(meta.hash)
                && meta.stage == Stage::Receive
                && view.steering_cache
            {
                self.steering.prefetch_index(meta.hash);
                strangers |= 1 << i;
            }
        }
        for (i, meta) in batch.meta().iter().enumerate() {
            if strangers >> i & 1 == 1 {
                self.steering.prefetch_entry(meta.hash);
            }
        }
        // One after the other from here: two packets of a new flow may be in one burst, and the second must find what the
        // first one made.
        for (frame, meta) in batch.drain() {
            self.packet(view, frame, meta, now);
        }
    }

    #[inline(always)]
    fn packet(&mut self, view: &View, frame: P::Frame, meta: &Meta, now: Instant) {
        if let Some(server) = meta.local {
            return self.stateless(view, frame, meta, server.id(), now);
        }
        if let Some((id, direction)) = steer::own_session(view, &self.sessions, meta) {
            let session = match self.take(view, id, direction, meta, now) {
                Ok(Some(session)) => session,
                Ok(None) => return self.stranger(view, frame, meta, now),
                Err(verdict) => return self.egress.drop(frame, verdict),
            };
            if session.snat_port != 0 && self.waits(view, id, &session, direction, meta) {
                return self.hold(view, frame, meta, now);
            }
            self.egress.counters.session_hits.inc();
            let egress = &mut self.egress;
            return match direction {
                Direction::Forward => {
                    let real = if planted::is(Bug::ServerChosenAnew) {
                        let server = view.services.real_servers[session.real.index()].virtual_server;
                        select::real_server(view, server, meta).unwrap_or(session.real)
                    } else {
                        session.real
                    };
                    rewrite::forward(view, egress, frame, meta, real, Some(&session), now);
                }
                Direction::Reply => {
                    rewrite::reply(view, egress, frame, meta, &session, self.sessions.flows().key(id), now);
                }
            };
        }
        self.stranger(view, frame, meta, now);
    }

    /// Moves the session on by a packet. None: the packet opens another connection, and that one has ended; or it has yet to be
    /// opened, and may not be.
    ///
    /// # Errors
    /// It would open another connection, which this node may not now, nor may it give the NATed flow up: others have its state.
    #[inline(always)]
    fn take(
        &mut self,
        view: &View,
        id: EntryId,
        direction: Direction,
        meta: &Meta,
        now: Instant,
    ) -> Result<Option<Session>, Verdict> {
        let session = self.sessions.get_mut(id);
        if !track::steady(session, meta.key.protocol, meta.tcp_flags) {
            let next_connection = track::over(session)
                && direction == Direction::Forward
                && track::opens(meta.key.protocol, meta.tcp_flags);
            // What no server has answered was promised, but may never have left.
            let unproven =
                session.snat_port != 0 && session.state == State::HalfOpen && direction == Direction::Forward;
            if unproven && !self.egress.promises.may(now) {
                self.close(view, id);
                return Ok(None);
            }
            if !next_connection {
                let before = session.state;
                track::advance(session, meta.key.protocol, meta.tcp_flags, direction);
                let real = &view.services.real_servers[session.real.index()];
                let server = &view.services.virtual_servers[real.virtual_server.index()];
                if before < State::Established
                    && session.state == State::Established
                    && server.persistence.is_some()
                {
                    self.shared.keep(id);
                }
            } else if session.snat_port != 0 && !self.egress.promises.may(now) {
                return Err(Verdict::NoLease);
            } else if session.snat_port != 0 && !leaves(view, session) {
                track::reopen(session);
                select::connected(&self.egress.counters, session.real);
            } else {
                // Without NAT there is nothing to keep: the next connection is balanced anew. What has left this node must be
                // able to end here.
                self.close(view, id);
                return Ok(None);
            }
        }
        // Not written if nothing changes: a line that stays clean need not go back to memory.
        if session.last_seen != now.tick() {
            session.last_seen = now.tick();
        }
        Ok(Some(*session))
    }

    /// Whether a packet has to wait, as it would end a NATed flow's handshake and no other node could go on with that yet.
    #[inline]
    fn waits(
        &mut self,
        view: &View,
        id: EntryId,
        session: &Session,
        direction: Direction,
        meta: &Meta,
    ) -> bool {
        if self.shared.is_stored(view, session, id) {
            return false;
        }
        let proven = !matches!(session.state, State::HalfOpen);
        if proven {
            self.shared.store(id);
        }
        // What the server says may go on: it is the client's part that makes the connection.
        let ends = direction == Direction::Forward && meta.key.protocol == protocol::TCP;
        ends && proven && session.state != State::Reset
    }

    /// Whether this node may have the session of a NATed packet's flow, as the next owner of its bucket, and doesn't know it yet.
    #[cold]
    fn inherits(&self, view: &View, meta: &Meta, opens: bool) -> bool {
        steer::groups(view, meta).is_some_and(|(group, other, bucket)| {
            self.shared.inherits(view, group, bucket, opens)
                || other.is_some_and(|other| self.shared.inherits(view, other, bucket, opens))
        })
    }

    /// Whether this node could go on with a NATed packet's flow, and doesn't yet: nobody else is to be asked to take it.
    #[cold]
    fn orphaned(&self, view: &View, meta: &Meta, now: Instant) -> bool {
        steer::groups(view, meta).is_some_and(|(group, other, bucket)| {
            let orphan = |group: GroupId| self.shared.knows_orphan(view, (group, bucket), &meta.key, now);
            orphan(group) || other.is_some_and(orphan)
        })
    }

    /// Which real server the client of a new flow has.
    #[inline]
    fn kept(&mut self, view: &View, server: VirtualServerId, meta: &Meta, now: Instant) -> Affinity {
        match Client::of(view, server, &meta.key) {
            Some(client) => self.shared.kept(view, client, self.egress.promises.until() > now, now),
            None => Affinity::None,
        }
    }

    #[cold]
    fn hold(&mut self, view: &View, frame: P::Frame, meta: &Meta, now: Instant) {
        if self.awaiting.is_full() {
            return self.egress.drop(frame, Verdict::Unshared);
        }
        self.awaiting.push(Awaiting { frame, meta: *meta, until: now + PATIENCE, in_force: view.in_force });
    }

    /// What is to be done about shared state in a turn, and packets that waited for it. `true` if there is more to do at once.
    pub fn share(&mut self, view: &View, now: Instant) -> bool {
        let Self { shared, sessions, egress, .. } = self;
        let more = shared.turn(view, sessions, egress, now);
        if shared.runs() {
            egress.counters.view.set(view.version);
        }
        if !self.awaiting.is_empty() {
            self.retry_awaiting(view, now);
        }
        more
    }

    /// Packets that have waited go on, or wait until they have waited for too long.
    #[cold]
    fn retry_awaiting(&mut self, view: &View, now: Instant) {
        for Awaiting { frame, mut meta, until, in_force } in std::mem::take(&mut self.awaiting) {
            if in_force != view.in_force {
                meta.sender_knows = Ordering::Less;
            }
            if now >= until {
                self.egress.drop(frame, Verdict::Unshared);
                continue;
            }
            let before = self.awaiting.len();
            self.packet(view, frame, &meta, now);
            if let Some(last) = self.awaiting.get_mut(before) {
                last.until = until;
            }
        }
    }

    /// A message of shared state from another node.
    pub fn records(&mut self, view: &View, frame: P::Frame, offset: usize, now: Instant) {
        let message = frame.head().get(offset..).unwrap_or_default();
        let Ok((head, records)) = Records::parse(message, view.auth_key) else {
            return self.egress.drop(frame, Verdict::ControlRefused);
        };
        if head.to != self.id && head.receiver == view.me && head.to.0 < view.this_node().workers {
            return self.egress.hand(head.to, Handoff::Records(frame, offset));
        }
        if let Err(verdict) = self.shared.receive(view, &mut self.egress, &head, records, now) {
            self.egress.drop(frame, verdict);
        }
    }

    /// Balances a packet without state: also without a lease, unless the configuration wants one for that, too.
    #[inline(always)]
    fn stateless(
        &mut self,
        view: &View,
        frame: P::Frame,
        meta: &Meta,
        server: VirtualServerId,
        now: Instant,
    ) {
        if !view.stateless_without_lease && !self.egress.promises.may(now) {
            return self.egress.drop(frame, Verdict::NoLease);
        }
        match select::real_server(view, server, meta) {
            Ok(real) => rewrite::forward(view, &mut self.egress, frame, meta, real, None, now),
            Err(verdict) => self.egress.drop(frame, verdict),
        }
    }

    /// A packet without a session here. Not in line: it is long, and most packets have one.
    #[inline(never)]
    fn stranger(&mut self, view: &View, frame: P::Frame, meta: &Meta, now: Instant) {
        let decision = steer::decide(view, &mut self.steering, &self.egress.counters, self.id, meta, now);
        let ends_here = matches!(
            decision,
            Ok(Decision::Open(_) | Decision::Ask(..) | Decision::Return(_)) | Err(Verdict::NoSession)
        );
        let asks = matches!(decision, Ok(Decision::Ask(..) | Decision::Return(_)) | Err(Verdict::NoOwner));
        let opens = matches!(decision, Ok(Decision::Open(_)));
        let inherits = ends_here && !self.shared.rests() && self.inherits(view, meta, opens);
        if inherits || asks && self.orphaned(view, meta, now) {
            return self.hold(view, frame, meta, now);
        }
        match decision {
            Ok(Decision::Open(server)) => {
                let kept = match self.kept(view, server, meta, now) {
                    Affinity::Server(real) => Some(real),
                    Affinity::None => None,
                    Affinity::Waits => return self.hold(view, frame, meta, now),
                };
                let promises = (&*self.egress.counters, &mut self.egress.promises);
                let tables = (&mut self.sessions, &mut self.shared);
                match select::open(view, tables, promises, (server, kept), meta, now) {
                    Ok(Opened::Session(id)) => {
                        let session = *self.sessions.flows().get(id);
                        rewrite::forward(
                            view,
                            &mut self.egress,
                            frame,
                            meta,
                            session.real,
                            Some(&session),
                            now,
                        );
                    }
                    Ok(Opened::Stateless(real)) => {
                        rewrite::forward(view, &mut self.egress, frame, meta, real, None, now);
                    }
                    Err(verdict) => self.egress.drop(frame, verdict),
                }
            }
            Ok(Decision::Stateless(server)) => self.stateless(view, frame, meta, server, now),
            Ok(Decision::Worker(worker)) => {
                let meta = Meta { stage: meta.stage.max(Stage::Owner), ..*meta };
                self.egress.hand(worker, Handoff::Packet(frame, meta, view.in_force));
            }
            Ok(Decision::Node(owner)) => backplane::steer(view, &mut self.egress, frame, meta, owner, now),
            Ok(Decision::Ask(stage, node)) => {
                backplane::ask(view, &mut self.egress, frame, meta, (stage, node), now);
            }
            Ok(Decision::Return(owner)) => {
                backplane::give_back(view, &mut self.egress, frame, meta, owner, now);
            }
            Err(verdict) => self.egress.drop(frame, verdict),
        }
    }

    fn close(&mut self, view: &View, id: EntryId) {
        let (key, session) = (*self.sessions.flows().key(id), *self.sessions.flows().get(id));
        if session.state == State::Elsewhere {
            return self.shared.unmark(view, &mut self.sessions, id);
        }
        self.shared.ended(view, id, &key, &session);
        self.sessions.close(id, select::names(view, &key, &session));
        select::gone(&self.egress.counters, &session);
        self.egress.counters.sessions_closed.inc();
    }

    /// Begins another life of the node: what was promised in the last one is void, since others have taken it over (MECHANISMS
    /// §0). The one place where a turn takes as long as the table is large: the node doesn't serve yet.
    #[cold]
    pub fn begin(&mut self, view: &View) {
        self.egress.drop_promised();
        for _ in 0..self.sessions.flows().capacity() {
            if let Some(id) = self.sessions.step() {
                self.close(view, id);
            }
        }
        self.shared.begin(view);
        for _ in 0..self.steering.capacity() {
            if let Some(id) = self.steering.step() {
                self.steering.remove(view.hash_key.flow(self.steering.key(id)), id);
            }
        }
    }

    /// Visits the next entry; gives the session there, if one stays.
    #[inline]
    pub fn expire_session(&mut self, view: &View, now: Instant) -> Option<EntryId> {
        let id = self.sessions.step()?;
        let session = self.sessions.flows().get(id);
        let real = &view.services.real_servers[session.real.index()];
        if session.state == State::Elsewhere {
            if real.is_gone() || !self.shared.keeps(view, session) {
                self.shared.unmark(view, &mut self.sessions, id);
            }
            return None;
        }
        let server = &view.services.virtual_servers[real.virtual_server.index()];
        let idle = now.tick().since(session.last_seen) > track::lifetime(session, &view.timeouts, server);
        let over = idle || real.is_gone() || planted::is(Bug::LiveSessionExpires);
        if over {
            self.close(view, id);
        } else if let Some(persistence) = server.persistence
            && session.state == State::Established
            && self.egress.promises.until() > now
        {
            self.shared.renew(id, persistence, now);
        }
        (!over).then_some(id)
    }

    /// Visits the next entry there.
    #[inline]
    pub fn expire_steering(&mut self, view: &View, now: Instant) {
        let Some(id) = self.steering.step() else { return };
        let session = self.steering.get(id);
        let dead = !steer::lives(view, session) && !planted::is(Bug::SteeringOutlivesPeer);
        if dead || now.tick().since(session.last_seen) > view.timeouts.steering {
            let hash = view.hash_key.flow(self.steering.key(id));
            self.steering.remove(hash, id);
        }
    }
}

/// Whether a session that both ends have closed is in a bucket that this node has given away, or of a group that its virtual server
/// has left: the next connection is the owner's, and begins with an address of the group's, or a client that uses its ports again
/// and again would keep the old one for ever. After a mere RST, or one FIN, which others can forge, it stays.
#[cold]
fn leaves(view: &View, session: &Session) -> bool {
    let id = view.services.real_servers[session.real.index()].virtual_server;
    let server = &view.services.virtual_servers[id.index()];
    let (placement, bucket) = (&view.buckets[server.group.index()].placement, snat_bucket(session.snat_port));
    let elsewhere = placement.previous(bucket) == Some(view.me)
        || server.former.is_some() && placement.owner(bucket) != Some(view.me);
    session.state == State::Closed
        && (elsewhere || view.services.snats[session.snat.index()].group != server.group)
}
