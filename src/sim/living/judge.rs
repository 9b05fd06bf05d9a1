//! What must hold of what the nodes have decided, and of who serves by it.

use super::member::Member;
use super::oracle::{Oracle, Oracles, Violation};
use super::plan::{SERVERS, server_at};
use crate::base::hash::mix;
use crate::base::limits::BUCKETS;
use crate::base::{Bucket, GroupId, Instant, NodeId};
use crate::cluster::fleet::Phase;
use crate::cluster::health::Health;
use crate::cluster::state::State;
use crate::manage::config::Config;
use crate::sim::decided::{self, Agreement};
use crate::sim::log::Model;
use std::collections::BTreeMap;

const NOBODY: NodeId = NodeId(u16::MAX);

/// What was looked at last.
#[derive(Debug, Default)]
pub struct Judged {
    /// The latest state of all.
    pub state: State,
    agreement: Agreement,
    /// When the nodes had last not all decided the same about the servers' health, and served by it, and the same as before.
    pub unsettled: Instant,
    health: Vec<u64>,
    /// Real servers that nothing that is decided calls down.
    pub up: [bool; SERVERS],
    /// When each was last down.
    pub down: [Option<Instant>; SERVERS],
    /// Who served which bucket of which group.
    owners: BTreeMap<GroupId, Vec<NodeId>>,
    /// What that follows from, by node: the version of its View, and whether its lease held.
    served: Vec<(u64, bool)>,
    /// What was decided of nodes, until it was told.
    pub news: Vec<String>,
    /// Some bucket was left alone for a while.
    waits: bool,
    /// When a link of the backplane was last cut.
    pub apart: Option<Instant>,
    /// A virtual server has changed its group.
    pub regrouped: bool,
}

/// Of the servers' weights that a node serves by.
fn weights(config: &Config) -> u64 {
    let all = config.virtual_servers.iter().flat_map(|(_, server)| &server.real_servers);
    all.fold(0, |digest, real| mix(digest ^ u64::from(real.weight)))
}

fn up(state: &State) -> [bool; SERVERS] {
    let space = state.namespace();
    let all = space.virtual_servers().flat_map(|(_, name, _)| space.real_servers(name));
    let down = all.filter(|(id, ..)| state.standings().health(*id) == Health::Down);
    let down: Vec<_> = down.filter_map(|(.., spec)| server_at(spec.address)).collect();
    std::array::from_fn(|server| !down.contains(&server))
}

impl Oracles {
    /// Whether a node goes by what was decided since all were looked at.
    pub fn behind(&self, members: &mut [Option<Member>]) -> bool {
        let index = self.judged.state.index();
        let mut all = members.iter_mut().flatten();
        all.any(|member| member.manager().council().is_some_and(|council| council.state().index() > index))
    }

    /// Looks at all nodes.
    pub fn judge(&mut self, members: &mut [Option<Member>], now: Instant) -> Result<(), Violation> {
        let (mut health, mut in_force) = (Vec::new(), Vec::new());
        let mut latest = (self.judged.state.index(), None);
        for (node, member) in members.iter_mut().enumerate() {
            let Some(manager) = member.as_mut().map(Member::manager) else { continue };
            let Some(council) = manager.council() else { continue };
            self.judged.agreement.hear(node, council).map_err(|what| Violation {
                oracle: Oracle::Digest,
                at: now,
                what,
            })?;
            let state = council.state();
            health.push(state.standings().digest());
            in_force.push(weights(manager.config()));
            if state.index() > latest.0 {
                latest = (state.index(), Some(node));
            }
        }
        for each in [&mut health, &mut in_force] {
            each.sort_unstable();
            each.dedup();
        }
        let settled = [&health, &in_force].iter().all(|each| each.len() == 1);
        health.extend(in_force);
        if !settled || health != self.judged.health {
            (self.judged.unsettled, self.judged.health) = (now, health);
        }
        if let Some(member) = latest.1.and_then(|node| members[node].as_mut())
            && let Some(council) = member.manager().council()
        {
            let before = std::mem::replace(&mut self.judged.state, council.state().clone());
            self.judged.regrouped |= !self.judged.state.namespace().formers().is_empty();
            let members = self.judged.state.fleet().members();
            for (node, member) in
                members.iter().filter(|(node, member)| before.fleet().member(**node) != Some(*member))
            {
                let what = match &member.phase {
                    Phase::Offline(why) => format!("offline: {why}"),
                    phase => format!("{phase:?}"),
                };
                self.judged.news.push(format!(
                    "n{}, life {}, is {what}",
                    node.index() + 1,
                    member.incarnation
                ));
            }
            let leads = |state: &State, node: &NodeId, life| state.fleet().serves(*node, life);
            let dead = before.fleet().members().iter().filter(|(node, member)| {
                leads(&before, node, member.incarnation)
                    && !leads(&self.judged.state, node, member.incarnation)
            });
            let dead = dead.map(|(node, _)| *node).collect();
            self.bereaved(dead, before.fleet(), now);
            self.judged.up = up(&self.judged.state);
            for (up, down) in self.judged.up.iter().zip(&mut self.judged.down) {
                *down = if *up { *down } else { Some(now) };
            }
            decided::promotions(&before, &self.judged.state)
                .map_err(|what| self.violation(Oracle::Promotion, now, what))?;
        }
        self.one_owner(members, now)
    }

    /// A bucket is one node's at a time: whose View says so, while its lease holds and it doesn't leave the bucket alone.
    fn one_owner(&mut self, members: &mut [Option<Member>], now: Instant) -> Result<(), Violation> {
        let served: Vec<_> = members
            .iter_mut()
            .map(|member| {
                let Some(member) = member else { return (0, false) };
                let local = member.local(now);
                (member.manager().view().version, member.manager().leased(local))
            })
            .collect();
        if served == self.judged.served && !self.judged.waits {
            return Ok(());
        }
        self.judged.waits = false;
        let mut owners: BTreeMap<GroupId, Vec<NodeId>> = BTreeMap::new();
        for (node, member) in members.iter_mut().enumerate().filter(|(node, _)| served[*node].1) {
            let Some(member) = member else { continue };
            let local = member.local(now);
            let view = member.manager().view();
            for (group, buckets) in (0..).map(GroupId).zip(view.buckets.iter()) {
                let all = owners.entry(group).or_insert_with(|| vec![NOBODY; BUCKETS]);
                self.judged.waits |= buckets.quarantine.as_ref().is_some_and(|q| local < q.until);
                for (i, owner) in all.iter_mut().enumerate() {
                    let bucket = Bucket(i as u16);
                    if buckets.placement.owner(bucket) != Some(view.me)
                        || view.quarantined(group, bucket, local)
                    {
                        continue;
                    }
                    let other = std::mem::replace(owner, view.me);
                    if other != NOBODY {
                        let what = format!(
                            "bucket {bucket} of group {group} is served by n{} and n{}",
                            other.index() + 1,
                            node + 1
                        );
                        return Err(self.violation(Oracle::Owner, now, what));
                    }
                }
            }
        }
        for (group, owners) in owners {
            let last = self.judged.owners.entry(group).or_insert_with(|| vec![NOBODY; BUCKETS]);
            for (last, owner) in last.iter_mut().zip(owners).filter(|(_, owner)| *owner != NOBODY) {
                self.figures.moved += u64::from(*last != NOBODY && *last != owner);
                *last = owner;
            }
        }
        self.judged.served = served;
        Ok(())
    }

    /// What must hold a while after the last fault; what isn't so.
    ///
    /// # Errors
    /// What isn't so.
    pub fn at_rest(&self, members: &mut [Option<Member>]) -> Result<(), String> {
        let mut first: Option<(u64, u64)> = None;
        for (node, member) in members.iter_mut().enumerate() {
            let Some(manager) = member.as_mut().map(Member::manager) else {
                return Err(format!("n{} is dead", node + 1));
            };
            let life = manager.incarnation();
            let Some(council) = manager.council() else { return Err(format!("n{} takes no part", node + 1)) };
            let here = decided::at_rest(node, life, council)?;
            if *first.get_or_insert(here) != here {
                return Err(format!("n{} holds {here:?}, n1 {first:?}", node + 1));
            }
        }
        Ok(())
    }

    /// What was acknowledged is in the log.
    pub fn all_stored(&self, model: &Model, now: Instant) -> Result<(), Violation> {
        match self.acknowledged.iter().find(|(index, _, entry)| !model.holds(*index, entry)) {
            Some((index, by, entry)) => {
                let what = format!("{entry:?}, acknowledged to n{} at {index}, isn't in the log", by + 1);
                Err(self.violation(Oracle::Acknowledged, now, what))
            }
            None => Ok(()),
        }
    }
}
