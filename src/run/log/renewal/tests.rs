use super::*;
use crate::base::rng::Rng;
use crate::run::log::types::Peer;
use openraft::{CommittedLeaderId, Membership};

/// Replicas there may be.
const NODES: u64 = 9;
/// Runs, of so many steps each.
const RUNS: u64 = 1000;
const STEPS: usize = 150;

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 0), index)
}

fn membership(index: u64, sets: &[BTreeSet<u64>]) -> Entry {
    let nodes: BTreeMap<u64, Peer> = (0..NODES).map(|node| (node, Peer::default())).collect();
    let membership = Membership::new(sets.to_vec(), nodes);
    Entry { log_id: id(index), payload: EntryPayload::Membership(membership) }
}

fn stored(entry: &Entry) -> StoredMembership {
    let EntryPayload::Membership(membership) = &entry.payload else { panic!("{entry:?}") };
    StoredMembership::new(Some(entry.log_id), membership.clone())
}

#[test]
fn a_majority_is_one_of_each_set_of_voters() {
    let (old, new) = (BTreeSet::from([0, 1, 2]), BTreeSet::from([0, 3, 4]));
    let joint = stored(&membership(1, &[old.clone(), new]));
    let most = |of: &StoredMembership, agreed: &[u64]| most(of, &agreed.iter().copied().collect());
    assert!(!most(&joint, &[0, 1, 2]), "all of the old, and three of the five there are, but one of the new");
    assert!(most(&joint, &[0, 1, 3]));
    assert!(!most(&joint, &[1, 3, 4]));
    let alone = stored(&membership(1, &[old]));
    assert!(most(&alone, &[0, 2]) && !most(&alone, &[0, 3, 4]));
    assert!(!most(&StoredMembership::default(), &[0]), "no voters, no majority");
}

#[test]
fn voters_are_the_same_until_others_are_stored() {
    let (old, new) = (BTreeSet::from([0, 1, 2]), BTreeSet::from([0, 1, 3]));
    let mut known = Memberships::default();
    assert!(!known.keep(id(0)), "nothing is stored");
    known.take(&membership(0, std::slice::from_ref(&old)));
    known.take(&Entry { log_id: id(1), payload: EntryPayload::Blank });
    known.take(&membership(2, std::slice::from_ref(&old)));
    assert!(known.keep(id(0)) && known.keep(id(2)), "the second has other learners at most");
    assert!(!known.keep(id(1)) && !known.keep(id(3)), "there is none");
    let other = LogId::new(CommittedLeaderId::new(2, 1), 2);
    assert!(!known.keep(other), "another leader's");
    known.take(&membership(4, &[old.clone(), new.clone()]));
    assert!(!known.keep(id(0)) && !known.keep(id(2)) && known.keep(id(4)));
    known.cut(4);
    assert!(known.keep(id(0)) && !known.keep(id(4)), "it was never committed");
    known.take(&membership(4, &[old.clone(), new.clone()]));
    known.take(&membership(5, std::slice::from_ref(&new)));
    known.take(&membership(6, &[new, old.clone()]));
    known.take(&membership(7, std::slice::from_ref(&old)));
    assert!(!known.keep(id(2)) && known.keep(id(7)), "the same voters, but there were others");
    known.forget(6);
    assert!(!known.keep(id(5)) && !known.keep(id(6)) && known.keep(id(7)));
    known.forget(9);
    assert!(known.keep(id(7)), "the last is kept");
    known.rebase(20, stored(&membership(17, &[old])));
    assert!(!known.keep(id(7)) && known.keep(id(17)));
}

/// What a voter and who counts look at.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Whole,
    /// A voter looks for the fence alone.
    NoVoters,
    /// Both sets of a joint membership count as one.
    OneSet,
}

/// The leader's log, of which each replica has stored a beginning; and a fence in it.
struct Run {
    rng: Rng,
    log: Vec<Entry>,
    stored: [usize; NODES as usize],
    /// Those that get few entries.
    slow: BTreeSet<u64>,
    committed: usize,
    fence: Option<usize>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let voters = (0..1 + rng.below(5)).collect();
        let slow = (0..NODES).filter(|_| rng.below(3) == 0).collect();
        let log = vec![membership(0, &[voters])];
        Self { rng, log, stored: [1; NODES as usize], slow, committed: 1, fence: None }
    }

    fn memberships(&self, upto: usize) -> impl DoubleEndedIterator<Item = StoredMembership> {
        let has = |entry: &&Entry| matches!(entry.payload, EntryPayload::Membership(_));
        self.log[..upto].iter().filter(has).map(stored)
    }

    /// As openraft makes the next one from the last: joint first, and from there to either set, or jointly on.
    fn change(&mut self) {
        let last = self.memberships(self.log.len()).next_back().unwrap();
        if last.log_id().is_some_and(|id| id.index as usize >= self.committed) {
            return;
        }
        let sets = sets(&last).to_vec();
        let newest = sets.last().unwrap().clone();
        let next = match self.rng.below(8) {
            0 => sets,
            1 if sets.len() > 1 => vec![sets[0].clone()],
            2..6 if sets.len() > 1 => vec![newest],
            _ => {
                let turned = (0..NODES).filter(|node| newest.contains(node) != (self.rng.below(4) == 0));
                let wanted: BTreeSet<u64> = turned.take(7).collect();
                if wanted.is_empty() { return } else { vec![newest, wanted] }
            }
        };
        let entry = membership(self.log.len() as u64, &next);
        self.log.push(entry);
    }

    fn step(&mut self) {
        match self.rng.below(10) {
            0 => self.change(),
            1 if self.fence.is_none() && self.rng.below(3) == 0 => {
                self.fence = Some(self.log.len());
                self.log.push(Entry { log_id: id(self.log.len() as u64), payload: EntryPayload::Blank });
            }
            _ => {
                let node = self.rng.below(NODES);
                if !self.slow.contains(&node) || self.rng.below(10) == 0 {
                    let left = self.log.len() - self.stored[node as usize];
                    self.stored[node as usize] += self.rng.below(left as u64 + 1) as usize;
                }
            }
        }
        let last = self.memberships(self.log.len()).next_back().unwrap();
        let has = |n: usize| (0..NODES).filter(|node| self.stored[*node as usize] >= n).collect();
        let most = (0..=self.log.len()).rev().find(|n| most(&last, &has(*n)));
        self.committed = self.committed.max(most.unwrap_or(0));
    }

    /// Whether a lease is renewed that was asked for after the fence was committed, in whatever order the voters answer, and
    /// however far the one who asks is behind.
    fn breaks(&mut self, rule: Rule) -> bool {
        let mut agreed: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for _ in 0..STEPS {
            self.step();
            let Some(fence) = self.fence.filter(|fence| *fence < self.committed) else { continue };
            let free =
                (0..NODES).map(|node| (node, self.stored[node as usize])).filter(|(_, upto)| *upto <= fence);
            let free = free.map(|(node, upto)| {
                let mut known = Memberships::default();
                self.log[..upto].iter().for_each(|entry| known.take(entry));
                (node, known)
            });
            let free: Vec<(u64, Memberships)> = free.collect();
            for asked in self.memberships(self.committed) {
                let by = asked.log_id().unwrap();
                let agreed = agreed.entry(by.index).or_default();
                let agree = free.iter().filter(|(_, known)| rule == Rule::NoVoters || known.keep(by));
                agreed.extend(agree.map(|(node, _)| *node));
                let all: BTreeSet<u64> = asked.voter_ids().collect();
                let enough = match rule {
                    Rule::OneSet => agreed.intersection(&all).count() > all.len() / 2,
                    Rule::Whole | Rule::NoVoters => most(&asked, agreed),
                };
                if enough {
                    return true;
                }
            }
        }
        false
    }
}

#[test]
fn nobody_renews_what_a_committed_entry_fences_whoever_votes() {
    let broken = |rule| (0..RUNS).filter(|seed| Run::new(*seed).breaks(rule)).count();
    assert_eq!(broken(Rule::Whole), 0);
    assert!(broken(Rule::NoVoters) > 0, "the control: a voter that looks for fences alone");
    assert!(broken(Rule::OneSet) > 0, "the control: a majority of both sets together");
    let fenced = |seed: u64| {
        let mut run = Run::new(seed);
        (0..STEPS).for_each(|_| run.step());
        run.fence.is_some_and(|fence| fence < run.committed)
    };
    let some = (0..RUNS).filter(|seed| fenced(*seed)).count();
    assert!(some as u64 > RUNS / 4, "hardly anything was fenced");
}
