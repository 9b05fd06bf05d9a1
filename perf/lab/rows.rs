//! The rows: what comes in, which way it goes, and which counter shows that it went that way.

use crate::port::{Mode, Sent};
use crate::setup::{BACK, FRONT, Lab, SERVERS, server_address, vip, vip_address};
use crate::traffic::{Patch, Template, Traffic, shuffled};
use std::sync::Arc;
use std::time::Duration;
use steerage::base::limits::BURST;
use steerage::base::{Addr, FlowKey, Mac};
use steerage::path::port::Port;
use steerage::wire::protocol;

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
    /// Grows by one with each packet that goes as it should.
    counter: Option<&'static str>,
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

const fn row(name: &'static str, vip: u8, way: Way, limit: Limit, counter: Option<&'static str>) -> Row {
    Row { name, vip, protocol: protocol::UDP, way, limit, counter }
}

/// All of them.
pub const ROWS: [Row; 9] = [
    row("dsr_ipip", vip::IPIP, Way::Known, Limit::Stateless, None),
    row("dsr_gue", vip::GUE, Way::Known, Limit::Stateless, None),
    row("dsr_l2", vip::L2, Way::Known, Limit::Stateless, None),
    row("dsr_session", vip::OWN, Way::Known, Limit::Hit, Some("session_hits")),
    row("nat_hit", vip::NAT, Way::Known, Limit::Hit, Some("session_hits")),
    row("nat_reply", vip::NAT, Way::Reply, Limit::Hit, Some("session_hits")),
    Row {
        protocol: protocol::TCP,
        ..row("nat_new", vip::NAT, Way::New, Limit::None, Some("sessions_opened"))
    },
    row("steered_out", vip::OTHER, Way::Known, Limit::Hit, Some("steered_out")),
    row("steered_in", vip::OWN, Way::Steered, Limit::Hit, Some("session_hits")),
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
        let mut template = Template::new(caps.mac, &client(0, self.vip, self.protocol, v6));
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
        if self.way == Way::Reply {
            lab.port(0, port).mode = Mode::Record(first, Vec::with_capacity(turns * BURST));
            lab.turns(turns);
            let before = std::mem::replace(&mut lab.port(0, port).mode, Mode::Silent);
            let Mode::Record(_, sent) = before else { unreachable!("it was set above") };
            let (template, list) = replies(caps.mac, &sent, flows, v6);
            lab.port(0, port).mode = Mode::Load(Traffic::new(template, shuffled(&list), 1, None));
        } else {
            lab.port(0, port).mode = Mode::Load(first);
            lab.turns(turns);
            lab.port(0, port).mode = Mode::Load(Traffic::new(template, shuffled(&list), 1, key));
        }
        if self.way == Way::New {
            lab.turns(flows.div_ceil(BURST)); // until nobody is left of those that came in the other order
        }
        // About what such a turn takes, so that expiry gets its share.
        let each = if self.way == Way::New { 150 } else { 40 };
        lab.step = Duration::from_nanos(each * BURST as u64);
    }

    /// Checks that what was measured is what the row's name says: `work` makes the node see `packets` packets.
    pub fn verify<P: Port>(&self, lab: &mut Lab<P>, work: impl FnOnce(&mut Lab<P>) -> usize) {
        let count = |lab: &mut Lab<P>| self.counter.map(|name| lab.counter(name));
        let (before, (dropped, _)) = (count(lab), lab.dropped());
        let packets = work(lab) as u64;
        let (after, (lost, reasons)) = (count(lab), lab.dropped());
        let lost = lost - dropped;
        assert!(lost * 1000 < packets, "{}: {lost} of {packets} packets dropped: {reasons}", self.name);
        if let (Some(before), Some(after), Some(name)) = (before, after, self.counter) {
            let counted = after - before;
            let all = counted.abs_diff(packets) * 100 <= packets;
            assert!(all, "{}: {name} grew by {counted} with {packets} packets", self.name);
        }
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

/// The real servers' replies to what the node sent them, one a flow.
fn replies(mac: Mac, sent: &[Sent], flows: usize, v6: bool) -> (Template, Vec<Patch>) {
    let key = |s: &Sent| FlowKey::new(s.dst.0, s.src.0, s.dst.1, s.src.1, protocol::UDP);
    let template = Template::new(mac, &key(&sent[0]));
    let list: Vec<_> = sent.iter().step_by(2).take(flows).map(|s| template.patch(&key(s))).collect();
    let servers: Vec<_> = (0..SERVERS).map(|i| server_address(i, v6)).collect();
    assert!(sent.iter().all(|s| servers.contains(&s.dst.0)), "only real servers are sent to");
    (template, list)
}
