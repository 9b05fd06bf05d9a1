//! A seat's turns: it follows what is decided, begins another life when the present one is over, and tells how far the node is.

use super::Seat;
use crate::base::limits::BUCKETS;
use crate::base::{Bucket, GroupId, Incarnation, Instant};
use crate::cluster::fleet::{Phase, Why};
use crate::cluster::keeper::News;
use crate::cluster::state::Entry;
use crate::manage::manager::Manager;
use crate::view::{BucketSet, Learnt, Quarantine};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// Between two lives of one process, and two proposals of what is drained.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// What workers have learnt is gathered for so long: with each such entry all nodes make a View.
const GATHER: Duration = Duration::from_millis(100);
/// Between two lives of which the first could not make anything of what was decided, at most: each such pause is twice the last
/// one, as what this program can't do it may never be able to.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// A version that something waits for: all workers running this View.
#[derive(Clone, Copy)]
pub(super) struct Awaited {
    version: u64,
    view: u64,
}

impl Seat {
    /// Whether another life may begin now.
    fn may_begin(&self, now: Instant) -> bool {
        now.since(self.reborn) >= self.pause && self.fits() && !self.council.stopped()
    }

    /// Takes note of what may be under others' leases for a while; `true` if it is known only now for how long. What was
    /// decided may have been decided since this turn read the clock, so the wait counts from the next turn's.
    fn quarantine(&mut self, news: &News, now: Instant) -> bool {
        let (open, until) = (Instant(u64::MAX), now + self.council.waits());
        let mut timed = false;
        for end in self.quarantine.values_mut().map(|q| &mut q.until).chain([&mut self.vips_from]) {
            if *end == open {
                (*end, timed) = (until, true);
            }
        }
        self.quarantine.retain(|_, quarantine| now < quarantine.until);
        let mut add = |group: GroupId, buckets: BucketSet| {
            let none = Quarantine { buckets: BucketSet::EMPTY, until: open };
            let all = self.quarantine.entry(group).or_insert(none);
            all.buckets.extend(&buckets);
            all.until = open;
        };
        if let Some(taken) = &news.taken_over {
            for (group, buckets) in taken {
                let mut set = BucketSet::EMPTY;
                buckets.iter().for_each(|bucket| set.insert(*bucket));
                add(*group, set);
            }
            self.vips_from = open;
        }
        if news.installed {
            let mut every = BucketSet::EMPTY;
            (0..BUCKETS as u16).for_each(|bucket| every.insert(Bucket(bucket)));
            for group in self.council.state().fleet().maps().keys() {
                add(*group, every);
            }
            self.vips_from = open;
        }
        timed
    }
}

impl Manager {
    /// A turn of the council; `true` if a new View is due.
    pub(in crate::manage::manager) fn follow(&mut self, now: Instant) -> bool {
        let ready = self.able();
        let Some(seat) = &mut self.seat else { return false };
        seat.council.hears(self.peers.heard_of_late(now));
        let mut news = seat.council.turn(now);
        let over = seat.council.ended().filter(|_| seat.may_begin(now)).cloned();
        if let Some(why) = over {
            let last = seat.life(self.config.me).0.max(self.incarnation);
            self.incarnation = Incarnation(last.0 + 1);
            error!("this node was taken out: {why}; it begins life {} and comes back", self.incarnation);
            let own = matches!(why, Why::Apply(_) | Why::Digest) && now.since(seat.reborn) < 2 * LONG_PAUSE;
            seat.pause = if own { (2 * seat.pause).min(LONG_PAUSE) } else { PAUSE };
            seat.reborn = now;
            seat.council.begin(self.incarnation);
            news.changed = true;
        }
        self.lease.set(seat.council.lease().unwrap_or(Instant::ZERO));
        if news.installed {
            // Of what was known before; what is compiled of it, too.
            (seat.preparing, seat.adopting, seat.next) = (None, None, None);
        }
        let divided = seat.council.divided();
        if let Some(index) = divided.filter(|_| seat.divided.is_none()) {
            error!("nodes' states differ at entry {index}, and it can't be told whose is wrong");
        }
        seat.divided = divided;
        let timed = seat.quarantine(&news, now);
        seat.found(now);
        // What a snapshot gives may be under the leases of the dead. Who doesn't serve yet waits for those to end.
        let ready = ready && (now >= seat.vips_from || seat.life(self.config.me) == (self.incarnation, true));
        let vips_due = seat.vips_from > Instant::ZERO && now >= seat.vips_from;
        if vips_due {
            seat.vips_from = Instant::ZERO;
        }
        if news.changed || news.in_force {
            self.tell_members();
            self.compile_next();
        }
        let told = self.report();
        self.note_adoption(ready);
        if self.report() != told {
            // The leader waits for this.
            self.heartbeat_due = now;
        }
        self.tell_drained(now);
        self.tell_learnt(now);
        if news.changed || news.in_force {
            self.await_workers(&news);
        }
        let stale = news.changed || news.in_force || vips_due || timed;
        if let Some(seat) = &mut self.seat {
            seat.stale |= stale;
        }
        stale
    }

    /// Tells the operator what has become of nodes.
    fn tell_members(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let (now, state) = (seat.council.state().fleet().members(), seat.council.state());
        for (node, member) in now.iter().filter(|(node, member)| seat.members.get(node) != Some(member)) {
            let name =
                state.namespace().nodes().find(|(id, ..)| id == node).map(|(_, name, _)| name.as_str());
            let (name, life) = (name.unwrap_or("?"), member.incarnation);
            match &member.phase {
                Phase::Offline(why) => warn!("node {name}, life {life}, is offline: {why}"),
                phase => info!("node {name}, life {life}, is {phase:?}"),
            }
        }
        seat.members = now.clone();
    }

    /// The version that is decided is prepared, and the one in force adopted, when the workers run the next View.
    fn await_workers(&mut self, news: &News) {
        let view = self.views.current().version + 1;
        let Some(seat) = &mut self.seat else { return };
        let (version, in_force) = (seat.state().version(), seat.state().in_force());
        if news.changed {
            seat.preparing = Some(Awaited { version, view });
        }
        if news.in_force {
            seat.adopting = Some(Awaited { version: in_force, view });
        }
    }

    /// Tells the council how far the workers are.
    fn note_adoption(&mut self, ready: bool) {
        let running = self.workers.iter().map(|w| w.counters.view.get()).min().unwrap_or(0);
        let Some(seat) = &mut self.seat else { return };
        let mut prepared = seat.council.report().prepared;
        if let Some(due) = seat.preparing.filter(|due| running >= due.view) {
            seat.preparing = None;
            if seat.fits() {
                prepared = due.version;
            }
        }
        seat.council.prepared(prepared, ready && seat.fits());
        if let Some(due) = seat.adopting.filter(|due| running >= due.view) {
            seat.adopting = None;
            seat.council.adopted(due.version);
            debug!(version = due.version, "in force");
        }
    }

    /// A worker says that a copy of a bucket is complete.
    pub(in crate::manage::manager) fn note_learnt(&mut self, group: GroupId, learnt: Learnt, now: Instant) {
        let Some(seat) = &mut self.seat else { return };
        let told = seat.learnt.entry((group, learnt)).or_default();
        // It is told again until it is decided, and then no more.
        *told = told.filter(|at| now.since(*at) < PAUSE);
    }

    /// Has it decided which copies are complete.
    fn tell_learnt(&mut self, now: Instant) {
        let Some(seat) = &mut self.seat else { return };
        if now < seat.learnt_due || seat.learnt.is_empty() {
            return;
        }
        seat.learnt_due = now + GATHER;
        let mut by_group: BTreeMap<GroupId, Vec<Learnt>> = BTreeMap::new();
        for ((group, learnt), told) in seat.learnt.iter_mut().filter(|(_, told)| told.is_none()) {
            by_group.entry(*group).or_default().push(*learnt);
            *told = Some(now);
        }
        seat.learnt.retain(|_, told| told.is_some_and(|at| now.since(at) < PAUSE));
        for (group, learnt) in by_group {
            seat.council.want(Entry::Learnt(group, learnt), now);
        }
    }

    /// Has it decided that nothing is left here of what others have taken over (MECHANISMS §4 point 4).
    fn tell_drained(&mut self, now: Instant) {
        let me = self.config.me;
        let Some(seat) = &mut self.seat else { return };
        let state = seat.council.state();
        // What all have once adopted stays so while the placement does, whatever else is decided.
        let view = self.views.current();
        let placed = (view.placed, view.regrouped_in);
        seat.settled = seat.settled.filter(|(known, _)| *known == placed);
        if state.version() != state.in_force() || seat.adopting.is_some() || !seat.council.all_adopted() {
            return;
        }
        let (_, since) = *seat.settled.get_or_insert((placed, now));
        if now < seat.drained_due {
            return;
        }
        seat.drained_due = now + PAUSE;
        let mut told = Vec::new();
        for (group, map) in state.fleet().maps() {
            let Some(counted) = self.census.holding(*group).filter(|counted| counted.began >= since) else {
                continue;
            };
            let left = map
                .iter()
                .filter(|(bucket, place)| place.previous == Some(me) && !counted.buckets.has(*bucket));
            let left: Vec<Bucket> = left.map(|(bucket, _)| bucket).collect();
            if !left.is_empty() {
                told.push(Entry::Drained(*group, me, self.incarnation, left));
            }
        }
        let formers = state.namespace().formers();
        let held = |id| formers.get(id).filter(|former| former.holders.get(&me) == Some(&self.incarnation));
        let left = self.census.left(since).filter_map(|id| Some((id, held(id)?.since)));
        let left: Vec<_> = left.collect();
        if !left.is_empty() {
            told.push(Entry::Left(me, self.incarnation, left));
        }
        for entry in told {
            seat.council.want(entry, now);
        }
    }
}
