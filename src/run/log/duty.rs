//! What replicas without a state machine that they can trust do. A witness has none, so it takes its snapshots from the others;
//! and it leads only as long as it takes to bring a node up to date that can lead. A node whose state is wrong has it given anew.

use crate::run::log::core::Core;
use crate::run::log::frame::{Answer, Piece, Request};
use crate::run::log::link::Link;
use crate::run::log::types::SnapshotMeta;
use openraft::ServerState;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(1);
/// For one piece of a snapshot.
const PIECE: Duration = Duration::from_secs(5);

/// The snapshot that a replica has stored; none if it has none, can't be reached, or has made another meanwhile.
async fn fetch(link: &Link) -> Option<(SnapshotMeta, Vec<u8>)> {
    let mut content = Vec::new();
    let mut about = None;
    loop {
        let answer = timeout(PIECE, link.ask(Request::Fetch(content.len() as u64))).await;
        let Ok(Ok(Answer::Piece(Some(Piece { meta, total, bytes })))) = answer else { return None };
        let known = about.get_or_insert_with(|| meta.clone());
        if *known != meta || bytes.is_empty() {
            return None;
        }
        content.extend(bytes);
        if content.len() as u64 == total {
            return Some((meta, content));
        }
    }
}

/// Takes the leader's snapshot whenever the log has become long enough.
pub async fn compact(core: Arc<Core>) {
    loop {
        sleep(LOOK).await;
        if core.machine.behind() <= core.snapshot_every {
            continue;
        }
        let leader = core.raft.metrics().borrow().current_leader;
        let Some(link) = leader.filter(|id| *id != core.id()).and_then(|id| core.link(id)) else { continue };
        // One that ends where this replica hasn't been yet is taken next time.
        if let Some((_, content)) = fetch(&link).await
            && core.machine.adopt(&content)
            && core.raft.trigger().snapshot().await.is_err()
        {
            return;
        }
    }
}

/// Leads no more, for lack of a state machine that could go on; see [`Log::resign`](crate::cluster::log::Log::resign).
pub async fn resign(core: Arc<Core>) {
    let Ok(_alone) = core.restoring.try_lock() else { return };
    core.set_able(false);
    if core.leads() {
        step_down(&core).await;
    }
}

/// Has the state machine given everything anew, if need be from the snapshot of replica `from`; see
/// [`Log::restore`](crate::cluster::log::Log::restore).
pub async fn restore(core: Arc<Core>, from: u64) {
    let Ok(_alone) = core.restoring.try_lock() else { return };
    core.set_able(false);
    if core.leads() {
        step_down(&core).await;
    }
    let link = core.link(from).filter(|_| from != core.id());
    let other = match &link {
        Some(link) if core.machine.has_snapshot() => fetch(link).await,
        _ => None,
    };
    match (core.machine.restore(other).await, link) {
        (Ok(true), _) => core.set_able(true),
        (Ok(false), Some(link)) => {
            // Whether it is made shows when this is asked for again.
            let _ = timeout(PIECE, link.ask(Request::Refresh)).await;
        }
        (Ok(false), None) => {}
        // The log stops for that.
        (Err(error), _) => tracing::error!("no snapshot can be stored: {error}"),
    }
}

/// Stands for election when no node does, and gives up leadership once one could take it.
pub async fn stand(core: Arc<Core>) {
    // Nodes that can lead have elected one of themselves long before.
    let patience = 4 * core.timing.election_max;
    let mut leaderless = Instant::now();
    loop {
        sleep(core.timing.heartbeat).await;
        let state = core.raft.metrics().borrow().state;
        if state == ServerState::Leader {
            core.raft.runtime_config().elect(false);
            if could_follow(&core) {
                step_down(&core).await;
            }
            leaderless = Instant::now();
        } else if core.role().2 || !core.admitted() {
            // openraft names a dead leader until another is elected; whether it lives shows in what is heard of it.
            core.raft.runtime_config().elect(false);
            leaderless = Instant::now();
        } else {
            core.raft.runtime_config().elect(leaderless.elapsed() > patience);
        }
    }
}

/// Whether a voter other than this one has all that is in the log.
fn could_follow(core: &Core) -> bool {
    let last = core.store.last();
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow();
    let Some(replication) = &metrics.replication else { return false };
    let mut voters = metrics.membership_config.voter_ids().filter(|id| *id != core.id());
    voters.any(|id| replication.get(&id).is_some_and(|matched| *matched == last))
}

/// Falls silent, so that the others elect one of themselves.
async fn step_down(core: &Core) {
    core.raft.runtime_config().heartbeat(false);
    let until = Instant::now() + 6 * core.timing.election_max;
    while Instant::now() < until && core.leads() {
        sleep(core.timing.heartbeat).await;
    }
    core.raft.runtime_config().heartbeat(true);
}
