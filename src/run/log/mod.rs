//! The replicated log in real life: openraft on a redb file, over TCP with mutual TLS.
//!
//! A [`Running`] replica has threads of its own (one for openraft and the network, one for the disk) and is a node's
//! [`Log`](crate::cluster::log::Log), of a node that has peers ([`Running::start`]) as of one that has none
//! ([`Running::alone`]).

pub mod core;
pub mod disk;
pub mod duty;
pub mod frame;
pub mod link;
pub mod machine;
pub mod network;
pub mod refusals;
pub mod renewal;
pub mod replicas;
pub mod server;
pub mod solo;
pub mod store;
pub mod task;
pub mod tls;
pub mod types;
pub mod witness;

use crate::base::Incarnation;
use crate::cluster::fences::Fences;
use crate::cluster::log::{
    Log, MAX_ENTRY, MAX_PROPOSALS, Outcome, Output, Refusal, Replica, ReplicaId, Ticket,
};
use disk::{Disk, DiskError, Loaded, Writer};
use redb::StorageBackend;
use refusals::{Kind, Refusals};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use store::Fenced;
use task::{Command, Task};
use tls::{Identity, TlsError};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};
use types::Proposal;

/// Outputs that wait for the management thread. When they are too many, the log goes on, but what it commits waits.
const OUTPUTS: usize = 4096;

/// When a leader is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life of the leader.
    pub heartbeat: Duration,
    /// A replica that hears nothing from the leader for a random time of at least this stands for election.
    pub election_min: Duration,
    /// And of at most this.
    pub election_max: Duration,
}

impl Timing {
    /// For machines that may stall for tens of milliseconds. A dead leader has a successor within twice `election_max`: as long
    /// as nodes are listened for before they count as dead. An election for nothing costs a pause in commits, no more.
    pub const LAB: Self = Self {
        heartbeat: Duration::from_millis(40),
        election_min: Duration::from_millis(120),
        election_max: Duration::from_millis(200),
    };
}

/// How a replica is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its number; a witness's is at least [`ReplicaId::FIRST_WITNESS`].
    pub id: ReplicaId,
    /// Its name, which its certificate is made out to.
    pub name: String,
    /// Where it takes connections.
    pub listen: SocketAddr,
    /// Where it stores the log.
    pub data: PathBuf,
    /// What it shows the others.
    pub tls: tls::Files,
    /// The voters of a new cluster: the same list at each of them, at its first start. Empty at a replica that joins a cluster
    /// which runs already, or has lost what it had stored. Without effect if something is stored.
    pub first: Vec<Replica>,
    /// When a leader is missed.
    pub timing: Timing,
    /// Writes to the disk (each holding up to 256 entries) between two snapshots. Twice as many are kept for replicas that
    /// were away, which else are sent the snapshot.
    pub snapshot_every: usize,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its files.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its address.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Its configuration.
    #[error("{0}")]
    Config(String),
    /// Its threads.
    #[error("the log's thread did not start: {0}")]
    Thread(std::io::Error),
}

/// A replica that runs. Dropping it stops it.
pub struct Running {
    commands: mpsc::Sender<Command>,
    outputs: mpsc::Receiver<Output>,
    /// What was refused without asking the log's thread.
    refused: VecDeque<Output>,
    snapshot: Option<(u64, Vec<u8>)>,
    tickets: u64,
    failed: bool,
    fenced: Fenced,
    refusals: Arc<Refusals>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a replica; what it finds in its store comes out of [`Log::take`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let opened = disk::open(&config.data, config.id)?;
        Self::start_on(config, opened)
    }

    /// The same with a store of the caller's making, instead of a file in `config.data`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_backend(config: Config, backend: impl StorageBackend) -> Result<Self, StartError> {
        let opened = disk::open_backend(backend, config.id)?;
        Self::start_on(config, opened)
    }

    fn start_on(config: Config, (disk, writer, loaded): (Disk, Writer, Loaded)) -> Result<Self, StartError> {
        let identity = Arc::new(Identity::load(config.id, &config.name, &config.tls)?);
        if !config.first.is_empty() {
            replicas::judge(&config.first).map_err(StartError::Config)?;
            if let Some(learner) = config.first.iter().find(|r| !r.votes) {
                let why = format!("{:?} is among the first replicas and doesn't vote", learner.name);
                return Err(StartError::Config(why));
            }
        }
        let listening = |error| StartError::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).map_err(listening)?;
        listener.set_nonblocking(true).map_err(listening)?;
        let refusals = Arc::new(Refusals::default());
        let (commands, queue) = mpsc::channel(MAX_PROPOSALS);
        let (output_in, outputs) = mpsc::channel(OUTPUTS);
        let (stop, stopped) = oneshot::channel();
        let task = Task::new(config, identity, refusals.clone(), disk, loaded, output_in.clone());
        let fenced = task.fenced();
        let run = move || task::drive(task.serve(listener, queue), stopped, &output_in, writer);
        let thread = spawn(run)?;
        Ok(Self::new(commands, outputs, fenced, refusals, (stop, thread)))
    }

    /// Starts the log of a node that has no peers (MECHANISMS §0): an entry is committed when it is on this node's disk.
    ///
    /// # Errors
    /// As [`start`](Self::start); also if the stored log has other replicas.
    pub fn alone(config: solo::Config) -> Result<Self, StartError> {
        let (disk, writer, loaded) = disk::open(&config.data, config.node.into())?;
        let (commands, queue) = mpsc::channel(MAX_PROPOSALS);
        let (output_in, outputs) = mpsc::channel(OUTPUTS);
        let (stop, stopped) = oneshot::channel();
        let solo = solo::Solo::new(config, disk, loaded, output_in.clone()).map_err(StartError::Config)?;
        let fenced = solo.fenced();
        let thread = spawn(move || task::drive(solo.serve(queue), stopped, &output_in, writer))?;
        Ok(Self::new(commands, outputs, fenced, Arc::default(), (stop, thread)))
    }

    fn new(
        commands: mpsc::Sender<Command>,
        outputs: mpsc::Receiver<Output>,
        fenced: Fenced,
        refusals: Arc<Refusals>,
        (stop, thread): (oneshot::Sender<()>, JoinHandle<()>),
    ) -> Self {
        Self {
            commands,
            outputs,
            refused: VecDeque::new(),
            snapshot: None,
            tickets: 0,
            failed: false,
            fenced,
            refusals,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What was refused on its connections so far, by kind.
    pub fn refusals(&self) -> [(Kind, u64); Kind::ALL.len()] {
        self.refusals.counts()
    }

    fn ask(&mut self, command: impl FnOnce(Ticket) -> Result<Command, Refusal>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let refused = match command(ticket).map(|command| self.commands.try_send(command)) {
            Ok(Ok(())) => return ticket,
            Ok(Err(TrySendError::Full(_))) => Refusal::Busy,
            Ok(Err(TrySendError::Closed(_))) => Refusal::Failed("it ended before".to_owned()),
            Err(refusal) => refusal,
        };
        self.refused.push_back(Output::Outcome(ticket, Outcome::Refused(refused)));
        ticket
    }

    fn hand_snapshot(&mut self) {
        let Some((index, bytes)) = self.snapshot.take() else { return };
        // Its turn comes when the queue has room; if the log has ended, nobody needs it.
        if let Err(TrySendError::Full(Command::Snapshot(index, bytes))) =
            self.commands.try_send(Command::Snapshot(index, bytes))
        {
            self.snapshot = Some((index, bytes));
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name("log".to_owned()).spawn(run).map_err(StartError::Thread)
}

impl Log for Running {
    fn propose(&mut self, bytes: Vec<u8>, fences: Fences) -> Ticket {
        self.ask(|ticket| match bytes.len() {
            long if long > MAX_ENTRY => Err(Refusal::TooLong(long)),
            _ => Ok(Command::Propose(ticket, Proposal { bytes, fences })),
        })
    }

    fn set_replicas(&mut self, replicas: Vec<Replica>) -> Ticket {
        self.ask(|ticket| Ok(Command::Replicas(ticket, replicas)))
    }

    fn take(&mut self) -> Option<Output> {
        self.hand_snapshot();
        if self.failed {
            return self.refused.pop_front();
        }
        match self.outputs.try_recv() {
            Ok(output) => {
                self.failed = matches!(output, Output::Failed(_));
                Some(output)
            }
            Err(TryRecvError::Empty) => self.refused.pop_front(),
            Err(TryRecvError::Disconnected) => {
                self.failed = true;
                Some(Output::Failed("its thread has ended".to_owned()))
            }
        }
    }

    fn snapshot(&mut self, index: u64, bytes: Vec<u8>) {
        self.snapshot = Some((index, bytes));
        self.hand_snapshot();
    }

    fn restore(&mut self, from: ReplicaId) {
        // Asked for again if it doesn't come.
        let _ = self.commands.try_send(Command::Restore(from));
    }

    fn resign(&mut self) {
        // Asked for again, too.
        let _ = self.commands.try_send(Command::Resign);
    }

    fn renew(&mut self, token: u64, life: Incarnation) {
        // A log that is too busy for it doesn't renew it: there will be another request soon.
        let _ = self.commands.try_send(Command::Renew(token, life));
    }

    fn fenced(&self) -> Fences {
        self.fenced.now().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // So that nothing waits for it to be taken.
        self.outputs.close();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
