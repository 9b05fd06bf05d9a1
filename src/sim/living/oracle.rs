//! What must hold of a living cluster, whatever happens: of every packet, and of what the nodes have decided.
//!
//! **Excused**, and nothing else:
//! - A packet need not arrive while there are faults; one that a wire doubled may arrive as often as there are copies.
//! - A connection may get another SNAT address or port only if the life of the node that gave it the first is over: dead, or taken
//!   out by what was decided; or if its real server has died since, or if its client never had an answer: what no server has
//!   answered is given up with the lease.
//! - It may get another real server if its server has died since it began; and if the node that chose it is gone, and what is
//!   decided about the servers' health has changed since the client's first packet, or says that the server is down. Once it has
//!   another one, only what happens from then on excuses a third.
//! - What is under way of a connection that both sides have closed may go anywhere: the flow may begin anew.
//! - What a node sends that was taken out, or wasn't let in yet, goes by what it knew. So may what it sends in its next life while
//!   a worker stands still since the last one, in the middle of a turn.
//! - A client's next connection may go to another real server than the last if that has died, or is or was found to be down; if
//!   nobody alive has what was known of the client, or might not have it yet; and once a virtual server has changed its group.
//! - A flow of a local virtual server may get another real server once what is decided about the servers' health has changed at
//!   any node, and for a moment after that.

use super::clients::Clients;
use super::connection::{Life, Watch};
use super::judge::Judged;
use super::plan::{Plan, SERVERS};
use crate::base::hash::{mix, siphash13_bytes};
use crate::base::{Addr, HashKey, Instant};
use crate::cluster::state::Entry;
use crate::sim::oracle::time;
use crate::sim::packet::{self, Words};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Whoever answers for a VIP keeps it for longer.
const BETWEEN: Duration = Duration::from_millis(70);
/// How often a packet may cross the backplane: from its receiver to the owner, to the one before it, and back.
const CROSSINGS: u32 = 3;
/// The same once virtual servers have changed their groups: to the owner, to owner and previous owner in each of two groups, and
/// back.
const CROSSINGS_BETWEEN_GROUPS: u32 = 6;

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
    /// A client keeps its real server, where clients do.
    Persistence,
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
    /// What a copy of shared state says that it has it has.
    Copies,
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
pub(super) struct Record {
    number: u64,
    pub flow: u32,
    pub to_server: bool,
    pub copies: u32,
    pub arrivals: u32,
    crossings: u32,
}

/// A node that has answered for a VIP, and when.
type Answered = (usize, Instant);

/// See the module's text.
pub struct Oracles {
    seed: u64,
    records: Vec<Record>,
    pub(super) watches: BTreeMap<u32, Watch>,
    pub(super) clients: Clients,
    pub(super) deaths: [u32; SERVERS],
    /// By VIP: who has answered last and when, and who else before.
    reigns: BTreeMap<Addr, (Answered, Option<Answered>)>,
    pub(super) judged: Judged,
    pub(super) acknowledged: Vec<(u64, usize, Entry)>,
    /// Who has which SNAT port at which server (server, protocol, address, port), and when its last packet came.
    pub(super) ports: BTreeMap<(usize, u8, Addr, u16), (u32, Instant)>,
    pub(super) lives: Vec<Life>,
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
            clients: Clients::new(plan.persistent),
            deaths: [0; SERVERS],
            reigns: BTreeMap::new(),
            ports: BTreeMap::new(),
            judged: Judged::default(),
            acknowledged: Vec::new(),
            lives: vec![Life::default(); plan.nodes],
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

    pub(super) fn record(&mut self, number: u64) -> Option<&mut Record> {
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
        let (flow, crossings) = (record.flow, record.crossings);
        let most = record.copies * if self.judged.regrouped { CROSSINGS_BETWEEN_GROUPS } else { CROSSINGS };
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
}
