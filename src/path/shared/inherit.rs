//! What becomes of the sessions of a bucket that comes to this node: its last owner's, if that has died, are made of their entries.

use super::{Marks, Shared, WISHES, Wish, flow, group_of, place, session, value};
use crate::asdr::Kind;
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, FlowKey, GroupId, Instant, NodeId};
use crate::path::egress::Egress;
use crate::path::meta::Meta;
use crate::path::port::Port;
use crate::path::select;
use crate::table::flow::EntryId;
use crate::table::session::{Session, SessionTable, State};
use crate::view::{Chains, View, snat_bucket};
use arrayvec::ArrayVec;

/// Buckets that a turn inherits, if they have no entries.
const HEIRLOOMS: usize = 16;
/// Entries of a bucket that a turn gives up.
const TAKEN: usize = 64;

/// What becomes of a bucket's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inheritance {
    /// He died: they are this node's sessions from now on.
    Take,
    /// He has told that none is in use any more.
    Clear,
    /// He lives and has their sessions: this node hands out other SNAT ports than theirs.
    Mark,
}

impl Shared {
    /// Who owned a bucket before may have had sessions of it: what becomes of their entries when it is named no more.
    pub(super) fn note_previous(&mut self, view: &View, at: (GroupId, Bucket), chains: &Chains) {
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
        let forgotten = planted::is(Bug::StateUninherited) || planted::is(Bug::PreviousOwnerForgotten);
        if forgotten || owner != me && previous != me {
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
            let session = *sessions.flows().get(id);
            self.unmark(view, sessions, id);
            if self.wanted.wishes.len() < WISHES {
                let delete = Wish::Delete(group_of(view, &session), meta.key, value(&session));
                self.wanted.wishes.push_back(delete);
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

    /// Makes sessions of what a dead owner had, clears what nobody uses any more, and notes which SNAT ports others use.
    pub(super) fn inherit<P: Port>(
        &mut self,
        view: &View,
        sessions: &mut SessionTable,
        egress: &mut Egress<P>,
        now: Instant,
    ) {
        for _ in 0..HEIRLOOMS {
            if self.wanted.wishes.len() + TAKEN > WISHES {
                return;
            }
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
        let mut unused: ArrayVec<Wish, TAKEN> = ArrayVec::new();
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
            if wanted.is_none() && inheritance != Inheritance::Mark {
                let delete = Wish::Delete(group, flow, bytes.iter().copied().collect());
                if unused.try_push(delete).is_err() {
                    break;
                }
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
            let wants = &mut self.wanted;
            let evicted = |id, key: &FlowKey, session: &Session| {
                egress.counters.sessions_evicted.inc();
                select::gone(&egress.counters, session);
                wants.ended(view, id, key, session);
            };
            match sessions.open(names_of(&flow, &session), flow, session, names_of, evicted) {
                Ok(_) if inheritance == Inheritance::Mark => self.elsewhere += 1,
                Ok(id) => {
                    self.wanted.asked.set(id.number(), true);
                    self.wanted.stored.set(id.number(), true);
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
        self.wanted.wishes.extend(unused);
        seen
    }
}

/// Whether no session here has the SNAT address and port of this one, to the same real server.
fn is_free(view: &View, sessions: &SessionTable, session: &Session) -> bool {
    let reply = view.reply_key(session.real, session.snat, session.snat_port);
    let is_reply = |s: &Session| view.reply_key(s.real, s.snat, s.snat_port) == reply;
    sessions.find(view.hash_key.flow(&reply), &reply, is_reply).is_none()
}

/// Who owned a bucket before and may still have sessions of it, by a View.
pub(super) fn previous(view: &View, group: GroupId, bucket: Bucket) -> Option<NodeId> {
    let previous = view.buckets[group.index()].placement.previous(bucket);
    previous.filter(|node| view.may_hold(*node))
}
