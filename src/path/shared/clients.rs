//! Clients that keep their real server (MECHANISMS §3 point 3): an entry for each, in the bucket in which all its flows are. It is
//! written once a connection is established, and again while there are any.

use super::{CLIENT, NOBODY, Shared, WISHES, Wish, moment};
use crate::asdr::{Key, Kind, Operation, Seen, Value};
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, FlowKey, GroupId, Instant, RealServerId, VirtualServerId};
use crate::path::egress::Egress;
use crate::path::port::Port;
use crate::table::flow::EntryId;
use crate::table::session::{SessionTable, State};
use crate::view::{Persistence, View};
use arrayvec::ArrayVec;

/// A client's timeout has so many times at which each of its connections renews its entry.
const RENEWALS: u32 = 8;
/// Ticks in which every session is come by at least once: two rounds of a second.
const VISITED: u32 = 16;

/// What is known of the real server that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// This one.
    Server(RealServerId),
    /// None, or it is lost: it gets one.
    None,
    /// Another node is asked.
    Waits,
}

/// A client of a virtual server, and where its entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    server: VirtualServerId,
    /// See [`Persistence::client`].
    flow: FlowKey,
    place: (GroupId, Bucket),
}

impl Client {
    /// Of a flow to a virtual server; none if its clients keep nothing.
    #[inline]
    pub fn of(view: &View, id: VirtualServerId, flow: &FlowKey) -> Option<Self> {
        let server = &view.services.virtual_servers[id.index()];
        let flow = server.persistence?.client(flow);
        Some(Self { server: id, flow, place: (server.group, view.hash_key.flow(&flow).bucket()) })
    }

    /// The name of its entry: virtual server and prefix.
    fn key(&self) -> Key {
        let mut bytes = ArrayVec::new();
        bytes.extend(self.server.0.to_be_bytes());
        bytes.extend(self.flow.src.0);
        Key { kind: Kind::Persistence, bytes }
    }
}

/// The real server that an entry says, if that takes flows still.
fn server(view: &View, client: &Client, value: &[u8]) -> Option<RealServerId> {
    let real = RealServerId(u32::from_be_bytes(value.try_into().ok()?));
    let all = &view.services.real_servers;
    let known = (real.index() < all.len()).then(|| &all[real.index()])?;
    (known.up && !known.is_gone() && known.virtual_server == client.server).then_some(real)
}

impl Shared {
    /// The real server that a client has. If another node has to be asked that is done, should this one have a `lease`; without one
    /// nobody may say.
    pub fn kept(&mut self, view: &View, client: Client, leased: bool, now: Instant) -> Affinity {
        let (group, bucket) = client.place;
        let forgotten = planted::is(Bug::ClientForgotten);
        if forgotten || group.index() >= self.groups || view.buckets[group.index()].chains.is_none() {
            return Affinity::None;
        }
        match self.shard.look(now, group, bucket, &client.key()) {
            Seen::Value(value, _) => server(view, &client, value).map_or(Affinity::None, Affinity::Server),
            Seen::Nothing => Affinity::None,
            _ if !leased => Affinity::None,
            Seen::Asked => Affinity::Waits,
            Seen::Unknown => {
                if self.wanted.wishes.len() < WISHES {
                    self.wanted.wishes.push_back(Wish::Find(client));
                }
                Affinity::Waits
            }
        }
    }

    /// What this worker knows of the real server that a client has.
    pub fn known_of(&self, view: &View, client: &Client, now: Instant) -> Option<RealServerId> {
        let (group, bucket) = client.place;
        match self.shard.look(now, group, bucket, &client.key()) {
            Seen::Value(value, _) => server(view, client, value),
            _ => None,
        }
    }

    /// An established session is come by, as happens about once a second: now and then its client's entry is renewed. A session's
    /// number says when, so that not all are at once.
    #[inline]
    pub fn renew(&mut self, id: EntryId, persistence: Persistence, now: Instant) {
        let part = persistence.ticks / RENEWALS;
        if part <= VISITED || (id.number() as u32).wrapping_add(now.tick().0) % part < VISITED {
            self.keep(id);
        }
    }

    /// A flow is established: its client keeps its real server. Where much waits this is left for another time: it comes again by
    /// itself, and others' wishes don't.
    #[cold]
    pub fn keep(&mut self, id: EntryId) {
        if self.groups > 0 && self.wanted.wishes.len() < WISHES / 2 {
            self.wanted.wishes.push_back(Wish::Keep(id));
        }
    }

    /// Asks another node for a client's entry. The answer is where the next one looks.
    pub(super) fn find<P: Port>(
        &mut self,
        view: &View,
        client: &Client,
        egress: &mut Egress<P>,
        now: Instant,
    ) {
        let m = moment(egress, now);
        let mut out = self.post.open(view, egress, self.me, now);
        self.shard.ask(m, client.place, &client.key(), Operation::Read, NOBODY, &mut out);
    }

    /// Writes the entry of a session's client, unless that has one of another server, or one that lasts.
    pub(super) fn keep_now<P: Port>(
        &mut self,
        view: &View,
        id: EntryId,
        sessions: &SessionTable,
        egress: &mut Egress<P>,
        now: Instant,
    ) {
        let (flow, session) = (sessions.flows().key(id), sessions.flows().get(id));
        // The place may be another flow's by now, or nobody's.
        if session.state < State::Established || session.state == State::Elsewhere {
            return;
        }
        let of = view.services.real_servers[session.real.index()].virtual_server;
        let (Some(client), Some(Persistence { ticks, .. })) =
            (Client::of(view, of, flow), view.services.virtual_servers[of.index()].persistence)
        else {
            return;
        };
        let (group, bucket) = client.place;
        let lasts = match self.shard.look(now, group, bucket, &client.key()) {
            Seen::Value(value, left) => match server(view, &client, value) {
                Some(real) => real != session.real || left.is_none_or(|left| left >= ticks),
                None => false,
            },
            Seen::Nothing => false,
            // It may be another server's.
            Seen::Asked | Seen::Unknown => true,
        };
        if lasts || server(view, &client, &session.real.0.to_be_bytes()).is_none() {
            return;
        }
        let value: Value = session.real.0.to_be_bytes().into_iter().collect();
        // So it need not be written with each connection, and yet none is forgotten too early.
        let set = Operation::Set { value, ticks: ticks.saturating_add(ticks / 4) };
        let m = moment(egress, now);
        let mut out = self.post.open(view, egress, self.me, now);
        if let Some(answer) = self.shard.ask(m, client.place, &client.key(), set, CLIENT, &mut out) {
            self.answered(view, sessions, &egress.counters, CLIENT, &answer);
        }
    }
}
