//! A running replica: openraft, and what stands around it.

use crate::base::Incarnation;
use crate::cluster::log::{MAX_PROPOSALS, Refusal, Replica, ReplicaId};
use crate::run::log::disk::{Disk, DiskError};
use crate::run::log::frame::{Answer, Request, Verdict};
use crate::run::log::link::{Link, LinkError, Links};
use crate::run::log::machine::Machine;
use crate::run::log::refusals::Refusals;
use crate::run::log::store::Store;
use crate::run::log::tls::Identity;
use crate::run::log::types::{Applied, Batch, LogId, Peer, Proposal, Raft, replica_id};
use crate::run::log::{Timing, replicas};
use openraft::ServerState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Who asks for a commit longer than this doesn't know what becomes of it.
const COMMIT: Duration = Duration::from_secs(5);
/// The same for a change of replicas, whose new ones have to catch up.
const CHANGE: Duration = Duration::from_secs(60);
/// Snapshots that are overdue before the log takes no more entries.
const OVERDUE: usize = 16;

/// A proposal on its way to the leader's log, and who waits for it.
pub type Waiting = (Proposal, oneshot::Sender<Verdict>);

/// What is asked of the leader, whoever that is.
#[derive(Clone, Debug)]
pub enum Wish {
    /// To commit this.
    Entry(Proposal),
    /// To make these the replicas.
    Replicas(Vec<Replica>),
}

/// What all tasks of a replica share.
pub struct Core {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// openraft.
    pub raft: Raft,
    /// The log in memory.
    pub store: Store,
    /// The state machine's end.
    pub machine: Machine,
    /// Ways to the others.
    pub links: Links,
    /// What was refused.
    pub refusals: Arc<Refusals>,
    /// Its timing.
    pub timing: Timing,
    /// Places in the log between two snapshots.
    pub snapshot_every: usize,
    disk: Disk,
    batches: mpsc::Sender<Waiting>,
    admitted: AtomicBool,
    /// Its state machine has a state to lead by.
    able: AtomicBool,
    heard: Mutex<Option<(u64, Instant)>>,
    changing: tokio::sync::Mutex<()>,
    /// Held while its state machine is given everything anew.
    pub restoring: tokio::sync::Mutex<()>,
}

/// What a [`Core`] is made of.
pub struct Parts {
    /// See [`Core`].
    pub identity: Arc<Identity>,
    /// See [`Core`].
    pub raft: Raft,
    /// See [`Core`].
    pub store: Store,
    /// See [`Core`].
    pub machine: Machine,
    /// See [`Core`].
    pub links: Links,
    /// See [`Core`].
    pub refusals: Arc<Refusals>,
    /// See [`Core`].
    pub timing: Timing,
    /// See [`Core`].
    pub snapshot_every: usize,
    /// Where everything is stored.
    pub disk: Disk,
    /// Whether it may vote.
    pub admitted: bool,
}

impl Core {
    /// A core, and what [`batch`] works on.
    pub fn new(parts: Parts) -> (Self, mpsc::Receiver<Waiting>) {
        let (batches, queue) = mpsc::channel(MAX_PROPOSALS);
        let core = Self {
            identity: parts.identity,
            raft: parts.raft,
            store: parts.store,
            machine: parts.machine,
            links: parts.links,
            refusals: parts.refusals,
            timing: parts.timing,
            snapshot_every: parts.snapshot_every,
            disk: parts.disk,
            batches,
            admitted: AtomicBool::new(parts.admitted),
            able: AtomicBool::new(true),
            heard: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
            restoring: tokio::sync::Mutex::new(()),
        };
        (core, queue)
    }

    /// Its number, as openraft has it.
    pub fn id(&self) -> u64 {
        self.identity.id.0.into()
    }

    /// Whether it is a witness.
    pub fn is_witness(&self) -> bool {
        self.identity.id.node().is_none()
    }

    /// Whether it may vote.
    pub fn admitted(&self) -> bool {
        self.admitted.load(Ordering::SeqCst)
    }

    /// Lets it vote from now on.
    ///
    /// # Errors
    /// That can't be stored.
    pub async fn admit(&self) -> Result<(), DiskError> {
        self.disk.admit().await?;
        self.admitted.store(true, Ordering::SeqCst);
        self.stand();
        Ok(())
    }

    /// A node that may vote, and has a state to lead by, stands for election; a witness has rules of its own.
    fn stand(&self) {
        if !self.is_witness() {
            self.raft.runtime_config().elect(self.admitted() && self.able.load(Ordering::SeqCst));
        }
    }

    /// Whether its state machine has a state to lead by. Without one it takes no proposals and stands for no election.
    pub fn set_able(&self, able: bool) {
        self.able.store(able, Ordering::SeqCst);
        self.stand();
    }

    /// Why it can't store anything any more.
    pub fn failed(&self) -> Option<String> {
        self.disk.failed().map(ToString::to_string)
    }

    /// Replica `from` has acted as the leader just now.
    pub fn heard(&self, from: u64) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, Instant::now()));
    }

    /// Whether it leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// The name of a replica, if there is such a one.
    pub fn name_of(&self, id: u64) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().get_node(&id).map(|peer| peer.name.clone())
    }

    /// The way to a replica, if there is such a one.
    pub fn link(&self, id: u64) -> Option<Link> {
        let metrics = self.raft.metrics();
        let peer: Option<Peer> = metrics.borrow().membership_config.membership().get_node(&id).cloned();
        peer.map(|peer| self.links.to(id, &peer))
    }

    /// Leader, term, and whether a majority is within reach.
    pub fn role(&self) -> (Option<ReplicaId>, u64, bool) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let fresh = self.timing.election_max;
        let quorum = match metrics.current_leader {
            Some(leader) if leader == self.id() => {
                let alone = metrics.membership_config.voter_ids().all(|id| id == self.id());
                let since = metrics.millis_since_quorum_ack.map(Duration::from_millis);
                alone || since.is_some_and(|since| since <= fresh)
            }
            Some(leader) => {
                let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.is_some_and(|(from, at)| from == leader && at.elapsed() <= fresh)
            }
            None => false,
        };
        // What is stored, as openraft's metrics begin at nought, and are ahead of a disk that fails: the next life would fall back.
        let term = self.store.vote().map_or(0, |vote| vote.leader_id.term);
        (metrics.current_leader.map(replica_id), term, quorum)
    }

    /// Has the leader do what is wished.
    pub async fn wish(&self, wish: Wish) -> Verdict {
        let until = Instant::now() + 5 * self.timing.election_max;
        loop {
            let leader = self.raft.metrics().borrow().current_leader;
            let verdict = match leader {
                Some(leader) if leader == self.id() => match wish.clone() {
                    Wish::Entry(proposal) => self.lead(proposal).await,
                    Wish::Replicas(replicas) => self.replace_replicas(replicas).await,
                },
                Some(leader) => self.forward(leader, &wish).await,
                None => Verdict::Elsewhere,
            };
            if verdict != Verdict::Elsewhere {
                return verdict;
            }
            if Instant::now() > until {
                return Verdict::Refused(Refusal::NoLeader);
            }
            sleep(self.timing.heartbeat / 2).await;
        }
    }

    async fn forward(&self, leader: u64, wish: &Wish) -> Verdict {
        let Some(link) = self.link(leader) else { return Verdict::Elsewhere };
        let (request, patience) = match wish.clone() {
            Wish::Entry(proposal) => (Request::Propose(proposal), COMMIT),
            Wish::Replicas(replicas) => (Request::Replicas(replicas), CHANGE),
        };
        match timeout(patience, link.ask(request)).await {
            Ok(Ok(Answer::Verdict(verdict))) => verdict,
            Ok(Err(LinkError::NotSent(_))) => Verdict::Elsewhere,
            Ok(Ok(_) | Err(LinkError::Lost(_))) | Err(_) => Verdict::Unknown,
        }
    }

    /// Whether this replica, asked at this moment, agrees that the lease of that one's life is renewed by the voters of the
    /// membership at `by`.
    pub fn renews(&self, of: u64, life: Incarnation, by: LogId) -> bool {
        let node = u16::try_from(of).ok().and_then(|id| ReplicaId(id).node());
        let renews = |node| self.store.renews(node, life, by);
        self.admitted() && self.name_of(of).is_some() && node.is_some_and(renews)
    }

    /// As the leader, has a proposal committed.
    pub async fn lead(&self, proposal: Proposal) -> Verdict {
        if !self.leads() || !self.able.load(Ordering::SeqCst) {
            return Verdict::Elsewhere;
        }
        if !self.role().2 {
            return Verdict::Refused(Refusal::NoLeader);
        }
        if self.machine.behind() > OVERDUE * self.snapshot_every {
            return Verdict::Refused(Refusal::Busy);
        }
        let (told, verdict) = oneshot::channel();
        if self.batches.try_send((proposal, told)).is_err() {
            return Verdict::Refused(Refusal::Busy);
        }
        verdict.await.unwrap_or(Verdict::Unknown)
    }

    /// As the leader, changes the replicas.
    pub async fn replace_replicas(&self, wanted: Vec<Replica>) -> Verdict {
        let Ok(_alone) = self.changing.try_lock() else {
            return Verdict::Refused(Refusal::Replicas(
                "another change of the replicas is on its way".to_owned(),
            ));
        };
        match timeout(CHANGE, replicas::replace(self, &wanted)).await {
            Ok(Ok(())) => Verdict::Committed(*self.machine.applied().borrow()),
            Ok(Err(verdict)) => verdict,
            Err(_) => Verdict::Unknown,
        }
    }
}

/// Writes what waits, as one: so each turn of the disk and the network serves all that came during the one before.
pub async fn batch(core: Arc<Core>, mut queue: mpsc::Receiver<Waiting>) {
    let mut kept = None;
    loop {
        let first = match kept.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let (batch, told, rest) = Batch::gather(first, || queue.try_recv().ok());
        kept = rest;
        if !core.leads() {
            tell(told, |_| Verdict::Elsewhere);
            continue;
        }
        match timeout(COMMIT, core.raft.client_write(batch)).await {
            Ok(Ok(written)) => {
                let Applied(first) = written.data;
                tell(told, |n| Verdict::Committed(first + n));
            }
            // It may have been appended before leadership was lost, and the next leader may have it.
            Ok(Err(_)) | Err(_) => tell(told, |_| Verdict::Unknown),
        }
    }
}

fn tell(waiting: Vec<oneshot::Sender<Verdict>>, verdict: impl Fn(u64) -> Verdict) {
    for (n, told) in (0..).zip(waiting) {
        // Who asked may have gone.
        let _ = told.send(verdict(n));
    }
}
