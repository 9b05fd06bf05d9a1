//! Whose packet is it? Own session, then steering session, then hash (MECHANISMS §4 points 1 and 2).

use super::counters::Counters;
use super::meta::{LocalServer, Meta};
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, FlowKey, GroupId, Instant, NodeId, VirtualServerId, WorkerId};
use crate::table::flow::EntryId;
use crate::table::session::{Direction, Session, SessionTable, State};
use crate::table::steering::{Steering, SteeringTable};
use crate::view::{Buckets, Forward, Ingress, Owned, Owner, Service, View, snat_bucket};
use crate::wire::backplane::Stage;
use crate::wire::protocol;
use std::cmp::Ordering;

/// The session of a packet, if this worker has it.
#[inline(always)]
pub fn own_session(view: &View, sessions: &SessionTable, meta: &Meta) -> Option<(EntryId, Direction)> {
    let found =
        sessions.find(meta.hash, &meta.key, |s| view.reply_key(s.real, s.snat, s.snat_port) == meta.key);
    found.filter(|(id, _)| sessions.flows().get(*id).state != State::Elsewhere)
}

/// What the tables of a worker hold of a packet's flow: its session, with the client's tuple and the packet's direction, and its
/// steering session. For who asks from outside of the path; nothing changes by it.
pub fn known(
    view: &View,
    sessions: &SessionTable,
    steering: &SteeringTable,
    meta: &Meta,
) -> (Option<(FlowKey, Direction, Session)>, Option<Steering>) {
    let flows = sessions.flows();
    let own = own_session(view, sessions, meta);
    let session = own.map(|(id, direction)| (*flows.key(id), direction, *flows.get(id)));
    (session, steering.find(meta.hash, &meta.key).map(|id| *steering.get(id)))
}

/// What is to be done with a packet that has no session here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is for us to open a session for this virtual server.
    Open(VirtualServerId),
    /// Balance it without state.
    Stateless(VirtualServerId),
    /// A sibling has the flow's session, if this node has one.
    Worker(WorkerId),
    /// Another node owns it.
    Node(Owner),
    /// This node may know the flow, and is asked so at this stage.
    Ask(Stage, Owner),
    /// Nobody else knows the flow: the bucket's owner is to take it.
    Return(Owner),
}

/// What a tuple names: where its bucket is, and which virtual server if it is a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A virtual server.
    Service(VirtualServerId),
    /// A SNAT address of this group; the port names the bucket of the flow that it belongs to.
    Reply(GroupId, Bucket),
}

impl Destination {
    /// The group and bucket by which a packet has its place.
    pub fn place(self, view: &View, meta: &Meta) -> (GroupId, Bucket) {
        match self {
            Self::Service(id) => {
                let group = view.services.virtual_servers[id.index()].group;
                (group, view.bucket(id, &meta.key, meta.hash))
            }
            Self::Reply(group, bucket) => (group, bucket),
        }
    }
}

/// Decides about a packet without a session here.
#[inline]
pub fn decide(
    view: &View,
    steering: &mut SteeringTable,
    counters: &Counters,
    me: WorkerId,
    meta: &Meta,
    now: Instant,
) -> Result<Decision, Verdict> {
    let receiving = meta.stage == Stage::Receive;
    if receiving
        && view.steering_cache
        && let Some(target) = cached(view, steering, meta, now)
    {
        counters.steering_hits.inc();
        return Ok(towards(view, target));
    }
    let decision = by_tuple(view, me, meta);
    if receiving {
        match decision {
            // Whom it is given to while its bucket is handed over is not worth keeping: that ends, and such a flow soon has
            // a session at one of the two, one of which this node is.
            Ok(Decision::Open(_) | Decision::Ask(..) | Decision::Return(_)) | Err(Verdict::NoSession) => {
                counters.hashed.inc();
            }
            Ok(Decision::Worker(worker)) => {
                hashed(view, steering, counters, meta, Owner { node: view.me, worker }, now);
            }
            Ok(Decision::Node(owner)) => hashed(view, steering, counters, meta, owner, now),
            Ok(Decision::Stateless(_)) | Err(_) => {}
        }
    }
    decision
}

/// The part of [`decide`] that asks the tuple alone, as worker `me` of the View's node: no steering session, nothing counted
/// or remembered.
///
/// A node that owns the packet's bucket, owned it before, or was sent the packet knows the flow at the bucket's worker or
/// nowhere. There the flow is unknown, or we were not asked; so the packet goes on in this order, each step raising its stage:
/// to those that may still have the flow while they live, see [`Holders`]; to its owner, who must take it; here, if this node is
/// that or about to be.
#[inline(always)]
pub fn by_tuple(view: &View, me: WorkerId, meta: &Meta) -> Result<Decision, Verdict> {
    let (service, group, bucket) = match destination(view, meta)? {
        Destination::Service(id) => {
            let server = &view.services.virtual_servers[id.index()];
            if server.ingress == Ingress::Local && view.services.groups[server.group.index()].has(view.me) {
                return Ok(Decision::Stateless(id));
            }
            (Some(id), server.group, view.bucket(id, &meta.key, meta.hash))
        }
        Destination::Reply(group, bucket) => (None, group, bucket),
    };
    let placement = &view.buckets[group.index()].placement;
    let holders = Holders::of(view, service, group, bucket);
    let owner = placement.owner(bucket);
    let mine = owner == Some(view.me);
    if !mine && meta.stage == Stage::Receive && !holders.has(view.me) {
        return match (owner, holders.behind(meta.stage, view.me)) {
            (Some(owner), _) => Ok(Decision::Node(view.at(owner, bucket))),
            (None, Some((stage, next))) => Ok(Decision::Ask(stage, view.at(next, bucket))),
            (None, None) => Err(Verdict::NoOwner),
        };
    }
    let worker = view.worker_of(view.me, bucket);
    if worker != me {
        return Ok(Decision::Worker(worker));
    }
    // What a dead node had in either group others are about to have, and whoever is asked now would think that they had been asked.
    if service.is_some_and(|id| is_orphaned(view, id, bucket)) {
        return Err(Verdict::NoOwner);
    }
    // As one that may have it this node is asked rightly, unless the sender is behind, or its frame has waited for long.
    let asked = meta.stage <= Stage::Owner
        || holders.at(meta.stage) == Some(view.me)
        || meta.sender_knows != Ordering::Less;
    if asked && let Some((stage, next)) = holders.behind(meta.stage, view.me) {
        return Ok(Decision::Ask(stage, view.at(next, bucket)));
    }
    // Nor needs it to be asked where nobody but the owner can have anything.
    if (asked || holders.behind(Stage::Owner, view.me).is_none())
        && let Some(owner) = owner.filter(|_| !mine && meta.stage < Stage::Returned)
    {
        return Ok(Decision::Return(view.at(owner, bucket)));
    }
    // Nobody's yet: it may be under the lease of one that died.
    if owner.is_none() {
        return Err(Verdict::NoOwner);
    }
    // Here it ends. Another node may have the flow's session unless there is none that could, or the sender has seen to that: who
    // knows of what this node goes by takes it for the one whose it is; who knows of more, for the one whose it is going to be.
    // Whose it was until now has told the next one by then that it doesn't know the flow, or may do so at any time. Where nothing
    // is decided, files may differ for ever.
    let takes = match meta.sender_knows {
        _ if view.in_force == 0 => mine || view.services.groups[group.index()].has(view.me),
        Ordering::Less => mine && holders.behind(Stage::Owner, view.me).is_none(),
        Ordering::Equal => mine,
        // Of another group's SNAT address this node doesn't know yet, and replies to this group's come to others.
        Ordering::Greater => {
            let was_mine = placement.previous(bucket) == Some(view.me);
            mine || !was_mine && service.and_then(|id| view.regrouping(id)).is_none()
        }
    };
    if !takes {
        // Given away since what the sender knows: the next owner may take it, who is told of what this node knows. Each time more is
        // known, so that it can't go round.
        let given = sender_is_behind(view, meta) && placement.previous(bucket) == Some(view.me);
        let next = owner.filter(|_| given && !mine).ok_or(Verdict::StageExhausted)?;
        return Ok(Decision::Return(view.at(next, bucket)));
    }
    service.map(Decision::Open).ok_or(Verdict::NoSession)
}

/// Whether this node knows of a later version than the sender of a packet, who knows of all that this node goes by.
fn sender_is_behind(view: &View, meta: &Meta) -> bool {
    meta.sender_knows == Ordering::Equal && view.decided != view.in_force
}

/// The nodes that may have the session of a flow that its bucket's owner doesn't know, in the order in which they are asked. Mostly
/// that is the one that owned the bucket before. Where the virtual server changes its group, or has done so, it is whoever owns or
/// owned the bucket in either group: in the same order whichever group is the former one to a node, as nodes learn of the change
/// one after the other. A dead one has nothing any more.
struct Holders([(Stage, Option<NodeId>); 4]);

impl Holders {
    #[inline(always)]
    fn of(view: &View, service: Option<VirtualServerId>, group: GroupId, bucket: Bucket) -> Self {
        let may = |node: &NodeId| view.may_hold(*node);
        let placement = |group: GroupId| &view.buckets[group.index()].placement;
        let Some(other) = service.and_then(|id| other_group(view, id)) else {
            let none = (Stage::Returned, None);
            let previous = placement(group).previous(bucket).filter(may);
            return Self([(Stage::PreviousOwner, previous), none, none, none]);
        };
        let [first, second] = [group.min(other), group.max(other)].map(placement);
        Self([
            (Stage::FirstOwner, first.owner(bucket).filter(may)),
            (Stage::FirstPrevious, first.previous(bucket).filter(may)),
            (Stage::SecondOwner, second.owner(bucket).filter(may)),
            (Stage::SecondPrevious, second.previous(bucket).filter(may)),
        ])
    }

    #[inline(always)]
    fn has(&self, node: NodeId) -> bool {
        self.0.iter().any(|(_, holder)| *holder == Some(node))
    }

    /// Who is asked at a stage.
    fn at(&self, stage: Stage) -> Option<NodeId> {
        self.0.iter().find(|(at, _)| *at == stage).and_then(|(_, holder)| *holder)
    }

    /// The next one that is asked after this stage, by `me`, who needn't be.
    #[inline(always)]
    fn behind(&self, stage: Stage, me: NodeId) -> Option<(Stage, NodeId)> {
        let next = |(at, holder): &(Stage, Option<NodeId>)| {
            let holder = holder.filter(|node| *node != me && *at > stage)?;
            // Asked once.
            let first = self.0.iter().find(|(_, other)| *other == Some(holder))?.0;
            (first == *at).then_some((*at, holder))
        };
        self.0.iter().find_map(next)
    }
}

/// The group besides its own in which a virtual server may have sessions: whose it is about to be, or was.
#[inline(always)]
fn other_group(view: &View, id: VirtualServerId) -> Option<GroupId> {
    if planted::is(Bug::FormerGroupForgotten) {
        return None;
    }
    let former = view.services.virtual_servers[id.index()].former;
    if view.regrouping.is_empty() { former } else { view.regrouping(id).or(former) }
}

/// The groups in which a NATed packet's flow may have a session, and its bucket; none if it has none by NAT.
pub fn groups(view: &View, meta: &Meta) -> Option<(GroupId, Option<GroupId>, Bucket)> {
    match destination(view, meta).ok()? {
        Destination::Service(id) => {
            let server = &view.services.virtual_servers[id.index()];
            let other = other_group(view, id);
            (server.forward == Forward::Nat)
                .then(|| (server.group, other, view.bucket(id, &meta.key, meta.hash)))
        }
        Destination::Reply(group, bucket) => Some((group, None, bucket)),
    }
}

/// Whether others have the state of what a node had that is dead, in one of two groups in which a virtual server may have sessions,
/// and none of them goes on with it yet.
#[inline]
fn is_orphaned(view: &View, id: VirtualServerId, bucket: Bucket) -> bool {
    let server = &view.services.virtual_servers[id.index()];
    let nat = server.forward == Forward::Nat;
    let Some(other) = other_group(view, id).filter(|_| nat) else { return false };
    [server.group, other].iter().any(|group| {
        let Buckets { placement, chains, .. } = &view.buckets[group.index()];
        let copied = || chains.as_ref().is_some_and(|c| c[bucket.index()].complete().next().is_some());
        placement.owner(bucket).is_none() && copied()
    })
}

/// The virtual server of a packet that any node balances by itself, this one too; its table's slot is on its way then. What
/// claims to come from one of our addresses is left to [`decide`], which refuses it.
#[inline(always)]
pub fn local(view: &View, meta: &Meta) -> Option<LocalServer> {
    let key = &meta.key;
    let service = Service { address: key.dst, port: key.dst_port, protocol: key.protocol };
    let id = view.services.local.get(&service)?;
    if view.owned(&key.src).is_some() {
        return None;
    }
    view.services.virtual_servers[id.index()].maglev.prefetch(meta.hash.slot());
    LocalServer::new(id)
}

/// Counts a steering decision that was made by the tuple, and keeps it.
#[inline(always)]
fn hashed(
    view: &View,
    steering: &mut SteeringTable,
    counters: &Counters,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    counters.hashed.inc();
    if view.steering_cache {
        remember(view, steering, counters, meta, owner, now);
    }
}

fn towards(view: &View, owner: Owner) -> Decision {
    if owner.node == view.me { Decision::Worker(owner.worker) } else { Decision::Node(owner) }
}

/// The target of the packet's steering session, if there is one and its node still lives the same life.
#[inline]
fn cached(view: &View, steering: &mut SteeringTable, meta: &Meta, now: Instant) -> Option<Owner> {
    let id = steering.find(meta.hash, &meta.key)?;
    let session = steering.get_mut(id);
    if !lives(view, session) && !planted::is(Bug::SteeringOutlivesPeer) {
        steering.remove(meta.hash, id);
        return None;
    }
    if session.last_seen != now.tick() {
        session.last_seen = now.tick();
    }
    Some(Owner { node: session.node, worker: session.worker })
}

/// Whether the node of a steering session is up, in the life in which that was made.
#[inline(always)]
pub fn lives(view: &View, session: &Steering) -> bool {
    let node = &view.nodes[session.node.index()];
    node.up && node.incarnation == session.incarnation
}

fn remember(
    view: &View,
    steering: &mut SteeringTable,
    counters: &Counters,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    let incarnation = view.nodes[owner.node.index()].incarnation;
    let session = Steering { node: owner.node, worker: owner.worker, incarnation, last_seen: now.tick() };
    if steering.insert(meta.hash, meta.key, session).is_err() {
        counters.steering_full.inc();
    }
}

/// What a packet is for.
#[inline(always)]
pub fn destination(view: &View, meta: &Meta) -> Result<Destination, Verdict> {
    // What claims to come from us comes from someone else; two virtual servers could be made to answer each other for ever.
    if view.owned(&meta.key.src).is_some() {
        return Err(Verdict::BadAddress);
    }
    if let Some(id) = view.virtual_server(&meta.key) {
        return Ok(Destination::Service(id));
    }
    match view.services.owned.get(&meta.key.dst) {
        // The reply to a NATed packet goes by its port to the bucket's owner, wherever that is (MECHANISMS §4 point 5).
        Some(Owned::Snat { id }) => {
            let group = view.services.snats[id.index()].group;
            Ok(Destination::Reply(group, snat_bucket(meta.key.dst_port)))
        }
        Some(Owned::Vip) => Err(Verdict::NoVirtualServer),
        Some(Owned::Interface) => Err(Verdict::NoVirtualServer),
        Some(Owned::Backplane) if is_backplane(view, meta) => Err(Verdict::BackplaneOnFront),
        Some(Owned::Backplane) | None => Err(Verdict::NotOurAddress),
    }
}

/// Whether the packet would be a frame for this node, had it come on the backplane.
fn is_backplane(view: &View, meta: &Meta) -> bool {
    let me = view.this_node();
    let data = view.data_port..view.data_port.saturating_add(me.workers);
    meta.key.dst == me.backplane
        && meta.key.protocol == protocol::UDP
        && (data.contains(&meta.key.dst_port) || meta.key.dst_port == view.control_port)
}
