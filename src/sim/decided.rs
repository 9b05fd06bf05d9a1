//! What must hold of what nodes have decided together, for whoever simulates them.

use crate::base::{Incarnation, NodeId};
use crate::cluster::council::Council;
use crate::cluster::fleet::{COPIES, Phase};
use crate::cluster::log::Log;
use crate::cluster::plan;
use crate::cluster::state::State;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nodes that hold the same entries hold the same state.
#[derive(Debug, Default)]
pub struct Agreement(BTreeMap<u64, (u64, usize)>);

impl Agreement {
    /// What a node says of itself.
    ///
    /// # Errors
    /// Another said something else.
    pub fn hear<L: Log>(&mut self, node: usize, council: &Council<L>) -> Result<(), String> {
        let report = council.report();
        // Who awaits a state has none to compare.
        if report.index == 0 {
            return Ok(());
        }
        let (digest, other) = *self.0.entry(report.index).or_insert((report.digest, node));
        if digest == report.digest {
            return Ok(());
        }
        Err(format!("n{} and n{} differ at entry {}", node + 1, other + 1, report.index))
    }
}

/// Who owns a bucket that a living node gave away has learnt all of it before.
///
/// # Errors
/// The first bucket of which that isn't so.
pub fn promotions(before: &State, after: &State) -> Result<(), String> {
    for (group, map) in after.fleet().maps() {
        let last = before.fleet().maps().get(group);
        let Some(last) = last.filter(|last| !Arc::ptr_eq(last, map)) else { continue };
        for (bucket, place) in map.iter() {
            let (last, Some(owner)) = (last.get(bucket), place.owner) else { continue };
            let given = last.owner.filter(|from| *from != owner && place.previous == Some(*from));
            if given.is_some() && !last.replicas.iter().any(|r| r.node == owner && r.complete) {
                return Err(format!(
                    "bucket {bucket} of group {group} is node {owner}'s, which still learnt it"
                ));
            }
        }
    }
    Ok(())
}

/// A node whose cluster has come to rest: it serves in this life by the last version, leases hold, and every placement is as it
/// is to be. What it holds, to be compared with the others': its last entry, and the digest of its state.
///
/// # Errors
/// What isn't so.
pub fn at_rest<L: Log>(node: usize, life: Incarnation, council: &Council<L>) -> Result<(u64, u64), String> {
    let (state, me) = (council.state(), NodeId(node as u16));
    let name = format!("n{}", node + 1);
    let member = state.fleet().member(me);
    if member.is_none_or(|m| m.incarnation != life || m.phase != Phase::Active) {
        return Err(format!("{name} in its life {life} is {member:?}"));
    }
    let (version, in_force, adopted) = (state.version(), state.in_force(), council.report().adopted);
    if in_force != version || adopted != version {
        return Err(format!("{name}: version {version}, in force {in_force}, adopted {adopted}"));
    }
    for (group, map) in state.fleet().maps() {
        let left = plan::next(map, &state.fleet().shares(*group), COPIES, 1);
        let learn = map.learners(state.fleet().serving());
        if !left.is_empty() || !learn.is_empty() {
            let some = &learn[..learn.len().min(3)];
            return Err(format!(
                "group {group} is not at rest: {left:?}, and {} copies learn, {some:?}",
                learn.len()
            ));
        }
    }
    if council.lease().is_none() {
        return Err(format!("{name} has no lease"));
    }
    Ok((state.index(), state.digest()))
}
