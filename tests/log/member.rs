//! Who holds the log changes while it runs.

use crate::cluster::{Cluster, End, PATIENCE};
use crate::relay::Way;
use crate::replica::run_if_child;
use std::time::Duration;

/// For what must not happen.
const SHORT: Duration = Duration::from_secs(2);

#[test]
fn a_learner_catches_up_by_snapshot_and_takes_a_voters_place() {
    run_if_child();
    let test = "member::a_learner_catches_up_by_snapshot_and_takes_a_voters_place";
    let mut cluster = Cluster::new(test, &[0, 1, 2, 3], &[0, 1, 2]);
    cluster.snapshot_every = 10;
    for id in 0..3 {
        cluster.start(id);
    }
    for n in 0..60 {
        cluster.commit(n % 3).unwrap();
    }
    // A replica that has not been told whom to begin with waits to be called.
    cluster.forget_first();
    cluster.start(3);
    cluster.set_replicas(1, &[(0, true), (1, true), (2, true), (3, false)]).unwrap();
    cluster.settle(&[0, 1, 2, 3]).unwrap();
    assert!(cluster.record.known[&3].installs > 0, "the log was compacted: {:?}", cluster.record.known);
    // Any replica takes proposals.
    cluster.commit(3).unwrap();
    cluster.set_replicas(3, &[(3, true), (1, true), (2, true)]).unwrap();
    cluster.wait("the new voters", |record| record.known[&3].voters == "1,2,3").unwrap();
    cluster.kill(0);
    cluster.settle(&[1, 2, 3]).unwrap();
    // Two of three make a majority, the new one among them.
    cluster.kill(1);
    cluster.settle(&[2, 3]).unwrap();
    cluster.start(1);
    cluster.settle(&[1, 2, 3]).unwrap();
}

#[test]
fn a_minority_takes_no_entry_and_says_so() {
    run_if_child();
    let mut cluster = Cluster::new("member::a_minority_takes_no_entry_and_says_so", &[0, 1, 2], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait("no quorum", |record| !record.known[&0].quorum).unwrap();
    let tag = cluster.propose(0, 0);
    cluster.wait("an outcome", |record| record.ends.contains_key(&tag)).unwrap();
    assert!(matches!(&cluster.record.ends[&tag], End::Refused(why) if why.contains("majority")));
    cluster.start(1);
    cluster.commit(0).unwrap();
    cluster.start(2);
    cluster.settle(&[0, 1, 2]).unwrap();
}

#[test]
fn a_voter_that_has_lost_its_store_does_not_vote_until_it_is_let_in_again() {
    run_if_child();
    let test = "member::a_voter_that_has_lost_its_store_does_not_vote_until_it_is_let_in_again";
    let mut cluster = Cluster::new(test, &[0, 1, 2], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.kill(2);
    cluster.commit(0).unwrap();
    cluster.forget_first();
    cluster.wipe(2);
    cluster.start(2);
    // It gets all there is, but with one of the others gone there is nobody to elect a leader.
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.kill(0);
    cluster.kill(1);
    cluster.start(1);
    let tag = cluster.propose(1, 0);
    cluster.wait("an outcome", |record| record.ends.contains_key(&tag)).unwrap();
    assert!(matches!(cluster.record.ends[&tag], End::Refused(_)), "{:?}", cluster.record.ends[&tag]);
    cluster.start(0);
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.set_replicas(0, &[(0, true), (1, true)]).unwrap();
    cluster.set_replicas(0, &[(0, true), (1, true), (2, true)]).unwrap();
    cluster.kill(0);
    cluster.settle(&[1, 2]).unwrap();
}

/// All voters renew a node's lease, a minority's silence does no harm, and from the commit of a fence on no majority does.
#[test]
fn voters_renew_the_leases_of_those_that_nothing_fences() {
    run_if_child();
    let test = "member::voters_renew_the_leases_of_those_that_nothing_fences";
    let mut cluster = Cluster::new(test, &[0, 1, 2], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    assert!(cluster.renews(1, 4, PATIENCE));
    cluster.kill(2);
    assert!(cluster.renews(1, 4, PATIENCE), "two of three are a majority");
    cluster.processes.get_mut(&0).unwrap().command("fence 1 4");
    cluster.wait("the fence", |record| record.ends.contains_key("fence-1-4")).unwrap();
    assert!(cluster.renews(0, 1, PATIENCE), "another node's");
    cluster.start(2);
    cluster.settle(&[0, 1, 2]).unwrap();
    assert!(!cluster.renews(1, 4, SHORT), "{:?}", cluster.record.known);
    assert!(cluster.renews(0, 1, PATIENCE));
    // The next life is free, and a fence of the last one that comes late, or again, leaves it so.
    assert!(cluster.renews(1, 5, PATIENCE));
    for late in ["fence 1 3", "fence 1 2"] {
        cluster.processes.get_mut(&2).unwrap().command(late);
        let tag = late.replace(' ', "-");
        cluster.wait("the late fence", |record| record.ends.contains_key(&tag)).unwrap();
    }
    assert!(cluster.renews(1, 5, PATIENCE));
}

/// A voter that is cut off from the others, but not from the one whose place another takes, and who is told nothing more: the two
/// were a majority once. From the commit of a fence on they renew nothing, by whatever voters it was committed.
#[test]
fn who_voted_once_renews_no_lease_of_those_that_new_voters_fence() {
    run_if_child();
    let test = "member::who_voted_once_renews_no_lease_of_those_that_new_voters_fence";
    let mut cluster = Cluster::new(test, &[0, 1, 2, 3], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.forget_first();
    cluster.start(3);
    let stays = cluster.record.known[&0].leader.unwrap() as u16;
    let (cut, goes) = ((stays + 1) % 3, (stays + 2) % 3);
    cluster.set_replicas(stays, &[(0, true), (1, true), (2, true), (3, false)]).unwrap();
    cluster.settle(&[0, 1, 2, 3]).unwrap();
    for other in [stays, 3] {
        cluster.ways.set(cut, other, Way::Closed);
        cluster.ways.set(other, cut, Way::Closed);
    }
    assert!(
        cluster.renews(cut, 4, PATIENCE),
        "the control: the one that goes is within reach, and two of three are enough"
    );
    cluster.set_replicas(stays, &[(cut, true), (stays, true), (3, true)]).unwrap();
    let fence = format!("fence {cut} 4");
    cluster.processes.get_mut(&stays).unwrap().command(&fence);
    let tag = fence.replace(' ', "-");
    cluster.wait("the fence", |record| record.ends.contains_key(&tag)).unwrap();
    assert!(matches!(cluster.record.ends[&tag], End::Committed(_)), "{:?}", cluster.record.ends[&tag]);
    assert_eq!(cluster.record.known[&cut].fenced, "", "it has heard of the fence");
    assert_eq!(cluster.record.known[&goes].fenced, "", "it has heard of the fence");
    assert!(!cluster.renews(cut, 4, SHORT), "{:?}", cluster.record.known);
    // The new voters renew, and the next life of the one that was cut off, too, when it is back.
    assert!(cluster.renews(3, 1, PATIENCE));
    cluster.ways.open_all();
    cluster.settle(&[cut, stays, 3]).unwrap();
    assert!(!cluster.renews(cut, 4, SHORT), "{:?}", cluster.record.known);
    assert!(cluster.renews(cut, 5, PATIENCE));
}

#[test]
fn a_fence_shows_at_a_majority_when_it_is_committed_and_after_restarts() {
    run_if_child();
    let test = "member::a_fence_shows_at_a_majority_when_it_is_committed_and_after_restarts";
    let mut cluster = Cluster::new(test, &[0, 1, 2], &[0, 1, 2]);
    cluster.snapshot_every = 5;
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    cluster.processes.get_mut(&0).unwrap().command("fence 7 2");
    cluster.wait("the fence", |record| record.ends.contains_key("fence-7-2")).unwrap();
    cluster.wait("it at all", |record| record.known.values().all(|known| known.fenced == "7:2")).unwrap();
    for n in 0..20 {
        cluster.commit(n % 3).unwrap();
    }
    cluster.kill(2);
    cluster.start(2);
    cluster.settle(&[0, 1, 2]).unwrap();
    assert_eq!(cluster.record.known[&2].fenced, "7:2", "{:?}", cluster.record.known);
}

/// Whoever asks for it is given everything anew: what it has, if it has made no snapshot, else behind another's snapshot, which
/// is made if need be. Also the leader, which leads no longer.
#[test]
fn everything_is_given_anew_to_whoever_asks() {
    run_if_child();
    let test = "member::everything_is_given_anew_to_whoever_asks";
    let mut cluster = Cluster::new(test, &[0, 1, 2], &[0, 1, 2]);
    cluster.snapshot_every = 20;
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    for entries in [5, 30, 30] {
        for n in 0..entries {
            cluster.commit(n % 3).unwrap();
        }
        let leader = cluster.record.known[&0].leader.unwrap() as u16;
        for id in [(leader + 1) % 3, leader] {
            let (before, from) = (cluster.record.known[&id].anew, (id + 1) % 3);
            // Asked again until the other has a snapshot that is new enough.
            let given = (0..30).any(|_| {
                cluster.processes.get_mut(&id).unwrap().command(&format!("restore {from}"));
                let anew = |record: &crate::cluster::Record| record.known[&id].anew > before;
                cluster.wait_for(Duration::from_secs(1), "everything anew", anew).is_ok()
            });
            assert!(given, "nothing came: {:?}", cluster.record.known);
            cluster.settle(&[0, 1, 2]).unwrap();
        }
        let now = cluster.record.known[&0].leader.unwrap() as u16;
        assert_ne!(now, leader, "it leads on");
    }
    assert!(cluster.record.known.values().all(|known| known.snapshots > 0), "{:?}", cluster.record.known);
}

/// A leader that resigns leads no longer, whatever becomes of the one that follows it, and the others decide on.
#[test]
fn who_resigns_leads_no_more() {
    run_if_child();
    let mut cluster = Cluster::new("member::who_resigns_leads_no_more", &[0, 1, 2], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    let resigns = cluster.record.known[&0].leader.unwrap() as u16;
    for _ in 0..3 {
        cluster.processes.get_mut(&resigns).unwrap().command("resign");
        let another = |record: &crate::cluster::Record| {
            record.known.values().all(|known| known.leader.is_some_and(|leader| leader as u16 != resigns))
        };
        cluster.wait("another leader", another).unwrap();
        for id in 0..3 {
            cluster.commit(id).unwrap();
        }
        let leads = cluster.record.known[&0].leader.unwrap() as u16;
        cluster.kill(leads);
        cluster.start(leads);
        cluster.settle(&[0, 1, 2]).unwrap();
    }
}
