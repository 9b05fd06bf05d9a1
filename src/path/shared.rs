//! Sessions that other nodes can go on with: those of NATed flows, each of which is an entry of the shared state, too (MECHANISMS §4
//! point 5). A bucket's owner writes one once the real server has answered, and lets the client's part of the handshake go on when
//! every complete copy has it. Who takes the bucket over when its owner dies makes sessions of the entries.

mod clients;
mod inherit;

pub use self::clients::{Affinity, Client};
use self::inherit::Inheritance;
use super::counters::Counters;
use super::egress::Egress;
use super::message::Event;
use super::port::Port;
use super::post::Post;
use super::verdict::Verdict;
use crate::asdr::{self, Answer, Bounds, Key, Kind, Moment, Operation, Refusal, Seen, Shard, Ticket, Value};
use crate::base::limits::BUCKETS;
use crate::base::{
    Addr, Bucket, FlowKey, GroupId, HashKey, Incarnation, Instant, NodeId, RealServerId, SnatId, WorkerId,
};
use crate::table::flow::EntryId;
use crate::table::session::{Session, SessionTable, State};
use crate::view::{Learnt, View, snat_bucket};
use crate::wire::control::Records;
use crate::wire::state::Record;
use arrayvec::ArrayVec;
use std::collections::VecDeque;

/// Buckets of which a turn takes up what a new View says.
const ADOPTIONS: usize = 256;
/// What sessions want done that waits for the end of a burst, at most.
const WISHES: usize = 1024;
/// Nobody waits for the answer.
const NOBODY: Ticket = Ticket(u64::MAX);
/// Nobody does for that of a client's entry, but what has no room is counted.
const CLIENT: Ticket = Ticket(u64::MAX - 1);

/// What a session wants done to its entry.
enum Wish {
    /// It shall be at all complete copies.
    Store(EntryId),
    /// The flow has ended, whose entry says this.
    Delete(GroupId, FlowKey, Value),
    /// Somebody has to be asked which real server a client has.
    Find(Client),
    /// Its client keeps its real server.
    Keep(EntryId),
}

/// What sessions want of the shared state, and what they have: entries that were asked for, and those at all complete copies.
struct Wanted {
    asked: Marks,
    stored: Marks,
    wishes: VecDeque<Wish>,
}

impl Wanted {
    /// A session has ended.
    fn ended(&mut self, view: &View, id: EntryId, flow: &FlowKey, session: &Session) {
        if self.asked.has(id.number()) {
            self.asked.set(id.number(), false);
            self.stored.set(id.number(), false);
            if self.wishes.len() < WISHES {
                self.wishes.push_back(Wish::Delete(group_of(view, session), *flow, value(session)));
            }
        }
    }
}

/// How far a session's entry is: a bit each.
struct Marks(Box<[u64]>);

impl Marks {
    fn new(sessions: usize) -> Self {
        Self(vec![0; sessions.div_ceil(64)].into())
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, at: usize, on: bool) {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        *word = if on { *word | bit } else { *word & !bit };
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// How far the latest View's chains are taken up.
#[derive(Clone, Copy, Debug, Default)]
struct Adoption {
    /// See [`View::placed`].
    placed: u64,
    /// The next group and bucket; none: all are.
    next: Option<(usize, usize)>,
}

/// See the module's text.
pub struct Shared {
    me: WorkerId,
    /// Groups that there is room for.
    groups: usize,
    shard: Shard,
    post: Post,
    wanted: Wanted,
    adoption: Adoption,
    /// The version of each group's buckets that was taken up last.
    adopted: Box<[u64]>,
    /// Who was the previous owner of each bucket, and in which life, by what was taken up last.
    previous: Box<[Option<(NodeId, Incarnation)>]>,
    inherited: VecDeque<(GroupId, Bucket, Inheritance)>,
    inheriting: Marks,
    marking: Marks,
    /// Sessions that are [`State::Elsewhere`].
    elsewhere: usize,
}

/// The name of a flow's entry: the client's tuple.
fn key(flow: &FlowKey) -> Key {
    let mut bytes = ArrayVec::new();
    bytes.extend(flow.src.0);
    bytes.extend(flow.dst.0);
    bytes.extend(flow.src_port.to_be_bytes());
    bytes.extend(flow.dst_port.to_be_bytes());
    bytes.push(flow.protocol);
    Key { kind: Kind::Nat, bytes }
}

/// The reverse.
fn flow(key: &[u8]) -> Option<FlowKey> {
    let (addresses, rest) = key.split_at_checked(32)?;
    let &[a, b, c, d, protocol] = rest else { return None };
    let address = |at: usize| addresses[at..at + 16].try_into().ok().map(Addr);
    let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    (protocol != 0).then_some(FlowKey::new(address(0)?, address(16)?, from, to, protocol))
}

/// What an entry says: real server, SNAT address and port.
fn value(session: &Session) -> Value {
    let mut bytes = Value::new();
    bytes.extend(session.real.0.to_be_bytes());
    bytes.extend(session.snat.0.to_be_bytes());
    bytes.extend(session.snat_port.to_be_bytes());
    bytes
}

/// The bucket of a flow whose entry says this.
fn bucket_of(value: &[u8]) -> Bucket {
    let port = value.last_chunk().copied().map_or(0, u16::from_be_bytes);
    snat_bucket(port)
}

/// The session that an entry says, by a View; none if that doesn't have what it names.
fn session(view: &View, value: &[u8], now: Instant) -> Option<Session> {
    let &[a, b, c, d, e, f, g, h] = value else { return None };
    let real = RealServerId(u32::from_be_bytes([a, b, c, d]));
    let snat = SnatId(u16::from_be_bytes([e, f]));
    let services = &view.services;
    let known = real.index() < services.real_servers.len() && snat.index() < services.snats.len();
    if !known || services.real_servers[real.index()].is_gone() {
        return None;
    }
    let mut session = Session::default();
    (session.real, session.snat, session.snat_port) = (real, snat, u16::from_be_bytes([g, h]));
    (session.state, session.last_seen) = (State::Established, now.tick());
    Some(session)
}

impl Shared {
    /// Of a worker with so many sessions; nothing is shared yet. All its memory is allocated here.
    pub fn new(me: NodeId, worker: WorkerId, hash_key: HashKey, sessions: usize, bounds: Bounds) -> Self {
        Self {
            me: worker,
            groups: bounds.groups,
            shard: Shard::new(me, hash_key, bounds),
            post: Post::default(),
            wanted: Wanted {
                asked: Marks::new(sessions),
                stored: Marks::new(sessions),
                wishes: VecDeque::with_capacity(WISHES),
            },
            adoption: Adoption::default(),
            adopted: vec![0; bounds.groups].into(),
            previous: vec![None; bounds.groups * BUCKETS].into(),
            inherited: VecDeque::with_capacity(bounds.groups * BUCKETS),
            inheriting: Marks::new(bounds.groups * BUCKETS),
            marking: Marks::new(bounds.groups * BUCKETS),
            elsewhere: 0,
        }
    }

    /// A new View: what it says of chains is taken up in the next turns. Until that has been done this worker doesn't run it.
    pub fn look_at(&mut self, view: &View) {
        if self.adoption.placed != view.placed {
            self.adoption = Adoption { placed: view.placed, next: Some((0, 0)) };
        }
    }

    /// Whether the latest View is taken up.
    pub fn runs(&self) -> bool {
        self.adoption.next.is_none()
    }

    /// Another life of the node begins: what it had is void.
    pub fn begin(&mut self, view: &View) {
        self.shard.forget();
        self.wanted.wishes.clear();
        self.inherited.clear();
        for marks in
            [&mut self.wanted.asked, &mut self.wanted.stored, &mut self.inheriting, &mut self.marking]
        {
            marks.clear();
        }
        // There is room for many more groups than most clusters have.
        let used = self.adopted.iter().rposition(|placed| *placed != 0).map_or(0, |last| last + 1);
        let used = used.max(self.adoption.next.map_or(0, |(group, _)| group + 1)).min(self.groups);
        self.previous[..used * BUCKETS].fill(None);
        self.adopted.fill(0);
        self.adoption = Adoption { placed: view.placed, next: Some((0, 0)) };
    }

    /// The server has answered a NATed flow: its session is to be at all complete copies.
    pub fn store(&mut self, id: EntryId) {
        if !self.wanted.asked.has(id.number()) && self.wanted.wishes.len() < WISHES {
            self.wanted.asked.set(id.number(), true);
            self.wanted.wishes.push_back(Wish::Store(id));
        }
    }

    /// Whether it is there, or nothing is shared by the View.
    #[inline(always)]
    pub fn is_stored(&self, view: &View, session: &Session, id: EntryId) -> bool {
        let shares = || {
            let group = group_of(view, session).index();
            group < self.groups && view.buckets[group].chains.is_some()
        };
        self.wanted.stored.has(id.number()) || self.groups == 0 || !shares()
    }

    /// A session has ended.
    pub fn ended(&mut self, view: &View, id: EntryId, flow: &FlowKey, session: &Session) {
        self.wanted.ended(view, id, flow, session);
    }

    /// What a turn has to do besides packets: what the View says is taken up, what sessions want is asked for, what was answered is
    /// noted, and what is written is sent. `true` if there is more to do at once.
    pub fn turn<P: Port>(
        &mut self,
        view: &View,
        sessions: &mut SessionTable,
        egress: &mut Egress<P>,
        now: Instant,
    ) -> bool {
        if self.groups == 0 {
            self.adoption.next = None;
            return false;
        }
        self.adopt(view, egress, now);
        self.wish(view, sessions, egress, now);
        self.inherit(view, sessions, egress, now);
        let m = moment(egress, now);
        let mut out = self.post.open(view, egress, self.me, now);
        self.shard.turn(m, &mut out);
        out.flush();
        while let Some((ticket, answer)) = self.shard.answer() {
            self.answered(view, sessions, &egress.counters, ticket, &answer);
        }
        while let Some(event) = self.shard.event() {
            egress.tell(match event {
                asdr::Event::Complete { group, bucket, epoch, copy } => {
                    Event::Learnt(group, Learnt { bucket, epoch, node: copy.node, stay: copy.since })
                }
                asdr::Event::Mended { group, bucket, copy, entries } => {
                    egress.counters.state_mended.add(u64::from(entries));
                    Event::Mended { group, bucket, copy, entries }
                }
            });
        }
        !self.rests()
    }

    /// A message of another node's worker, whose code is right.
    pub fn receive<P: Port>(
        &mut self,
        view: &View,
        egress: &mut Egress<P>,
        head: &Records,
        mut records: &[u8],
        now: Instant,
    ) -> Result<(), Verdict> {
        self.post.admit(view, head)?;
        egress.counters.state_rx.inc();
        let m = moment(egress, now);
        let mut out = self.post.open(view, egress, self.me, now);
        while !records.is_empty() {
            let (record, behind) = Record::parse(records).map_err(|_| Verdict::ControlRefused)?;
            self.shard.receive(m, head.sender.0, &record, &mut out);
            records = behind;
        }
        Ok(())
    }

    /// Takes up what the latest View says of some buckets.
    fn adopt<P: Port>(&mut self, view: &View, egress: &mut Egress<P>, now: Instant) {
        let Some((mut group, mut bucket)) = self.adoption.next else { return };
        let m = moment(egress, now);
        for _ in 0..ADOPTIONS {
            let Some(buckets) = view.buckets.get(group).filter(|_| group < self.groups) else {
                self.adoption.next = None;
                return;
            };
            let since = view.placed_by_group[group];
            match &buckets.chains {
                Some(_) if self.adopted[group] == since => bucket = BUCKETS - 1,
                Some(chains) if view.worker_of(view.me, Bucket(bucket as u16)) == self.me => {
                    let at = (GroupId(group as u16), Bucket(bucket as u16));
                    self.note_previous(view, at, chains);
                    let mut out = self.post.open(view, egress, self.me, now);
                    self.shard.adopt(m, at.0, at.1, &chains[bucket], &mut out);
                }
                Some(_) => {}
                None => bucket = BUCKETS - 1,
            }
            if bucket + 1 < BUCKETS {
                bucket += 1;
            } else {
                self.adopted[group] = since;
                (group, bucket) = (group + 1, 0);
            }
        }
        self.adoption.next = Some((group, bucket));
    }

    /// Whether nothing is left to be taken up or inherited.
    #[inline]
    pub fn rests(&self) -> bool {
        self.runs() && self.inherited.is_empty()
    }

    /// Whether this node has a copy of a NATed flow's state whose owner is dead, and in whose place none serves yet.
    #[cold]
    pub fn knows_orphan(
        &self,
        view: &View,
        (group, bucket): (GroupId, Bucket),
        flow: &FlowKey,
        now: Instant,
    ) -> bool {
        let chains = view.buckets.get(group.index()).and_then(|buckets| buckets.chains.as_ref());
        let Some(chains) = chains.filter(|_| group.index() < self.groups) else { return false };
        let has = || matches!(self.shard.look(now, group, bucket, &key(flow)), Seen::Value(..));
        chains[bucket.index()].owner.is_none() && has()
    }

    /// Does what sessions want.
    fn wish<P: Port>(
        &mut self,
        view: &View,
        sessions: &mut SessionTable,
        egress: &mut Egress<P>,
        now: Instant,
    ) {
        let m = moment(egress, now);
        // What is wanted again is so for the next turn.
        for _ in 0..self.wanted.wishes.len() {
            let Some(wish) = self.wanted.wishes.pop_front() else { return };
            match wish {
                Wish::Store(id) if self.wanted.asked.has(id.number()) => {
                    let (flow, session) = (*sessions.flows().key(id), *sessions.flows().get(id));
                    let place = (group_of(view, &session), snat_bucket(session.snat_port));
                    let set = Operation::Set { value: value(&session), ticks: 0 };
                    let ticket = ticket(view, &flow, id);
                    let mut out = self.post.open(view, egress, self.me, now);
                    if let Some(answer) = self.shard.ask(m, place, &key(&flow), set, ticket, &mut out) {
                        self.answered(view, sessions, &egress.counters, ticket, &answer);
                    }
                }
                Wish::Store(_) => {}
                Wish::Find(client) => self.find(view, &client, egress, now),
                Wish::Keep(id) => self.keep_now(view, id, sessions, egress, now),
                Wish::Delete(group, flow, value) => {
                    let place = (group, bucket_of(&value));
                    let (name, mut out) = (key(&flow), self.post.open(view, egress, self.me, now));
                    match self.shard.ask(m, place, &name, Operation::Delete, NOBODY, &mut out) {
                        // Or the flow would come to life again elsewhere. What is wanted later of the same one stays behind that.
                        Some(Answer::Refused(Refusal::Unleased | Refusal::Busy)) => {
                            return self.wanted.wishes.push_front(Wish::Delete(group, flow, value));
                        }
                        Some(Answer::Refused(Refusal::NotOwner)) => {
                            self.shard.ask_owner_to_delete(place, &name, &value, &mut out);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// What has become of an entry that a session asked for.
    fn answered(
        &mut self,
        view: &View,
        sessions: &SessionTable,
        counters: &Counters,
        to: Ticket,
        answer: &Answer,
    ) {
        if to == CLIENT && *answer == Answer::Refused(Refusal::Full) {
            counters.clients_unshared.inc();
        }
        let Some(id) = EntryId::numbered(to.0 as u32, sessions.flows().capacity()) else { return };
        // The entry may be another session's by now.
        if !self.wanted.asked.has(id.number()) || ticket(view, sessions.flows().key(id), id) != to {
            return;
        }
        let session = sessions.flows().get(id);
        let mine = || {
            let bucket = snat_bucket(session.snat_port);
            let chains = view.buckets[group_of(view, session).index()].chains.as_ref();
            chains.is_some_and(|chains| chains[bucket.index()].is_owned_by(view.me))
        };
        match answer {
            Answer::Done(_) => self.wanted.stored.set(id.number(), true),
            // Where the bucket is another's, nobody waits for it here; unless it is about to come, or this worker has yet to take up
            // that it has.
            Answer::Refused(Refusal::NotOwner) if !mine() && view.decided == view.in_force => {
                self.wanted.stored.set(id.number(), true);
            }
            // It goes on as flows do that no other node has.
            Answer::Refused(Refusal::Full) => {
                self.wanted.stored.set(id.number(), true);
                counters.sessions_unshared.inc();
            }
            // It may be written, and has to be deleted then.
            Answer::Unknown(_) if self.wanted.wishes.len() < WISHES => {
                self.wanted.wishes.push_back(Wish::Store(id));
            }
            // The next packet that needs it asks again.
            _ => self.wanted.asked.set(id.number(), false),
        }
    }
}

/// Now, and until when the node may answer.
fn moment<P: Port>(egress: &Egress<P>, now: Instant) -> Moment {
    Moment { now, lease: egress.promises.until() }
}

/// A bucket's number among those of all groups.
fn place(group: GroupId, bucket: Bucket) -> usize {
    group.index() * BUCKETS + bucket.index()
}

/// The group of a session's SNAT address, which may be the one that its virtual server has left.
pub fn group_of(view: &View, session: &Session) -> GroupId {
    view.services.snats[session.snat.index()].group
}

/// Names a session: its entry, and some of its hash.
fn ticket(view: &View, flow: &FlowKey, id: EntryId) -> Ticket {
    Ticket((view.hash_key.flow(flow).0 << 32) | id.number() as u64)
}
