//! The committed placement of one group: who owns each bucket, who stands by, and who owned it before (MECHANISMS §0).
//!
//! A placement is computed from its predecessor. When a node fails, those who stand by for its buckets are promoted and
//! nothing else moves; all other moves are [`super::plan`]'s, one bucket at a time: learn, complete, own.

use crate::base::hash::mix;
use crate::base::limits::{BUCKETS, MAX_NODES};
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, NodeId, NodeSet};
use crate::view::Learnt;
use crate::view::chain::{Chain, Copy};
use arrayvec::ArrayVec;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Copies of a bucket's state besides the owner's, at most: what stands by, and one that learns to take its place.
pub const MAX_REPLICAS: usize = 3;

/// A node that has, or is about to have, a copy of a bucket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// It has all of it.
    pub complete: bool,
    /// Which stay of the node with the bucket this is (see [`Map::share_state`]).
    #[serde(skip)]
    pub stay: u32,
}

/// One bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who serves it; none while the group has no node.
    pub owner: Option<NodeId>,
    /// When the owner took it, counted in the placement's changes: higher with each change of the owner.
    pub epoch: u64,
    /// Who stands by, the next owner first.
    pub replicas: ArrayVec<Replica, MAX_REPLICAS>,
    /// Who owned it before and may still have its sessions.
    pub previous: Option<NodeId>,
    /// Which stay of the owner with the bucket this is.
    #[serde(skip)]
    pub stay: u32,
}

impl Place {
    /// Whether `node` stands by.
    pub fn has_replica(&self, node: NodeId) -> bool {
        self.replicas.iter().any(|r| r.node == node)
    }

    /// Of all that it says, its stays among it; packed, as each entry of the log that moves buckets asks for all of them.
    fn digest(&self, bucket: usize) -> u64 {
        let node = |node: Option<NodeId>| node.map_or(u64::from(u16::MAX), |node| u64::from(node.0));
        let own = node(self.owner) << 48 | node(self.previous) << 32 | u64::from(self.stay);
        let replicas = self.replicas.iter().fold(mix(mix(bucket as u64) ^ own), |digest, r| {
            mix(digest ^ (u64::from(r.node.0) << 33 | u64::from(r.complete) << 32 | u64::from(r.stay)))
        });
        mix(replicas ^ self.epoch)
    }

    /// Makes `node` the owner. What it replaces is the previous owner, and stands by from now on, if `alive`. If that is dead, or
    /// there is none, who served the bucket before may still have sessions of it. Who wasn't complete has nothing that could be
    /// relied upon: it begins a new `stay`.
    pub(super) fn own(&mut self, node: NodeId, alive: bool, epoch: u64, stay: u32) {
        let whole = self.replicas.iter().find(|r| r.node == node && r.complete).map(|r| r.stay);
        self.replicas.retain(|r| r.node != node);
        if let Some(old) = self.owner.filter(|_| alive) {
            self.previous = Some(old);
            self.replicas.truncate(MAX_REPLICAS - 1);
            self.replicas.insert(0, Replica { node: old, complete: true, stay: self.stay });
        }
        self.previous = self.previous.filter(|previous| *previous != node);
        (self.owner, self.epoch, self.stay) = (Some(node), epoch, whole.unwrap_or(stay));
    }
}

/// A node that may own buckets of a group, and its share relative to the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub node: NodeId,
    /// Zero: it gives away what it has.
    pub weight: u32,
}

/// The placement of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    #[serde(deserialize_with = "of_all_buckets")]
    places: Vec<Place>,
    /// The latest epoch of any bucket.
    epoch: u64,
    /// The latest stay of any node with a bucket; none: nodes share no state yet.
    #[serde(skip)]
    stay: Option<u32>,
}

/// What a placement's own form doesn't hold, of a bucket: the owner's stay, and those of who stands by, in order.
pub(super) type Stays = (u32, ArrayVec<u32, MAX_REPLICAS>);

/// Places as a snapshot has them, which may be damaged or another version's: buckets and nodes are array indices from here on.
fn of_all_buckets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Place>, D::Error> {
    let places = Vec::<Place>::deserialize(from)?;
    if places.len() != BUCKETS {
        return Err(D::Error::custom(format_args!("a placement of {} buckets, not {BUCKETS}", places.len())));
    }
    for place in &places {
        let replicas = place.replicas.iter().map(|replica| replica.node);
        let mut nodes = place.owner.into_iter().chain(place.previous).chain(replicas);
        if let Some(node) = nodes.find(|node| node.index() >= MAX_NODES) {
            return Err(D::Error::custom(format_args!("a placement at node {node}, beyond {MAX_NODES}")));
        }
    }
    Ok(places)
}

impl Default for Map {
    fn default() -> Self {
        Self { places: vec![Place::default(); BUCKETS], epoch: 0, stay: None }
    }
}

impl Map {
    /// A bucket.
    pub fn get(&self, bucket: Bucket) -> &Place {
        &self.places[bucket.index()]
    }

    pub(super) fn get_mut(&mut self, bucket: Bucket) -> &mut Place {
        &mut self.places[bucket.index()]
    }

    /// The epoch of owners that begin now; it has begun once there are any.
    pub(super) fn next_epoch(&self) -> u64 {
        self.epoch + 1
    }

    pub(super) fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// From now on nodes share state by this placement (a wire version that the oldest release doesn't speak): who stands by is
    /// complete when that was said of him, and each stay of a node with a bucket has a number, by which a node that was taken out
    /// and came back knows that it may have missed something. Nobody has anything yet, so that every owner has all there is.
    pub(super) fn share_state(&mut self) {
        if self.stay.is_none() {
            self.stay = Some(1);
            for place in &mut self.places {
                place.stay = 1;
                place.replicas.iter_mut().for_each(|replica| (replica.complete, replica.stay) = (false, 1));
            }
        }
    }

    /// Whether nodes share state by it.
    pub fn shares_state(&self) -> bool {
        self.stay.is_some()
    }

    /// The same, for what is worked out and has nothing to be learnt.
    pub(super) fn without_state(mut self) -> Self {
        self.stay = None;
        self
    }

    /// The number of stays that begin now.
    pub(super) fn next_stay(&self) -> u32 {
        self.stay.map_or(0, |stay| stay + 1)
    }

    /// They have begun.
    pub(super) fn began(&mut self, stay: u32) {
        self.stay = self.stay.map(|last| last.max(stay));
    }

    /// Which copy this makes complete, as its owner says in an epoch, if it is news: what was said of another epoch or another
    /// stay is void.
    fn news(&self, learnt: &Learnt) -> Option<(usize, usize)> {
        let bucket = learnt.bucket.index();
        let place = self.places.get(bucket).filter(|place| place.epoch == u64::from(learnt.epoch))?;
        let same = |r: &Replica| r.node == learnt.node && r.stay == learnt.stay && !r.complete;
        Some((bucket, place.replicas.iter().position(same)?))
    }

    /// Whether any of this is news.
    pub(super) fn has_news(&self, learnt: &[Learnt]) -> bool {
        learnt.iter().any(|one| self.news(one).is_some())
    }

    /// Copies are complete.
    pub(super) fn learnt(&mut self, learnt: &[Learnt]) {
        for one in learnt {
            if let Some((bucket, replica)) = self.news(one) {
                self.places[bucket].replicas[replica].complete = true;
            }
        }
    }

    /// The same wherever the same was decided. Against faults, not against forgery.
    pub(super) fn digest(&self) -> Option<u64> {
        let own = mix(mix(self.epoch) ^ u64::from(self.stay?));
        let places = self.places.iter().enumerate();
        Some(places.fold(own, |sum, (bucket, place)| sum.wrapping_add(place.digest(bucket))))
    }

    /// What stands behind the placement's own form where nodes share state.
    pub(super) fn stays(&self) -> Option<(u32, Vec<Stays>)> {
        let of = |place: &Place| (place.stay, place.replicas.iter().map(|replica| replica.stay).collect());
        self.stay.map(|stay| (stay, self.places.iter().map(of).collect()))
    }

    /// The reverse; `false` if that is another placement's.
    pub(super) fn set_stays(&mut self, (stay, each): (u32, Vec<Stays>)) -> bool {
        let fits = |(place, (_, stays)): (&Place, &Stays)| place.replicas.len() == stays.len();
        if each.len() != self.places.len() || !self.places.iter().zip(&each).all(fits) {
            return false;
        }
        self.stay = Some(stay);
        for (place, (stay, stays)) in self.places.iter_mut().zip(each) {
            place.stay = stay;
            place.replicas.iter_mut().zip(stays).for_each(|(replica, stay)| replica.stay = stay);
        }
        true
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Bucket, &Place)> {
        self.places.iter().enumerate().map(|(i, place)| (Bucket(i as u16), place))
    }

    /// The buckets that `node` owns.
    pub fn count(&self, node: NodeId) -> usize {
        self.places.iter().filter(|p| p.owner == Some(node)).count()
    }

    /// `dead` has failed: whoever stands by for a bucket of it, complete before incomplete, owns that; where nobody does, a
    /// member of `others` by the bucket's hash, or nobody if there is none. Nothing else moves. Returns the buckets that have
    /// another owner now.
    pub fn fail(&mut self, seed: u64, dead: NodeId, others: &[Share]) -> Vec<Bucket> {
        let mut moved = Vec::new();
        let (epoch, stay) = (self.next_epoch(), self.next_stay());
        for (i, place) in self.places.iter_mut().enumerate() {
            place.replicas.retain(|r| r.node != dead);
            if place.previous == Some(dead) {
                place.previous = None;
            }
            if place.owner != Some(dead) {
                continue;
            }
            moved.push(Bucket(i as u16));
            let heir = place.replicas.iter().find(|r| r.complete).or(place.replicas.first()).map(|r| r.node);
            match heir.or_else(|| by_hash(seed, i, others)) {
                Some(node) => place.own(node, false, epoch, stay),
                None => {
                    (place.owner, place.epoch) = (None, epoch);
                }
            }
        }
        if !moved.is_empty() {
            self.begin(epoch);
            self.began(stay);
        }
        moved
    }

    /// `node` has no sessions left of these buckets that it owned before. Returns those of which that is news.
    pub fn forget_previous(&mut self, node: NodeId, buckets: &[Bucket]) -> Vec<Bucket> {
        let mut news = Vec::new();
        for bucket in buckets {
            let Some(place) = self.places.get_mut(bucket.index()) else { continue };
            if place.previous == Some(node) {
                place.previous = None;
                news.push(*bucket);
            }
        }
        news
    }
}

/// Who has a bucket's state, as `me` has to see it: as [`seen_by`] says of its owner.
pub fn chain_seen_by(me: NodeId, over: NodeSet, published: &Place, latest: &Place) -> Chain {
    // Also what this node owns again that another was to have meanwhile: epochs never go back.
    let ceded = published.owner == Some(me) && (latest.owner, latest.epoch) != (Some(me), published.epoch);
    let place = if ceded { latest } else { published };
    let lives = |node: &NodeId| !over.contains(*node);
    let owner = place.owner.filter(lives).map(|node| Copy { node, since: place.stay, complete: true });
    let copies = place.replicas.iter().filter(|replica| lives(&replica.node));
    let copies = copies.map(|r| Copy { node: r.node, since: r.stay, complete: r.complete });
    Chain { epoch: place.epoch as u32, owner, copies: copies.collect() }
}

/// Who serves a bucket as `me` has to see it, and who served it before, where `published` is in force and `latest` is decided:
/// what is going to be another's isn't this node's any more, so that the next one has it alone once that is in force. What was
/// in a life that is over, as those of `over` by what is decided, is nobody's until then, not the next life's either; who served
/// it before that may still have its sessions.
pub fn seen_by(
    me: NodeId,
    over: NodeSet,
    published: &Place,
    latest: &Place,
) -> (Option<NodeId>, Option<NodeId>) {
    // Who died has nothing any more: it is known from here who has to be taken over from.
    let previous = published.previous.filter(|previous| !over.contains(*previous));
    if published.owner.is_some_and(|owner| over.contains(owner)) {
        (None, previous)
    } else if published.owner == Some(me) && latest.owner != Some(me) && !planted::is(Bug::NothingCeded) {
        (latest.owner, Some(me))
    } else {
        (published.owner, previous)
    }
}

/// The member with the highest random weight for a bucket (Thaler and Ravishankar, 1998).
fn by_hash(seed: u64, bucket: usize, members: &[Share]) -> Option<NodeId> {
    let weight = |s: &&Share| mix(seed ^ mix((bucket as u64) << 16 | u64::from(s.node.0)));
    let willing = members.iter().filter(|s| s.weight > 0);
    willing.max_by_key(weight).or_else(|| members.iter().max_by_key(weight)).map(|s| s.node)
}

/// How many buckets of each owner each node stands by for.
pub(super) struct Crowd {
    pairs: Vec<[u32; MAX_NODES]>,
    all: [u32; MAX_NODES],
}

impl Crowd {
    /// Those of a placement.
    pub(super) fn of(map: &Map) -> Self {
        let mut crowd = Self { pairs: vec![[0; MAX_NODES]; MAX_NODES], all: [0; MAX_NODES] };
        for place in &map.places {
            for replica in &place.replicas {
                crowd.add(place.owner, replica.node);
            }
        }
        crowd
    }

    pub(super) fn add(&mut self, owner: Option<NodeId>, node: NodeId) {
        if let Some(owner) = owner {
            self.pairs[owner.index()][node.index()] += 1;
        }
        self.all[node.index()] += 1;
    }

    /// Who should stand by for a bucket besides those that do; none if there is nobody else.
    pub(super) fn stand_by(&self, place: &Place, shares: &[Share]) -> Option<NodeId> {
        let owner = place.owner?;
        let free = shares.iter().filter(|s| s.weight > 0 && s.node != owner && !place.has_replica(s.node));
        // Least crowded for its weight; cross-multiplied, so that it is exact.
        free.min_by(|a, b| {
            let load = |x: &Share, y: &Share| {
                let pair = u64::from(self.pairs[owner.index()][x.node.index()]);
                (pair * u64::from(y.weight), u64::from(self.all[x.node.index()]) * u64::from(y.weight))
            };
            load(a, b).cmp(&load(b, a)).then(a.node.cmp(&b.node))
        })
        .map(|s| s.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who owned a bucket before one that died is remembered, also when nobody could take it over for a while.
    #[test]
    fn who_had_a_bucket_before_a_dead_owner_may_still_have_its_sessions() {
        let [one, two, three] = [0, 1, 2].map(NodeId);
        let died = || Place { previous: Some(two), ..Place::default() };
        for (next, previous) in [(one, Some(two)), (three, Some(two)), (two, None)] {
            let mut place = died();
            place.own(next, true, 7, 1);
            assert_eq!((place.owner, place.previous), (Some(next), previous));
        }
        let mut place = Place { owner: Some(one), ..died() };
        place.own(three, true, 7, 1);
        assert_eq!((place.owner, place.previous), (Some(three), Some(one)), "a living owner has it");
    }

    /// What was another's for a moment, before that was in force, comes back in an epoch of its own.
    #[test]
    fn epochs_never_go_back() {
        let [one, two] = [0, 1].map(NodeId);
        let place = |owner: NodeId, epoch: u64| Place { owner: Some(owner), epoch, ..Place::default() };
        let epochs = [place(one, 1), place(two, 2), place(one, 3)]
            .map(|latest| chain_seen_by(one, NodeSet::EMPTY, &place(one, 1), &latest).epoch);
        assert_eq!(epochs, [1, 2, 3]);
        let other = chain_seen_by(two, NodeSet::EMPTY, &place(one, 1), &place(one, 3));
        assert_eq!(other.epoch, 1, "others go by what is in force");
    }

    /// Two nodes' and a third's view of a bucket: who has it in force, after whom, and whose it is going to be.
    #[test]
    fn what_is_given_away_is_so_at_once_and_what_is_gained_once_that_is_in_force() {
        let [one, two, three] = [0, 1, 2].map(NodeId);
        let place = |owner: NodeId, previous: Option<NodeId>| Place {
            owner: Some(owner),
            previous,
            ..Place::default()
        };
        let (now, next) = (place(one, None), place(two, Some(one)));
        let seen = |me, over| seen_by(me, over, &now, &next);
        let nobody = NodeSet::EMPTY;
        assert_eq!(seen(one, nobody), (Some(two), Some(one)));
        assert_eq!(seen(two, nobody), (Some(one), None));
        assert_eq!(seen(three, nobody), (Some(one), None));
        // What a life had that is over is nobody's, whoever looks, its node's next life included.
        for me in [one, two, three] {
            assert_eq!(seen(me, NodeSet::of(one)), (None, None));
            assert_eq!(seen_by(me, NodeSet::of(one), &now, &now), (None, None));
        }
        // The owner's life makes no difference to what the previous one may have, which has nothing once its own is over.
        let held = place(one, Some(two));
        assert_eq!(seen_by(three, NodeSet::of(one), &held, &held), (None, Some(two)));
        assert_eq!(seen_by(three, NodeSet::of(two), &held, &held), (Some(one), None));
    }
}
