//! openraft's state machine: hands committed entries to the management thread, and keeps the snapshots that it makes.

use crate::cluster::fences::Fences;
use crate::cluster::log::Output;
use crate::run::log::disk::{Base, Disk, DiskError};
use crate::run::log::store::Store;
use crate::run::log::types::{
    Applied, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, Types, replicas,
};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// Bytes of entries behind the last snapshot after which another is asked for, however few they are.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// What stands in front of the state in a stored snapshot. It was made at an index, which may lie within a batch; openraft
/// counts batches, and applies that one again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The index at the end of the last whole batch, where openraft begins.
    pub whole: u64,
    /// The index up to which the state has all entries.
    pub index: u64,
    /// What is fenced at the end of the last whole batch.
    pub fenced: Fences,
}

impl Header {
    /// Header and state in one.
    ///
    /// # Errors
    /// None that this type is known for.
    pub fn with(&self, state: &[u8]) -> Result<Vec<u8>, postcard::Error> {
        let mut content = postcard::to_allocvec(self)?;
        content.extend_from_slice(state);
        Ok(content)
    }

    /// Header and state apart; none if `content` doesn't begin with a header.
    pub fn split(content: &[u8]) -> Option<(Self, &[u8])> {
        postcard::take_from_bytes(content).ok()
    }
}

/// A place in openraft's log, and where the entries stand behind it.
#[derive(Clone, Debug)]
struct Place {
    log_id: Option<LogId>,
    index: u64,
    membership: StoredMembership,
}

struct Inner {
    /// The places since the stored snapshot, at which another could end.
    places: Vec<Place>,
    /// Up to here the state has entries, from a snapshot that reached into a batch.
    skip: u64,
    bytes: usize,
    asked: bool,
    pending: Option<(u64, Vec<u8>)>,
    stored: Option<SnapshotMeta>,
}

impl Inner {
    fn last(&self) -> &Place {
        // There is always one: a snapshot's end, or the log's beginning.
        &self.places[self.places.len() - 1]
    }
}

/// The state machine. Clones share it.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Mutex<Inner>>,
    /// Held while a snapshot is stored: an own one must not come behind a newer one from the leader.
    storing: Arc<tokio::sync::Mutex<()>>,
    /// Held while entries or a snapshot are handed out; behind `storing`, if that is held, too.
    handing: Arc<tokio::sync::Mutex<()>>,
    outputs: mpsc::Sender<Output>,
    applied: watch::Sender<u64>,
    store: Store,
    disk: Disk,
    /// Places after which a snapshot is asked for.
    every: usize,
    /// Whether entries are handed out; a witness has nobody to hand them to.
    speaks: bool,
}

/// What a [`Machine`] is made of.
pub struct Parts {
    /// Where entries go; when it is full, applying waits.
    pub outputs: mpsc::Sender<Output>,
    /// The log, for what is fenced.
    pub store: Store,
    /// Where snapshots go.
    pub disk: Disk,
    /// Places in openraft's log after which a snapshot is asked for.
    pub every: usize,
    /// Whether there is somebody to hand entries to.
    pub speaks: bool,
}

impl Machine {
    /// A machine whose state is the stored `snapshot`, if there is one, which it hands out at once.
    pub async fn new(parts: Parts, snapshot: Option<(SnapshotMeta, Vec<u8>)>) -> Result<Self, DiskError> {
        let Parts { outputs, store, disk, every, speaks } = parts;
        let place = Place { log_id: None, index: 0, membership: StoredMembership::default() };
        let inner =
            Inner { places: vec![place], skip: 0, bytes: 0, asked: false, pending: None, stored: None };
        let machine = Self {
            inner: Arc::new(Mutex::new(inner)),
            storing: Arc::default(),
            handing: Arc::default(),
            outputs,
            applied: watch::Sender::new(0),
            store,
            disk,
            every,
            speaks,
        };
        if let Some((meta, content)) = snapshot {
            machine.replace(&meta, &content).await?;
        }
        Ok(machine)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index up to which everything has been handed out.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Places since the last snapshot.
    pub fn behind(&self) -> usize {
        self.lock().places.len() - 1
    }

    /// The place where everything committed has been handed out.
    pub fn last_place(&self) -> Option<LogId> {
        self.lock().last().log_id
    }

    /// The last membership that is known here to be committed.
    pub fn membership(&self) -> StoredMembership {
        self.lock().last().membership.clone()
    }

    /// Takes the state at `index` for the next snapshot. False: there is nothing to store.
    pub fn offer(&self, index: u64, state: Vec<u8>) -> bool {
        let mut inner = self.lock();
        let stored = inner.stored.as_ref().and_then(|meta| meta.last_log_id);
        let place = inner.places.iter().rev().find(|place| place.index <= index);
        let new = place.is_some_and(|place| place.log_id > stored) && index <= inner.last().index;
        if new {
            inner.pending = Some((index, state));
        } else {
            inner.asked = false;
        }
        new
    }

    /// Takes a snapshot of another replica as the next one here, if it ends where this one has been.
    pub fn adopt(&self, content: &[u8]) -> bool {
        match Header::split(content) {
            Some((header, state)) => self.offer(header.index, state.to_vec()),
            None => false,
        }
    }

    /// Nobody hears what is said when the log is being stopped.
    async fn say(&self, output: Output) {
        let _ = self.outputs.send(output).await;
    }

    /// Makes a snapshot the state.
    async fn replace(&self, meta: &SnapshotMeta, content: &[u8]) -> Result<(), DiskError> {
        let headless = || DiskError("damaged: a snapshot without its header".to_owned());
        let (header, state) = Header::split(content).ok_or_else(headless)?;
        let membership = meta.last_membership.clone();
        let said = replicas(&membership);
        let base = Base { at: meta.last_log_id.map_or(0, |id| id.index), fenced: header.fenced };
        self.store.rebase(base, membership.clone())?;
        {
            let mut inner = self.lock();
            inner.places = vec![Place { log_id: meta.last_log_id, index: header.whole, membership }];
            inner.skip = header.index;
            (inner.bytes, inner.asked, inner.pending) = (0, false, None);
            inner.stored = Some(meta.clone());
        }
        if self.speaks {
            self.say(Output::Install { index: header.index, bytes: state.to_vec() }).await;
        }
        self.say(Output::Replicas(said)).await;
        // What the snapshot has of the batch behind it counts when that is applied.
        self.applied.send_replace(header.whole);
        Ok(())
    }

    /// Whether a snapshot is stored.
    pub fn has_snapshot(&self) -> bool {
        self.lock().stored.is_some()
    }

    /// Asks for a snapshot, however few entries there are since the last one.
    pub async fn refresh(&self) {
        let due = {
            let mut inner = self.lock();
            let due = !inner.asked && inner.places.len() > 1;
            inner.asked |= due;
            due
        };
        if due {
            self.say(Output::WantSnapshot).await;
        }
    }

    /// Hands out everything anew: the snapshot, and the entries behind it as far as they were handed out before. A stored
    /// snapshot is replaced by `other`, another replica's. False, and nothing is done, if that is missing or older, or has
    /// entries that this replica hasn't handed out yet.
    ///
    /// # Errors
    /// The disk has failed.
    pub async fn restore(&self, other: Option<(SnapshotMeta, Vec<u8>)>) -> Result<bool, DiskError> {
        let _alone = self.storing.lock().await;
        let _handing = self.handing.lock().await;
        let mut begin = Header::default();
        if self.has_snapshot() {
            let fits =
                |meta: &SnapshotMeta| self.lock().places.iter().any(|place| place.log_id == meta.last_log_id);
            let Some((meta, content)) = other.filter(|(meta, _)| fits(meta)) else { return Ok(false) };
            let Some((header, state)) = Header::split(&content) else { return Ok(false) };
            self.disk.snapshot(&meta, &content).await?;
            {
                let mut inner = self.lock();
                inner.places.retain(|place| place.log_id >= meta.last_log_id);
                inner.skip = header.index;
                inner.stored = Some(meta);
            }
            self.say(Output::Anew).await;
            self.say(Output::Install { index: header.index, bytes: state.to_vec() }).await;
            begin = header;
        } else {
            self.say(Output::Anew).await;
        }
        let (first, behind) = {
            let mut inner = self.lock();
            (inner.asked, inner.pending) = (false, None);
            let next = |place: &Place| place.log_id.map_or(0, |id| id.index + 1);
            (next(&inner.places[0]), next(inner.last()))
        };
        let mut index = begin.whole;
        for entry in self.store.range(first..behind, usize::MAX) {
            let EntryPayload::Normal(batch) = entry.payload else { continue };
            for proposal in batch.proposals {
                index += 1;
                if index > begin.index {
                    self.say(Output::Entry { index, bytes: proposal.bytes }).await;
                }
            }
        }
        Ok(true)
    }

    async fn apply_one(&self, entry: Entry) -> Applied {
        let (mut index, skip, mut membership) = {
            let inner = self.lock();
            (inner.last().index, inner.skip, inner.last().membership.clone())
        };
        let first = index + 1;
        let mut bytes = 0;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(new) => {
                membership = StoredMembership::new(Some(entry.log_id), new);
                self.say(Output::Replicas(replicas(&membership))).await;
            }
            EntryPayload::Normal(batch) => {
                for proposal in batch.proposals {
                    index += 1;
                    bytes += proposal.bytes.len();
                    if self.speaks && index > skip {
                        self.say(Output::Entry { index, bytes: proposal.bytes }).await;
                    }
                }
            }
        }
        let ask = {
            let mut inner = self.lock();
            inner.places.push(Place { log_id: Some(entry.log_id), index, membership });
            inner.bytes += bytes;
            let due = inner.places.len() > self.every || inner.bytes > SNAPSHOT_BYTES;
            let asked = inner.asked;
            inner.asked |= due;
            due && !asked
        };
        if ask {
            self.say(Output::WantSnapshot).await;
        }
        self.applied.send_replace(index);
        Applied(first)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let inner = self.lock();
        Ok((inner.last().log_id, inner.last().membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        let handing = self.handing.clone();
        let _alone = handing.lock().await;
        for entry in entries {
            answers.push(self.apply_one(entry).await);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let content = snapshot.into_inner();
        let _alone = self.storing.lock().await;
        let _handing = self.handing.lock().await;
        let failed = |error: DiskError| StorageIOError::write_snapshot(Some(meta.signature()), &error);
        self.disk.snapshot(meta, &content).await.map_err(failed)?;
        self.replace(meta, &content).await.map_err(failed)?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        // Both from the disk: there may be another by now than was stored a moment ago.
        let stored = self.disk.read_snapshot().await;
        let stored = stored.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(stored.map(|(meta, content)| Snapshot { meta, snapshot: Box::new(Cursor::new(content)) }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let storing = self.storing.clone();
        let _alone = storing.lock().await;
        let offered = {
            let mut inner = self.lock();
            let pending = inner.pending.take();
            pending.and_then(|(index, state)| {
                let place = inner.places.iter().rev().find(|place| place.index <= index)?.clone();
                Some((index, state, place))
            })
        };
        let Some((index, state, place)) = offered else {
            // A newer one has come from the leader meanwhile, or two offers were made into one snapshot.
            let stored = self.get_current_snapshot().await?;
            let nothing = || StorageIOError::write_snapshot(None, AnyError::error("no state was offered"));
            return Ok(stored.ok_or_else(nothing)?);
        };
        let at = place.log_id.map_or(0, |id| id.index);
        let header = Header { whole: place.index, index, fenced: self.store.fenced_at(at) };
        let meta = SnapshotMeta {
            last_log_id: place.log_id,
            last_membership: place.membership,
            snapshot_id: format!("{}-{index}", place.log_id.unwrap_or_default()),
        };
        let failed = |error: DiskError| StorageIOError::write_snapshot(Some(meta.signature()), &error);
        let content = header.with(&state).map_err(|error| failed(DiskError(error.to_string())))?;
        self.disk.snapshot(&meta, &content).await.map_err(failed)?;
        let mut inner = self.lock();
        inner.places.retain(|kept| kept.log_id >= place.log_id);
        (inner.bytes, inner.asked) = (0, false);
        inner.stored = Some(meta.clone());
        drop(inner);
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(content)) })
    }
}
