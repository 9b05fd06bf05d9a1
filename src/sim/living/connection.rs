//! What must hold of connections: that packets arrive as they were sent, at the server where the ones before them arrived,
//! and from the address and port that those had.

use super::oracle::{Oracle, Oracles, Violation};
use super::plan::{is_snat, server, snat_group};
use crate::base::{Addr, Incarnation, Instant, NodeId, NodeSet};
use crate::cluster::fleet::{Fleet, Phase};
use crate::sim::load::Flow;
use crate::sim::oracle::{Arrival, time};
use crate::sim::packet::{Kind, Packet};
use crate::sim::plan::{Method, SERVER_PORT, Serving};
use crate::view::snat_bucket;
use crate::wire::protocol;
use std::time::Duration;

/// A moment after a change of the servers' health: until all packets are there that were decided upon before.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
/// Whoever has had no packet for longer may have given up its port.
const SHARED: Duration = Duration::from_secs(1);
/// By then other nodes have the state of a connection whose client has had an answer.
pub(super) const SHARED_WITHIN: Duration = Duration::from_millis(500);
/// The longest that a packet is under way to a server.
const LATE: Duration = Duration::from_millis(100);

/// How a packet came to a server.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// From which node.
    pub node: usize,
    /// In which of its lives that is now.
    pub life: Incarnation,
    /// To which server.
    pub server: usize,
    /// In what.
    pub arrival: Arrival,
}

/// A connection as its real server sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    connection: u16,
    pub server: usize,
    /// How often that had died then.
    deaths: u32,
    /// Who gave it, in which life.
    pub node: usize,
    life: Incarnation,
    source: (Addr, u16),
    /// When the client sent its first packet.
    since: Instant,
    /// When the last one came.
    last: Instant,
    /// Its client has had an answer.
    answered: bool,
    /// When it first had one to a question.
    served: Option<Instant>,
    /// Its node's life is over, and another node had the connection's state.
    inherited: bool,
    udp: bool,
}

/// The last life that a node has begun, when that was, the one before, and whether it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Life {
    pub life: Incarnation,
    pub since: Instant,
    pub before: Incarnation,
    pub over: bool,
    /// A worker stands still since the life before, of which it may have packets in hand; and when it last did so.
    mixed: bool,
    mixed_at: Option<Instant>,
}

impl Oracles {
    fn arrives(&mut self, packet: &Packet, at_server: bool, now: Instant) -> Result<(), Violation> {
        self.figures.taken += 1;
        let words = packet.words;
        let wrong = match self.record(words.number) {
            None => Some((Oracle::Misdelivered, "nobody sent it")),
            Some(record) => {
                record.arrivals += 1;
                if record.to_server != at_server || record.flow != words.flow {
                    Some((Oracle::Misdelivered, "it was for somebody else"))
                } else if record.arrivals > record.copies {
                    Some((Oracle::Duplicate, "it came before, and no wire doubled it"))
                } else {
                    None
                }
            }
        };
        match wrong {
            Some((oracle, why)) => {
                let what = format!("a packet of flow {} arrives: {why}", words.flow);
                Err(self.violation(oracle, now, what))
            }
            None => Ok(()),
        }
    }

    /// A client takes a packet.
    pub fn at_client(&mut self, packet: &Packet, flow: &Flow, now: Instant) -> Result<(), Violation> {
        self.arrives(packet, false, now)?;
        if let Some(watch) = self.watches.get_mut(&packet.words.flow)
            && watch.connection == packet.words.connection
        {
            watch.answered = true;
            if packet.words.kind == Kind::Answer && watch.served.is_none() {
                watch.served = Some(now);
                let watch = *watch;
                self.served(&watch, flow, now);
            }
        }
        if packet.key == flow.plan.key.reversed() {
            return Ok(());
        }
        let what = format!("flow {} gets an answer as {:?}", packet.words.flow, packet.key);
        Err(self.violation(Oracle::Rewrite, now, what))
    }

    /// A server takes a packet.
    pub fn at_server(
        &mut self,
        came: Came,
        packet: &Packet,
        flow: &Flow,
        now: Instant,
    ) -> Result<(), Violation> {
        self.arrives(packet, true, now)?;
        let nat = flow.plan.method == Method::Nat;
        let source = (packet.key.src, packet.key.src_port);
        let right = if nat { self.rewritten(packet, came.server) } else { packet.key == flow.plan.key };
        if came.arrival != flow.plan.method.arrival() || !right {
            let what = format!(
                "flow {}, {:?}, comes to server {} as {:?}, {:?}",
                packet.words.flow, flow.plan.key, came.server, packet.key, came.arrival
            );
            return Err(self.violation(Oracle::Rewrite, now, what));
        }
        if nat {
            self.own_port(&came, packet, now)?;
        }
        let connection = packet.words.connection;
        let Some(began) = flow.began(connection) else { return Ok(()) };
        let fresh = Watch {
            connection,
            server: came.server,
            deaths: self.deaths[came.server],
            node: came.node,
            life: came.life,
            source,
            since: began,
            last: now,
            answered: false,
            served: None,
            inherited: false,
            udp: packet.key.protocol == protocol::UDP,
        };
        if !self.serves(came.node, came.life) || self.mixes(came.node, now) {
            return Ok(());
        }
        let Some(&watch) = self.watches.get(&packet.words.flow) else {
            self.watches.insert(packet.words.flow, fresh);
            return self.connected(&came, flow, began, now);
        };
        if connection < watch.connection {
            return Ok(());
        }
        let same_server = watch.server == came.server;
        if connection > watch.connection {
            // If its node never saw the end of the last one, it went on with what it had chosen then.
            let since = if same_server { watch.since } else { began };
            self.watches.insert(packet.words.flow, Watch { since, ..fresh });
            return if same_server { Ok(()) } else { self.connected(&came, flow, began, now) };
        }
        if same_server && watch.source == source {
            // Whoever goes on with it has it from now on.
            let has = if nat { Watch { node: came.node, life: came.life, ..watch } } else { watch };
            let inherited = watch.inherited && has.node == watch.node && has.life == watch.life;
            self.watches.insert(packet.words.flow, Watch { last: now, inherited, ..has });
            return Ok(());
        }
        let gone = self.over(watch.node, watch.life);
        let died = self.deaths[watch.server] != watch.deaths;
        let unsettled = self.judged.unsettled + LATE >= watch.since || !self.judged.up[watch.server];
        let local = flow.plan.serving == Serving::Local;
        let changed = self.judged.unsettled + LATE >= watch.last || now - self.judged.unsettled < SETTLED;
        let excused = if local { changed } else { died || gone && unsettled };
        if !same_server && !excused {
            let what = format!(
                "flow {}, {:?} {:?}, goes from server {} (by n{}, life {}, since {}) to server {} (by n{}, life {}), and the first lives",
                packet.words.flow,
                flow.plan.key,
                packet.words,
                watch.server,
                watch.node + 1,
                watch.life,
                time(watch.since),
                came.server,
                came.node + 1,
                came.life,
            );
            return Err(self.violation(Oracle::Server, now, what));
        }
        if watch.source != source && (!gone || watch.inherited) && !died && watch.answered {
            let fate = if gone { "whose state others have" } else { "which lives" };
            let what = format!(
                "flow {}, connection {connection}, had the source {:?} by n{}, {fate}, and has {source:?} by n{}",
                packet.words.flow,
                watch.source,
                watch.node + 1,
                came.node + 1
            );
            return Err(self.violation(Oracle::Mapping, now, what));
        }
        self.figures.lost_with_node += u64::from(watch.source != source);
        // What excused this change excuses no other.
        self.watches.insert(packet.words.flow, Watch { since: watch.last.max(began), ..fresh });
        Ok(())
    }

    /// The lives of these nodes are over, by what is decided, in whose place others serve from now on.
    pub(super) fn bereaved(&mut self, dead: NodeSet, before: &Fleet, now: Instant) {
        self.forgotten(dead, before, now);
        let apart = self.judged.apart;
        for watch in self.watches.values_mut() {
            let node = NodeId(watch.node as u16);
            // A later life of its node has nothing of it.
            let own = dead.contains(node) && before.serves(node, watch.life);
            if !own && !watch.inherited {
                continue;
            }
            let (snat, port) = watch.source;
            let map = snat_group(snat).and_then(|group| before.maps().get(&group));
            let Some(place) = map.map(|map| map.get(snat_bucket(port))) else { continue };
            let complete = place.replicas.iter().filter(|replica| replica.complete);
            let all = place.owner.into_iter().chain(complete.map(|replica| replica.node));
            let heir = all.filter(|heir| !own || *heir != node).any(|heir| !dead.contains(heir));
            // Of what nobody waits for copies may not have come to others while those didn't hear the node.
            let shared = watch.served.is_some_and(|at| {
                now - at > SHARED_WITHIN && (!watch.udp || apart.is_none_or(|apart| apart < at))
            });
            watch.inherited = heir && (watch.inherited || shared);
        }
    }

    /// No two flows have the same SNAT address and port at a server at the same time, whoever gives them.
    fn own_port(&mut self, came: &Came, packet: &Packet, now: Instant) -> Result<(), Violation> {
        let port = (came.server, packet.key.protocol, packet.key.src, packet.key.src_port);
        let flow = packet.words.flow;
        // What nobody alive had of a flow is free.
        let lost = |other: u32| {
            self.watches
                .get(&other)
                .is_some_and(|watch| self.over(watch.node, watch.life) && !watch.inherited)
        };
        let before = self.ports.get(&port).copied().filter(|(other, _)| !lost(*other));
        self.ports.insert(port, (flow, now));
        match before {
            Some((other, at)) if other != flow && now - at < SHARED => {
                let what = format!(
                    "flows {other} and {flow} share the source [{}]:{}, the latter by n{}",
                    packet.key.src,
                    packet.key.src_port,
                    came.node + 1
                );
                Err(self.violation(Oracle::Mapping, now, what))
            }
            _ => Ok(()),
        }
    }

    fn rewritten(&self, packet: &Packet, index: usize) -> bool {
        let key = packet.key;
        key.dst == server(index)
            && key.dst_port == SERVER_PORT
            && is_snat(key.src, self.lives.len())
            && key.src_port >= 4096
    }

    /// A node leads this life now. `awake`: none of its workers stands still.
    pub fn leads(&mut self, node: usize, life: Incarnation, awake: bool, now: Instant) {
        let known = &mut self.lives[node];
        if known.life != life {
            let mixed_at = known.mixed_at;
            *known = Life { life, since: now, before: known.life, over: false, mixed: true, mixed_at };
        }
        known.mixed &= !awake;
        if known.mixed {
            known.mixed_at = Some(now);
        }
    }

    /// Whether what arrives from a node may be of its life before, though others of its workers lead the next one.
    fn mixes(&self, node: usize, now: Instant) -> bool {
        self.lives[node].mixed_at.is_some_and(|at| now - at < LATE)
    }

    /// A node's process is gone.
    pub fn died(&mut self, node: usize) {
        self.lives[node].over = true;
    }

    /// The last life that a node has begun.
    pub fn life(&self, node: usize) -> Incarnation {
        self.lives[node].life
    }

    /// The life of a node in which it has sent what arrives now.
    pub fn sender(&self, node: usize, now: Instant) -> Incarnation {
        let Life { life, since, before, .. } = self.lives[node];
        if now - since < LATE { before } else { life }
    }

    /// Whether a node was let in in this life, by what is known anywhere.
    fn serves(&self, node: usize, life: Incarnation) -> bool {
        self.judged.state.fleet().serves(NodeId(node as u16), life)
    }

    /// Whether a node's life is over, or was taken out, by what is known anywhere.
    fn over(&self, node: usize, life: Incarnation) -> bool {
        if self.lives[node].life != life || self.lives[node].over {
            return true;
        }
        let member = self.judged.state.fleet().member(NodeId(node as u16));
        member.is_some_and(|m| {
            m.incarnation > life || m.incarnation == life && matches!(m.phase, Phase::Offline(_))
        })
    }
}
