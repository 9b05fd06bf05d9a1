use super::disk;
use super::machine::{Header, Machine, Parts};
use super::store::Store;
use super::task::snapshot_base;
use super::types::{
    Applied, Batch, Entry, LogId, Peer, Proposal, SnapshotMeta, StorageError, StoredMembership, Types, Vote,
};
use crate::base::{Incarnation, NodeId};
use crate::cluster::fences::Fences;
use crate::cluster::log::{Log, MAX_ENTRY, Outcome, Output, Refusal, Replica, ReplicaId, Ticket};
use crate::run::log::{Running, StartError, solo};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, Membership, OptionalSend, RaftSnapshotBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("steerage-log-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn open(path: &Path, every: usize) -> (Store, Machine, mpsc::Receiver<Output>) {
    let begin = Instant::now();
    let (disk, _, mut loaded) = loop {
        // The writer of a store that was open before may need a moment to let go of the file.
        match disk::open(path, ReplicaId(0)) {
            Ok(opened) => break opened,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let base = snapshot_base(&loaded);
    let store = Store::new(disk.clone(), &mut loaded, base);
    let (outputs, taken) = mpsc::channel(10_000);
    let parts = Parts { outputs, store: store.clone(), disk, every, speaks: true };
    let machine = Machine::new(parts, loaded.snapshot).await.unwrap();
    (store, machine, taken)
}

/// A machine to which somebody offers its state whenever openraft wants a snapshot.
struct Offered(Machine);

/// The machine to which something was offered; none: it has nothing yet, which the suite wants a snapshot of, too.
struct Offer(Option<Machine>);

impl RaftSnapshotBuilder<Types> for Offer {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        match &mut self.0 {
            Some(machine) => machine.build_snapshot().await,
            None => {
                let content = Header::default().with(&[]).unwrap();
                Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: Box::new(Cursor::new(content)) })
            }
        }
    }
}

impl RaftStateMachine<Types> for Offered {
    type SnapshotBuilder = Offer;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        self.0.applied_state().await
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Offer {
        let index = *self.0.applied().borrow();
        let offered = self.0.offer(index, b"state".to_vec());
        assert_eq!(offered, self.0.last_place().is_some());
        Offer(offered.then(|| self.0.clone()))
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        self.0.begin_receiving_snapshot().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        self.0.get_current_snapshot().await
    }
}

/// What must live as long as a store.
type Kept = (Folder, mpsc::Receiver<Output>);

struct Builder;

impl StoreBuilder<Types, Store, Offered, Kept> for Builder {
    async fn build(&self) -> Result<(Kept, Store, Offered), StorageError> {
        let folder = Folder::new();
        let (store, machine, taken) = open(&folder.0, 100).await;
        Ok(((folder, taken), store, Offered(machine)))
    }
}

#[test]
fn the_store_does_what_openraft_asks_of_one() {
    Suite::test_all(Builder).unwrap();
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 0), index)
}

fn entry(index: u64, fences: &[Fences]) -> Entry {
    let proposals = fences.iter().map(|f| Proposal { bytes: vec![index as u8], fences: f.clone() });
    Entry { log_id: id(index), payload: EntryPayload::Normal(Batch { proposals: proposals.collect() }) }
}

fn fence(node: u16, life: u32) -> Fences {
    Fences::upto(NodeId(node), Incarnation(life))
}

fn listed(fences: &Fences) -> Vec<(u16, u32)> {
    fences.iter().map(|(node, life)| (node.0, life.0)).collect()
}

fn fenced(store: &Store) -> Vec<(u16, u32)> {
    listed(&store.fenced().now())
}

#[test]
fn a_fence_shows_from_the_storing_to_the_cutting_off() {
    use openraft::storage::RaftLogStorage;
    let folder = Folder::new();
    block(async {
        let (mut store, ..) = open(&folder.0, 100).await;
        store.take(&[entry(1, &[fence(1, 2)]), entry(2, &[Fences::NONE])]);
        assert_eq!(fenced(&store), [(1, 2)]);
        store.take(&[entry(3, &[fence(1, 1), fence(2, 1)]), entry(4, &[fence(1, 3), fence(3, 9)])]);
        assert_eq!(fenced(&store), [(1, 3), (2, 1), (3, 9)]);
        assert_eq!(listed(&store.fenced_at(2)), [(1, 2)]);
        store.truncate(id(4)).await.unwrap();
        assert_eq!(fenced(&store), [(1, 2), (2, 1)]);
        store.truncate(id(3)).await.unwrap();
        assert_eq!(fenced(&store), [(1, 2)]);
        store.forget(id(2)).unwrap();
        assert_eq!(fenced(&store), [(1, 2)], "compaction forgets entries, not what they said");
        store.take(&[entry(3, &[fence(1, 1)])]);
        assert_eq!(fenced(&store), [(1, 2)], "a late one lifts nothing");
    });
}

/// Voters of a store, before and behind a change that is not committed, and after the process.
#[test]
fn who_votes_is_known_from_the_storing_and_outlives_the_process() {
    use openraft::storage::RaftLogStorage;
    let folder = Folder::new();
    let voters = |index: u64, sets: &[&[u64]]| {
        let sets: Vec<BTreeSet<u64>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
        let nodes: BTreeMap<u64, Peer> = (0..4).map(|id| (id, Peer::default())).collect();
        Entry { log_id: id(index), payload: EntryPayload::Membership(Membership::new(sets, nodes)) }
    };
    let renews = |store: &Store, by: u64| store.renews(NodeId(1), Incarnation(2), id(by));
    let entries = [voters(0, &[&[0, 1, 2]]), entry(1, &[fence(1, 1)]), voters(2, &[&[0, 1, 2], &[0, 1, 3]])];
    block(async {
        let (mut store, mut machine, _taken) = open(&folder.0, 100).await;
        assert!(!renews(&store, 0), "nothing is stored");
        store.take(&entries);
        assert!(!renews(&store, 0) && renews(&store, 2));
        store.truncate(id(2)).await.unwrap();
        assert!(renews(&store, 0) && !renews(&store, 2));
        openraft::storage::RaftLogStorageExt::blocking_append(&mut store, entries.clone()).await.unwrap();
        machine.apply(entries.clone()).await.unwrap();
        assert_eq!(*machine.membership().log_id(), Some(id(2)));
        assert!(machine.offer(1, b"state".to_vec()));
        machine.build_snapshot().await.unwrap();
        store.forget(id(2)).unwrap();
        assert!(renews(&store, 2), "compaction forgets entries, not who votes");
    });
    block(async {
        let (mut store, ..) = open(&folder.0, 100).await;
        assert!(!renews(&store, 0) && renews(&store, 2), "the snapshot says it");
        let next = [voters(3, &[&[0, 1, 3]]), entry(4, &[fence(1, 2)])];
        openraft::storage::RaftLogStorageExt::blocking_append(&mut store, next).await.unwrap();
        assert!(!renews(&store, 2) && !renews(&store, 3), "other voters, and a fence");
        assert!(store.renews(NodeId(1), Incarnation(3), id(3)));
    });
    block(async {
        let (store, ..) = open(&folder.0, 100).await;
        assert!(!renews(&store, 2) && store.renews(NodeId(1), Incarnation(3), id(3)));
    });
}

#[test]
fn fences_outlive_the_process() {
    let folder = Folder::new();
    block(async {
        let (mut store, mut machine, _taken) = open(&folder.0, 100).await;
        let entries =
            [entry(1, &[fence(1, 7)]), entry(2, &[fence(2, 1)]), entry(3, &[fence(2, 3), fence(3, 1)])];
        store.take(&entries);
        machine.apply(entries.iter().take(2).cloned()).await.unwrap();
        assert!(machine.offer(2, b"state".to_vec()));
        let snapshot = machine.build_snapshot().await.unwrap();
        let (header, state) = Header::split(snapshot.snapshot.get_ref()).unwrap();
        assert_eq!((header.index, listed(&header.fenced), state), (2, vec![(1, 7), (2, 1)], &b"state"[..]));
        store.forget(id(2)).unwrap();
        openraft::storage::RaftLogStorageExt::blocking_append(&mut store, [entries[2].clone()])
            .await
            .unwrap();
        assert_eq!(fenced(&store), [(1, 7), (2, 3), (3, 1)]);
    });
    block(async {
        let (store, _, mut taken) = open(&folder.0, 100).await;
        assert_eq!(fenced(&store), [(1, 7), (2, 3), (3, 1)]);
        assert_eq!(taken.try_recv().unwrap(), Output::Install { index: 2, bytes: b"state".to_vec() });
    });
}

#[test]
fn a_snapshot_may_end_within_a_batch() {
    let folder = Folder::new();
    let batch = |index: u64, texts: &[&str]| {
        let proposals =
            texts.iter().map(|text| Proposal { bytes: text.as_bytes().to_vec(), fences: Fences::NONE });
        Entry { log_id: id(index), payload: EntryPayload::Normal(Batch { proposals: proposals.collect() }) }
    };
    let entries = [batch(0, &["a", "b"]), batch(1, &["c", "d", "e"]), batch(2, &["f"])];
    block(async {
        let (store, mut machine, _taken) = open(&folder.0, 2).await;
        store.take(&entries);
        machine.apply(entries.clone()).await.unwrap();
        assert!(!machine.offer(7, Vec::new()), "has not been reached");
        assert!(machine.offer(4, b"abcd".to_vec()));
        let built = machine.build_snapshot().await.unwrap();
        assert_eq!(built.meta.last_log_id, Some(id(0)));
        assert!(!machine.offer(1, Vec::new()), "older than the stored one");
    });
    block(async {
        let (_, mut machine, mut taken) = open(&folder.0, 2).await;
        machine.apply(entries[1..].to_vec()).await.unwrap();
        assert_eq!(taken.try_recv().unwrap(), Output::Install { index: 4, bytes: b"abcd".to_vec() });
        assert_eq!(taken.try_recv().unwrap(), Output::Replicas(Vec::new()));
        assert_eq!(taken.try_recv().unwrap(), Output::Entry { index: 5, bytes: b"e".to_vec() });
        assert_eq!(taken.try_recv().unwrap(), Output::Entry { index: 6, bytes: b"f".to_vec() });
    });
}

#[test]
fn a_snapshot_of_the_leader_goes_before_an_own_older_one() {
    let folder = Folder::new();
    block(async {
        let (store, mut machine, _taken) = open(&folder.0, 100).await;
        let entries = [entry(0, &[Fences::NONE]), entry(1, &[Fences::NONE])];
        store.take(&entries);
        machine.apply(entries).await.unwrap();
        assert!(machine.offer(2, b"own".to_vec()));
        let meta =
            SnapshotMeta { last_log_id: Some(id(9)), snapshot_id: "leader's".into(), ..Default::default() };
        let content = Header { whole: 10, index: 10, fenced: Fences::NONE }.with(b"leader's").unwrap();
        machine.install_snapshot(&meta, Box::new(Cursor::new(content.clone()))).await.unwrap();
        let built = machine.build_snapshot().await.unwrap();
        assert_eq!((built.meta, built.snapshot.get_ref()), (meta, &content));
        assert!(!machine.offer(2, b"own".to_vec()));
    });
}

/// What was handed out.
fn told(taken: &mut mpsc::Receiver<Output>) -> Vec<Output> {
    std::iter::from_fn(|| taken.try_recv().ok()).collect()
}

fn listing(from: u64, to: u64) -> impl Iterator<Item = Output> {
    (from..=to).map(|index| Output::Entry { index, bytes: vec![index as u8] })
}

#[test]
fn a_snapshot_that_is_read_while_another_is_stored_is_one_of_the_two() {
    let folder = Folder::new();
    block(async {
        let (store, mut machine, _taken) = open(&folder.0, 100).await;
        let entries: Vec<_> = (1..=4).map(|index| entry(index, &[Fences::NONE])).collect();
        store.take(&entries);
        machine.apply(entries).await.unwrap();
        assert!(machine.offer(2, b"two".to_vec()));
        machine.build_snapshot().await.unwrap();
        assert!(machine.offer(4, b"four".to_vec()));
        let mut builder = machine.clone();
        let (built, read) = tokio::join!(builder.build_snapshot(), machine.get_current_snapshot());
        built.unwrap();
        let read = read.unwrap().unwrap();
        let (header, _) = Header::split(read.snapshot.get_ref()).unwrap();
        assert_eq!(read.meta.last_log_id, Some(id(header.index)));
    });
}

/// What a snapshot of the leader holds is removed from the log before the snapshot is stored, which may fail.
#[test]
fn no_entry_leaves_the_disk_before_a_snapshot_holds_it() {
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
    let folder = Folder::new();
    let stored = |store: &Store| store.range(.., usize::MAX).len();
    block(async {
        let (mut store, ..) = open(&folder.0, 100).await;
        store.blocking_append((0..3).map(|index| entry(index, &[Fences::NONE]))).await.unwrap();
        store.purge(id(9)).await.unwrap();
        assert_eq!((stored(&store), store.last()), (0, Some(id(9))));
        // Whatever was asked before has been done when this has.
        store.save_vote(&Vote::new(1, 0)).await.unwrap();
    });
    let meta = SnapshotMeta { last_log_id: Some(id(9)), ..Default::default() };
    let content = Header { whole: 10, index: 10, fenced: Fences::NONE }.with(b"leader's").unwrap();
    block(async {
        let (mut store, mut machine, _taken) = open(&folder.0, 100).await;
        assert_eq!((stored(&store), store.last()), (3, Some(id(2))), "there was no snapshot");
        store.purge(id(9)).await.unwrap();
        machine.install_snapshot(&meta, Box::new(Cursor::new(content))).await.unwrap();
        store.save_vote(&Vote::new(2, 0)).await.unwrap();
    });
    block(async {
        let (store, machine, _taken) = open(&folder.0, 100).await;
        assert_eq!((stored(&store), store.last(), machine.last_place()), (0, Some(id(9)), Some(id(9))));
    });
}

#[test]
fn everything_is_handed_out_anew_behind_a_snapshot_that_another_made() {
    let folder = Folder::new();
    let one = |index: u64| entry(index, &[Fences::NONE]);
    let meta = |index| SnapshotMeta { last_log_id: Some(id(index)), ..Default::default() };
    let content = |index| Header { whole: index, index, fenced: Fences::NONE }.with(b"another's").unwrap();
    block(async {
        let (store, mut machine, mut taken) = open(&folder.0, 100).await;
        let entries: Vec<_> = (1..=8).map(one).collect();
        store.take(&entries);
        machine.apply(entries).await.unwrap();
        told(&mut taken);
        assert!(machine.restore(None).await.unwrap(), "nothing but what it was given is stored");
        assert_eq!(told(&mut taken), [Output::Anew].into_iter().chain(listing(1, 8)).collect::<Vec<_>>());
        assert!(machine.offer(4, b"wrong".to_vec()));
        machine.build_snapshot().await.unwrap();
        store.forget(id(2)).unwrap();
        for other in [None, Some((meta(3), content(3))), Some((meta(9), content(9)))] {
            assert!(!machine.restore(other).await.unwrap(), "it has none, an older one, one that is ahead");
        }
        assert_eq!(told(&mut taken), []);
        assert!(machine.restore(Some((meta(6), content(6)))).await.unwrap());
        let install = Output::Install { index: 6, bytes: b"another's".to_vec() };
        let anew: Vec<_> = [Output::Anew, install.clone()].into_iter().chain(listing(7, 8)).collect();
        assert_eq!(told(&mut taken), anew);
        machine.apply([one(9)]).await.unwrap();
        assert_eq!(told(&mut taken), listing(9, 9).collect::<Vec<_>>());
    });
    block(async {
        let (_, _, mut taken) = open(&folder.0, 100).await;
        assert_eq!(told(&mut taken)[0], Output::Install { index: 6, bytes: b"another's".to_vec() });
    });
}

#[test]
fn a_snapshot_that_is_asked_for_is_wanted_once() {
    let folder = Folder::new();
    block(async {
        let (store, mut machine, mut taken) = open(&folder.0, 100).await;
        machine.refresh().await;
        assert_eq!(told(&mut taken), [], "there is nothing to be kept");
        store.take(&[entry(1, &[Fences::NONE])]);
        machine.apply([entry(1, &[Fences::NONE])]).await.unwrap();
        told(&mut taken);
        machine.refresh().await;
        machine.refresh().await;
        assert_eq!(told(&mut taken), [Output::WantSnapshot]);
    });
}

fn alone(folder: &Folder, every: usize) -> Result<Running, StartError> {
    let config = solo::Config {
        node: NodeId(0),
        name: "n0".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        data: folder.0.clone(),
        snapshot_every: every,
    };
    Running::alone(config)
}

/// What comes until `enough`.
fn until(log: &mut Running, enough: impl Fn(&Output) -> bool) -> Vec<Output> {
    let begin = Instant::now();
    let mut all = Vec::new();
    while begin.elapsed() < PATIENCE {
        match log.take() {
            Some(output) => {
                let last = enough(&output);
                all.push(output);
                if last {
                    return all;
                }
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("it has not come: {all:?}");
}

fn of(ticket: Ticket) -> impl Fn(&Output) -> bool {
    move |output| matches!(output, Output::Outcome(of, _) if *of == ticket)
}

fn entries(outputs: &[Output]) -> Vec<(u64, Vec<u8>)> {
    let each = outputs.iter().filter_map(|output| match output {
        Output::Entry { index, bytes } => Some((*index, bytes.clone())),
        _ => None,
    });
    each.collect()
}

#[test]
fn a_node_alone_commits_and_remembers() {
    let folder = Folder::new();
    let mut log = alone(&folder, 1000).unwrap();
    let tickets: Vec<Ticket> = (0..20).map(|n| log.propose(vec![n], Fences::NONE)).collect();
    let said = until(&mut log, of(tickets[19]));
    let expected: Vec<(u64, Vec<u8>)> = (0..20).map(|n| (u64::from(n) + 1, vec![n])).collect();
    assert_eq!(entries(&said), expected);
    assert!(said.contains(&Output::Role { leader: Some(ReplicaId(0)), term: 1, quorum: true }));
    assert_eq!(said.last(), Some(&Output::Outcome(tickets[19], Outcome::Committed(20))));
    let long = log.propose(vec![0; MAX_ENTRY + 1], Fences::NONE);
    let said = until(&mut log, of(long));
    assert_eq!(said.last(), Some(&Output::Outcome(long, Outcome::Refused(Refusal::TooLong(MAX_ENTRY + 1)))));
    let fence = log.propose(vec![20], fence(3, 1));
    until(&mut log, of(fence));
    assert_eq!(listed(&log.fenced()), [(3, 1)]);
    drop(log);

    let mut log = alone(&folder, 1000).unwrap();
    let said = until(&mut log, |output| matches!(output, Output::Role { .. }));
    assert_eq!(entries(&said)[..20], expected);
    assert_eq!(listed(&log.fenced()), [(3, 1)]);
    let next = log.propose(vec![99], Fences::NONE);
    until(&mut log, |output| *output == Output::Outcome(next, Outcome::Committed(22)));
}

#[test]
fn a_node_alone_compacts() {
    let folder = Folder::new();
    let mut log = alone(&folder, 4).unwrap();
    for n in 0..5 {
        let ticket = log.propose(vec![n], Fences::NONE);
        until(&mut log, of(ticket));
    }
    let ticket = log.propose(vec![5], Fences::NONE);
    until(&mut log, of(ticket));
    log.snapshot(6, b"six".to_vec());
    let ticket = log.propose(vec![6], Fences::NONE);
    until(&mut log, of(ticket));
    drop(log);
    let mut log = alone(&folder, 4).unwrap();
    let said = until(&mut log, |output| matches!(output, Output::Role { .. }));
    assert_eq!(said[0], Output::Install { index: 6, bytes: b"six".to_vec() });
    assert_eq!(entries(&said), [(7, vec![6])]);
    let refused = log.set_replicas(vec![Replica {
        id: ReplicaId(0),
        name: "n0".to_owned(),
        address: String::new(),
        votes: true,
    }]);
    let said = until(&mut log, of(refused));
    assert!(matches!(said.last(), Some(Output::Outcome(_, Outcome::Refused(Refusal::Replicas(_))))));
}

#[test]
fn a_store_in_use_or_of_another_is_refused() {
    let folder = Folder::new();
    let first = alone(&folder, 4).unwrap();
    assert!(matches!(alone(&folder, 4), Err(StartError::Disk(_))));
    drop(first);
    let error = disk::open(&folder.0, ReplicaId(7)).err().unwrap().to_string();
    assert!(error.contains("is replica 0's, not 7's"), "{error}");
}

#[test]
fn damage_is_found_wherever_it_is() {
    let folder = Folder::new();
    let mut log = alone(&folder, 1000).unwrap();
    for n in 0..50 {
        let ticket = log.propose(vec![n; 500], Fences::NONE);
        until(&mut log, of(ticket));
    }
    drop(log);
    let file = folder.0.join(disk::FILE);
    let good = std::fs::read(&file).unwrap();
    let expected: Vec<(u64, Vec<u8>)> = (0..50).map(|n| (u64::from(n) + 1, vec![n; 500])).collect();
    let mut found = 0;
    for place in (0..good.len()).step_by(good.len() / 61) {
        let mut bad = good.clone();
        for byte in bad.iter_mut().skip(place).take(64) {
            *byte ^= 0x5a;
        }
        std::fs::write(&file, bad).unwrap();
        match disk::open(&folder.0, ReplicaId(0)) {
            // Pages that hold nothing may hold anything.
            Ok((disk, writer, loaded)) => {
                let bytes = loaded.entries.iter().filter_map(|entry| match &entry.payload {
                    EntryPayload::Normal(batch) => Some(batch.proposals[0].bytes.clone()),
                    _ => None,
                });
                assert_eq!(
                    bytes.collect::<Vec<_>>(),
                    expected.iter().map(|(_, b)| b.clone()).collect::<Vec<_>>()
                );
                drop(disk);
                writer.join();
            }
            Err(_) => found += 1,
        }
    }
    assert!(found > 0);
}
