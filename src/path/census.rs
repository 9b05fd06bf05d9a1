//! What a worker still has of buckets that have left its node, and of virtual servers that have left a group: found by the expiry
//! cursor on its way over the sessions, while the View says that there are such.

use super::egress::Egress;
use super::message::{Event, Held, Kept};
use super::port::Port;
use crate::base::limits::MAX_GROUPS;
use crate::base::{Bucket, GroupId, Instant, VirtualServerId, WorkerId};
use crate::table::flow::EntryId;
use crate::table::session::SessionTable;
use crate::view::{BucketSet, View, snat_bucket};

/// A group's sessions so far, and the buckets that they are in.
type Tally = (u32, BucketSet);

/// A pass over the whole table.
pub struct Census {
    /// The placement and the virtual servers by which it counts; zero: none has begun.
    by: (u64, u64),
    began: Instant,
    /// Entries that it hasn't come by yet.
    left: usize,
    /// By group.
    tallies: Box<[Tally; MAX_GROUPS]>,
    /// It looks for 64 of the virtual servers at most, from this one on; the next pass for the next ones.
    first: usize,
    /// A bit for each of them.
    kept: u64,
}

impl Default for Census {
    /// None under way.
    fn default() -> Self {
        let tallies = Box::new([(0, BucketSet::EMPTY); MAX_GROUPS]);
        Self { by: (0, 0), began: Instant::ZERO, left: 0, tallies, first: 0, kept: 0 }
    }
}

impl Census {
    /// Whether there is anything to count.
    #[inline]
    pub fn is_due(view: &View) -> bool {
        view.leaving != 0 || !view.regrouped.is_empty()
    }

    /// Begins a pass over a table of so many entries, wherever the cursor stands, unless one by this placement is under way.
    #[inline]
    pub fn begin(&mut self, view: &View, entries: usize, now: Instant) {
        let by = (view.placed, view.regrouped_in);
        if self.by != by || self.left == 0 {
            (self.by, self.began, self.left) = (by, now, entries);
            self.tallies.fill((0, BucketSet::EMPTY));
            self.first = if self.first + 64 < view.regrouped.len() { self.first + 64 } else { 0 };
            self.kept = 0;
        }
    }

    /// What was counted so far is void.
    #[inline]
    pub fn stop(&mut self) {
        self.left = 0;
    }

    /// The cursor has come by another entry, and this session stays there. With the last entry of the pass the management thread
    /// is told; if that is lost, the next pass makes up for it.
    #[inline]
    pub fn visited<P: Port>(
        &mut self,
        view: &View,
        sessions: &SessionTable,
        stays: Option<EntryId>,
        worker: WorkerId,
        egress: &Egress<P>,
    ) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        if let Some(id) = stays {
            self.count(view, sessions, id);
        }
        if self.left == 0 {
            self.report(view, worker, egress);
        }
    }

    fn count(&mut self, view: &View, sessions: &SessionTable, id: EntryId) {
        let session = sessions.flows().get(id);
        let server_id = view.services.real_servers[session.real.index()].virtual_server;
        let server = &view.services.virtual_servers[server_id.index()];
        let nat = session.snat_port != 0;
        let snat = nat.then(|| view.services.snats[session.snat.index()].group);
        if server.former.is_none()
            && !view.leaves(server.group)
            && !snat.is_some_and(|group| view.leaves(group))
        {
            return;
        }
        let bucket = if nat {
            snat_bucket(session.snat_port)
        } else {
            let key = sessions.flows().key(id);
            view.bucket(server_id, key, view.hash_key.flow(key))
        };
        // It is found by its virtual server's group, by the one before, and by its SNAT address's, which may be either.
        self.count_in(view, server.group, bucket);
        if let Some(former) = server.former {
            self.count_in(view, former, bucket);
            // Or its SNAT address is the former group's, to be given up with that.
            let elsewhere = view.buckets[server.group.index()].placement.owner(bucket) != Some(view.me);
            if elsewhere || snat.is_some_and(|group| group != server.group) {
                self.keep(view, server_id);
            }
        }
        if let Some(group) = snat.filter(|group| *group != server.group && server.former != Some(*group)) {
            self.count_in(view, group, bucket);
        }
    }

    fn count_in(&mut self, view: &View, group: GroupId, bucket: Bucket) {
        if view.buckets[group.index()].placement.previous(bucket) == Some(view.me)
            && let Some((count, buckets)) = self.tallies.get_mut(group.index())
        {
            *count += 1;
            buckets.insert(bucket);
        }
    }

    fn keep(&mut self, view: &View, server: VirtualServerId) {
        let at = view.regrouped.binary_search(&server).ok().and_then(|at| at.checked_sub(self.first));
        if let Some(at) = at.filter(|at| *at < 64) {
            self.kept |= 1 << at;
        }
    }

    #[cold]
    fn report<P: Port>(&self, view: &View, worker: WorkerId, egress: &Egress<P>) {
        let ((placed, regrouped_in), began) = (self.by, self.began);
        for (i, (sessions, buckets)) in self.tallies.iter().copied().enumerate() {
            let group = GroupId(i as u16);
            if view.leaves(group) {
                egress.tell(Event::Held(Held { worker, placed, began, group, sessions, buckets }));
            }
        }
        if !view.regrouped.is_empty() {
            let (first, kept) = (self.first, self.kept);
            egress.tell(Event::Kept(Kept { worker, regrouped_in, began, first, kept }));
        }
    }
}
