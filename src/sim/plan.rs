//! What a seed decides before the first turn: the cluster, its faults, what happens to nodes, and who talks to whom.

use super::oracle::Arrival;
use crate::base::hash::mix;
use crate::base::rng::Rng;
use crate::base::{Addr, FlowKey};
use crate::io::fault::{ALL, Rates};
use crate::wire::protocol;
use std::net::Ipv6Addr;
use std::time::Duration;

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// Real servers behind every virtual server.
pub const SERVERS: usize = 4;
/// Port of the real servers that are reached by NAT.
pub const SERVER_PORT: u16 = 8080;

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Rewritten.
    Nat,
    /// Under the server's Ethernet address.
    DsrL2,
    /// In an IP header of the virtual server's family.
    Ipip,
    /// In IP and UDP.
    Gue,
    /// In an IP header of the other family.
    IpipAcross,
}

impl Method {
    /// All of them, in the order of the virtual servers' addresses.
    pub const ALL: [Self; 5] = [Self::Nat, Self::DsrL2, Self::Ipip, Self::Gue, Self::IpipAcross];

    /// How packets come to a real server by it.
    pub fn arrival(self) -> Arrival {
        match self {
            Self::Nat => Arrival::Nat,
            Self::DsrL2 => Arrival::Plain,
            Self::Ipip | Self::IpipAcross => Arrival::Ipip,
            Self::Gue => Arrival::Gue,
        }
    }

    /// The word of the configuration.
    pub fn forward(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DsrL2 => "dsr-l2",
            Self::Ipip | Self::IpipAcross => "ipip",
            Self::Gue => "gue",
        }
    }

    /// The virtual address of this method.
    pub fn vip(self, v6: bool) -> Addr {
        let last = Self::ALL.iter().position(|m| *m == self).unwrap_or(0) as u8 + 1;
        if v6 { ip6(0xfd99, last) } else { Addr::v4([10, 99, 0, last]) }
    }

    /// Whether its real servers have IPv6 addresses, for a virtual server of that family.
    pub fn server_v6(self, v6: bool) -> bool {
        v6 != (self == Self::IpipAcross)
    }
}

/// Who handles the packets of a virtual server; each kind has a port of its own at the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Each flow's owner.
    Steered,
    /// Whichever node gets one.
    Local,
    /// The same, but that one node doesn't serve it and steers what it gets.
    LocalGroup,
}

impl Serving {
    /// All of them, in the order of their ports.
    pub const ALL: [Self; 3] = [Self::Steered, Self::Local, Self::LocalGroup];

    /// The virtual servers' port.
    pub fn port(self) -> u16 {
        80 + self as u16
    }

    /// Whether this kind keeps no state.
    pub fn local(self) -> bool {
        self != Self::Steered
    }
}

/// `PREFIX::LAST`, both as they are written.
pub fn ip6(prefix: u16, last: u8) -> Addr {
    Addr(Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, 0, u16::from(last)).octets())
}

/// The address of host `last` on the front link.
pub fn front(v6: bool, last: u8) -> Addr {
    if v6 { ip6(0xfd10, last) } else { Addr::v4([10, 10, 0, last]) }
}

/// The address of real server `index`.
pub fn server(v6: bool, index: usize) -> Addr {
    front(v6, 0x21 + index as u8)
}

/// The SNAT address that node `index` advertises.
pub fn snat(v6: bool, index: usize) -> Addr {
    front(v6, 0x65 + index as u8)
}

/// Where clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the router.
    Away,
    /// On the nodes' own link.
    OnLink,
}

/// In what the cluster file of a restarted node differs from that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// In nothing.
    None,
    /// The node has three workers.
    Workers,
    /// The other nodes weigh more, so that the nodes disagree about buckets.
    Weights,
    /// The last real server of each virtual server weighs more.
    Servers,
}

/// The end of a node's life, and its next one.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Which node.
    pub node: usize,
    /// When it dies, from the start of the traffic.
    pub dies: Duration,
    /// When it starts again.
    pub starts: Duration,
    /// With which cluster file.
    pub change: Change,
}

/// Half of a node's buckets go to another one.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// When, from the start of the traffic; or later, if the nodes have yet to learn of the last move.
    pub at: Duration,
    /// Whose.
    pub from: usize,
    /// Who gets them.
    pub to: usize,
    /// Which half.
    pub salt: u64,
}

/// How the router chooses a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spray {
    /// For every packet anew.
    Packet,
    /// By the flow, and anew for all flows now and then.
    Flow,
}

/// One client's port, and what it does with it.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// From the client to the virtual server.
    pub key: FlowKey,
    /// How it reaches its real server.
    pub method: Method,
    /// Who handles its packets.
    pub serving: Serving,
    /// Where the client is.
    pub place: Place,
    /// When it begins, from the start of the traffic.
    pub start: Duration,
    /// Between an answer and the next question.
    pub interval: Duration,
    /// Bytes of filling in each packet.
    pub filler: usize,
    /// Questions of a connection, after which it is closed and the next one opened.
    pub questions: u32,
    /// Between two connections.
    pub pause: Duration,
    /// Before one of its questions it is silent for so long.
    pub nap: Duration,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it is from.
    pub seed: u64,
    /// No packet may be lost.
    pub calm: bool,
    /// The backplane has IPv6 addresses.
    pub backplane_v6: bool,
    /// Workers of each node, of the first life and in the cluster file.
    pub workers: usize,
    /// Receive queues of the front ports.
    pub front_queues: usize,
    /// How the router chooses.
    pub spray: Spray,
    /// The node that doesn't serve what is [`Serving::LocalGroup`].
    pub outsider: usize,
    /// Virtual time of a turn.
    pub step: Duration,
    /// Faults of the hosts' wires, of the nodes' in front, and of theirs on the backplane. Only one of them damages frames: a
    /// packet crosses each kind once, and damage to a packet that is damaged already may hide from its checksum.
    pub faults: [Rates; 3],
    /// Of [`ALL`] turns of a part, those in which it falls asleep.
    pub stalls: u64,
    /// For how long at most.
    pub stall: Duration,
    /// How long there are faults.
    pub faulty: Duration,
    /// Nodes that die.
    pub restarts: Vec<Restart>,
    /// Buckets that change their owner.
    pub moves: Vec<Move>,
    /// The longest that a node goes without knowing of such a change.
    pub lag: Duration,
    /// Who talks to whom.
    pub flows: Vec<FlowPlan>,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A number from `low` to `high`, both inclusive.
fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high - low + 1)
}

fn one_in(rng: &mut Rng, n: u64) -> bool {
    rng.below(n) == 0
}

fn rates(rng: &mut Rng, calm: bool) -> Rates {
    let quiet = Rates { delay: ms(rng.below(3)), jitter: ms(rng.below(3)), ..Rates::default() };
    if calm {
        return quiet;
    }
    // From a bad day to a broken switch; each kind is absent in some worlds.
    let most = [50, 300, 2000][rng.below(3) as usize];
    let mut rate = |most: u64| if one_in(rng, 4) { 0 } else { rng.below(most + 1) };
    let (loss, duplicate, reorder, corrupt) = (rate(most), rate(most), rate(most), rate(most / 2));
    Rates { loss, duplicate, reorder, corrupt, late: ms(between(rng, 1, 50)), ..quiet }
}

fn faults(rng: &mut Rng, calm: bool) -> [Rates; 3] {
    let mut all = [(); 3].map(|()| rates(rng, calm));
    let damaging = rng.below(3) as usize;
    all.iter_mut().enumerate().filter(|(i, _)| *i != damaging).for_each(|(_, rates)| rates.corrupt = 0);
    all
}

impl Plan {
    /// What the seed says.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::new(mix(seed));
        let calm = one_in(rng, 4);
        let faulty = ms(between(rng, 2000, 4000));
        let step = Duration::from_micros([500, 1000, 2000][rng.below(3) as usize]);
        let workers = if one_in(rng, 8) { 1 } else { 2 };
        let mut restarts = Vec::new();
        if !calm && !one_in(rng, 3) {
            let first = rng.below(NODES as u64) as usize;
            for i in 0..between(rng, 1, 2) as usize {
                let dies = ms(700 * (i as u64 + 1) + rng.below(300));
                let change = match rng.below(8) {
                    0 | 1 => Change::Workers,
                    2 | 3 => Change::Weights,
                    4 | 5 => Change::Servers,
                    _ => Change::None,
                };
                restarts.push(Restart {
                    node: (first + i) % NODES,
                    dies,
                    starts: dies + ms(between(rng, 20, 600)),
                    change,
                });
            }
        }
        let (moves, lag) = moves(&mut Rng::new(mix(seed ^ 0x006d_6f76_6573)), faulty);
        let plan = Self {
            seed,
            calm,
            backplane_v6: one_in(rng, 3),
            workers,
            front_queues: if one_in(rng, 4) { 1 } else { workers },
            spray: if one_in(rng, 3) { Spray::Flow } else { Spray::Packet },
            outsider: rng.below(NODES as u64) as usize,
            step,
            faults: faults(rng, calm),
            stalls: if one_in(rng, 2) { 0 } else { between(rng, 1, 20) },
            stall: ms(between(rng, 5, 150)),
            faulty,
            restarts,
            moves,
            lag,
            flows: (0..between(rng, 60, 140)).map(|i| flow(rng, i as usize, faulty)).collect(),
        };
        debug_assert!(plan.stalls < ALL);
        plan
    }

    /// Whether any wire damages frames.
    pub fn corrupts(&self) -> bool {
        self.faults.iter().any(|r| r.corrupt > 0)
    }

    /// The longest that a packet can be under way between two hosts, or asleep in a worker.
    pub fn slack(&self) -> Duration {
        let wires = self.faults.iter().map(|r| r.delay + r.jitter + 2 * r.late).sum::<Duration>();
        2 * wires + if self.stalls > 0 { 4 * self.stall } else { Duration::ZERO } + 8 * self.step
    }
}

/// In every second world buckets move.
fn moves(rng: &mut Rng, faulty: Duration) -> (Vec<Move>, Duration) {
    let count = if one_in(rng, 2) { 0 } else { between(rng, 1, 4) };
    let each = |_| {
        let from = rng.below(NODES as u64) as usize;
        let to = (from + between(rng, 1, NODES as u64 - 1) as usize) % NODES;
        let at = ms(rng.below(faulty.as_millis() as u64));
        Move { at, from, to, salt: rng.next_u64() }
    };
    let mut moves: Vec<_> = (0..count).map(each).collect();
    moves.sort_by_key(|next| next.at);
    (moves, ms(between(rng, 0, 300)))
}

fn flow(rng: &mut Rng, index: usize, faulty: Duration) -> FlowPlan {
    let (v6, udp) = (one_in(rng, 2), one_in(rng, 2));
    // NAT is the way with state on both sides.
    let method = if one_in(rng, 3) { Method::Nat } else { Method::ALL[rng.below(5) as usize] };
    let serving = match method {
        Method::Nat => Serving::Steered, // it needs state
        _ => Serving::ALL[rng.below(3) as usize],
    };
    let place = if index.is_multiple_of(40) { Place::OnLink } else { Place::Away };
    let client = match (place, v6) {
        (Place::OnLink, _) => front(v6, 1),
        (Place::Away, true) => ip6(0xfd77, between(rng, 1, 20) as u8),
        (Place::Away, false) => Addr::v4([192, 168, 0, between(rng, 1, 20) as u8]),
    };
    // The index makes the port, so that no two flows are one.
    let port = 1024 + (rng.below(250) * 256) as u16 + index as u16;
    let protocol = if udp { protocol::UDP } else { protocol::TCP };
    FlowPlan {
        key: FlowKey::new(client, method.vip(v6), port, serving.port(), protocol),
        method,
        serving,
        place,
        start: ms(rng.below(faulty.as_millis() as u64)),
        interval: ms(between(rng, 2, 120)),
        filler: if one_in(rng, 8) { 1200 } else { rng.below(100) as usize },
        questions: between(rng, 1, 30) as u32,
        pause: ms(if one_in(rng, 8) { 1700 } else { rng.below(150) }),
        nap: ms(if one_in(rng, 8) { between(rng, 1200, 1800) } else { 0 }),
    }
}
