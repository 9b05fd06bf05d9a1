//! Frames between nodes: steered packets in and out, control frames.

use super::egress::{Egress, Outer, Towards};
use super::meta::{Kind, Meta};
use super::parse::{self, Link};
use super::port::{Frame, Pool, Port};
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{Addr, Incarnation, Instant, NodeId};
use crate::view::{Owner, View};
use crate::wire::backplane::{self, Header, Stage};
use crate::wire::control::Heartbeat;
use crate::wire::ipip::{self, Inner};
use crate::wire::{protocol, udp};

/// Bytes that a steered packet gains, by the family of the backplane: IP, UDP and our header.
pub fn overhead(backplane: Addr) -> usize {
    ipip::outer_len(backplane) + udp::HEADER_LEN + backplane::HEADER_LEN
}

/// What a backplane frame was.
pub enum Received {
    /// A steered packet: the frame now starts at its IP header.
    Packet(Meta),
    /// A control frame for the management thread, whose message starts at this offset.
    Control(usize),
    /// ICMP to this node itself.
    Local(Meta),
}

/// Takes the outer headers off an IP frame that came in on the backplane and checks who sent it.
#[inline]
pub fn receive<F: Frame>(frame: &mut F, view: &View, link: &Link) -> Result<Received, Verdict> {
    if !frame.shrink_front(link.payload) {
        return Err(Verdict::EthernetMalformed);
    }
    let outer = parse::packet(frame, link.interface, true)?;
    let me = view.this_node();
    if outer.kind == Kind::Icmp {
        return Ok(Received::Local(outer));
    }
    if outer.key.dst != me.backplane || outer.key.protocol != protocol::UDP {
        return Err(Verdict::StrayOnBackplane);
    }
    let payload = usize::from(outer.l4) + udp::HEADER_LEN;
    let bytes = frame.head().get(payload..).ok_or(Verdict::BackplaneMalformed)?;
    if outer.key.dst_port == view.control_port {
        return Ok(Received::Control(payload));
    }
    if !(view.data_port..view.data_port.saturating_add(me.workers)).contains(&outer.key.dst_port) {
        return Err(Verdict::StrayOnBackplane);
    }
    let header = Header::parse(bytes).map_err(|_| Verdict::BackplaneMalformed)?;
    authenticate(view, header.sender, header.incarnation, header.cookie)?;
    if header.stage == Stage::Receive {
        return Err(Verdict::BackplaneMalformed); // a frame says what its receiver is to do, and receiving is done
    }
    if !frame.shrink_front(payload + backplane::HEADER_LEN) {
        return Err(Verdict::BackplaneMalformed);
    }
    let mut meta = parse::packet(frame, link.interface, false)?;
    (meta.stage, meta.hash) = (header.stage, header.hash);
    if planted::is(Bug::StageIgnored) {
        meta.stage = Stage::Receive;
    }
    Ok(Received::Packet(meta))
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
#[inline]
pub fn steer<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    owner: Owner,
    now: Instant,
) {
    if !frame.grow_front(backplane::HEADER_LEN) {
        return egress.drop(frame, Verdict::NoBuffer);
    }
    let me = view.this_node();
    let header = Header {
        stage: Stage::Owner,
        sender: view.me,
        incarnation: me.incarnation,
        hash: meta.hash,
        cookie: me.cookie,
    };
    header.write(frame.head_mut());
    egress.counters.steered_out.inc();
    let ports = (meta.hash.outer_port(), view.data_port + owner.worker.0);
    let envelope = Envelope { node: owner.node, ports, class: meta.class, checksum: false };
    send(view, egress, frame, envelope, now);
}

/// What is around a frame between nodes.
struct Envelope {
    node: NodeId,
    /// UDP source and destination.
    ports: (u16, u16),
    /// DSCP and ECN.
    class: u8,
    /// With a UDP checksum. A tunnel may do without (RFC 6935): a flipped bit is seen by the inner packet's own, or by the
    /// cookie.
    checksum: bool,
}

/// Sends a control message to a node, from the buffers that are kept for that.
pub fn send_control<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    node: NodeId,
    message: &[u8],
    now: Instant,
) {
    let Some(hop) = view.nodes[node.index()].hop.map(|hop| view.hops[hop.0 as usize]) else { return };
    if hop.mac.is_none() {
        return; // nobody there yet; a packet that waited for it would be stale when it went out
    }
    let port = view.services.interfaces[hop.interface.index()].port;
    let frame = egress.alloc(port, Pool::Control).and_then(|mut f| f.grow_back(message.len()).then_some(f));
    let Some(mut frame) = frame else { return egress.counters.count_drop(Verdict::NoBuffer) };
    frame.head_mut()[..message.len()].copy_from_slice(message);
    egress.counters.control_tx.inc();
    // Class selector 6, network control (RFC 2474 §4.2.2), so that switches keep heartbeats alive under load.
    let ports = (view.control_port, view.control_port);
    send(view, egress, frame, Envelope { node, ports, class: 0xc0, checksum: true }, now);
}

/// Puts UDP and IP in front of what `frame` holds and sends it to a node.
#[inline]
fn send<P: Port>(view: &View, egress: &mut Egress<P>, mut frame: P::Frame, envelope: Envelope, now: Instant) {
    let (from, to) = (view.this_node().backplane, &view.nodes[envelope.node.index()]);
    let Some(hop) = to.hop else { return egress.drop(frame, Verdict::NoRoute) };
    let outer = ipip::outer_len(to.backplane);
    let payload = frame.len();
    if !frame.grow_front(outer + udp::HEADER_LEN) {
        return egress.drop(frame, Verdict::NoBuffer);
    }
    let head = frame.head_mut();
    let inner = Inner { class: envelope.class, len: payload };
    let (src_port, dst_port) = envelope.ports;
    ipip::write_outer(head, from, to.backplane, inner, udp::HEADER_LEN, protocol::UDP, u32::from(src_port));
    udp::write_tunnel(&mut head[outer..], src_port, dst_port, payload as u16);
    if envelope.checksum {
        udp::fill_checksum(&mut head[outer..], from, to.backplane);
    }
    egress.send(view, frame, Towards::Hop(hop), Outer::WithoutChecksum, now);
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
