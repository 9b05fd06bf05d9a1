//! Sessions that other nodes can go on with: those of NATed flows, each of which is an entry of the shared state, too (MECHANISMS §4
//! point 5). A bucket's owner writes one once the real server has answered, and lets the client's part of the handshake go on when
//! every complete copy has it. Who takes the bucket over when its owner dies makes sessions of the entries.

use super::egress::Egress;
use super::message::Event;
use super::meta::Meta;
use super::port::Port;
use super::post::Post;
use super::select;
use super::verdict::Verdict;
use crate::asdr::{self, Answer, Bounds, Key, Kind, Moment, Operation, Refusal, Shard, Ticket, Value};
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::{
    Addr, Bucket, FlowKey, GroupId, HashKey, Incarnation, Instant, NodeId, RealServerId, SnatId, WorkerId,
};
use crate::table::flow::EntryId;
use crate::table::session::{Session, SessionTable, State};
use crate::view::{Chains, Learnt, View, snat_bucket};
use crate::wire::control::Records;
use crate::wire::state::Record;
use arrayvec::ArrayVec;
use std::collections::VecDeque;

/// Buckets of which a turn takes up what a new View says.
const ADOPTIONS: usize = 256;
/// Buckets that a turn inherits, if they have no entries.
const HEIRLOOMS: usize = 16;
/// Entries of a bucket that a turn gives up.
const TAKEN: usize = 64;
/// What sessions want done that waits for the end of a burst, at most.
const WISHES: usize = 1024;
/// Nobody waits for the answer.
const NOBODY: Ticket = Ticket(u64::MAX);

/// What a session wants done to its entry.
enum Wish {
    /// It shall be at all complete copies.
    Store(EntryId),
    /// The flow has ended.
    Delete(GroupId, FlowKey),
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

/// What becomes of the entries of a bucket without a previous owner from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inheritance {
    /// He died: they are this node's sessions from now on.
    Take,
    /// He has told that none is in use any more.
    Clear,
    /// He lives and has their sessions: this node hands out other SNAT ports than theirs.
    Mark,
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
    /// Entries were asked for; and are at all complete copies.
    asked: Marks,
    stored: Marks,
    wishes: VecDeque<Wish>,
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
            asked: Marks::new(sessions),
            stored: Marks::new(sessions),
            wishes: VecDeque::with_capacity(WISHES),
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
        self.wishes.clear();
        self.inherited.clear();
        for marks in [&mut self.asked, &mut self.stored, &mut self.inheriting, &mut self.marking] {
            marks.clear();
        }
        self.previous.fill(None);
        self.adopted.fill(0);
        self.adoption = Adoption { placed: view.placed, next: Some((0, 0)) };
    }

    /// The server has answered a NATed flow: its session is to be at all complete copies.
    pub fn store(&mut self, id: EntryId) {
        if !self.asked.has(id.number()) && self.wishes.len() < WISHES {
            self.asked.set(id.number(), true);
            self.wishes.push_back(Wish::Store(id));
        }
    }

    /// Whether it is there, or nothing is shared by the View.
    pub fn is_stored(&self, view: &View, group: GroupId, id: EntryId) -> bool {
        let shares = group.index() < self.groups && view.buckets[group.index()].chains.is_some();
        !shares || self.stored.has(id.number())
    }

    /// A session has ended.
    pub fn ended(&mut self, group: GroupId, id: EntryId, flow: &FlowKey) {
        if self.asked.has(id.number()) {
            self.asked.set(id.number(), false);
            self.stored.set(id.number(), false);
            if self.wishes.len() < WISHES {
                self.wishes.push_back(Wish::Delete(group, *flow));
            }
        }
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
            self.answered(view, sessions, ticket, &answer);
        }
        while let Some(asdr::Event::Complete { group, bucket, epoch, copy }) = self.shard.event() {
            egress.tell(Event::Learnt(group, Learnt { bucket, epoch, node: copy.node, stay: copy.since }));
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

    /// Who owned a bucket before may have had sessions of it: what becomes of their entries when it is named no more.
    fn note_previous(&mut self, view: &View, at: (GroupId, Bucket), chains: &Chains) {
        let (group, bucket) = at;
        let inheritance = self.due(view, at, chains);
        let life = |node: NodeId| (node, view.nodes[node.index()].incarnation);
        self.previous[place(group, bucket)] = previous(view, group, bucket).map(life);
        let Some(inheritance) = inheritance else { return };
        if self.inherited.len() < self.inherited.capacity() {
            self.inherited.push_back((group, bucket, inheritance));
            self.pending(inheritance).set(place(group, bucket), true);
        }
    }

    /// The buckets of which it is yet to be done.
    fn pending(&mut self, inheritance: Inheritance) -> &mut Marks {
        match inheritance {
            Inheritance::Take | Inheritance::Clear => &mut self.inheriting,
            Inheritance::Mark => &mut self.marking,
        }
    }

    /// What this node inherits of a bucket by a View that isn't taken up yet.
    fn due(&self, view: &View, (group, bucket): (GroupId, Bucket), chains: &Chains) -> Option<Inheritance> {
        let chain = &chains[bucket.index()];
        let (previous, before) = (previous(view, group, bucket), self.previous[place(group, bucket)]);
        let (owner, known) = (chain.owner.map(|owner| owner.node), self.shard.owner(group, bucket));
        let me = Some(view.me);
        if planted::is(Bug::StateUninherited) || owner != me && previous != me {
            return None;
        }
        if previous == me {
            // The bucket came to it and goes on in one: who has it next takes it for this one's.
            let unseen = known != me && before.is_none_or(|(was, _)| was != view.me);
            return unseen.then_some(Inheritance::Take);
        }
        if known != me {
            // Who gives it away while he lives has its sessions.
            let given = previous.is_some() && previous == known;
            return Some(if given { Inheritance::Mark } else { Inheritance::Take });
        }
        let (was, life) = before.filter(|_| previous.is_none())?;
        let node = &view.nodes[was.index()];
        let lives = node.up && node.incarnation == life;
        Some(if lives { Inheritance::Clear } else { Inheritance::Take })
    }

    /// Whether nothing is left to be taken up or inherited.
    #[inline]
    pub fn rests(&self) -> bool {
        self.runs() && self.inherited.is_empty()
    }

    /// Whether a bucket that this node owns has sessions that this worker doesn't know yet, or may have; for who would open one,
    /// also whether there may be some elsewhere.
    #[cold]
    pub fn inherits(&self, view: &View, group: GroupId, bucket: Bucket, opens: bool) -> bool {
        let chains = view.buckets.get(group.index()).and_then(|buckets| buckets.chains.as_ref());
        let Some(chains) = chains.filter(|_| group.index() < self.groups) else { return false };
        let taken_up = self.adopted[group.index()] == view.placed_by_group[group.index()];
        let is_due = !taken_up
            && match self.due(view, (group, bucket), chains) {
                Some(Inheritance::Take) => true,
                Some(Inheritance::Mark) => opens,
                Some(Inheritance::Clear) | None => false,
            };
        let at = place(group, bucket);
        is_due || self.inheriting.has(at) || opens && self.marking.has(at)
    }

    /// A flow that another node has had is opened anew here: what it had is given up.
    #[inline]
    pub fn replace(&mut self, view: &View, sessions: &mut SessionTable, meta: &Meta) {
        if self.elsewhere > 0
            && let Some(id) = sessions.flows().find(meta.hash, &meta.key)
        {
            let group = group_of(view, sessions.flows().get(id));
            self.unmark(view, sessions, id);
            if self.wishes.len() < WISHES {
                self.wishes.push_back(Wish::Delete(group, meta.key));
            }
        }
    }

    /// Sessions that are [`State::Elsewhere`].
    pub fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    /// Removes a session that is [`State::Elsewhere`].
    #[cold]
    pub fn unmark(&mut self, view: &View, sessions: &mut SessionTable, id: EntryId) {
        let names = select::names(view, sessions.flows().key(id), sessions.flows().get(id));
        sessions.close(id, names);
        self.elsewhere -= 1;
    }

    /// Whether a session that is [`State::Elsewhere`] may still be another node's.
    #[cold]
    pub fn keeps(&self, view: &View, session: &Session) -> bool {
        let (group, bucket) = (group_of(view, session), snat_bucket(session.snat_port));
        let buckets = &view.buckets[group.index()];
        let mine = buckets.placement.owner(bucket) == Some(view.me);
        !self.rests() || mine && previous(view, group, bucket).is_some_and(|node| node != view.me)
    }

    /// Whether this node has a copy of a NATed flow's state whose owner is dead, and in whose place none serves yet.
    #[cold]
    pub fn knows_orphan(&self, view: &View, group: GroupId, flow: &FlowKey) -> bool {
        let bucket = view.hash_key.flow(flow).bucket();
        let chains = view.buckets.get(group.index()).and_then(|buckets| buckets.chains.as_ref());
        let Some(chains) = chains.filter(|_| group.index() < self.groups) else { return false };
        chains[bucket.index()].owner.is_none() && self.shard.has(group, bucket, &key(flow))
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
        while let Some(wish) = self.wishes.pop_front() {
            let (group, flow, operation, ticket) = match wish {
                Wish::Store(id) if self.asked.has(id.number()) => {
                    let (flow, session) = (*sessions.flows().key(id), *sessions.flows().get(id));
                    let set = Operation::Set { value: value(&session), ticks: 0 };
                    (group_of(view, &session), flow, set, ticket(view, &flow, id))
                }
                Wish::Store(_) => continue,
                Wish::Delete(group, flow) => (group, flow, Operation::Delete, NOBODY),
            };
            let bucket = view.hash_key.flow(&flow).bucket();
            let mut out = self.post.open(view, egress, self.me, now);
            let said = self.shard.ask(m, (group, bucket), &key(&flow), operation, ticket, &mut out);
            // Or the flow would come to life again elsewhere. What is wanted later of the same one stays behind that.
            if ticket == NOBODY
                && let Some(Answer::Refused(Refusal::Unleased | Refusal::Busy)) = said
            {
                return self.wishes.push_front(Wish::Delete(group, flow));
            }
            if let Some(answer) = said {
                self.answered(view, sessions, ticket, &answer);
            }
        }
    }

    /// What has become of an entry that a session asked for.
    fn answered(&mut self, view: &View, sessions: &SessionTable, to: Ticket, answer: &Answer) {
        let Some(id) = EntryId::numbered(to.0 as u32, sessions.flows().capacity()) else { return };
        // The entry may be another session's by now.
        if !self.asked.has(id.number()) || ticket(view, sessions.flows().key(id), id) != to {
            return;
        }
        let (flow, session) = (sessions.flows().key(id), sessions.flows().get(id));
        let mine = || {
            let bucket = view.hash_key.flow(flow).bucket();
            let chains = view.buckets[group_of(view, session).index()].chains.as_ref();
            chains.is_some_and(|chains| chains[bucket.index()].is_owned_by(view.me))
        };
        match answer {
            Answer::Done(_) => self.stored.set(id.number(), true),
            // Where the bucket is another's, nobody waits for it here; unless it is about to come, or this worker has yet to take up
            // that it has.
            Answer::Refused(Refusal::NotOwner) if !mine() && view.decided == view.in_force => {
                self.stored.set(id.number(), true);
            }
            // The next packet that needs it asks again.
            _ => self.asked.set(id.number(), false),
        }
    }

    /// Makes sessions of what a dead owner had, or clears what nobody uses any more.
    fn inherit<P: Port>(
        &mut self,
        view: &View,
        sessions: &mut SessionTable,
        egress: &mut Egress<P>,
        now: Instant,
    ) {
        for _ in 0..HEIRLOOMS {
            let Some(next) = self.inherited.pop_front() else { return };
            if self.inherit_one(view, sessions, egress, next, now) > 0 {
                return;
            }
        }
    }

    /// Does so with one bucket; how many entries there were.
    fn inherit_one<P: Port>(
        &mut self,
        view: &View,
        sessions: &mut SessionTable,
        egress: &mut Egress<P>,
        (group, bucket, inheritance): (GroupId, Bucket, Inheritance),
        now: Instant,
    ) -> usize {
        let mut seen = 0;
        let mut unused: ArrayVec<FlowKey, TAKEN> = ArrayVec::new();
        for (name, bytes) in self.shard.values(group, bucket, Kind::Nat) {
            let Some(flow) = flow(name) else { continue };
            seen += 1;
            let known = sessions.flows().find(view.hash_key.flow(&flow), &flow);
            let elsewhere = known.filter(|id| sessions.flows().get(*id).state == State::Elsewhere);
            if known.is_some() && (elsewhere.is_none() || inheritance == Inheritance::Mark) {
                continue;
            }
            let wanted = session(view, bytes, now).filter(|_| inheritance != Inheritance::Clear);
            // The newest come first: of two with one SNAT port, the older one's flow has ended.
            let wanted = wanted.filter(|session| elsewhere.is_some() || is_free(view, sessions, session));
            if wanted.is_none() && inheritance != Inheritance::Mark && unused.try_push(flow).is_err() {
                break;
            }
            if let Some(id) = elsewhere {
                self.elsewhere -= 1;
                sessions.close(id, select::names(view, &flow, sessions.flows().get(id)));
            }
            let Some(mut session) = wanted else { continue };
            if inheritance == Inheritance::Mark {
                session.state = State::Elsewhere;
            }
            let names_of = |key: &FlowKey, session: &Session| select::names(view, key, session);
            match sessions.open(names_of(&flow, &session), flow, session, names_of, |_, _, _| ()) {
                Ok(_) if inheritance == Inheritance::Mark => self.elsewhere += 1,
                Ok(id) => {
                    self.asked.set(id.number(), true);
                    self.stored.set(id.number(), true);
                    egress.counters.sessions_inherited.inc();
                    egress.counters.real_servers[session.real.index()].sessions.inc();
                }
                Err(_) => egress.counters.sessions_refused.inc(),
            }
        }
        // Who has given the bucket away can delete nothing.
        if unused.is_full() && self.shard.owner(group, bucket) == Some(view.me) {
            self.inherited.push_front((group, bucket, inheritance));
        } else {
            self.pending(inheritance).set(place(group, bucket), false);
        }
        let m = moment(egress, now);
        for flow in unused {
            let mut out = self.post.open(view, egress, self.me, now);
            let _ = self.shard.ask(m, (group, bucket), &key(&flow), Operation::Delete, NOBODY, &mut out);
        }
        seen
    }
}

/// Whether no session here has the SNAT address and port of this one, to the same real server.
fn is_free(view: &View, sessions: &SessionTable, session: &Session) -> bool {
    let reply = view.reply_key(session.real, session.snat, session.snat_port);
    let is_reply = |s: &Session| view.reply_key(s.real, s.snat, s.snat_port) == reply;
    sessions.find(view.hash_key.flow(&reply), &reply, is_reply).is_none()
}

/// Now, and until when the node may answer.
fn moment<P: Port>(egress: &Egress<P>, now: Instant) -> Moment {
    Moment { now, lease: egress.promises.until() }
}

/// Who owned a bucket before and may still have sessions of it, by a View.
fn previous(view: &View, group: GroupId, bucket: Bucket) -> Option<NodeId> {
    let previous = view.buckets[group.index()].placement.previous(bucket);
    previous.filter(|node| view.may_hold(*node))
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
