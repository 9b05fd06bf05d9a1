//! The log of a node without peers: each entry is committed as soon as it is on the disk.
//!
//! The store is the one that openraft would keep for a cluster of this one voter. So the node can have peers later: it is
//! started as a replica on this store, and given them.

use crate::base::NodeId;
use crate::cluster::log::{Outcome, Output, Refusal, ReplicaId, Ticket};
use crate::run::log::disk::{Disk, DiskError, Loaded};
use crate::run::log::machine::{self, Machine};
use crate::run::log::store::{Fenced, Store};
use crate::run::log::task::{Command, snapshot_base};
use crate::run::log::types::{Batch, Entry, LogId, Peer, Vote};
use openraft::storage::RaftStateMachine;
use openraft::{CommittedLeaderId, EntryPayload, Membership, RaftLogReader, RaftSnapshotBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// How a node's own log is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where peers will reach it, once there are any: see [`Replica::address`](crate::cluster::log::Replica::address).
    pub address: String,
    /// Where it stores the log.
    pub data: PathBuf,
    /// Writes to the disk between two snapshots.
    pub snapshot_every: usize,
}

/// A node's own log, about to run.
pub struct Solo {
    config: Config,
    disk: Disk,
    store: Store,
    loaded: Loaded,
    outputs: mpsc::Sender<Output>,
}

impl Solo {
    /// A log of what was `loaded`.
    ///
    /// # Errors
    /// It is the log of several.
    pub fn new(
        config: Config,
        disk: Disk,
        mut loaded: Loaded,
        outputs: mpsc::Sender<Output>,
    ) -> Result<Self, String> {
        let stored = loaded.entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some(membership),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        });
        let stored = stored.or(loaded.snapshot.as_ref().map(|(meta, _)| meta.last_membership.membership()));
        if let Some((_, peer)) =
            stored.and_then(|m| m.nodes().find(|(id, _)| **id != u64::from(config.node.0)))
        {
            return Err(format!("{}: the log has another replica, {:?}", config.data.display(), peer.name));
        }
        let snapshot = snapshot_base(&loaded);
        let store = Store::new(disk.clone(), &mut loaded, snapshot);
        Ok(Self { config, disk, store, loaded, outputs })
    }

    /// See [`Store::fenced`].
    pub fn fenced(&self) -> Fenced {
        self.store.fenced()
    }

    /// Runs it until it fails, or its commands end; says why.
    pub async fn serve(self, commands: mpsc::Receiver<Command>) -> String {
        match self.run(commands).await {
            Ok(()) => "nobody commands it".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), DiskError> {
        let me = u64::from(self.config.node.0);
        let parts = machine::Parts {
            outputs: self.outputs.clone(),
            store: self.store.clone(),
            disk: self.disk.clone(),
            every: self.config.snapshot_every,
            speaks: true,
        };
        let mut machine = Machine::new(parts, self.loaded.snapshot.take()).await?;
        let term = self.store.vote().map_or(1, |vote| vote.leader_id.term);
        let leader = CommittedLeaderId::new(term, me);
        if self.store.is_empty() {
            let peer = Peer { name: self.config.name.clone(), address: self.config.address.clone() };
            let alone = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, peer)]));
            let first = Entry { log_id: LogId::new(leader, 0), payload: EntryPayload::Membership(alone) };
            self.disk.vote(&Vote::new_committed(term, me)).await?;
            self.disk.admit().await?;
            self.disk.put(std::slice::from_ref(&first)).await?;
            self.store.take(&[first]);
        }
        let begin = machine.last_place().map_or(0, |id| id.index + 1);
        let mut reader = self.store.clone();
        for entry in reader.try_get_log_entries(begin..).await.map_err(failed)? {
            machine.apply([entry]).await.map_err(failed)?;
        }
        let role = Output::Role { leader: Some(ReplicaId::from(self.config.node)), term, quorum: true };
        self.say(role).await;
        let mut kept = None;
        loop {
            let command = match kept.take() {
                Some((proposal, ticket)) => Command::Propose(ticket, proposal),
                None => match commands.recv().await {
                    Some(command) => command,
                    None => return Ok(()),
                },
            };
            match command {
                Command::Propose(ticket, proposal) => {
                    let mut other = None;
                    let next = || match commands.try_recv().ok()? {
                        Command::Propose(ticket, proposal) => Some((proposal, ticket)),
                        command => {
                            other = Some(command);
                            None
                        }
                    };
                    let (batch, tickets, rest) = Batch::gather((proposal, ticket), next);
                    kept = rest;
                    self.commit(&mut machine, leader, batch, tickets).await?;
                    if let Some(command) = other {
                        self.obey(&mut machine, command).await?;
                    }
                }
                command => self.obey(&mut machine, command).await?,
            }
        }
    }

    /// Nobody hears it when the log is being stopped.
    async fn say(&self, output: Output) {
        let _ = self.outputs.send(output).await;
    }

    /// Does what isn't a proposal.
    async fn obey(&self, machine: &mut Machine, command: Command) -> Result<(), DiskError> {
        match command {
            // Nor is there another that could lead.
            Command::Propose(..) | Command::Resign => {}
            Command::Replicas(ticket, _) => {
                let why =
                    "the node runs without peers: it must be started as one of several first".to_owned();
                self.say(Output::Outcome(ticket, Outcome::Refused(Refusal::Replicas(why)))).await;
            }
            Command::Renew(token, life) => {
                let me = self.config.node;
                if !self.store.fenced().now().has(me, life) {
                    self.say(Output::Renewed { token }).await;
                }
            }
            Command::Restore(_) => {
                // There is no other snapshot than its own.
                let stored = machine.get_current_snapshot().await.map_err(failed)?;
                let stored = stored.map(|stored| (stored.meta, stored.snapshot.into_inner()));
                machine.restore(stored).await?;
            }
            Command::Snapshot(index, state) => {
                if machine.offer(index, state) {
                    let built = machine.build_snapshot().await.map_err(failed)?;
                    if let Some(upto) = built.meta.last_log_id {
                        self.store.forget(upto)?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        machine: &mut Machine,
        leader: CommittedLeaderId<u64>,
        batch: Batch,
        tickets: Vec<Ticket>,
    ) -> Result<(), DiskError> {
        let index = self.store.last().map_or(0, |last| last.index + 1);
        let entry = Entry { log_id: LogId::new(leader, index), payload: EntryPayload::Normal(batch) };
        self.store.take(std::slice::from_ref(&entry));
        self.disk.put(std::slice::from_ref(&entry)).await?;
        self.disk.committed(Some(entry.log_id));
        let applied = machine.apply([entry]).await.map_err(failed)?;
        let first = applied.first().map_or(0, |applied| applied.0);
        for (index, ticket) in (first..).zip(tickets) {
            self.say(Output::Outcome(ticket, Outcome::Committed(index))).await;
        }
        Ok(())
    }
}

fn failed(error: crate::run::log::types::StorageError) -> DiskError {
    DiskError(error.to_string())
}
