//! What must hold of every packet, whatever happens. The oracles know what hosts sent and what wires did to it, and look at
//! what arrives; they don't know how the nodes work, but for whose a bucket is.
//!
//! **Excused**, and nothing else:
//! - A packet need not arrive in a world with faults or restarts. In a calm one every packet arrives.
//! - A packet that a wire doubled may arrive so often as there are copies of it.
//! - What a wire damaged may be refused by its end host.
//! - A damaged IPv6 packet may arrive with one bit of its hop limit flipped, which no checksum covers.
//! - A flow may get another SNAT address or port if its owner has begun another life, or if none of its packets has reached
//!   the server for as long as an idle session lives: a half-open one, if a wire has ever damaged a packet of that TCP flow,
//!   because a flipped bit can close a connection for a node. The ones before may come in packets that were sent before the
//!   first one came with others.
//! - It may get another real server if its owner has begun another life with other weights of the servers in its cluster
//!   file, or if a node has whose file and another's give the flow's bucket to different nodes.
//! - A flow of a local virtual server may come to a second real server, always the same, from nodes that have begun a life
//!   with other weights of the servers; to either, if the packet was sent before that life.
//! - Where wires damage frames, a node may learn an Ethernet address from any frame that asks or tells one, or from none.
//! - A worker need not look for the owners of tuples anew that it got while the oracles weren't sure whose lives it knew, or in
//!   damaged packets.
//! - A packet whose bucket has ever moved may cross the backplane three times: to the owner, to the one before it, and back; one
//!   whose bucket the nodes' cluster files give to different nodes, twice. So may a damaged one, whose tuple or hash may name any
//!   bucket; and where buckets move, six times if it was damaged between nodes, as its stage may be too low by that.
//! - What is late of a connection that both sides have closed may go by the next one's SNAT address and port.
//! - Of a flow whose bucket has moved, what is excused for its owner's next life is for that of any node that has owned it; and
//!   it may get another real server if any node has other weights of the servers in its file. It may get another SNAT address or
//!   port also within an idle time after a node has counted another as down: a previous owner that is thought dead isn't asked.
//! - Nothing is asked of the NAT of a flow whose bucket the nodes' cluster files give to different nodes, but that its
//!   packets don't loop, multiply or change.

mod arrival;

use super::cluster::KEY;
use super::hop::Hop;
use super::packet::{self, Bad, Words};
use super::plan::{Change, FlowPlan, NODES, Plan};
use crate::base::hash::{mix, siphash13_bytes};
use crate::base::{Addr, Bucket, GroupId, HashKey, Instant};
use crate::view::View;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Idle times of the nodes' configuration.
pub const HALF_OPEN: Duration = Duration::from_secs(1);
/// See [`HALF_OPEN`]; established TCP connections and UDP flows.
pub const ESTABLISHED: Duration = Duration::from_secs(3);
/// Hops that are remembered, of all packets together.
const HOPS: usize = 1 << 16;
/// Time to live of what hosts send.
pub const TTL: u8 = 64;

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// The nodes find each other and their servers.
    Start,
    /// What arrives undamaged has right checksums and says what was sent.
    Checksum,
    /// What arrives was sent by the other side, to whom it arrives.
    Misdelivered,
    /// No packet arrives more often than the network made copies.
    Duplicate,
    /// No packet crosses the backplane twice.
    Loop,
    /// Addresses, ports, time to live and the way to the server are as the virtual server says.
    Rewrite,
    /// A flow keeps its real server.
    Server,
    /// A NATed flow keeps its SNAT address and port, and no other has it meanwhile.
    Mapping,
    /// A steering decision ends with its owner's life.
    Steering,
    /// A packet of a local virtual server crosses the backplane only from a node that doesn't serve it.
    Local,
    /// Without faults nothing is lost.
    Lost,
    /// Once the faults are over every flow gets answers.
    Progress,
    /// Every frame that a node took is accounted for.
    Counters,
    /// Idle sessions expire.
    Tables,
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
    /// The packet's way so far, if one was concerned.
    pub hops: Vec<String>,
}

/// How a packet came to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// To its own address.
    Nat,
    /// To the virtual address.
    Plain,
    /// In IP.
    Ipip,
    /// In UDP.
    Gue,
}

/// How a packet came to a server, which one that is, and which node sent it there.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// The node; none if another station did.
    pub from: Option<usize>,
    /// The server.
    pub server: usize,
    /// In what.
    pub arrival: Arrival,
}

/// A packet that a host sent.
#[derive(Clone, Copy, Debug)]
struct Record {
    number: u64,
    flow: u32,
    sent: Instant,
    to_server: bool,
    /// The life of its flow's owner then.
    owner_life: u32,
    copies: u32,
    arrivals: u32,
    crossings: u32,
    damaged: bool,
    /// Damaged between nodes, where its stage stands in front of it.
    restaged: bool,
}

/// A flow's SNAT address and port, as its server sees them.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    source: (Addr, u16),
    /// The youngest connection that had it.
    connection: u16,
    /// The owner's life under which it was made.
    life: u32,
    /// When the last packet with it came.
    last: Instant,
}

/// What is known of a flow.
#[derive(Clone, Debug)]
struct Watch {
    owner: usize,
    group: GroupId,
    /// Whoever serves it does so without state.
    local: bool,
    bucket: u16,
    /// Nodes disagree about the owner.
    disputed: bool,
    /// Those who have owned it, a bit each.
    owners: u8,
    /// How many lives they have had, but for the first owner's start.
    life: u32,
    /// The real server, and the owner's life when it was first seen.
    server: Option<(usize, u32)>,
    /// Of a local virtual server: the real servers by the first weights and by those of [`Change::Servers`].
    local_servers: [Option<usize>; 2],
    mapping: Option<Mapping>,
    /// Those before, and when the first packet came that didn't have them any more.
    earlier: Vec<((Addr, u16), Instant)>,
    /// A wire has damaged a packet of its client or server.
    damaged: bool,
}

impl Watch {
    /// Whether more than one node has owned it.
    fn moved(&self) -> bool {
        self.owners.count_ones() > 1
    }
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Packets that hosts sent.
    pub sent: u64,
    /// Packets that hosts took, copies counted.
    pub taken: u64,
    /// Frames that wires lost, doubled and damaged.
    pub lost: u64,
    /// See [`Self::lost`].
    pub doubled: u64,
    /// See [`Self::lost`].
    pub damaged: u64,
    /// Damaged packets that hosts refused.
    pub refused: u64,
    /// Frames between nodes.
    pub backplane: u64,
}

/// See the module's text.
pub struct Oracles {
    seed: u64,
    slack: Duration,
    outsider: usize,
    records: Vec<Record>,
    hops: VecDeque<(Instant, u64, Hop)>,
    watches: Vec<Watch>,
    /// Who has which SNAT port at which server: server, protocol, address, port.
    ports: BTreeMap<(usize, u8, Addr, u16), u32>,
    /// Of each node.
    lives: [u32; NODES],
    /// When each node's life began.
    since: [Instant; NODES],
    /// Nodes whose cluster file has other weights of servers.
    reweighted: [bool; NODES],
    /// Frames damaged, with their copies: no more of which nobody can tell what they were may be refused.
    damages: u64,
    /// How many of those were.
    strangers: u64,
    /// Buckets have moved.
    moves: bool,
    /// When a node was last seen to count another as down.
    pub doubted: Option<Instant>,
    /// Of all deliveries so far.
    pub digest: u64,
    /// What happened.
    pub figures: Figures,
}

impl Oracles {
    /// Oracles of a world whose nodes begin with `view`'s placement.
    pub fn new(plan: &Plan, view: &View) -> Self {
        // Not the nodes' own, which could have forgotten it.
        let hash_key = HashKey::derive(&KEY, 1);
        let watch = |flow: &FlowPlan| {
            let bucket = hash_key.flow(&flow.key).bucket();
            let server = view.virtual_server(&flow.key).map(|id| &view.services.virtual_servers[id.index()]);
            let group = server.map_or(GroupId(0), |server| server.group);
            let owner = view.owner(group, bucket).map_or(0, |owner| owner.node.index());
            Watch {
                owner,
                group,
                local: flow.serving.local(),
                bucket: bucket.0,
                disputed: false,
                owners: 1 << owner,
                life: 1,
                server: None,
                local_servers: [None; 2],
                mapping: None,
                earlier: Vec::new(),
                damaged: false,
            }
        };
        Self {
            seed: plan.seed,
            slack: plan.slack(),
            outsider: plan.outsider,
            records: Vec::new(),
            hops: VecDeque::with_capacity(HOPS),
            watches: plan.flows.iter().map(watch).collect(),
            ports: BTreeMap::new(),
            lives: [1; NODES],
            since: [Instant::ZERO; NODES],
            reweighted: [false; NODES],
            damages: 0,
            strangers: 0,
            moves: false,
            doubted: None,
            digest: plan.seed,
            figures: Figures::default(),
        }
    }

    /// A node's life is over.
    pub fn died(&mut self, node: usize) {
        self.lives[node] += 1;
        for watch in self.watches.iter_mut().filter(|watch| watch.owners >> node & 1 == 1) {
            watch.life += 1;
        }
    }

    /// A bucket is to move to another node.
    pub fn moves(&mut self, group: GroupId, bucket: Bucket, to: usize) {
        self.moves = true;
        for watch in self.watches.iter_mut().filter(|w| (w.group, w.bucket) == (group, bucket.0)) {
            watch.owner = to;
            watch.owners |= 1 << to;
        }
    }

    /// How often a copy of a packet may cross the backplane.
    fn crossings(&self, record: &Record) -> u32 {
        let watch = &self.watches[record.flow as usize];
        if self.moves && record.restaged {
            6
        } else if watch.moved() || self.moves && record.damaged {
            3
        } else if watch.disputed || record.damaged {
            2
        } else {
            1
        }
    }

    /// The life that a node leads, or will.
    pub fn life(&self, node: usize) -> u32 {
        self.lives[node]
    }

    /// A node has begun a life in which it decides by `view`.
    pub fn started(&mut self, node: usize, change: Change, view: &View, now: Instant) {
        self.since[node] = now;
        self.reweighted[node] |= change == Change::Servers;
        for watch in &mut self.watches {
            let owner = view.owner(watch.group, Bucket(watch.bucket));
            watch.disputed |= owner.map(|owner| owner.node.index()) != Some(watch.owner);
        }
    }

    /// Whether the nodes' files give this flow to different nodes.
    pub fn disputed(&self, flow: u32) -> bool {
        self.watches[flow as usize].disputed
    }

    /// Whether this flow's bucket has moved.
    pub fn moved(&self, flow: u32) -> bool {
        self.watches[flow as usize].moved()
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = number as u32 as usize;
        self.records.get(index).filter(|r| r.number == number).map(|_| index)
    }

    /// The flow of an undamaged packet of ours in a frame.
    pub fn flow_of(&self, frame: &[u8]) -> Option<u32> {
        let record = &self.records[self.index(packet::number(frame)?)?];
        (!record.damaged).then_some(record.flow)
    }

    /// Notes where the packet in a frame is.
    pub fn hop(&mut self, frame: &[u8], hop: Hop, now: Instant) {
        let Some(number) = packet::number(frame) else { return };
        if self.hops.len() == HOPS {
            self.hops.pop_front();
        }
        self.hops.push_back((now, number, hop));
    }

    /// A violation that concerns a packet, or none.
    pub fn violation(
        &self,
        oracle: Oracle,
        number: Option<u64>,
        now: Instant,
        what: impl Into<String>,
    ) -> Violation {
        let way = self.hops.iter().filter(|(_, of, _)| Some(*of) == number);
        let hops: Vec<_> = way.map(|(at, _, hop)| format!("{} {hop}", time(*at))).collect();
        let last = hops.len().saturating_sub(12);
        Violation { oracle, at: now, what: what.into(), hops: hops[last..].to_vec() }
    }

    /// A host sends a packet: gives it its number.
    pub fn sends(&mut self, words: Words, to_server: bool, now: Instant) -> Words {
        let index = self.records.len() as u64;
        let number = mix(self.seed ^ mix(index)) << 32 | index;
        let owner_life = self.watches[words.flow as usize].life;
        self.records.push(Record {
            number,
            flow: words.flow,
            sent: now,
            to_server,
            owner_life,
            copies: 1,
            arrivals: 0,
            crossings: 0,
            damaged: false,
            restaged: false,
        });
        self.figures.sent += 1;
        Words { number, ..words }
    }

    /// A wire, maybe one of the backplane's, has taken a frame, and made so many of it.
    pub fn on_wire(&mut self, frame: &[u8], fate: crate::io::fault::Fate, back: bool, now: Instant) {
        let more = fate.copies.saturating_sub(1);
        let index = packet::number(frame).and_then(|n| self.index(n));
        match index {
            Some(index) => {
                self.records[index].copies += more;
                let record = &mut self.records[index];
                record.damaged |= fate.corrupted;
                record.restaged |= fate.corrupted && back;
                self.watches[record.flow as usize].damaged |= fate.corrupted;
            }
            // A copy of what may have been damaged before.
            None => self.damages += u64::from(more),
        }
        if fate.copies == 0 {
            self.figures.lost += 1;
            self.hop(frame, Hop::Lost, now);
        }
        if more > 0 {
            self.figures.doubled += 1;
            self.hop(frame, Hop::Doubled, now);
        }
        if fate.corrupted {
            self.figures.damaged += 1;
            self.damages += u64::from(fate.copies);
            self.hop(frame, Hop::Damaged, now);
        }
    }

    /// A frame has come to the end of a wire.
    pub fn delivered(&mut self, wire: usize, frame: &[u8], now: Instant) {
        let key = HashKey([self.digest, now.0 << 8 | wire as u64]);
        self.digest = siphash13_bytes(key, frame);
    }

    /// A node has sent a frame to another.
    pub fn crosses(&mut self, node: usize, frame: &[u8], now: Instant) -> Result<(), Violation> {
        self.figures.backplane += 1;
        self.hop(frame, Hop::BackOut(node as u8), now);
        let Some(index) = packet::number(frame).and_then(|n| self.index(n)) else { return Ok(()) };
        let record = &mut self.records[index];
        record.crossings += 1;
        let record = *record;
        if record.crossings > record.copies * self.crossings(&record) {
            let what = format!(
                "a packet of flow {} crosses the backplane {} times, and there are {} of it",
                record.flow, record.crossings, record.copies
            );
            return Err(self.violation(Oracle::Loop, Some(record.number), now, what));
        }
        let watch = &self.watches[record.flow as usize];
        let steers = watch.group != GroupId(0) && node == self.outsider;
        if watch.local && !steers && record.to_server && !record.damaged {
            let (flow, number) = (record.flow, record.number);
            let what = format!("n{} serves flow {flow} without state, and hands a packet of it on", node + 1);
            return Err(self.violation(Oracle::Local, Some(number), now, what));
        }
        Ok(())
    }

    /// A host can't take what came to it.
    pub fn refuses(&mut self, frame: &[u8], bad: Bad, now: Instant) -> Result<(), Violation> {
        self.figures.refused += 1;
        let number = packet::number(frame);
        let excused = match number.and_then(|n| self.index(n)) {
            Some(index) => self.records[index].damaged,
            None => {
                self.strangers += 1;
                self.strangers <= self.damages
            }
        };
        if excused {
            return Ok(());
        }
        let what = format!("bad packet ({bad:?}) at an end host, and no wire has damaged that packet");
        Err(self.violation(Oracle::Checksum, number, now, what))
    }

    /// In a calm world all has arrived.
    pub fn all_arrived(&self, now: Instant) -> Result<(), Violation> {
        match self.records.iter().find(|r| r.arrivals != r.copies) {
            None => Ok(()),
            Some(lost) => {
                let what = format!("a packet of flow {} never arrives, and nothing was wrong", lost.flow);
                Err(self.violation(Oracle::Lost, Some(lost.number), now, what))
            }
        }
    }
}

/// Virtual time in seconds.
pub fn time(at: Instant) -> String {
    format!("{}.{:06} s", at.0 / 1_000_000_000, at.0 / 1000 % 1_000_000)
}
