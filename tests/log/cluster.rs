//! Replicas in processes, the ways between them, and a record of all that they have said, which is judged.

use crate::faulty::Honesty;
use crate::process::{Process, Said};
use crate::relay::{Relay, Ways};
use crate::replica::{Orders, name};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use steerage::cluster::log::{Replica, ReplicaId};
use steerage::run::authority;

/// How a proposal ended, for who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Committed(u64),
    Refused(String),
    Unknown,
}

/// What is known of one replica.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The last index that its present life has told.
    pub reached: u64,
    pub leader: Option<i32>,
    pub term: u64,
    pub quorum: bool,
    pub failed: Option<String>,
    pub ended: bool,
    pub voters: String,
    pub installs: usize,
    pub snapshots: usize,
    /// How often it has begun anew.
    pub anew: usize,
    /// Node and last life of all that it fences, as it says them.
    pub fenced: String,
    /// The requests for its lease that were granted.
    pub renewed: BTreeSet<u64>,
}

/// What has been said, and whether it can be true.
#[derive(Default)]
pub struct Record {
    /// The entry at each index.
    order: Vec<String>,
    pub ends: BTreeMap<String, End>,
    pub known: BTreeMap<u16, Known>,
    lives: BTreeMap<u16, usize>,
    pub broken: Vec<String>,
}

impl Record {
    fn hear(&mut self, said: Said) {
        if self.lives.get(&said.id) != Some(&said.life) {
            // The last words of a former life: an acknowledgement counts, whoever made it.
            if let Some(line) = said.line.as_deref().filter(|line| line.starts_with("C ")) {
                self.outcome(line);
            }
            return;
        }
        let Some(line) = said.line else {
            self.known.entry(said.id).or_default().ended = true;
            return;
        };
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let known = self.known.entry(said.id).or_default();
        match words[0] {
            "E" => {
                let (index, text) = (words[1].parse::<u64>().unwrap(), words[2]);
                known.reached = index;
                let place = usize::try_from(index).unwrap() - 1;
                match self.order.get(place) {
                    Some(known) if known == text => {}
                    Some(known) => {
                        self.broken.push(format!("n{}: entry {index} is {text}, and was {known}", said.id))
                    }
                    None if place == self.order.len() => self.order.push(text.to_owned()),
                    None => self.broken.push(format!("n{}: entry {index} comes before others", said.id)),
                }
            }
            "I" => {
                known.installs += 1;
            }
            "W" => known.snapshots += 1,
            "A" => (known.anew, known.reached) = (known.anew + 1, 0),
            "R" => {
                let rest: Vec<&str> = line.split(' ').collect();
                let term = rest[2].parse().unwrap();
                if term < known.term {
                    self.broken.push(format!("n{}: term {term} after {}", said.id, known.term));
                }
                known.leader = rest[1].parse().ok().filter(|leader| *leader >= 0);
                (known.term, known.quorum) = (term, rest[3] == "true");
            }
            "V" => known.voters = words.get(1).unwrap_or(&"").to_string(),
            "N" => known.fenced = words.get(1).unwrap_or(&"").to_string(),
            "L" => {
                known.renewed.insert(words[1].parse().unwrap());
            }
            "F" => known.failed = Some(line[2..].to_owned()),
            "C" | "X" | "U" => self.outcome(&line),
            _ => self.broken.push(format!("n{} says {line:?}", said.id)),
        }
    }

    fn outcome(&mut self, line: &str) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let end = match words[0] {
            "C" => End::Committed(words[2].parse().unwrap()),
            "X" => End::Refused(words[2].to_owned()),
            _ => End::Unknown,
        };
        self.ends.insert(words[1].to_owned(), end);
    }

    /// What was acknowledged: the text and its index.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ends.iter().filter_map(|(tag, end)| match end {
            End::Committed(index) if tag != "replicas" => Some((tag.as_str(), *index)),
            _ => None,
        })
    }

    /// What is wrong with what was acknowledged and refused, once all have all.
    pub fn judge(&self) -> Vec<String> {
        let mut wrong = self.broken.clone();
        for (tag, index) in self.acknowledged() {
            let place = usize::try_from(index).unwrap() - 1;
            match self.order.get(place) {
                Some(text) if text == tag => {}
                Some(text) => wrong.push(format!("{tag} was acknowledged at {index}, where {text} stands")),
                None => wrong.push(format!("{tag} was acknowledged at {index}, and is lost")),
            }
        }
        for (tag, end) in &self.ends {
            if matches!(end, End::Refused(_)) && self.order.iter().any(|text| text == tag) {
                wrong.push(format!("{tag} was refused, and stands in the log"));
            }
        }
        wrong
    }

    pub fn highest(&self) -> u64 {
        self.acknowledged().map(|(_, index)| index).max().unwrap_or(0)
    }
}

/// A directory that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("steerage-log-test-{what}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A free port of this machine, for a moment at least: not of those that the kernel gives to whoever asks for any, as one of
/// these processes has to find it free after a restart.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    let mut addresses = ports.take(1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}

/// Clusters of processes run one at a time: what is measured in tens of milliseconds is not for a crowd.
static ALONE: Mutex<()> = Mutex::new(());

pub struct Cluster {
    test: String,
    pub folder: Folder,
    pub ways: Arc<Ways>,
    relays: BTreeMap<u16, (Relay, SocketAddr)>,
    pub processes: BTreeMap<u16, Process>,
    pub record: Record,
    heard: Receiver<Said>,
    tell: Sender<Said>,
    first: Vec<u16>,
    pub honesty: Option<Honesty>,
    pub snapshot_every: usize,
    proposals: usize,
    renewals: u64,
    /// The last to be dropped.
    alone: Option<MutexGuard<'static, ()>>,
}

/// For what must happen, on a machine that is busy with other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Cluster {
    /// A cluster whose replicas will be `ids`; `first` of them vote from the beginning. Nothing runs yet.
    pub fn new(test: &str, ids: &[u16], first: &[u16]) -> Self {
        let folder = Folder::new(&test.replace("::", "-"));
        let names: Vec<String> = ids.iter().map(|id| name(*id)).collect();
        authority::init(&folder.0.join("certificates"), &names).unwrap();
        let ways = Arc::new(Ways::default());
        let relays = ids.iter().map(|id| {
            let target = free_address();
            (*id, (Relay::start(*id, target, ways.clone()), target))
        });
        let (tell, heard) = channel();
        Self {
            test: test.to_owned(),
            folder,
            relays: relays.collect(),
            ways,
            processes: BTreeMap::new(),
            record: Record::default(),
            heard,
            tell,
            first: first.to_vec(),
            honesty: None,
            snapshot_every: 25,
            proposals: 0,
            renewals: 0,
            alone: None,
        }
    }

    pub fn replica(&self, id: u16, votes: bool) -> Replica {
        let address = self.relays[&id].0.address.to_string();
        Replica { id: ReplicaId(id), name: name(id), address, votes }
    }

    pub fn listens(&self, id: u16) -> SocketAddr {
        self.relays[&id].1
    }

    pub fn data(&self, id: u16) -> PathBuf {
        self.folder.0.join(name(id))
    }

    pub fn orders(&self, id: u16) -> Orders {
        let first: Vec<Replica> = self.first.iter().map(|id| self.replica(*id, true)).collect();
        Orders {
            id,
            listen: self.listens(id),
            data: self.data(id),
            certificates: self.folder.0.join("certificates"),
            first: if self.first.contains(&id) { first } else { Vec::new() },
            snapshot_every: self.snapshot_every,
            honesty: self.honesty,
            room: None,
        }
    }

    /// From now on all join what runs.
    pub fn forget_first(&mut self) {
        self.first.clear();
    }

    fn next_life(&mut self, id: u16) -> usize {
        // A test that failed has said so itself.
        self.alone.get_or_insert_with(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
        let life = self.record.lives.entry(id).or_default();
        *life += 1;
        let life = *life;
        let term = self.record.known.get(&id).map_or(0, |known| known.term);
        self.record.known.insert(id, Known { term, ..Known::default() });
        life
    }

    pub fn start(&mut self, id: u16) {
        self.start_on(id, None);
    }

    /// With a `disk` of so many bytes: a new one, see [`Process::replica`], or what there is of one that may be faulty.
    pub fn start_on(&mut self, id: u16, disk: Option<usize>) {
        let life = self.next_life(id);
        let mut orders = self.orders(id);
        let new = match orders.honesty {
            Some(_) => {
                orders.room = disk;
                None
            }
            None => disk,
        };
        let process = Process::replica(&self.test, &orders, new, life, self.tell.clone());
        self.run(id, process);
    }

    pub fn start_witness(&mut self, id: u16, file: &std::path::Path) {
        let life = self.next_life(id);
        let process = Process::witness(id, file, life, self.tell.clone());
        self.run(id, process);
    }

    fn run(&mut self, id: u16, process: Process) {
        let mut running = self.ways.running.lock().unwrap();
        running.retain(|(_, other)| *other != id);
        running.push((process.pid(), id));
        drop(running);
        self.processes.insert(id, process);
    }

    pub fn kill(&mut self, id: u16) {
        self.processes.remove(&id).unwrap().kill();
        self.hear();
    }

    pub fn wipe(&mut self, id: u16) {
        std::fs::remove_dir_all(self.data(id)).unwrap();
        self.record.known.remove(&id);
    }

    /// Proposes a new text at `id`; gives it.
    pub fn propose(&mut self, id: u16, padding: usize) -> String {
        self.proposals += 1;
        let tag = format!("p{}", self.proposals);
        self.processes.get_mut(&id).unwrap().command(&format!("propose {tag} {padding}"));
        tag
    }

    /// Asks at `id` for the lease of a life, for so long. Asked again, as nodes do: a request that meets a link's reconnection is
    /// lost.
    pub fn renews(&mut self, id: u16, life: u32, patience: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            self.renewals += 1;
            let token = self.renewals;
            self.processes.get_mut(&id).unwrap().command(&format!("renew {token} {life}"));
            let granted = |record: &Record| record.known[&id].renewed.contains(&token);
            if self.wait_for(Duration::from_millis(500), "the lease", granted).is_ok() {
                return true;
            }
        }
        false
    }

    /// Has replicas set at `id`, until that is committed.
    pub fn set_replicas(&mut self, id: u16, all: &[(u16, bool)]) -> Result<(), String> {
        let all: Vec<Replica> = all.iter().map(|(id, votes)| self.replica(*id, *votes)).collect();
        let line = format!("replicas {}", serde_json::to_string(&all).unwrap());
        let begin = Instant::now();
        loop {
            self.record.ends.remove("replicas");
            self.processes.get_mut(&id).unwrap().command(&line);
            self.wait("an outcome for a change of the replicas", |record| {
                record.ends.contains_key("replicas")
            })?;
            match self.record.ends.remove("replicas").unwrap() {
                End::Committed(_) => return Ok(()),
                other if begin.elapsed() > PATIENCE => return Err(format!("change of replicas: {other:?}")),
                _ => {}
            }
        }
    }

    /// Takes note of what has been said so far.
    pub fn hear(&mut self) {
        while let Ok(said) = self.heard.try_recv() {
            self.record.hear(said);
        }
    }

    pub fn wait(&mut self, what: &str, enough: impl Fn(&Record) -> bool) -> Result<(), String> {
        self.wait_for(PATIENCE, what, enough)
    }

    pub fn wait_for(
        &mut self,
        patience: Duration,
        what: &str,
        enough: impl Fn(&Record) -> bool,
    ) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            self.hear();
            if enough(&self.record) {
                return Ok(());
            }
            if begin.elapsed() > patience {
                return Err(format!("not in {patience:?}: {what}; known: {:?}", self.record.known));
            }
            if let Ok(said) = self.heard.recv_timeout(Duration::from_millis(5)) {
                self.record.hear(said);
            }
        }
    }

    /// Proposes at `id` until something is committed.
    pub fn commit(&mut self, id: u16) -> Result<String, String> {
        let begin = Instant::now();
        loop {
            let tag = self.propose(id, 0);
            self.wait("an outcome", |record| {
                record.ends.contains_key(&tag) || record.known.get(&id).is_none_or(|known| known.ended)
            })?;
            match self.record.ends.get(&tag) {
                Some(End::Committed(_)) => return Ok(tag),
                other if begin.elapsed() > PATIENCE => return Err(format!("no commit at n{id}: {other:?}")),
                _ => {}
            }
        }
    }

    /// Waits until each of `ids` has everything that was acknowledged, and judges it.
    pub fn settle(&mut self, ids: &[u16]) -> Result<(), String> {
        let at = ids[0];
        self.commit(at)?;
        let goal = self.record.highest();
        self.wait(&format!("everybody at {goal}"), |record| {
            !record.broken.is_empty()
                || ids.iter().all(|id| record.known.get(id).is_some_and(|known| known.reached >= goal))
        })?;
        let wrong = self.record.judge();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}
