//! A new flow gets its real server, and if NATed its SNAT address and port.

use super::counters::Counters;
use super::meta::Meta;
use super::promise::Promises;
use super::shared::Shared;
use super::track;
use super::verdict::Verdict;
use crate::base::hash::mix;
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::{Addr, Bucket, FlowHash, FlowKey, Instant, NodeId, RealServerId, SnatId, VirtualServerId};
use crate::table::flow::EntryId;
use crate::table::session::{Names, Session, SessionTable, State};
use crate::view::{Forward, Group, View};
use crate::wire::backplane::Stage;
use crate::wire::protocol;

/// Ports of one SNAT address that name one bucket: those below 4096 are never used.
const PORTS_A_BUCKET: usize = (1 << 16) / BUCKETS - 1;

/// SNAT addresses that are tried for a flow.
const SNAT_ADDRESSES: usize = 16;

/// How a new flow goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// With a session.
    Session(EntryId),
    /// To this real server, without one.
    Stateless(RealServerId),
}

/// The real server that the Maglev table names for a packet's flow. What a peer says of the hash is good for a look-up; that by
/// which a flow is balanced, or a session kept, must be right.
#[inline(always)]
pub fn real_server(view: &View, id: VirtualServerId, meta: &Meta) -> Result<RealServerId, Verdict> {
    check_hash(view, meta)?;
    let hash = view.hash_of(id, &meta.key, meta.hash);
    view.services.virtual_servers[id.index()].maglev.lookup(hash.slot()).ok_or(Verdict::NoRealServer)
}

/// That a peer has said the right hash.
#[inline(always)]
fn check_hash(view: &View, meta: &Meta) -> Result<(), Verdict> {
    let wrong = meta.stage != Stage::Receive && view.hash_key.flow(&meta.key) != meta.hash;
    if wrong { Err(Verdict::BackplaneMalformed) } else { Ok(()) }
}

/// The hashes under which a session stands.
#[inline]
pub fn names(view: &View, key: &FlowKey, session: &Session) -> Names {
    let reply = (session.snat_port != 0)
        .then(|| view.hash_key.flow(&view.reply_key(session.real, session.snat, session.snat_port)));
    Names { forward: view.hash_key.flow(key), reply }
}

/// Opens a session for the first packet of a flow that this worker owns, to the real server that its client has kept, if any. A
/// flow that needs no NAT goes on without one when there is no room, or when its first packet is its last. With NAT the node
/// promises a port, which it may only under its lease.
pub fn open(
    view: &View,
    (sessions, shared): (&mut SessionTable, &mut Shared),
    (counters, promises): (&Counters, &mut Promises),
    (id, kept): (VirtualServerId, Option<RealServerId>),
    meta: &Meta,
    now: Instant,
) -> Result<Opened, Verdict> {
    let real = match kept {
        // It may have no weight, as all others may.
        Some(real) => check_hash(view, meta).map(|()| real)?,
        None => real_server(view, id, meta)?,
    };
    let server = &view.services.virtual_servers[id.index()];
    let mut session = track::first(meta.key.protocol, meta.tcp_flags);
    (session.real, session.last_seen) = (real, now.tick());
    let mut names_here = Names { forward: meta.hash, reply: None };
    if server.forward == Forward::Nat {
        if meta.key.protocol == protocol::TCP && !track::opens(meta.key.protocol, meta.tcp_flags) {
            // Its SNAT port is lost with its session; another one would be another connection to the real server.
            return Err(Verdict::NoSession);
        }
        let bucket = view.bucket(id, &meta.key, meta.hash);
        if view.quarantined(server.group, bucket, now) || !promises.may(now) {
            return Err(Verdict::NoLease);
        }
        shared.replace(view, sessions, meta);
        let (snat, port, reply) = snat(view, (sessions, shared), counters, (real, bucket), meta, now)
            .ok_or(Verdict::SnatExhausted)?;
        (session.snat, session.snat_port, names_here.reply) = (snat, port, Some(reply));
    } else if session.state != State::HalfOpen || !view.this_node().up {
        // Of a lone RST or FIN little will follow. What a node that isn't let in kept would be at odds, once it is, with what
        // the others have by then.
        return Ok(Opened::Stateless(real));
    }
    let names_of = |key: &FlowKey, session: &Session| names(view, key, session);
    let opened = sessions.open(names_here, meta.key, session, names_of, |id, key, session| {
        counters.sessions_evicted.inc();
        gone(counters, session);
        shared.ended(view, id, key, session);
    });
    match opened {
        Ok(entry) => {
            counters.sessions_opened.inc();
            if kept.is_some() {
                counters.clients_kept.inc();
            }
            connected(counters, real);
            counters.real_servers[real.index()].sessions.inc();
            Ok(Opened::Session(entry))
        }
        Err(_) if server.forward == Forward::Nat => Err(Verdict::SessionTableFull),
        Err(_) => {
            counters.sessions_refused.inc();
            Ok(Opened::Stateless(real))
        }
    }
}

/// Counts a new connection to a real server.
pub fn connected(counters: &Counters, real: RealServerId) {
    counters.real_servers[real.index()].connections.inc();
}

/// Counts a session that is gone.
pub fn gone(counters: &Counters, session: &Session) {
    counters.real_servers[session.real.index()].sessions.sub(1);
}

/// A SNAT address and port whose reply tuple is free, with that tuple's hash. The port's low 12 bits are the flow's bucket,
/// so that replies find this node and worker; as this worker alone owns the bucket, the session table is the list of ports
/// in use. (While a bucket moves between two nodes, each leaves the addresses that the other prefers to that one, if there
/// are others.) Where to begin differs by flow and time. If all are taken, the one goes that is closed, else half-open, for the
/// longest. At most 15 probes each of [`SNAT_ADDRESSES`].
fn snat(
    view: &View,
    (sessions, shared): (&mut SessionTable, &mut Shared),
    counters: &Counters,
    (real, place): (RealServerId, Bucket),
    meta: &Meta,
    now: Instant,
) -> Option<(SnatId, u16, FlowHash)> {
    let server = &view.services.real_servers[real.index()];
    let group_id = view.services.virtual_servers[server.virtual_server.index()].group;
    let group = &view.services.groups[group_id.index()];
    let bucket = Bucket(place.0 ^ u16::from(planted::is(Bug::WrongPortClass)));
    let start = mix(meta.hash.0 ^ now.0) as usize;
    // This node's own come first; where there are more than are tried, flows begin at different ones.
    let (own, others) = group.snats.split_at(group.own_snats);
    let placement = &view.buckets[group_id.index()].placement;
    // The other of the two. Without a previous owner, one that is going to have been it: this node goes by what isn't in force yet.
    let other = |node: &NodeId| *node != view.me;
    let left_to = placement
        .previous(place)
        .filter(other)
        .or_else(|| placement.owner(place).filter(other))
        .and_then(|node| left_to(view, group, server.address, node));
    let (mut tries, mut spare) = (0, None::<(EntryId, u16, FlowHash)>);
    // One plain loop: chained and filtered iterators cost more, which every new connection pays.
    for n in 0..group.snats.len() {
        let (list, n) = if n < own.len() { (own, n) } else { (others, n - own.len()) };
        let snat = list[(start + n) % list.len()];
        let of = &view.services.snats[snat.index()];
        if of.address.is_v4() != server.address.is_v4() || left_to == Some(of.node) {
            continue;
        }
        if tries == SNAT_ADDRESSES {
            break;
        }
        tries += 1;
        for i in 0..PORTS_A_BUCKET {
            let class = (start + i) % PORTS_A_BUCKET + 1;
            let port = port(class, bucket);
            let key = view.reply_key(real, snat, port);
            let hash = view.hash_key.flow(&key);
            let taken = sessions.find(hash, &key, |s| view.reply_key(s.real, s.snat, s.snat_port) == key);
            let Some((id, _)) = taken else { return Some((snat, port, hash)) };
            let rank = |id| {
                let session = sessions.flows().get(id);
                (matches!(session.state, State::HalfOpen | State::Answered), session.last_seen)
            };
            if sessions.flows().get(id).state.unproven()
                && spare.is_none_or(|(other, ..)| rank(id) < rank(other))
            {
                spare = Some((id, port, hash));
            }
        }
    }
    let (id, port, hash) = spare?;
    let (key, session) = (*sessions.flows().key(id), *sessions.flows().get(id));
    shared.ended(view, id, &key, &session);
    sessions.close(id, names(view, &key, &session));
    gone(counters, &session);
    counters.sessions_evicted.inc();
    Some((session.snat, port, hash))
}

/// The other node that a bucket moves between, if the SNAT addresses that it advertises are to be left to it: if the group has
/// others of the family of `real`.
#[cold]
fn left_to(view: &View, group: &Group, real: Addr, other: NodeId) -> Option<NodeId> {
    let mut snats = group.snats.iter().map(|id| &view.services.snats[id.index()]);
    snats.any(|snat| snat.address.is_v4() == real.is_v4() && snat.node != other).then_some(other)
}

/// The ports of a SNAT address that name `bucket`, ascending.
pub fn ports(bucket: Bucket) -> impl Iterator<Item = u16> {
    (1..=PORTS_A_BUCKET).map(move |class| port(class, bucket))
}

/// One of the ports that name `bucket`; `class` is 1 to [`PORTS_A_BUCKET`].
#[inline(always)]
fn port(class: usize, bucket: Bucket) -> u16 {
    (class * BUCKETS) as u16 | bucket.0
}
