//! The rows: what comes in, which way it goes, and which counter shows that it went that way.

use crate::port::{Mode, Sent};
use crate::setup::{BACK, FRONT, Lab, SERVERS, server_address, vip, vip_address};
use crate::traffic::{Patch, Template, Traffic, shuffled};
use std::sync::Arc;
use steerage::base::limits::BURST;
use steerage::base::{Addr, FlowKey, Mac};
use steerage::path::port::Port;
use steerage::view::Protocol;
use steerage::wire::protocol;
use steerage::wire::tcp::flags::{ACK, SYN};

/// Connections that are half open at once during preparation.
const HALF_OPEN: usize = 65_536;

/// What a row is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Stateless,
    Hit,
    /// No bare loop does the like.
    None,
}

/// A row of the product's own.
pub struct Row {
    pub name: &'static str,
    vip: u8,
    protocol: u8,
    way: Way,
    pub limit: Limit,
    proof: Proof,
}

/// What shows that a packet went as it should.
#[derive(Clone, Copy)]
enum Proof {
    /// This counter of the node's grows by one with each.
    Counter(&'static str),
    /// The virtual server's packets towards its real servers grow by one with each, and no session is hit or opened.
    Stateless,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Client's packets of flows that are known, or need not be.
    Known,
    /// Each packet opens a connection.
    New,
    /// Replies of the real servers.
    Reply,
    /// Packets that a peer has steered here.
    Steered,
}

const fn row(name: &'static str, vip: u8, way: Way, limit: Limit, proof: Proof) -> Row {
    Row { name, vip, protocol: protocol::UDP, way, limit, proof }
}

/// All of them.
pub const ROWS: [Row; 10] = [
    row("dsr_ipip", vip::IPIP, Way::Known, Limit::Stateless, Proof::Stateless),
    row("dsr_gue", vip::GUE, Way::Known, Limit::Stateless, Proof::Stateless),
    row("dsr_l2", vip::L2, Way::Known, Limit::Stateless, Proof::Stateless),
    row("dsr_session", vip::OWN, Way::Known, Limit::Hit, Proof::Counter("session_hits")),
    row("nat_hit", vip::NAT, Way::Known, Limit::Hit, Proof::Counter("session_hits")),
    Row {
        protocol: protocol::TCP,
        ..row("nat_hit_tcp", vip::NAT, Way::Known, Limit::Hit, Proof::Counter("session_hits"))
    },
    row("nat_reply", vip::NAT, Way::Reply, Limit::Hit, Proof::Counter("session_hits")),
    Row {
        protocol: protocol::TCP,
        ..row("nat_new", vip::NAT, Way::New, Limit::None, Proof::Counter("sessions_opened"))
    },
    row("steered_out", vip::OTHER, Way::Known, Limit::Hit, Proof::Counter("steered_out")),
    row("steered_in", vip::OWN, Way::Steered, Limit::Hit, Proof::Counter("session_hits")),
];

impl Row {
    /// Whether the row makes sense with so many flows: a lone flow's packets open one connection only.
    pub fn suits(&self, flows: usize) -> bool {
        self.way != Way::New || flows >= 4096
    }

    /// Entries of the tables. Where each packet opens a connection, the queue of half-open ones, a quarter of it, has to turn
    /// over before a flow comes again.
    pub fn sessions(&self, flows: usize) -> usize {
        if self.way == Way::New { flows } else { (flows * 5 / 4).max(1_250_000) }
    }

    /// Makes the node of `lab` receive this row's packets without end, its tables filled.
    pub fn prepare<P: Port>(&self, lab: &mut Lab<P>, flows: usize, v6: bool) {
        let port = if self.way == Way::Steered { BACK } else { FRONT };
        let caps = lab.port(0, port).caps().clone();
        let flags = if self.way == Way::New { SYN } else { ACK };
        let mut template = Template::new(caps.mac, &client(0, self.vip, self.protocol, v6), flags);
        if self.way == Way::Steered {
            template = template.steered(caps.mac, &lab.envelope());
        }
        let key = (self.way == Way::Steered).then_some(lab.config.cluster.hash_key);
        let list = list(&template, flows, self.vip, self.protocol, v6);
        // Not the order of the measurement: entries are handed out in the order in which flows come first, and a table must
        // not be read from front to back. Each twice, so that it counts as established.
        let times = if self.way == Way::New { 1 } else { 2 };
        let first = Traffic::new(template.clone(), list.clone(), times, key);
        let turns = (flows * usize::from(times)).div_ceil(BURST);
        if self.protocol == protocol::TCP && self.way == Way::Known {
            self.handshakes(lab, caps.mac, flows, v6);
        }
        if self.way == Way::Reply {
            lab.port(0, port).mode = Mode::Record(first, Vec::with_capacity(turns * BURST));
            lab.turns(turns);
            let before = std::mem::replace(&mut lab.port(0, port).mode, Mode::Silent);
            let Mode::Record(_, sent) = before else { unreachable!("it was set above") };
            let sent: Vec<_> = sent.into_iter().step_by(2).take(flows).collect();
            let (template, list) = replies(caps.mac, &sent, self.protocol, v6);
            lab.port(0, port).mode = Mode::Load(Traffic::new(template, shuffled(&list), 1, None));
        } else {
            lab.port(0, port).mode = Mode::Load(first);
            lab.turns(turns);
            lab.port(0, port).mode = Mode::Load(Traffic::new(template, shuffled(&list), 1, key));
        }
        if self.way == Way::New {
            lab.turns(flows.div_ceil(BURST)); // until nobody is left of those that came in the other order
        }
    }

    /// Opens the flows' TCP connections: SYN, SYN-ACK, ACK.
    fn handshakes<P: Port>(&self, lab: &mut Lab<P>, mac: Mac, flows: usize, v6: bool) {
        let template = Template::new(mac, &client(0, self.vip, self.protocol, v6), SYN);
        let all = list(&template, flows, self.vip, self.protocol, v6);
        // Few at a time: for another one, the oldest that is half open would go.
        for some in all.chunks(HALF_OPEN) {
            let turns = some.len().div_ceil(BURST);
            let syns = Traffic::new(template.clone(), Arc::new(some.to_vec()), 1, None);
            lab.port(0, FRONT).mode = Mode::Record(syns, Vec::with_capacity(turns * BURST));
            lab.turns(turns);
            let before = std::mem::replace(&mut lab.port(0, FRONT).mode, Mode::Silent);
            let Mode::Record(_, mut sent) = before else { unreachable!("it was set above") };
            sent.truncate(some.len());
            let (template, answers) = replies(mac, &sent, self.protocol, v6);
            lab.port(0, FRONT).mode = Mode::Load(Traffic::new(template, Arc::new(answers), 1, None));
            lab.turns(turns);
            let template = Template::new(mac, &client(0, self.vip, self.protocol, v6), ACK);
            let acks = some.iter().map(|syn| template.patch(&template.key(syn))).collect();
            lab.port(0, FRONT).mode = Mode::Load(Traffic::new(template, Arc::new(acks), 1, None));
            lab.turns(turns);
        }
    }

    /// Checks that what was measured is what the row's name says: `work` makes the node see `packets` packets.
    pub fn verify<P: Port>(&self, lab: &mut Lab<P>, v6: bool, work: impl FnOnce(&mut Lab<P>) -> usize) {
        let sessions = |lab: &mut Lab<P>| lab.counter("session_hits") + lab.counter("sessions_opened");
        let count = |lab: &mut Lab<P>| match self.proof {
            Proof::Counter(name) => (lab.counter(name), 0),
            Proof::Stateless => (lab.packets_in(self.vip, Protocol::Udp, v6), sessions(lab)),
        };
        let ((before, kept), (dropped, _)) = (count(lab), lab.dropped());
        let packets = work(lab) as u64;
        let ((after, keeps), (lost, reasons)) = (count(lab), lab.dropped());
        let (lost, counted, kept) = (lost - dropped, after - before, keeps - kept);
        assert!(lost * 1000 < packets, "{}: {lost} of {packets} packets dropped: {reasons}", self.name);
        let name = match self.proof {
            Proof::Counter(name) => name,
            Proof::Stateless => "its virtual server's packets_in",
        };
        let all = counted.abs_diff(packets) * 100 <= packets;
        assert!(all, "{}: {name} grew by {counted} with {packets} packets", self.name);
        assert!(kept == 0, "{}: {kept} sessions hit or opened with {packets} packets", self.name);
    }
}

/// The tuple of the `i`th client's flow: 32,768 flows a client.
pub fn client(i: usize, vip: u8, protocol: u8, v6: bool) -> FlowKey {
    let [high, low] = ((i >> 15) as u16).to_be_bytes();
    let src = if v6 {
        Addr([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 5])
    } else {
        Addr::v4([192, 168, high, low])
    };
    FlowKey::new(src, vip_address(vip, v6), 1024 + (i & 0x7fff) as u16, 80, protocol)
}

/// So many clients' flows, in order.
pub fn list(template: &Template, flows: usize, vip: u8, protocol: u8, v6: bool) -> Arc<Vec<Patch>> {
    Arc::new((0..flows).map(|i| template.patch(&client(i, vip, protocol, v6))).collect())
}

/// The real servers' replies to what the node sent them; to a SYN, a SYN-ACK.
fn replies(mac: Mac, sent: &[Sent], protocol: u8, v6: bool) -> (Template, Vec<Patch>) {
    let key = |s: &Sent| FlowKey::new(s.dst.0, s.src.0, s.dst.1, s.src.1, protocol);
    let template = Template::new(mac, &key(&sent[0]), SYN | ACK);
    let list: Vec<_> = sent.iter().map(|s| template.patch(&key(s))).collect();
    let servers: Vec<_> = (0..SERVERS).map(|i| server_address(i, v6)).collect();
    assert!(sent.iter().all(|s| servers.contains(&s.dst.0)), "only real servers are sent to");
    (template, list)
}
