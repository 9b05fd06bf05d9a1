//! What becomes of the packets of a tuple, and why: receiver, bucket, owner, real server, rewrite, way out.
//!
//! All nodes decide alike from the View, so one of them can tell what another decides: its own decision functions are asked in
//! the other's place. What only a worker knows, its sessions and steering sessions, it is asked for ([`inquiry`]). The decisions
//! are the path's own functions ([`steer`], [`select`], the parser); nothing here decides anything anew.

mod answer;
pub mod inquiry;
mod onward;
mod reasons;
mod tuple;

pub use answer::{
    Arrival, BucketSaid, By, Dropped, Explanation, NextHop, OwnerSaid, RealServerSaid, Receiver, Rewrite,
    SessionSaid, Steered, TupleSaid, VirtualServerSaid,
};
pub use tuple::{Tuple, TupleError};

use super::compile::{self, CompileError};
use super::config::Config;
use crate::base::limits::BUCKETS;
use crate::base::{Incarnation, Instant, Mac, NodeId, RealServerId, WorkerId};
use crate::path::message::Known;
use crate::path::meta::Meta;
use crate::path::port::PortCaps;
use crate::path::select;
use crate::path::steer::{self, Decision, Destination};
use crate::path::verdict::Verdict;
use crate::view::{Owner, View};
use crate::wire::backplane::Stage;
use tuple::{protocol_name, socket};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tuple.
    pub tuple: Tuple,
    /// The node that receives the packet; none: the one that is asked.
    pub receiver: Option<String>,
}

/// Why there is no explanation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// A receiver that the cluster doesn't have.
    #[error("receiver \"{name}\" is no node of the cluster: {}", .nodes.join(", "))]
    NoSuchNode {
        /// What was asked for.
        name: String,
        /// Those that there are.
        nodes: Vec<String>,
    },
    /// The files are fine, but don't make a View.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Too many open questions.
    #[error("too many explanations are under way: try again")]
    Crowded,
    /// A worker with a full channel.
    #[error("worker {0} has too many commands waiting to be asked: it is stuck, or overloaded")]
    Busy(WorkerId),
    /// A worker that doesn't answer.
    #[error(
        "worker {0} did not answer within {limit} s: it is stuck, or overloaded",
        limit = inquiry::WORKER_PATIENCE.as_secs()
    )]
    Silent(WorkerId),
}

impl ExplainError {
    /// Whether the question was wrong, and not the node's state.
    pub fn is_wrong_question(&self) -> bool {
        matches!(self, Self::NoSuchNode { .. })
    }
}

/// The facts of a request's packet under this View; none if no packet with this tuple passes the parser.
pub fn meta(view: &View, request: &Request) -> Result<Meta, Verdict> {
    request.tuple.meta(view.hash_key)
}

/// The explanation that a node's files give: for a fresh flow, with no neighbour known.
///
/// # Errors
/// [`ExplainError`], if the receiver is none or the configuration can't be compiled.
pub fn offline(config: &Config, request: &Request) -> Result<Explanation, ExplainError> {
    let caps: Vec<_> =
        config.ports.iter().map(|p| PortCaps { mac: Mac([0; 6]), mtu: p.device.mtu }).collect();
    let view = compile::compile(config, Incarnation(0), &caps)?;
    explain(&view, config, request, None, Instant::ZERO)
}

/// The explanation that a node gives whose workers were asked, each of them, at `now`. (`known` is none if they weren't.)
///
/// # Errors
/// [`ExplainError::NoSuchNode`].
pub fn explain(
    view: &View,
    config: &Config,
    request: &Request,
    known: Option<&[Known]>,
    now: Instant,
) -> Result<Explanation, ExplainError> {
    let receiver = match &request.receiver {
        None => view.me,
        Some(name) => node_named(view, name)?,
    };
    let key = *request.tuple.key();
    let mut said = Explanation {
        tuple: TupleSaid {
            protocol: request.tuple.protocol(),
            source: socket(key.src, key.src_port),
            destination: socket(key.dst, key.dst_port),
        },
        told_by: view.this_node().name.clone(),
        live: known.is_some(),
        view: view.version,
        receiver: Receiver {
            node: view.nodes[receiver.index()].name.clone(),
            workers: Vec::new(),
            worker: None,
            why: reasons::receiver(request.receiver.is_some(), known.is_some()),
        },
        virtual_server: None,
        hash: None,
        bucket: None,
        owner: None,
        session: None,
        real_server: None,
        rewrite: None,
        next_hop: None,
        dropped: None,
        notes: Vec::new(),
    };
    match meta(view, request) {
        Err(verdict) => said.dropped = Some(reasons::dropped(verdict, view, &key)),
        Ok(meta) => {
            said.hash = Some(format!("{:#018x}", meta.hash.0));
            Asked { view, config, meta, receiver, known: known.unwrap_or_default(), now, said: &mut said }
                .tell();
        }
    }
    Ok(said)
}

fn node_named(view: &View, name: &str) -> Result<NodeId, ExplainError> {
    let at = view.nodes.iter().position(|node| node.name == name && !name.is_empty());
    at.map(|i| NodeId(i as u16)).ok_or_else(|| ExplainError::NoSuchNode {
        name: name.to_owned(),
        nodes: view.nodes.iter().map(|node| node.name.clone()).filter(|name| !name.is_empty()).collect(),
    })
}

/// What a receiving worker does with the packet.
struct Received {
    by: By,
    owner: Result<Owner, Verdict>,
}

/// An explanation under way.
struct Asked<'a> {
    view: &'a View,
    config: &'a Config,
    meta: Meta,
    receiver: NodeId,
    /// What the workers of this node know; empty if they weren't asked.
    known: &'a [Known],
    now: Instant,
    said: &'a mut Explanation,
}

impl Asked<'_> {
    fn tell(&mut self) {
        let received = self.receive();
        self.destination();
        let owner = match received.owner {
            Ok(owner) => owner,
            Err(verdict) => return self.drop(verdict),
        };
        self.owner(owner, received.by);
        self.at_owner(owner);
    }

    /// The View as another node has it, as far as steering asks: all but a node's own addresses is the same.
    fn in_place_of(&self, node: NodeId) -> View {
        View { me: node, ..self.view.clone() }
    }

    fn drop(&mut self, verdict: Verdict) {
        self.said.dropped = Some(reasons::dropped(verdict, self.view, &self.meta.key));
    }

    fn node_name(&self, node: NodeId) -> String {
        self.view.nodes[node.index()].name.clone()
    }

    /// The receiver's part: sessions, steering sessions, else the tuple.
    fn receive(&mut self) -> Received {
        let view = self.in_place_of(self.receiver);
        if self.receiver != self.view.me || self.known.is_empty() {
            return Received { by: By::Tuple, owner: self.by_tuple(&view, WorkerId(0)) };
        }
        let mut chosen: Option<(WorkerId, Received)> = None;
        for known in self.known {
            let received = self.receive_at(&view, known);
            self.said.receiver.workers.push(Arrival {
                id: known.worker.0,
                by: received.by,
                node: received.owner.ok().map(|owner| self.node_name(owner.node)),
                worker: received.owner.ok().map(|owner| owner.worker.0),
            });
            if matches!(known.steering, Some(s) if !steer::lives(&view, &s)) {
                self.said.notes.push(reasons::void(known.worker));
            }
            // Of several workers that of the session tells most, then one that remembers.
            if chosen.as_ref().is_none_or(|(_, best)| received.by.rank() < best.by.rank()) {
                chosen = Some((known.worker, received));
            }
        }
        let (worker, received) =
            chosen.unwrap_or((WorkerId(0), Received { by: By::Tuple, owner: Err(Verdict::NoOwner) }));
        self.said.receiver.worker = (received.by != By::Tuple).then_some(worker.0);
        received
    }

    fn receive_at(&self, view: &View, known: &Known) -> Received {
        let me = known.worker;
        match (known.session, known.steering) {
            (Some(_), _) => Received { by: By::Session, owner: Ok(Owner { node: view.me, worker: me }) },
            (None, Some(steering)) if view.steering_cache && steer::lives(view, &steering) => {
                let owner = Owner { node: steering.node, worker: steering.worker };
                Received { by: By::SteeringSession, owner: Ok(owner) }
            }
            _ => Received { by: By::Tuple, owner: self.by_tuple(view, me) },
        }
    }

    /// Whom worker `me` of the View's node gives the packet to.
    fn by_tuple(&self, view: &View, me: WorkerId) -> Result<Owner, Verdict> {
        match steer::by_tuple(view, me, &self.meta) {
            // Where nobody owns the bucket, who had it before is the only one that may know the flow.
            Ok(Decision::Ask(_, holder)) if !self.is_owned(view) => Ok(holder),
            // Whom an owner asks first is said when it is the owner's turn.
            Ok(Decision::Open(_) | Decision::Stateless(_) | Decision::Ask(..)) => {
                Ok(Owner { node: view.me, worker: me })
            }
            Ok(Decision::Worker(worker)) => Ok(Owner { node: view.me, worker }),
            Ok(Decision::Node(owner) | Decision::Return(owner)) => Ok(owner),
            // A reply at home: that its session is missing is for the owner to say.
            Err(Verdict::NoSession) => Ok(Owner { node: view.me, worker: me }),
            Err(verdict) => Err(verdict),
        }
    }

    /// Whether any node owns the packet's bucket.
    fn is_owned(&self, view: &View) -> bool {
        let destination = steer::destination(view, &self.meta).ok();
        let place = destination.map(|destination| destination.place(view, &self.meta));
        place.is_some_and(|(group, bucket)| view.owner(group, bucket).is_some())
    }

    /// Virtual server and bucket.
    fn destination(&mut self) {
        let key = &self.meta.key;
        let bucket = match steer::destination(self.view, &self.meta) {
            Ok(Destination::Service(id)) => {
                let server = &self.view.services.virtual_servers[id.index()];
                self.said.virtual_server = Some(VirtualServerSaid {
                    name: server.name.clone(),
                    address: socket(server.address, server.port),
                    forward: server.forward,
                    ingress: server.ingress,
                    group: self.view.services.groups[server.group.index()].name.clone(),
                    why: format!(
                        "it has the packet's destination, port and protocol, {}",
                        protocol_name(key.protocol)
                    ),
                });
                let number = self.view.bucket(id, key, self.meta.hash).0;
                let hash = match server.persistence {
                    Some(persistence) => reasons::client(&persistence.client(key)),
                    None => "the tuple's hash".to_owned(),
                };
                BucketSaid { number, why: format!("{hash}, finalised for buckets, modulo {BUCKETS}") }
            }
            Ok(Destination::Reply(..)) => {
                let number = crate::view::snat_bucket(key.dst_port).0;
                BucketSaid { number, why: reasons::reply_bucket(key) }
            }
            Err(_) => return,
        };
        self.said.bucket = Some(bucket);
    }

    fn owner(&mut self, owner: Owner, by: By) {
        let view = self.view;
        let stateless = matches!(
            steer::by_tuple(&self.in_place_of(self.receiver), owner.worker, &self.meta),
            Ok(Decision::Stateless(_))
        );
        let mine = owner.node == view.me;
        let core = || self.config.workers.cores.get(owner.worker.index()).copied();
        let steered = (owner.node != self.receiver).then(|| {
            let [from, to] = [self.receiver, owner.node].map(|node| view.nodes[node.index()].backplane);
            let hop = view.nodes[owner.node.index()].hop.filter(|_| self.receiver == view.me);
            Steered {
                source: socket(from, self.meta.hash.outer_port()),
                destination: socket(to, view.data_port + owner.worker.0),
                next_hop: hop
                    .map(|hop| self.hop(hop, "the owner's address is on the backplane's link".into())),
            }
        });
        let why =
            if stateless { reasons::LOCAL.to_owned() } else { reasons::owner(view, &self.meta, owner, by) };
        if !view.nodes[owner.node.index()].up && !self.known.is_empty() {
            self.said.notes.push(reasons::down(&self.node_name(owner.node)));
        }
        self.said.owner = Some(OwnerSaid {
            node: self.node_name(owner.node),
            worker: (!stateless).then_some(owner.worker.0),
            core: if mine && !stateless { core() } else { None },
            steered,
            why,
        });
    }

    /// What the owner does.
    fn at_owner(&mut self, owner: Owner) {
        let mine = owner.node == self.view.me;
        if mine && let Some((client, direction, session)) = self.session_of(owner.worker) {
            return self.by_session(&client, direction, &session);
        }
        if !mine && !self.known.is_empty() {
            self.said.notes.push(reasons::ask_owner(&self.node_name(owner.node)));
        }
        let stage = if owner.node == self.receiver { self.meta.stage } else { Stage::Owner };
        match self.decision(owner, stage) {
            Ok(Decision::Ask(stage, node)) => self.handed_over(owner, stage, node),
            Ok(Decision::Return(next)) => {
                let (from, to) = (self.node_name(owner.node), self.node_name(next.node));
                self.said.notes.push(reasons::given_back(&from, &to));
                self.taken(next, self.decision(next, Stage::Returned));
            }
            decision => self.taken(owner, decision),
        }
    }

    /// What `owner` decides of a packet that it knows nothing of, which has come so far.
    fn decision(&self, owner: Owner, stage: Stage) -> Result<Decision, Verdict> {
        steer::by_tuple(&self.in_place_of(owner.node), owner.worker, &Meta { stage, ..self.meta })
    }

    /// The part of those that may still have the flow, one after the other, and the owner's if they know nothing.
    fn handed_over(&mut self, owner: Owner, mut stage: Stage, mut node: Owner) {
        let mut from = owner;
        loop {
            let (name, asked) = (self.node_name(from.node), self.node_name(node.node));
            self.said.notes.push(reasons::may_have(&name, &asked, stage));
            if node.node != self.view.me {
                self.said.notes.push(reasons::ask_holder(&asked));
            } else if let Some((client, direction, session)) = self.session_of(node.worker) {
                return self.by_session(&client, direction, &session);
            }
            match self.decision(node, stage) {
                Ok(Decision::Ask(next, other)) => (from, stage, node) = (node, next, other),
                _ => break,
            }
        }
        self.taken(owner, self.decision(owner, Stage::Returned));
    }

    /// The real server that the packet's client keeps, as the owner's worker knows it, if this node is that.
    fn kept_by(&self, owner: Owner) -> Option<RealServerId> {
        let mine = owner.node == self.view.me;
        self.known.iter().find(|known| mine && known.worker == owner.worker)?.kept
    }

    /// What becomes of a packet without a session at the node that has to take it.
    fn taken(&mut self, owner: Owner, decision: Result<Decision, Verdict>) {
        let mine = owner.node == self.view.me;
        let meta = self.meta;
        match decision {
            Ok(Decision::Open(id) | Decision::Stateless(id)) => {
                let kept = self.kept_by(owner);
                match kept.map_or_else(|| select::real_server(self.view, id, &meta), Ok) {
                    Ok(real) => self.fresh(owner.node, real, kept.is_some()),
                    Err(verdict) => self.drop(verdict),
                }
            }
            // The owner's own View would have it elsewhere, and a steered packet goes no further.
            Ok(Decision::Worker(_) | Decision::Node(_) | Decision::Ask(..) | Decision::Return(_)) => {
                self.drop(Verdict::StageExhausted)
            }
            Err(Verdict::NoSession) if !mine || self.known.is_empty() => {
                self.said.notes.push(reasons::reply_elsewhere(&self.node_name(owner.node), !mine));
            }
            Err(verdict) => self.drop(verdict),
        }
    }
}

#[cfg(test)]
mod tests;
