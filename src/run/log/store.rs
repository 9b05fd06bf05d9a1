//! openraft's log storage: all entries behind the snapshot in memory, each written by [`disk`](super::disk) before it counts.

use crate::base::{Incarnation, NodeId};
use crate::cluster::fences::Fences;
use crate::run::log::disk::{Base, Disk, DiskError, Loaded};
use crate::run::log::renewal::Memberships;
use crate::run::log::types::{Entry, LogId, StorageError, StoredMembership, Types, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of entries that are sent to a peer at once, roughly (one entry goes whatever its length).
const SEND_BYTES: usize = 1 << 20;

/// What one entry fences.
fn fences(entry: &Entry) -> Fences {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.fences(),
        EntryPayload::Blank | EntryPayload::Membership(_) => Fences::NONE,
    }
}

fn length(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.proposals.iter().map(|p| p.bytes.len() + 32).sum(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 256,
    }
}

#[derive(Debug, Default)]
struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    /// What the entries behind `base` fence, of those that do.
    fences: BTreeMap<u64, Fences>,
    base: Base,
    memberships: Memberships,
}

impl Inner {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    /// What is fenced behind the entry at `at`, which is not in front of the base.
    fn fenced(&self, at: u64) -> Fences {
        let behind = self.fences.range(..=at).map(|(_, fences)| fences);
        std::iter::once(&self.base.fenced).chain(behind).collect()
    }

    fn rebase(&mut self, base: Base) {
        self.fences = self.fences.split_off(&(base.at + 1));
        self.base = base;
    }
}

/// What is fenced behind all entries that are stored here: always up to date, for anybody to read. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fenced(Arc<Mutex<Fences>>);

impl Fenced {
    /// What it is now.
    pub fn now(&self) -> MutexGuard<'_, Fences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log in memory. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    fenced: Fenced,
    disk: Disk,
}

impl Store {
    /// A store of what was `loaded`, whose changes go to `disk`. `snapshot`: what is fenced where the stored snapshot ends.
    pub fn new(disk: Disk, loaded: &mut Loaded, snapshot: Option<Base>) -> Self {
        let entries: BTreeMap<u64, Entry> =
            loaded.entries.drain(..).map(|entry| (entry.log_id.index, entry)).collect();
        let fences = entries.iter().map(|(index, entry)| (*index, fences(entry)));
        let mut memberships = Memberships::default();
        entries.values().for_each(|entry| memberships.take(entry));
        if let Some((meta, _)) = &loaded.snapshot {
            let at = meta.last_log_id.map_or(0, |id| id.index);
            memberships.rebase(at, meta.last_membership.clone());
        }
        let mut inner = Inner {
            vote: loaded.vote,
            committed: loaded.committed,
            purged: loaded.purged,
            fences: fences.filter(|(_, fences)| !fences.is_empty()).collect(),
            entries,
            base: Base::default(),
            memberships,
        };
        inner.rebase(snapshot.filter(|s| s.at >= loaded.base.at).unwrap_or_else(|| loaded.base.clone()));
        let store = Self { inner: Arc::new(Mutex::new(inner)), fenced: Fenced::default(), disk };
        store.publish(&store.lock());
        store
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, inner: &Inner) {
        *self.fenced.now() = inner.fenced(u64::MAX);
    }

    /// What is fenced by what is stored here.
    pub fn fenced(&self) -> Fenced {
        self.fenced.clone()
    }

    /// What is fenced behind the committed entry at `at`.
    pub fn fenced_at(&self, at: u64) -> Fences {
        self.lock().fenced(at)
    }

    /// A snapshot has come that says what is fenced at its end, and has this as its last membership.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn rebase(&self, base: Base, membership: StoredMembership) -> Result<(), DiskError> {
        let mut inner = self.lock();
        if base.at >= inner.base.at {
            inner.memberships.rebase(base.at, membership);
            inner.rebase(base);
            self.publish(&inner);
        }
        // What was to be removed may have had to wait for it.
        match inner.purged {
            Some(upto) => self.disk.purge(&upto, &inner.base),
            None => Ok(()),
        }
    }

    /// Whether nothing that is stored here fences this life of a node, and voters are still those of the membership at `by`.
    pub fn renews(&self, node: NodeId, life: Incarnation, by: LogId) -> bool {
        // No entry comes between the two looks.
        let inner = self.lock();
        inner.memberships.keep(by) && !self.fenced.now().has(node, life)
    }

    /// The last entry's place.
    pub fn last(&self) -> Option<LogId> {
        self.lock().last()
    }

    /// The vote, as it was last stored.
    pub fn vote(&self) -> Option<Vote> {
        self.lock().vote
    }

    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.vote.is_none() && inner.last().is_none()
    }

    /// Takes entries into memory. They are visible, and fence, from here on.
    pub fn take(&self, entries: &[Entry]) {
        let mut inner = self.lock();
        for entry in entries {
            let index = entry.log_id.index;
            let fences = fences(entry);
            if !fences.is_empty() {
                inner.fences.insert(index, fences);
            }
            inner.memberships.take(entry);
            inner.entries.insert(index, entry.clone());
        }
        self.publish(&inner);
    }

    /// The first entries in `range`: one, and those behind it as far as all have no more than this many bytes together.
    pub fn range(&self, range: impl RangeBounds<u64>, bytes: usize) -> Vec<Entry> {
        let inner = self.lock();
        let mut left = bytes;
        let fits = |(n, (_, entry)): &(usize, (&u64, &Entry))| {
            let before = left;
            left = left.saturating_sub(length(entry));
            *n == 0 || before >= length(entry)
        };
        inner.entries.range(range).enumerate().take_while(fits).map(|(_, (_, e))| e.clone()).collect()
    }

    /// Forgets the entries up to `upto`, which a snapshot holds.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn forget(&self, upto: LogId) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.entries = inner.entries.split_off(&(upto.index + 1));
        inner.purged = Some(upto);
        inner.memberships.forget(upto.index);
        if upto.index > inner.base.at {
            let base = Base { at: upto.index, fenced: inner.fenced(upto.index) };
            inner.rebase(base);
        }
        self.publish(&inner);
        self.disk.purge(&upto, &inner.base)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.range(range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.range(start..end, SEND_BYTES))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let inner = self.lock();
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: inner.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.disk.vote(vote).await.map_err(|error| StorageIOError::write_vote(&error))?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.lock().committed = committed;
        self.disk.committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        // In memory first: a fence must show before the leader hears that the entry is stored.
        self.take(&entries);
        self.disk.append(&entries, flushed).map_err(|error| StorageIOError::write_logs(&error))?;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.disk.truncate(log_id.index).await.map_err(|error| StorageIOError::write_logs(&error))?;
        let mut inner = self.lock();
        inner.entries.split_off(&log_id.index);
        inner.fences.split_off(&log_id.index);
        inner.memberships.cut(log_id.index);
        self.publish(&inner);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.forget(log_id).map_err(|error| StorageIOError::write_logs(&error))?;
        Ok(())
    }
}
