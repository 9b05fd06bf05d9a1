//! Flows of every kind whose real server and SNAT port must stay what they are, and the placements that they live under.

use crate::packets::{ACK, Packet, SYN, open, read, tcp, udp};
use crate::world::{Spec, World, addr, host_mac};
use steerage::base::{Addr, Bucket, FlowKey, HashKey, Mac, NodeId};
use steerage::table::placement::{Home, Placement};
use steerage::view::Buckets;

/// The virtual servers of a kind: whether NAT, last part of its address.
pub const NAT: u8 = 1;
pub const KINDS: [u8; 4] = [NAT, 2, 3, 4];

/// Node `number`.
pub fn node(number: usize) -> NodeId {
    NodeId(number as u16 - 1)
}

/// One group whose buckets are all at `owner`, and were at `previous`.
pub fn all_at(owner: usize, previous: Option<usize>) -> Vec<Buckets> {
    let home = Home { owner: Some(node(owner)), previous: previous.map(node) };
    vec![Placement::of(|_| home).into()]
}

/// Three nodes that have it from the start that node 1 owns everything.
pub fn world(spec: Spec) -> World {
    let mut world = World::new(spec);
    (1..=3).for_each(|n| world.place(n, &all_at(1, None)));
    world.run(2);
    world
}

/// The packet's bucket.
pub fn bucket(packet: &Packet) -> Bucket {
    let protocol = if packet.flags.is_some() { 6 } else { 17 };
    let key = FlowKey::new(packet.src, packet.dst, packet.src_port, packet.dst_port, protocol);
    HashKey::derive(&(0..16).collect::<Vec<u8>>(), 1).flow(&key).bucket()
}

/// A flow as its two ends see it.
#[derive(Clone, Debug)]
pub struct Flow {
    pub kind: u8,
    /// What the client sends when the connection is open.
    pub packet: Packet,
    /// The real server's Ethernet address.
    pub server: Mac,
    /// Where replies go, if it is NATed: server, then SNAT address and port.
    pub reply: Option<Packet>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It came to where the flow is.
    Right,
    /// To another server, or from another SNAT port.
    Astray,
    /// Nowhere.
    Lost,
}

/// Like [`World::exchange`], without what nodes say to all: one that has just started announces its addresses.
pub fn exchange(world: &mut World, number: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut out = world.exchange(number, frame);
    out.retain(|(_, frame)| frame[0] & 1 == 0);
    out
}

/// The packet that opens a flow of that kind.
pub fn opening(kind: u8, v6: bool, is_tcp: bool, port: u16) -> Packet {
    let (src, dst) = match v6 {
        true => ("fd77::5".to_owned(), format!("fd99::{kind}")),
        false => ("192.168.1.5".to_owned(), format!("10.99.0.{kind}")),
    };
    if is_tcp { tcp(&src, port, &dst, 80, SYN) } else { udp(&src, port, &dst, 80) }
}

/// Whom a frame was sent to, and as what.
fn at_server(frame: &[u8], kind: u8) -> (Mac, Option<Packet>) {
    let (to, _, ip) = open(frame);
    (to, (kind == NAT).then(|| read(ip)))
}

impl Flow {
    /// Opens a flow through node `receiver`, handshake and all.
    pub fn open(world: &mut World, receiver: usize, first: &Packet) -> Self {
        let kind = (first.dst.0[15] & 0xf).min(4);
        let out = exchange(world, receiver, &first.frame_to(receiver));
        assert_eq!(out.len(), 1, "{first:?}");
        let (server, seen) = at_server(&out[0].1, kind);
        let packet = if first.flags.is_some() { first.with_flags(ACK) } else { first.clone() };
        let reply = seen.map(|seen| seen.answer(ACK));
        let flow = Self { kind, packet, server, reply };
        if let Some(reply) = &flow.reply {
            let reply = if reply.flags.is_some() { reply.with_flags(SYN | ACK) } else { reply.clone() };
            assert_eq!(exchange(world, receiver, &reply.frame_to(receiver)).len(), 1);
        }
        assert_eq!(flow.forward(world, receiver), Fate::Right);
        flow
    }

    /// The client sends a packet to node `receiver`.
    pub fn forward(&self, world: &mut World, receiver: usize) -> Fate {
        self.forward_as(world, receiver, &self.packet)
    }

    /// The same, with this packet.
    pub fn forward_as(&self, world: &mut World, receiver: usize, packet: &Packet) -> Fate {
        let out = exchange(world, receiver, &packet.frame_to(receiver));
        assert!(out.len() <= 1, "{} copies", out.len());
        let Some((_, frame)) = out.first() else { return Fate::Lost };
        let (server, seen) = at_server(frame, self.kind);
        let source = |p: &Packet| (p.src, p.src_port);
        let same = seen.as_ref().map(source) == self.reply.as_ref().map(|r| (r.dst, r.dst_port));
        if server == self.server && same { Fate::Right } else { Fate::Astray }
    }

    /// Its server answers through node `receiver`; right if it has no need to.
    pub fn backward(&self, world: &mut World, receiver: usize) -> Fate {
        let Some(reply) = &self.reply else { return Fate::Right };
        let out = exchange(world, receiver, &reply.frame_to(receiver));
        assert!(out.len() <= 1, "{} copies", out.len());
        let Some((_, frame)) = out.first() else { return Fate::Lost };
        let (to, _, ip) = open(frame);
        let seen = read(ip);
        let client = (self.packet.src, self.packet.src_port);
        let right = (seen.dst, seen.dst_port) == client && (seen.src, seen.src_port) == (self.packet.dst, 80);
        assert_eq!(to, host_mac(addr("10.10.0.254")));
        if right { Fate::Right } else { Fate::Astray }
    }

    /// The SNAT address and port.
    pub fn source(&self) -> Option<(Addr, u16)> {
        self.reply.as_ref().map(|reply| (reply.dst, reply.dst_port))
    }
}

/// Flows of every kind, family and protocol, `each` of them, opened through each node in turn.
pub fn every_kind(world: &mut World, each: u16, base: u16) -> Vec<Flow> {
    let mut flows = Vec::new();
    for kind in KINDS {
        for (v6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for i in 0..each {
                let receiver = 1 + usize::from(i) % 3;
                flows.push(Flow::open(world, receiver, &opening(kind, v6, is_tcp, base + i)));
            }
        }
    }
    flows
}

/// Both directions of all flows, through every node: how many packets went astray or nowhere, of how many.
pub fn broken(world: &mut World, flows: &[Flow]) -> (usize, usize) {
    let (mut bad, mut all) = (0, 0);
    for flow in flows {
        for receiver in 1..=3 {
            all += 2;
            bad += usize::from(flow.forward(world, receiver) != Fate::Right);
            bad += usize::from(flow.backward(world, receiver) != Fate::Right);
        }
    }
    (bad, all)
}
