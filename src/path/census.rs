//! What a worker still has of buckets that have left its node: found by the expiry cursor on its way over the sessions, while
//! the View says that there are such buckets.

use super::egress::Egress;
use super::message::{Event, Held};
use super::port::Port;
use crate::base::limits::MAX_GROUPS;
use crate::base::{GroupId, Instant, WorkerId};
use crate::table::flow::EntryId;
use crate::table::session::SessionTable;
use crate::view::{BucketSet, View, snat_bucket};

/// A group's sessions so far, and the buckets that they are in.
type Tally = (u32, BucketSet);

/// A pass over the whole table.
pub struct Census {
    /// The placement by which it counts; zero: none has begun.
    placed: u64,
    began: Instant,
    /// Entries that it hasn't come by yet.
    left: usize,
    /// By group.
    tallies: Box<[Tally; MAX_GROUPS]>,
}

impl Default for Census {
    /// None under way.
    fn default() -> Self {
        let tallies = Box::new([(0, BucketSet::EMPTY); MAX_GROUPS]);
        Self { placed: 0, began: Instant::ZERO, left: 0, tallies }
    }
}

impl Census {
    /// Begins a pass over a table of so many entries, wherever the cursor stands, unless one by this placement is under way.
    #[inline]
    pub fn begin(&mut self, view: &View, entries: usize, now: Instant) {
        if self.placed != view.placed || self.left == 0 {
            (self.placed, self.began, self.left) = (view.placed, now, entries);
            self.tallies.fill((0, BucketSet::EMPTY));
        }
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
        let server = view.services.real_servers[session.real.index()].virtual_server;
        let group = view.services.virtual_servers[server.index()].group;
        if !view.leaves(group) {
            return;
        }
        let bucket = match session.snat_port {
            0 => view.hash_key.flow(sessions.flows().key(id)).bucket(),
            port => snat_bucket(port),
        };
        if view.buckets[group.index()].placement.previous(bucket) == Some(view.me)
            && let Some((count, buckets)) = self.tallies.get_mut(group.index())
        {
            *count += 1;
            buckets.insert(bucket);
        }
    }

    #[cold]
    fn report<P: Port>(&self, view: &View, worker: WorkerId, egress: &Egress<P>) {
        for (i, (sessions, buckets)) in self.tallies.iter().copied().enumerate() {
            let (placed, began, group) = (self.placed, self.began, GroupId(i as u16));
            if view.leaves(group) {
                egress.tell(Event::Held(Held { worker, placed, began, group, sessions, buckets }));
            }
        }
    }
}
