//! Frames between nodes: steered packets in and out, control frames.

use super::egress::{Egress, Towards};
use super::meta::{Kind, Meta};
use super::parse::{self, Hash, Known, Link};
use super::port::{Frame, Pool, Port};
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{Addr, Incarnation, Instant, NodeId};
use crate::view::{Adjacency, Owner, Reach, View};
use crate::wire::backplane::{self, Header, Stage};
use crate::wire::control::{Heartbeat, Records};
use crate::wire::ipip::{self, Inner};
use crate::wire::{ipv4, protocol, udp};

/// Bytes that a steered packet gains, by the family of the backplane: IP, UDP and our header.
pub fn overhead(backplane: Addr) -> usize {
    ipip::outer_len(backplane) + udp::HEADER_LEN + backplane::HEADER_LEN
}

/// What a backplane frame was.
pub enum Received {
    /// A steered packet: the frame now starts at its IP header.
    Packet,
    /// A control frame for the management thread, whose message starts at this offset.
    Control(usize),
    /// A control frame of shared state, likewise.
    Records(usize),
    /// ICMP to this node itself.
    Local,
}

/// Takes the outer headers off an IP frame that came in on the backplane and checks who sent it. `meta` tells of the steered
/// packet then, else of the frame's own.
#[inline(always)]
pub fn receive<F: Frame>(
    frame: &mut F,
    view: &View,
    link: &Link,
    meta: &mut Meta,
) -> Result<Received, Verdict> {
    let ip = frame.head().get(link.payload..).ok_or(Verdict::EthernetMalformed)?;
    let whole = frame.len() - link.payload;
    parse::packet(ip, Known { whole, checksum: Some(frame.rx_checksum()), hash: Hash::None }, meta)?;
    meta.interface = link.interface;
    let me = view.this_node();
    let outer = &*meta;
    if outer.kind == Kind::Icmp {
        parse::trim(frame, link.payload, outer)?;
        return Ok(Received::Local);
    }
    if outer.key.dst != me.backplane || outer.key.protocol != protocol::UDP {
        return Err(Verdict::StrayOnBackplane);
    }
    let (payload, end) = (usize::from(outer.l4) + udp::HEADER_LEN, usize::from(outer.len));
    let bytes = ip.get(payload..end.min(ip.len())).ok_or(Verdict::BackplaneMalformed)?;
    if outer.key.dst_port == view.control_port {
        let what = if Records::is(bytes) { Received::Records } else { Received::Control };
        parse::trim(frame, link.payload, outer)?;
        return Ok(what(payload));
    }
    if !(view.data_port..view.data_port.saturating_add(me.workers)).contains(&outer.key.dst_port) {
        return Err(Verdict::StrayOnBackplane);
    }
    let header = Header::parse(bytes).map_err(|_| Verdict::BackplaneMalformed)?;
    authenticate(view, header.sender, header.incarnation, header.cookie)?;
    if header.stage == Stage::Receive {
        return Err(Verdict::BackplaneMalformed); // a frame says what its receiver is to do, and receiving is done
    }
    // What it was asked for a life had that is over. That it has nothing of it any more proves nothing: others may have it now.
    if header.stage > Stage::Owner && header.incarnation > view.nodes[header.sender.index()].incarnation {
        return Err(Verdict::StageExhausted);
    }
    let inner = bytes.get(backplane::HEADER_LEN..).ok_or(Verdict::BackplaneMalformed)?;
    let before = payload + backplane::HEADER_LEN;
    parse::packet(
        inner,
        Known { whole: end - before, checksum: None, hash: Hash::Given(header.hash) },
        meta,
    )?;
    (meta.stage, meta.sender_knows) = (header.stage, header.knows(view.in_force));
    if planted::is(Bug::StageIgnored) {
        meta.stage = Stage::Receive;
    }
    parse::trim(frame, link.payload + before, meta)?;
    Ok(Received::Packet)
}

/// Whether a data frame comes from a node of the cluster in a life that isn't over. A life that we haven't heard of yet is
/// proved by its cookie.
#[inline]
fn authenticate(view: &View, sender: NodeId, incarnation: Incarnation, cookie: u64) -> Result<(), Verdict> {
    let node =
        view.nodes.get(sender.index()).filter(|_| sender != view.me).ok_or(Verdict::BackplaneMalformed)?;
    if incarnation < node.incarnation {
        return Err(Verdict::BackplaneIncarnation);
    }
    let expected = if incarnation == node.incarnation {
        node.cookie
    } else {
        backplane::cookie(view.auth_key, sender, incarnation)
    };
    if cookie == expected { Ok(()) } else { Err(Verdict::BackplaneCookie) }
}

/// Steers a packet to the node and worker that own its flow.
#[inline(always)]
pub fn steer<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    frame: P::Frame,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    steer_by(&view.adjacencies.nodes, egress, frame, meta, owner, now);
}

/// Asks a node that may still have the session of a packet's flow to take it if it has.
#[cold]
#[inline(never)]
pub fn ask<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    frame: P::Frame,
    meta: &Meta,
    (stage, node): (Stage, Owner),
    now: Instant,
) {
    egress.counters.handover_out.inc();
    steer_by(view.adjacencies.at(stage), egress, frame, meta, node, now);
}

/// Gives a packet of an unknown flow to its bucket's owner, who has to take it.
#[cold]
#[inline(never)]
pub fn give_back<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    frame: P::Frame,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    egress.counters.handover_returned.inc();
    steer_by(view.adjacencies.at(Stage::Returned), egress, frame, meta, owner, now);
}

/// Sends a packet to a node's worker behind the headers that `nodes` has for the node.
#[inline(always)]
fn steer_by<P: Port>(
    nodes: &[Adjacency],
    egress: &mut Egress<P>,
    frame: P::Frame,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    let adjacency = &nodes[owner.node.index()];
    if meta.len > adjacency.mtu {
        let routed = adjacency.reach != Reach::No;
        return egress.drop(frame, if routed { Verdict::TooBigSilent } else { Verdict::NoRoute });
    }
    egress.counters.steered_out.inc();
    egress.forward(frame, adjacency, Towards::Hop(adjacency.hop), &meta.packet(), owner.worker.0, now);
}

/// Sends a control message to a node, from the buffers that are kept for that.
pub fn send_control<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    node: NodeId,
    message: &[u8],
    now: Instant,
) {
    // A node that the next View brings may be meant.
    let Some(hop_id) = view.nodes.get(node.index()).and_then(|node| node.hop) else { return };
    let hop = view.hops[hop_id.0 as usize];
    if hop.mac.is_none() {
        return; // nobody there yet; a packet that waited for it would be stale when it went out
    }
    let port = view.services.interfaces[hop.interface.index()].port;
    let frame = egress.alloc(port, Pool::Control).and_then(|mut f| f.grow_back(message.len()).then_some(f));
    let Some(mut frame) = frame else { return egress.counters.count_drop(Verdict::NoBuffer) };
    frame.head_mut()[..message.len()].copy_from_slice(message);
    egress.counters.control_tx.inc();
    let (from, to) = (view.this_node().backplane, view.nodes[node.index()].backplane);
    let (outer, datagram) = (ipip::outer_len(to), udp::HEADER_LEN + message.len());
    if !frame.grow_front(outer + udp::HEADER_LEN) {
        return egress.drop(frame, Verdict::NoBuffer);
    }
    let head = frame.head_mut();
    // Class selector 6, network control (RFC 2474 §4.2.2), so that switches keep heartbeats alive under load.
    let inner = Inner { class: 0xc0, len: datagram };
    ipip::write_outer(head, from, to, inner, 0, protocol::UDP, 0);
    if to.is_v4() {
        ipv4::fill_checksum(head);
    }
    udp::write_tunnel(&mut head[outer..], view.control_port, view.control_port, message.len() as u16);
    udp::fill_checksum(&mut head[outer..], from, to);
    egress.send(view, frame, Towards::Hop(hop_id), now);
}

/// Passes a peer's control message, which starts at `offset` of the frame, on to the management thread.
pub fn control<P: Port>(view: &View, egress: &Egress<P>, frame: P::Frame, offset: usize) {
    match Heartbeat::parse(&frame.head()[offset..], view.auth_key) {
        Ok(message) => {
            egress.counters.control_rx.inc();
            egress.tell_heartbeat(message);
        }
        Err(_) => egress.drop(frame, Verdict::ControlRefused),
    }
}
