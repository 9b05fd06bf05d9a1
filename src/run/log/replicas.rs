//! Changing who holds the log, while it runs (Ongaro 2014, §4).

use crate::cluster::log::{MAX_VOTERS, Refusal, Replica};
use crate::run::log::core::Core;
use crate::run::log::frame::{Answer, Request, Verdict};
use crate::run::log::types::Peer;
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Time that new voters get to catch up with the log.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Time that one gets to say that it will vote.
const ADMIT: Duration = Duration::from_secs(5);
/// Between two looks at how far they are.
const LOOK: Duration = Duration::from_millis(20);

/// What is wrong with a set of replicas, if anything is.
pub fn judge(replicas: &[Replica]) -> Result<(), String> {
    let voters: Vec<&Replica> = replicas.iter().filter(|r| r.votes).collect();
    if voters.len() > MAX_VOTERS {
        return Err(format!("{} voters; at most {MAX_VOTERS} are of use", voters.len()));
    }
    if !voters.iter().any(|voter| voter.id.node().is_some()) {
        return Err("no node votes".to_owned());
    }
    if let Some(witness) = replicas.iter().find(|r| r.id.node().is_none() && !r.votes) {
        return Err(format!("witness {:?} doesn't vote, and does nothing else", witness.name));
    }
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for replica in replicas {
        if !ids.insert(replica.id) {
            return Err(format!("two replicas have the number {}", replica.id));
        }
        if !names.insert(&replica.name) {
            return Err(format!("two replicas have the name {:?}", replica.name));
        }
    }
    Ok(())
}

fn refused(why: impl Into<String>) -> Verdict {
    Verdict::Refused(Refusal::Replicas(why.into()))
}

type Written<T> = Result<T, RaftError<u64, ClientWriteError<u64, Peer>>>;

/// What became of a step. Only what openraft refused before it wrote anything is known not to have happened.
fn step<T>(written: Written<T>) -> Result<(), Verdict> {
    match written {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => Err(match error {
            ChangeMembershipError::InProgress(_) => refused("another change of the replicas is on its way"),
            other => refused(other.to_string()),
        }),
        Err(_) => Err(Verdict::Unknown),
    }
}

/// Makes `wanted` the replicas. Here is the leader.
pub async fn replace(core: &Core, wanted: &[Replica]) -> Result<(), Verdict> {
    judge(wanted).map_err(refused)?;
    let (voters, nodes): (BTreeSet<u64>, BTreeMap<u64, Peer>) = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        (membership.voter_ids().collect(), membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect())
    };
    let wanted_voters: BTreeSet<u64> = wanted.iter().filter(|r| r.votes).map(|r| r.id.0.into()).collect();
    let wanted_ids: BTreeSet<u64> = wanted.iter().map(|r| r.id.0.into()).collect();

    for replica in wanted {
        let (id, peer) = (u64::from(replica.id.0), Peer::from(replica));
        match nodes.get(&id) {
            Some(known) if *known == peer => {}
            Some(_) => {
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, peer)]));
                step(core.raft.change_membership(moved, true).await)?;
            }
            None => step(core.raft.add_learner(id, peer, false).await)?,
        }
    }
    let new: Vec<u64> = wanted_voters.difference(&voters).copied().collect();
    for &id in &new {
        caught_up(core, id).await?;
        admit(core, id).await?;
    }
    // Learners that nobody wants any more go first: whoever leads behind the next step may not be able to.
    let learners: BTreeSet<u64> =
        nodes.keys().filter(|id| !voters.contains(id) && !wanted_ids.contains(id)).copied().collect();
    if !learners.is_empty() {
        step(core.raft.change_membership(ChangeMembers::RemoveNodes(learners), true).await)?;
    }
    if wanted_voters != voters {
        let keep = voters.difference(&wanted_voters).any(|id| wanted_ids.contains(id));
        step(core.raft.change_membership(ChangeMembers::ReplaceAllVoters(wanted_voters), keep).await)?;
        let gone: BTreeSet<u64> = voters.difference(&wanted_ids).copied().collect();
        if keep && !gone.is_empty() {
            step(core.raft.change_membership(ChangeMembers::RemoveNodes(gone), true).await)?;
        }
    }
    core.links.keep(|id| wanted_ids.contains(&id));
    Ok(())
}

/// Waits until a replica has all that the leader had a moment ago.
async fn caught_up(core: &Core, id: u64) -> Result<(), Verdict> {
    let until = Instant::now() + CATCH_UP;
    let goal = core.store.last();
    loop {
        {
            let metrics = core.raft.metrics();
            let metrics = metrics.borrow();
            let Some(replication) = &metrics.replication else { return Err(Verdict::Unknown) };
            if replication.get(&id).is_some_and(|matched| *matched >= goal) {
                return Ok(());
            }
        }
        if Instant::now() > until {
            return Err(refused(format!("replica {id} has not caught up with the log in {CATCH_UP:?}")));
        }
        sleep(LOOK).await;
    }
}

/// Has a replica note that it may vote.
async fn admit(core: &Core, id: u64) -> Result<(), Verdict> {
    if id == core.id() {
        return core.admit().await.map_err(|error| refused(error.to_string()));
    }
    let Some(link) = core.link(id) else { return Err(Verdict::Unknown) };
    let answer = timeout(ADMIT, link.ask(Request::Admit)).await;
    match answer {
        Ok(Ok(Answer::Admitted)) => Ok(()),
        Ok(Ok(Answer::Failed(why))) => Err(refused(format!("replica {id} can't vote: {why}"))),
        _ => Err(refused(format!("replica {id} doesn't answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::log::ReplicaId;

    fn replica(id: u16, votes: bool) -> Replica {
        Replica { id: ReplicaId(id), name: format!("n{id}"), address: String::new(), votes }
    }

    #[test]
    fn sets_that_cannot_be_are_refused() {
        let voters = |n: u16| (0..n).map(|id| replica(id, true)).collect::<Vec<_>>();
        assert_eq!(judge(&voters(7)), Ok(()));
        assert!(judge(&voters(8)).unwrap_err().contains("8 voters"));
        let learners: Vec<_> = voters(7).into_iter().chain((7..64).map(|id| replica(id, false))).collect();
        assert_eq!(judge(&learners), Ok(()));
        assert!(judge(&[]).unwrap_err().contains("no node votes"));
        assert!(judge(&[replica(1000, true)]).unwrap_err().contains("no node votes"));
        assert_eq!(judge(&[replica(0, true), replica(1, true), replica(1000, true)]), Ok(()));
        assert!(judge(&[replica(0, true), replica(1000, false)]).is_err());
        assert!(judge(&[replica(0, true), replica(0, false)]).unwrap_err().contains("the number 0"));
        let named = Replica { name: "n0".to_owned(), ..replica(1, true) };
        assert!(judge(&[replica(0, true), named]).unwrap_err().contains("the name"));
    }
}
