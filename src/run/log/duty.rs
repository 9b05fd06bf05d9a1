//! What a witness does beside voting. It has no state machine, so it takes its snapshots from the others; and it leads only
//! as long as it takes to bring a node up to date that can lead.

use crate::run::log::core::Core;
use crate::run::log::frame::{Answer, Piece, Request};
use openraft::ServerState;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(1);
/// For one piece of a snapshot.
const PIECE: Duration = Duration::from_secs(5);

/// Takes the leader's snapshot whenever the log has become long enough.
pub async fn compact(core: Arc<Core>) {
    loop {
        sleep(LOOK).await;
        if core.machine.behind() <= core.snapshot_every {
            continue;
        }
        let leader = core.raft.metrics().borrow().current_leader;
        let Some(link) = leader.filter(|id| *id != core.id()).and_then(|id| core.link(id)) else { continue };
        let mut content = Vec::new();
        let mut about = None;
        loop {
            let answer = timeout(PIECE, link.ask(Request::Fetch(content.len() as u64))).await;
            let Ok(Ok(Answer::Piece(Some(Piece { meta, total, bytes })))) = answer else { break };
            // Another snapshot has taken its place meanwhile: next time.
            if *about.get_or_insert_with(|| meta.clone()) != meta {
                break;
            }
            let more = !bytes.is_empty();
            content.extend(bytes);
            if content.len() as u64 == total {
                // One that ends where this replica hasn't been yet is taken next time.
                if core.machine.adopt(&content) && core.raft.trigger().snapshot().await.is_err() {
                    return;
                }
                break;
            }
            if !more {
                break;
            }
        }
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
