//! What must hold of a living cluster, whatever happens: of every packet, and of what the nodes have decided.
//!
//! **Excused**, and nothing else:
//! - A packet need not arrive while there are faults; one that a wire doubled may arrive as often as there are copies.
//! - A connection may get another SNAT address or port only if the life of the node that gave it the first is over: dead, or taken
//!   out by what was decided.
//! - It may get another real server if its server has died since it began; and if the node that chose it is gone, and what is
//!   decided about the servers' health has changed since, or says that the server is down.
//! - What a node sends that was taken out, or wasn't let in yet, goes by what it knew.
//! - A flow of a local virtual server may get another real server once what is decided about the servers' health has changed at
//!   any node, and for a moment after that.

use super::judge::Judged;
use super::plan::{Plan, SERVERS, server, snat};
use crate::base::hash::{mix, siphash13_bytes};
use crate::base::{Addr, HashKey, Incarnation, Instant, NodeId};
use crate::cluster::fleet::Phase;
use crate::cluster::state::Entry;
use crate::sim::load::Flow;
use crate::sim::oracle::{Arrival, time};
use crate::sim::packet::{self, Packet, Words};
use crate::sim::plan::{Method, SERVER_PORT, Serving};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A moment after a change of the servers' health: until all packets are there that were decided upon before.
const SETTLED: Duration = Duration::from_secs(2);
/// The longest that a packet is under way to a server.
const LATE: Duration = Duration::from_millis(100);
/// Whoever answers for a VIP keeps it for longer.
const BETWEEN: Duration = Duration::from_millis(70);
/// Nodes that a packet may cross the backplane between: its receiver, the owner, the one before it, and back.
const CROSSINGS: u32 = 3;

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// The nodes begin a cluster and serve.
    Start,
    /// What arrives has right checksums and says what was sent.
    Checksum,
    /// What arrives was sent by the other side, to whom it arrives.
    Misdelivered,
    /// No packet arrives more often than the network made copies.
    Duplicate,
    /// No packet crosses the backplane more often than a handover needs.
    Loop,
    /// Addresses, ports and the way to the server are as the virtual server says.
    Rewrite,
    /// A connection keeps its real server while that lives.
    Server,
    /// A NATed connection keeps its SNAT address and port while the node lives that gave them.
    Mapping,
    /// A bucket is one node's at a time.
    Owner,
    /// Nobody answers for a VIP but one.
    Vip,
    /// Nodes that hold the same entries hold the same state.
    Digest,
    /// Who is given a bucket by a living node has learnt all of it before.
    Promotion,
    /// What was acknowledged is in the log.
    Acknowledged,
    /// Once the faults are over the cluster comes to rest.
    Convergence,
    /// And every flow gets answers.
    Progress,
    /// All buffers come back.
    Buffers,
    /// Nothing panics.
    Panic,
}

/// A promise broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub oracle: Oracle,
    /// Virtual time.
    pub at: Instant,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violation of {:?} at {}: {}", self.oracle, time(self.at), self.what)
    }
}

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

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Packets that hosts sent.
    pub sent: u64,
    /// Packets that hosts took.
    pub taken: u64,
    /// Frames between nodes, heartbeats among them.
    pub backplane: u64,
    /// Buckets that changed hands.
    pub moved: u64,
    /// Answers to the question who has a VIP.
    pub answers: u64,
    /// Connections that were lost with the node that had their NAT.
    pub lost_with_node: u64,
}

/// A packet that a host sent.
#[derive(Clone, Copy, Debug)]
struct Record {
    number: u64,
    flow: u32,
    to_server: bool,
    copies: u32,
    arrivals: u32,
    crossings: u32,
}

/// A connection as its real server sees it.
#[derive(Clone, Copy, Debug)]
struct Watch {
    connection: u16,
    server: usize,
    /// How often that had died then.
    deaths: u32,
    /// Who gave it, in which life.
    node: usize,
    life: Incarnation,
    source: (Addr, u16),
    /// When its first packet came, and the last.
    since: Instant,
    last: Instant,
}

/// The last life that a node has begun, when that was, the one before, and whether it is over.
#[derive(Clone, Copy, Debug)]
struct Life {
    life: Incarnation,
    since: Instant,
    before: Incarnation,
    over: bool,
}

/// A node that has answered for a VIP, and when.
type Answered = (usize, Instant);

/// See the module's text.
pub struct Oracles {
    seed: u64,
    records: Vec<Record>,
    watches: BTreeMap<u32, Watch>,
    deaths: [u32; SERVERS],
    /// By VIP: who has answered last and when, and who else before.
    reigns: BTreeMap<Addr, (Answered, Option<Answered>)>,
    pub(super) judged: Judged,
    pub(super) acknowledged: Vec<(u64, usize, Entry)>,
    lives: Vec<Life>,
    /// Of all deliveries so far.
    pub digest: u64,
    /// What happened.
    pub figures: Figures,
}

impl Oracles {
    /// Of a world that begins.
    pub fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            records: Vec::new(),
            watches: BTreeMap::new(),
            deaths: [0; SERVERS],
            reigns: BTreeMap::new(),
            judged: Judged::default(),
            acknowledged: Vec::new(),
            lives: vec![
                Life {
                    life: Incarnation(0),
                    since: Instant::ZERO,
                    before: Incarnation(0),
                    over: false
                };
                plan.nodes
            ],
            digest: plan.seed,
            figures: Figures::default(),
        }
    }

    /// A violation.
    pub fn violation(&self, oracle: Oracle, at: Instant, what: impl Into<String>) -> Violation {
        Violation { oracle, at, what: what.into() }
    }

    /// A host sends a packet: gives it its number.
    pub fn sends(&mut self, words: Words, to_server: bool) -> Words {
        let index = self.records.len() as u64;
        let number = mix(self.seed ^ mix(index)) << 32 | index;
        let (flow, copies) = (words.flow, 1);
        self.records.push(Record { number, flow, to_server, copies, arrivals: 0, crossings: 0 });
        self.figures.sent += 1;
        Words { number, ..words }
    }

    fn record(&mut self, number: u64) -> Option<&mut Record> {
        self.records.get_mut(number as u32 as usize).filter(|record| record.number == number)
    }

    /// A wire has taken a frame, and made so many of it.
    pub fn on_wire(&mut self, frame: &[u8], copies: u32) {
        if let Some(record) = packet::number(frame).and_then(|number| self.record(number)) {
            record.copies += copies.saturating_sub(1);
        }
    }

    /// A frame has come to the end of a wire.
    pub fn delivered(&mut self, wire: usize, frame: &[u8], now: Instant) {
        let key = HashKey([self.digest, now.0 << 16 | wire as u64]);
        self.digest = siphash13_bytes(key, frame);
    }

    /// A node sends a frame over the backplane.
    pub fn crosses(&mut self, node: usize, frame: &[u8], now: Instant) -> Result<(), Violation> {
        self.figures.backplane += 1;
        let Some(record) = packet::number(frame).and_then(|number| self.record(number)) else {
            return Ok(());
        };
        record.crossings += 1;
        let (flow, crossings, most) = (record.flow, record.crossings, CROSSINGS * record.copies);
        if crossings > most {
            let what = format!(
                "a packet of flow {flow} crosses the backplane for the {crossings}th time, from n{}",
                node + 1
            );
            return Err(self.violation(Oracle::Loop, now, what));
        }
        Ok(())
    }

    /// Who has said in this step that a VIP is its.
    pub fn one_answers(&mut self, answered: &[(Addr, usize)], now: Instant) -> Result<(), Violation> {
        self.figures.answers += answered.len() as u64;
        for &(vip, node) in answered {
            let (last, before) = self.reigns.get(&vip).copied().unwrap_or(((node, now), None));
            let other = if last.0 == node { before } else { Some(last) };
            let at_once = other.is_some_and(|(_, at)| at == now);
            // Nobody has it between two answers of another.
            let between = last.0 != node
                && before.is_some_and(|(before, at): (usize, Instant)| before == node && now - at <= BETWEEN);
            if at_once || between {
                let other = other.map_or(node, |(other, _)| other);
                let what = format!("n{} and n{} answer for {vip:?}", other + 1, node + 1);
                return Err(self.violation(Oracle::Vip, now, what));
            }
            let before = if last.0 == node { before } else { Some(last) };
            self.reigns.insert(vip, ((node, now), before));
        }
        Ok(())
    }

    /// A real server dies.
    pub fn server_dies(&mut self, server: usize) {
        self.deaths[server] += 1;
    }

    /// A node was told that this is decided.
    pub fn acknowledged(&mut self, index: u64, node: usize, entry: Entry) {
        self.acknowledged.push((index, node, entry));
    }

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
        let expected = match flow.plan.method {
            Method::Nat => Arrival::Nat,
            Method::DsrL2 => Arrival::Plain,
            Method::Ipip | Method::IpipAcross => Arrival::Ipip,
            Method::Gue => Arrival::Gue,
        };
        let source = (packet.key.src, packet.key.src_port);
        let right = if nat { self.rewritten(packet, came.server) } else { packet.key == flow.plan.key };
        if came.arrival != expected || !right {
            let what = format!(
                "flow {}, {:?}, comes to server {} as {:?}, {:?}",
                packet.words.flow, flow.plan.key, came.server, packet.key, came.arrival
            );
            return Err(self.violation(Oracle::Rewrite, now, what));
        }
        let connection = packet.words.connection;
        let fresh = Watch {
            connection,
            server: came.server,
            deaths: self.deaths[came.server],
            node: came.node,
            life: came.life,
            source,
            since: now,
            last: now,
        };
        if !self.serves(came.node, came.life) {
            return Ok(());
        }
        let Some(&watch) = self.watches.get(&packet.words.flow) else {
            self.watches.insert(packet.words.flow, fresh);
            return Ok(());
        };
        if connection < watch.connection {
            return Ok(());
        }
        let same_server = watch.server == came.server;
        if connection > watch.connection {
            // If its node never saw the end of the last one, it went on with what it had chosen then.
            let since = if same_server { watch.since } else { now };
            self.watches.insert(packet.words.flow, Watch { since, ..fresh });
            return Ok(());
        }
        if same_server && watch.source == source {
            self.watches.insert(packet.words.flow, Watch { last: now, ..watch });
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
        if watch.source != source && !gone && !died {
            let what = format!(
                "flow {}, connection {connection}, had the source {:?} by n{}, which lives, and has {source:?} by n{}",
                packet.words.flow,
                watch.source,
                watch.node + 1,
                came.node + 1
            );
            return Err(self.violation(Oracle::Mapping, now, what));
        }
        self.figures.lost_with_node += u64::from(watch.source != source);
        self.watches.insert(packet.words.flow, fresh);
        Ok(())
    }

    fn rewritten(&self, packet: &Packet, index: usize) -> bool {
        let key = packet.key;
        key.dst == server(index)
            && key.dst_port == SERVER_PORT
            && (0..self.lives.len()).any(|node| key.src == snat(node))
            && key.src_port >= 4096
    }

    /// A node leads this life now.
    pub fn leads(&mut self, node: usize, life: Incarnation, now: Instant) {
        let known = &mut self.lives[node];
        if known.life != life {
            *known = Life { life, since: now, before: known.life, over: false };
        }
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
