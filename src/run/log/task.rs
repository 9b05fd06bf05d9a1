//! The log's thread: starts openraft and the network, does what the management thread commands, and says what happens.

use crate::base::Incarnation;
use crate::cluster::log::{MAX_PROPOSALS, Outcome, Output, Refusal, Replica, ReplicaId, Ticket};
use crate::run::log::core::{self, Core, Waiting, Wish};
use crate::run::log::disk::{Base, Disk, Loaded, Writer};
use crate::run::log::frame::{CHUNK, Verdict};
use crate::run::log::link::Links;
use crate::run::log::machine::{self, Header, Machine};
use crate::run::log::network::Network;
use crate::run::log::refusals::Refusals;
use crate::run::log::store::{Fenced, Store};
use crate::run::log::tls::Identity;
use crate::run::log::types::{Peer, Proposal, Raft};
use crate::run::log::{Config, Timing, duty, renewal, server};
use openraft::SnapshotPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// For the tasks to end when it is stopped.
const END: Duration = Duration::from_secs(2);
/// For a snapshot's piece to be stored at the peer, the last one with all the others.
const PIECE: Duration = Duration::from_secs(10);

/// What the management thread wants.
pub enum Command {
    /// This to be committed.
    Propose(Ticket, Proposal),
    /// These to be the replicas.
    Replicas(Ticket, Vec<Replica>),
    /// The lease of this life to be renewed by all voters.
    Renew(u64, Incarnation),
    /// Everything to be handed out anew, with the help of that replica.
    Restore(ReplicaId),
    /// Not to lead any more.
    Resign,
    /// The state at an index to be kept.
    Snapshot(u64, Vec<u8>),
}

/// A replica about to run.
pub struct Task {
    config: Config,
    identity: Arc<Identity>,
    refusals: Arc<Refusals>,
    disk: Disk,
    loaded: Loaded,
    store: Store,
    outputs: mpsc::Sender<Output>,
}

/// Runs `log` on this thread until it has ended, with a reason that is passed on, or it is `stopped`.
pub fn drive(
    log: impl Future<Output = String>,
    stopped: oneshot::Receiver<()>,
    outputs: &mpsc::Sender<Output>,
    writer: Writer,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let end = match runtime {
        Ok(runtime) => {
            let end = runtime.block_on(async {
                tokio::select! {
                    end = log => Some(end),
                    _ = stopped => None,
                }
            });
            runtime.shutdown_timeout(END);
            end
        }
        Err(error) => Some(error.to_string()),
    };
    writer.join();
    if let Some(why) = end {
        tracing::error!("the replicated log has stopped: {why}");
        // If nobody listens any more, nobody needs to know.
        let _ = outputs.blocking_send(Output::Failed(why));
    }
}

/// What is fenced where a stored snapshot ends.
pub fn snapshot_base(loaded: &Loaded) -> Option<Base> {
    let (meta, content) = loaded.snapshot.as_ref()?;
    let (header, _) = Header::split(content)?;
    Some(Base { at: meta.last_log_id.map_or(0, |id| id.index), fenced: header.fenced })
}

/// openraft's configuration.
fn raft_config(config: &Config) -> openraft::Config {
    let Timing { heartbeat, election_min, election_max } = config.timing;
    let ms = |duration: Duration| duration.as_millis() as u64;
    openraft::Config {
        cluster_name: "steerage".to_owned(),
        heartbeat_interval: ms(heartbeat),
        election_timeout_min: ms(election_min),
        election_timeout_max: ms(election_max),
        install_snapshot_timeout: ms(PIECE),
        snapshot_max_chunk_size: CHUNK as u64,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 2 * config.snapshot_every as u64,
        max_payload_entries: 64,
        // Whoever may stand for election is told so later.
        enable_elect: false,
        ..openraft::Config::default()
    }
}

impl Task {
    /// A task of what was `loaded`.
    pub fn new(
        config: Config,
        identity: Arc<Identity>,
        refusals: Arc<Refusals>,
        disk: Disk,
        mut loaded: Loaded,
        outputs: mpsc::Sender<Output>,
    ) -> Self {
        let snapshot = snapshot_base(&loaded);
        let store = Store::new(disk.clone(), &mut loaded, snapshot);
        Self { config, identity, refusals, disk, loaded, store, outputs }
    }

    /// See [`Store::fenced`].
    pub fn fenced(&self) -> Fenced {
        self.store.fenced()
    }

    /// Runs it until it fails; says why.
    pub async fn serve(self, listener: std::net::TcpListener, commands: mpsc::Receiver<Command>) -> String {
        let outputs = self.outputs.clone();
        let (core, batches) = match self.start().await {
            Ok(started) => started,
            Err(why) => return why,
        };
        let core = Arc::new(core);
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return error.to_string(),
        };
        tokio::spawn(server::serve(core.clone(), listener));
        tokio::spawn(core::batch(core.clone(), batches));
        tokio::spawn(obey(core.clone(), commands, outputs.clone()));
        if core.is_witness() {
            tokio::spawn(duty::compact(core.clone()));
            tokio::spawn(duty::stand(core.clone()));
        }
        let why = watch(&core, &outputs).await;
        // Peers notice at once, not when connections time out.
        let _ = timeout(END, core.raft.shutdown()).await;
        why
    }

    async fn start(self) -> Result<(Core, mpsc::Receiver<Waiting>), String> {
        let Self { config, identity, refusals, disk, mut loaded, store, outputs } = self;
        let fail = |error: &dyn std::fmt::Display| error.to_string();
        let parts = machine::Parts {
            outputs,
            store: store.clone(),
            disk: disk.clone(),
            every: config.snapshot_every,
            speaks: config.id.node().is_some(),
        };
        let machine = Machine::new(parts, loaded.snapshot.take()).await.map_err(|e| fail(&e))?;
        let links = Links::new(identity.clone(), refusals.clone());
        let network = Network { links: links.clone(), pause: config.timing.heartbeat };
        let raft_config = Arc::new(raft_config(&config).validate().map_err(|e| fail(&e))?);
        let id = u64::from(config.id.0);
        let raft = Raft::new(id, raft_config, network, store.clone(), machine.clone()).await;
        let raft = raft.map_err(|e| fail(&e))?;
        let begins = store.is_empty() && config.first.iter().any(|replica| replica.id == config.id);
        let parts = core::Parts {
            identity,
            raft,
            store,
            machine,
            links,
            refusals,
            timing: config.timing,
            snapshot_every: config.snapshot_every,
            disk,
            admitted: loaded.admitted,
        };
        let (core, batches) = Core::new(parts);
        if begins || loaded.admitted {
            core.admit().await.map_err(|e| fail(&e))?;
        }
        if begins {
            let first: BTreeMap<u64, Peer> =
                config.first.iter().map(|replica| (replica.id.0.into(), Peer::from(replica))).collect();
            core.raft.initialize(first).await.map_err(|e| fail(&e))?;
        }
        Ok((core, batches))
    }
}

/// Does what is commanded until the other end is gone.
async fn obey(core: Arc<Core>, mut commands: mpsc::Receiver<Command>, outputs: mpsc::Sender<Output>) {
    let places = Arc::new(Semaphore::new(MAX_PROPOSALS));
    while let Some(command) = commands.recv().await {
        let (ticket, wish) = match command {
            Command::Snapshot(index, state) => {
                if core.machine.offer(index, state) && core.raft.trigger().snapshot().await.is_err() {
                    return;
                }
                continue;
            }
            Command::Renew(token, life) => {
                renewal::ask(&core, token, life, &outputs);
                continue;
            }
            Command::Restore(from) => {
                tokio::spawn(duty::restore(core.clone(), from.0.into()));
                continue;
            }
            Command::Resign => {
                tokio::spawn(duty::resign(core.clone()));
                continue;
            }
            Command::Propose(ticket, proposal) => (ticket, Wish::Entry(proposal)),
            Command::Replicas(ticket, replicas) => (ticket, Wish::Replicas(replicas)),
        };
        let place = places.clone().try_acquire_owned();
        let (core, outputs) = (core.clone(), outputs.clone());
        tokio::spawn(async move {
            let outcome = match place {
                Err(_) => Outcome::Refused(Refusal::Busy),
                Ok(_place) => match core.wish(wish).await {
                    Verdict::Committed(index) => {
                        // Who proposed sees the entry before its outcome.
                        match core.machine.applied().wait_for(|applied| *applied >= index).await {
                            Ok(_) => Outcome::Committed(index),
                            Err(_) => Outcome::Unknown,
                        }
                    }
                    Verdict::Refused(refusal) => Outcome::Refused(refusal),
                    Verdict::Elsewhere => Outcome::Refused(Refusal::NoLeader),
                    Verdict::Unknown => Outcome::Unknown,
                },
            };
            // Nobody takes it when the log is being stopped.
            let _ = outputs.send(Output::Outcome(ticket, outcome)).await;
        });
    }
}

/// Says who leads until the log fails; says why it has.
async fn watch(core: &Core, outputs: &mpsc::Sender<Output>) -> String {
    let mut metrics = core.raft.metrics();
    let mut said = None;
    loop {
        let role = core.role();
        if said != Some(role) {
            said = Some(role);
            let (leader, term, quorum) = role;
            let _ = outputs.send(Output::Role { leader, term, quorum }).await;
        }
        let stopped = metrics.borrow_and_update().running_state.clone();
        if let Some(why) = core.failed() {
            return why;
        }
        if let Err(fatal) = stopped {
            return fatal.to_string();
        }
        if let Ok(Err(_)) = timeout(core.timing.heartbeat, metrics.changed()).await {
            return "openraft has stopped".to_owned();
        }
    }
}
