//! The log on disk: one redb file, written by one thread, which puts all that waits into one transaction.
//!
//! Each value carries a checksum: redb checks its own when it repairs, not at each reading. What lies in a damaged file is
//! not trusted for anything.

use crate::base::hash::{HashKey, mac};
use crate::cluster::fences::Fences;
use crate::cluster::log::ReplicaId;
use crate::run::log::types::{Entry, LogId, SnapshotMeta, Vote};
use openraft::storage::LogFlushed;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

use super::types::Types;

/// The file below the data directory.
pub const FILE: &str = "log.redb";
/// Kinds of value and their encodings: a file with another number is not read.
const FORMAT: u32 = 2;
/// Jobs that may wait; openraft has few in flight, each being waited for.
const JOBS: usize = 64;
/// Memory for redb's pages: everything but snapshots is read once, at the start.
const CACHE: usize = 8 << 20;

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("snapshot");

/// Why the store can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiskError(pub String);

fn because(error: impl std::fmt::Display) -> DiskError {
    DiskError(error.to_string())
}

/// Where what is fenced is known, and what is: behind the entry at this place of openraft's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The place; zero also if there is none yet.
    pub at: u64,
    /// What is fenced there.
    pub fenced: Fences,
}

/// Who a store belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    format: u32,
    replica: ReplicaId,
}

/// All that a store holds, at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The last vote.
    pub vote: Option<Vote>,
    /// An entry that is known to be committed; perhaps not the last.
    pub committed: Option<LogId>,
    /// The last entry that was removed because a snapshot holds it.
    pub purged: Option<LogId>,
    /// What was fenced there.
    pub base: Base,
    /// The entries, without gap.
    pub entries: Vec<Entry>,
    /// The snapshot, if there is one.
    pub snapshot: Option<Stored>,
    /// Whether this replica may vote.
    pub admitted: bool,
}

/// A snapshot, and what it says of itself.
pub type Stored = (SnapshotMeta, Vec<u8>);

/// Told when a job is durable.
pub type Done = oneshot::Sender<Result<(), DiskError>>;

enum Job {
    Vote(Vec<u8>, Done),
    Append(Vec<(u64, Vec<u8>)>, LogFlushed<Types>),
    Put(Vec<(u64, Vec<u8>)>, Done),
    Truncate(u64, Done),
    Purge(u64, Vec<u8>, Vec<u8>),
    Snapshot(Vec<u8>, Vec<u8>, Done),
    Read(oneshot::Sender<Result<Option<Stored>, DiskError>>),
    Admit(Done),
}

/// The writing thread's end for everybody else. Clones write to the same file.
#[derive(Clone)]
pub struct Disk {
    jobs: SyncSender<Job>,
    failed: Arc<OnceLock<DiskError>>,
    committed: Arc<Mutex<Option<LogId>>>,
}

/// The writing thread; ends when all [`Disk`]s are gone.
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until all that was asked is written.
    pub fn join(self) {
        // A panic of it was turned into an error before.
        let _ = self.0.join();
    }
}

/// Opens the store of `replica` in the directory `dir`, which is made if there is none.
///
/// # Errors
/// The file can't be opened or made, is in use, damaged, of another version, or another replica's.
pub fn open(dir: &Path, replica: ReplicaId) -> Result<(Disk, Writer, Loaded), DiskError> {
    let file = dir.join(FILE);
    let name = |error: DiskError| DiskError(format!("{}: {error}", file.display()));
    std::fs::create_dir_all(dir).map_err(because).map_err(name)?;
    start(|| builder().create(&file).map_err(because), replica).map_err(name)
}

/// The same on any backend.
///
/// # Errors
/// As [`open`].
pub fn open_backend(
    backend: impl StorageBackend,
    replica: ReplicaId,
) -> Result<(Disk, Writer, Loaded), DiskError> {
    start(|| builder().create_with_backend(backend).map_err(because), replica)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

fn start(
    open: impl FnOnce() -> Result<Database, DiskError>,
    replica: ReplicaId,
) -> Result<(Disk, Writer, Loaded), DiskError> {
    // A damaged file must not take the process along.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = open()?;
        let loaded = load(&db, replica)?;
        Ok((db, loaded))
    }));
    let (db, loaded) = opened.unwrap_or_else(|_| Err(because("damaged")))?;
    let (jobs, queue) = sync_channel(JOBS);
    let failed = Arc::new(OnceLock::new());
    let committed = Arc::new(Mutex::new(loaded.committed));
    let disk = Disk { jobs, failed: failed.clone(), committed: committed.clone() };
    let thread = std::thread::Builder::new().name("log-disk".to_owned());
    let thread = thread.spawn(move || serve(&db, &queue, &failed, &committed)).map_err(because)?;
    Ok((disk, Writer(thread), loaded))
}

impl Disk {
    /// Why it can't write any more.
    pub fn failed(&self) -> Option<&DiskError> {
        self.failed.get()
    }

    fn send(&self, job: Job) -> Result<(), DiskError> {
        self.jobs.send(job).map_err(|_| because("the writing thread has ended"))
    }

    async fn wait(&self, job: impl FnOnce(Done) -> Job) -> Result<(), DiskError> {
        let (done, wait) = oneshot::channel();
        self.send(job(done))?;
        wait.await.map_err(|_| because("the writing thread has ended"))?
    }

    /// Stores a vote.
    ///
    /// # Errors
    /// It may or may not be stored; nothing will be from here on.
    pub async fn vote(&self, vote: &Vote) -> Result<(), DiskError> {
        let bytes = seal(vote)?;
        self.wait(|done| Job::Vote(bytes, done)).await
    }

    /// Stores entries behind those it has, and calls `flushed` once that is durable.
    ///
    /// # Errors
    /// As [`vote`](Self::vote); later ones reach `flushed`.
    pub fn append(&self, entries: &[Entry], flushed: LogFlushed<Types>) -> Result<(), DiskError> {
        self.send(Job::Append(rows(entries)?, flushed))
    }

    /// As [`append`](Self::append), for one who waits.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub async fn put(&self, entries: &[Entry]) -> Result<(), DiskError> {
        let rows = rows(entries)?;
        self.wait(|done| Job::Put(rows, done)).await
    }

    /// Removes the entries from place `from` on.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub async fn truncate(&self, from: u64) -> Result<(), DiskError> {
        self.wait(|done| Job::Truncate(from, done)).await
    }

    /// Removes the entries up to `upto`, sooner or later; not as long as the stored snapshot doesn't reach as far. `base`: what is
    /// fenced there.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub fn purge(&self, upto: &LogId, base: &Base) -> Result<(), DiskError> {
        self.send(Job::Purge(upto.index, seal(upto)?, seal(base)?))
    }

    /// Stores a snapshot in the place of the one before.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub async fn snapshot(&self, meta: &SnapshotMeta, content: &[u8]) -> Result<(), DiskError> {
        let (meta, content) = (seal(meta)?, sealed(content));
        self.wait(|done| Job::Snapshot(meta, content, done)).await
    }

    /// The stored snapshot, and what it says of itself.
    ///
    /// # Errors
    /// The file is damaged or can't be read.
    pub async fn read_snapshot(&self) -> Result<Option<Stored>, DiskError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Read(done))?;
        wait.await.map_err(|_| because("the writing thread has ended"))?
    }

    /// Notes for good that this replica may vote.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub async fn admit(&self) -> Result<(), DiskError> {
        self.wait(Job::Admit).await
    }

    /// Has the next transaction store that entries up to here are committed.
    pub fn committed(&self, at: Option<LogId>) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

fn rows(entries: &[Entry]) -> Result<Vec<(u64, Vec<u8>)>, DiskError> {
    entries.iter().map(|entry| Ok((entry.log_id.index, seal(entry)?))).collect()
}

/// Encodes, with the checksum in front.
///
/// # Errors
/// None that the types of the log are known for.
pub fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, DiskError> {
    Ok(sealed(&postcard::to_allocvec(value).map_err(because)?))
}

/// Bytes with their checksum in front.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&sum(bytes), bytes].concat()
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    mac(HashKey([0, 0]), bytes).to_le_bytes()
}

fn checked(bytes: &[u8]) -> Result<&[u8], DiskError> {
    let (found, rest) =
        bytes.split_first_chunk::<8>().ok_or_else(|| because("damaged: a value is too short"))?;
    if *found != sum(rest) {
        return Err(because("damaged: a checksum is wrong"));
    }
    Ok(rest)
}

/// The reverse of [`seal`].
///
/// # Errors
/// A wrong checksum, or bytes that are no such value.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DiskError> {
    postcard::from_bytes(checked(bytes)?).map_err(|error| DiskError(format!("damaged: {error}")))
}

/// Reads everything, and writes who it belongs to if it is new.
fn load(db: &Database, replica: ReplicaId) -> Result<Loaded, DiskError> {
    let wanted = Owner { format: FORMAT, replica };
    let write = db.begin_write().map_err(because)?;
    {
        let mut meta = write.open_table(META).map_err(because)?;
        write.open_table(LOG).map_err(because)?;
        write.open_table(SNAPSHOT).map_err(because)?;
        let owner =
            meta.get("owner").map_err(because)?.map(|value| unseal::<Owner>(value.value())).transpose()?;
        match owner {
            None => drop(meta.insert("owner", seal(&wanted)?.as_slice()).map_err(because)?),
            Some(owner) if owner == wanted => {}
            Some(owner) if owner.format != FORMAT => {
                return Err(DiskError(format!("is of format {}, not {FORMAT}", owner.format)));
            }
            Some(owner) => return Err(DiskError(format!("is replica {}'s, not {replica}'s", owner.replica))),
        }
    }
    write.commit().map_err(because)?;

    let read = db.begin_read().map_err(because)?;
    let meta = read.open_table(META).map_err(because)?;
    let log = read.open_table(LOG).map_err(because)?;
    let snapshot = read.open_table(SNAPSHOT).map_err(because)?;
    let mut loaded = Loaded {
        vote: value(&meta, "vote")?,
        committed: value(&meta, "committed")?,
        purged: value(&meta, "purged")?,
        base: value(&meta, "base")?.unwrap_or_default(),
        admitted: value(&meta, "admitted")?.unwrap_or(false),
        ..Loaded::default()
    };
    for row in log.iter().map_err(because)? {
        let (index, value) = row.map_err(because)?;
        let entry: Entry = unseal(value.value())?;
        let expected = loaded.entries.last().map(|last| last.log_id.index + 1);
        if entry.log_id.index != index.value() || expected.is_some_and(|next| next != entry.log_id.index) {
            return Err(DiskError(format!("damaged: entry {} is out of place", index.value())));
        }
        loaded.entries.push(entry);
    }
    loaded.snapshot = stored(&snapshot)?;
    let held = loaded.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
    match loaded.purged {
        Some(purged) if Some(purged) > held => Err(DiskError(format!(
            "damaged: the entries up to {purged} were removed, and no snapshot holds them"
        ))),
        _ => Ok(loaded),
    }
}

fn value<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, DiskError> {
    table.get(key).map_err(because)?.map(|value| unseal(value.value())).transpose()
}

/// The last entry that the stored snapshot holds.
fn held(snapshot: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<u64>, DiskError> {
    let meta = value::<SnapshotMeta>(snapshot, "meta")?;
    Ok(meta.and_then(|meta| meta.last_log_id).map(|id| id.index))
}

/// The writing thread.
fn serve(
    db: &Database,
    queue: &Receiver<Job>,
    failed: &OnceLock<DiskError>,
    committed: &Mutex<Option<LogId>>,
) {
    let mut stored = *committed.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(first) = queue.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
        let known = *committed.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match failed.get() {
            Some(error) => Err(error.clone()),
            None => {
                let news = known.filter(|known| stored < Some(*known));
                let written = catch_unwind(AssertUnwindSafe(|| write(db, &jobs, news)));
                written.unwrap_or_else(|_| Err(because("the store panicked")))
            }
        };
        match &result {
            Ok(()) => stored = known,
            // Nothing may be written behind a hole: from here on all fails.
            Err(error) => drop(failed.set(error.clone())),
        }
        for job in jobs {
            finish(db, job, &result);
        }
    }
}

fn finish(db: &Database, job: Job, result: &Result<(), DiskError>) {
    match job {
        Job::Vote(_, done)
        | Job::Put(_, done)
        | Job::Truncate(_, done)
        | Job::Snapshot(_, _, done)
        | Job::Admit(done) => {
            // Nobody waits any more when the log stops.
            let _ = done.send(result.clone());
        }
        Job::Append(_, flushed) => flushed.log_io_completed(result.clone().map_err(std::io::Error::other)),
        Job::Purge(..) => {}
        Job::Read(to) => {
            let read = catch_unwind(AssertUnwindSafe(|| read_snapshot(db)));
            let _ = to.send(read.unwrap_or_else(|_| Err(because("the store panicked"))));
        }
    }
}

fn read_snapshot(db: &Database) -> Result<Option<Stored>, DiskError> {
    let read = db.begin_read().map_err(because)?;
    stored(&read.open_table(SNAPSHOT).map_err(because)?)
}

/// The snapshot in its table.
fn stored(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<Stored>, DiskError> {
    let Some(meta) = value(table, "meta")? else { return Ok(None) };
    let content = table.get("content").map_err(because)?;
    let content = content.ok_or_else(|| because("damaged: a snapshot without content"))?;
    Ok(Some((meta, checked(content.value())?.to_vec())))
}

/// Does all `jobs` in one transaction.
fn write(db: &Database, jobs: &[Job], committed: Option<LogId>) -> Result<(), DiskError> {
    if jobs.iter().all(|job| matches!(job, Job::Read(_))) {
        return Ok(());
    }
    let write = db.begin_write().map_err(because)?;
    {
        let mut meta = write.open_table(META).map_err(because)?;
        let mut log = write.open_table(LOG).map_err(because)?;
        let mut snapshot = write.open_table(SNAPSHOT).map_err(because)?;
        for job in jobs {
            match job {
                Job::Vote(vote, _) => drop(meta.insert("vote", vote.as_slice()).map_err(because)?),
                Job::Append(rows, _) | Job::Put(rows, _) => {
                    for (index, row) in rows {
                        log.insert(index, row.as_slice()).map_err(because)?;
                    }
                }
                Job::Truncate(from, _) => log.retain_in(*from.., |_, _| false).map_err(because)?,
                // openraft purges what a leader's snapshot holds before it is stored; if then there is no room for that, or the
                // process ends, the log would have a hole.
                Job::Purge(upto, ..) if held(&snapshot)? < Some(*upto) => {}
                Job::Purge(upto, purged, base) => {
                    log.retain_in(..=*upto, |_, _| false).map_err(because)?;
                    meta.insert("purged", purged.as_slice()).map_err(because)?;
                    meta.insert("base", base.as_slice()).map_err(because)?;
                }
                Job::Snapshot(about, content, _) => {
                    snapshot.insert("meta", about.as_slice()).map_err(because)?;
                    snapshot.insert("content", content.as_slice()).map_err(because)?;
                }
                Job::Admit(_) => drop(meta.insert("admitted", seal(&true)?.as_slice()).map_err(because)?),
                Job::Read(_) => {}
            }
        }
        if let Some(committed) = committed {
            meta.insert("committed", seal(&committed)?.as_slice()).map_err(because)?;
        }
    }
    write.commit().map_err(because)
}
