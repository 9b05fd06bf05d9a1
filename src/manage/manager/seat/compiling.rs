//! From what is decided to the View that says it.

use super::{Seat, times};
use crate::base::hash::mix;
use crate::base::version::WireVersion;
use crate::base::{Addr, GroupId, Instant, NodeId, NodeSet, VirtualServerId};
use crate::cluster::fleet::{Fleet, Why};
use crate::cluster::place::{Map, chain_seen_by, seen_by};
use crate::manage::compile;
use crate::manage::config::Config;
use crate::manage::manager::Manager;
use crate::table::placement::{Home, Placement};
use crate::view::{Buckets, Chains, Hop, Owned, View};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::error;

/// What was compiled of a version that may not be in force yet.
pub(super) struct Compiled {
    /// The namespace, its former groups among it, and the health that it is made of.
    digest: u64,
    config: Config,
    view: View,
}

impl Seat {
    /// Whose each group's buckets are, as a node has to see it that goes by this View. One that is still catching up may know the
    /// buckets of nodes that its View doesn't have yet; it serves none itself.
    fn buckets(&mut self, view: &View) -> Vec<Buckets> {
        let (me, nodes) = (view.me, view.nodes.len());
        let state = self.council.state();
        let over = state.over();
        let (published, latest) = (state.published().maps(), state.fleet().maps());
        let known = std::mem::take(&mut self.placed);
        for group in (0..view.services.groups.len() as u16).map(GroupId) {
            let Some(maps) = published.get(&group).zip(latest.get(&group)) else { continue };
            let before = view.buckets.get(group.index()).and_then(|buckets| buckets.chains.as_ref());
            let placed = known.get(&group).filter(|placed| placed.is_of(maps, over, nodes)).cloned();
            let placed = placed.unwrap_or_else(|| Placed::new(me, maps, over, nodes, before));
            self.placed.insert(group, placed);
        }
        let each = (0..view.services.groups.len() as u16).map(GroupId).map(|group| {
            let quarantine = self.quarantine.get(&group).copied().map(Box::new);
            let (placement, chains) = match self.placed.get(&group) {
                Some(placed) => (placed.placement.clone(), placed.chains.clone()),
                None => (Placement::initial(0, &[]), None),
            };
            Buckets { placement, quarantine, chains }
        });
        each.collect()
    }
}

/// Whose a group's buckets are to a node, and what that was made of: most Views are made for other reasons.
#[derive(Clone)]
pub(super) struct Placed {
    published: Arc<Map>,
    latest: Arc<Map>,
    over: NodeSet,
    nodes: usize,
    placement: Placement,
    chains: Option<Chains>,
}

impl Placed {
    fn is_of(&self, (published, latest): (&Arc<Map>, &Arc<Map>), over: NodeSet, nodes: usize) -> bool {
        Arc::ptr_eq(&self.published, published)
            && Arc::ptr_eq(&self.latest, latest)
            && (self.over, self.nodes) == (over, nodes)
    }

    /// `before`: the chains so far; what is as it was is shared.
    fn new(
        me: NodeId,
        (published, latest): (&Arc<Map>, &Arc<Map>),
        over: NodeSet,
        nodes: usize,
        before: Option<&Chains>,
    ) -> Self {
        let known = |node: &NodeId| node.index() < nodes;
        let placement = Placement::of(|bucket| {
            let (owner, previous) = seen_by(me, over, published.get(bucket), latest.get(bucket));
            Home { owner: owner.filter(known), previous: previous.filter(known) }
        });
        let chains = published.shares_state().then(|| {
            let of = |(bucket, place)| chain_seen_by(me, over, place, latest.get(bucket));
            published.iter().map(of).collect::<Chains>()
        });
        let chains = if chains.as_ref() == before { before.cloned() } else { chains };
        Self { published: published.clone(), latest: latest.clone(), over, nodes, placement, chains }
    }
}

/// The virtual servers that are in another group by `next`, ascending, and in which.
fn regrouping(config: &Config, next: &Config) -> Arc<[(VirtualServerId, GroupId)]> {
    let group = |id: usize| Some(config.virtual_servers.get(id)?.group);
    // In a new group nobody owns anything yet.
    let known = |group: GroupId| config.cluster.groups.get(group.index()).is_some();
    let others = next
        .virtual_servers
        .iter()
        .filter(|(id, server)| group(*id).is_some_and(|now| now != server.group) && known(server.group));
    others.map(|(id, server)| (VirtualServerId(id as u32), server.group)).collect()
}

impl Manager {
    /// Compiles the namespace, if it isn't what was compiled last.
    pub(super) fn compile_next(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let state = seat.council.state();
        let (space, standings) = (state.namespace(), state.standings());
        let digest = mix(space.digest() ^ standings.digest()) ^ space.formers().groups_digest();
        seat.latest = Some(digest);
        if space.is_empty() || seat.configured == Some(digest) && seat.next.is_none() {
            return;
        }
        if seat.next.as_ref().is_none_or(|next| next.digest != digest) {
            let caps: Vec<_> = self.devices.iter().map(|device| device.caps.clone()).collect();
            let compiled = self.config.with(space).map_err(|faults| {
                let each: Vec<_> = faults.iter().map(ToString::to_string).collect();
                each.join("; ")
            });
            let compiled = compiled.map(|config| config.judged(space, standings)).and_then(|config| {
                let before = (&self.config, self.views.current());
                let view = compile::recompile(&config, self.incarnation, &caps, before);
                let view = view.map_err(|e| e.to_string())?;
                // The workers must not wait for the kernel at the first packet to a new one.
                let ids = self.views.current().services.real_servers.len()..view.services.real_servers.len();
                self.workers.iter().for_each(|w| w.counters.real_servers.populate(ids.clone()));
                Ok(Compiled { digest, config, view })
            });
            match compiled {
                Ok(compiled) => {
                    seat.council.expect(times(&compiled.config));
                    seat.next = Some(compiled);
                }
                Err(why) => {
                    error!("what was decided doesn't suit this node: {why}");
                    (seat.next, seat.unfit) = (None, Some(digest));
                    seat.council.fail(Why::Apply(why));
                }
            }
        }
    }

    /// Takes what was compiled as this node's configuration once it is in force; the View that it makes.
    pub(in crate::manage::manager) fn in_force(&mut self, now: Instant) -> Option<View> {
        let seat = self.seat.as_mut()?;
        let state = seat.council.state();
        if state.in_force() != state.version() {
            return None;
        }
        let Compiled { digest, config, mut view } = seat.next.take()?;
        seat.configured = Some(digest);
        let formers = |config: &Config| -> Vec<_> {
            config.virtual_servers.iter().filter_map(|(id, server)| Some((id, server.former?))).collect()
        };
        let current = self.views.current();
        view.regrouped_in = current.regrouped_in;
        if formers(&config) != formers(&self.config) {
            view.regrouped_in = current.version + 1;
            self.census.regrouped(view.regrouped_in);
        }
        self.config = config;
        seat.council.go_by(times(&self.config));
        self.peers.resize(self.config.cluster.nodes.slots(), self.config.cluster.suspicion);
        let current = self.views.current().hops.iter().map(Hop::place);
        if !current.eq(view.hops.iter().map(Hop::place)) {
            self.neighbours.want(&view.hops, now);
        }
        Some(view)
    }

    /// What a View says by what is decided. What is new is not answered for while another may do so.
    pub(in crate::manage::manager) fn decided(&mut self, view: &mut View, now: Instant) -> Vec<Addr> {
        let Some(seat) = &mut self.seat else { return Vec::new() };
        let buckets = seat.buckets(view);
        if *view.buckets != *buckets {
            view.place(buckets);
        }
        (view.in_force, view.decided) = (seat.state().in_force() as u32, seat.state().version() as u32);
        let (published, latest) = (seat.state().published(), seat.state().fleet());
        // An older release doesn't know the stages of it.
        let known = seat.state().wire() >= WireVersion::KNOWS_FORMER_GROUPS;
        let next = seat.next.as_ref().filter(|_| known);
        view.regrouping = next.map_or_else(Arc::default, |next| regrouping(&self.config, &next.config));
        let of =
            |config: &Config, fleet: &Fleet| compile::advertised(config, fleet.serving(), fleet.draining());
        // What the next version gives to another is given up before it is in force.
        let next = seat.next.as_ref().map_or(&self.config, |next| &next.config);
        let both: BTreeSet<_> = of(next, latest).into_iter().collect();
        let held_back = now < seat.vips_from;
        let mut ours = of(&self.config, published);
        // Whoever gets replies to a SNAT address passes them on, so two may answer for it, and nobody waits for a dead one's lease.
        let snat = |address: &Addr| matches!(view.services.owned.get(address), Some(Owned::Snat { .. }));
        ours.retain(|a| both.contains(a) && (!held_back || snat(a) || view.advertised.get(a).is_some()));
        ours
    }
}
