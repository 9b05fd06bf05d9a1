//! What is done to a packet on its way to the real server or back: NAT, MAC rewrite, tunnels.

use super::egress::{Egress, Outer, Towards};
use super::icmp;
use super::meta::Meta;
use super::port::{Frame, Port};
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{Addr, Instant, RealServerId};
use crate::table::session::Session;
use crate::view::{Forward, RealServer, View};
use crate::wire::checksum::Delta;
use crate::wire::ipip::{self, Inner};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::tcp::Tcp;
use crate::wire::udp::Udp;
use crate::wire::{gue, protocol, udp};

/// One end of a flow.
type End = (Addr, u16);

/// Sends a client's packet to its real server, NATed by `session` if it has a SNAT port.
#[inline]
pub fn forward<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    real: RealServerId,
    session: Option<&Session>,
    now: Instant,
) {
    let server = &view.services.real_servers[real.index()];
    let id = server.virtual_server.index();
    if meta.ttl <= 1 {
        return egress.drop(frame, Verdict::TtlExpired);
    }
    let Some(hop) = server.hop else { return egress.drop(frame, Verdict::NoRoute) };
    let method = view.services.virtual_servers[id].forward;
    let overhead = overhead(method, server);
    let mtu = usize::from(view.services.interfaces[view.hops[hop.0 as usize].interface.index()].mtu);
    if usize::from(meta.len) + overhead > mtu {
        return icmp::too_big(view, egress, frame, meta, mtu - overhead.min(mtu), now);
    }
    let mut outer = Outer::Complete;
    match (method, session) {
        (Forward::Nat, Some(session)) => {
            let source = (view.services.snats[session.snat.index()].address, session.snat_port);
            if !translate(frame.head_mut(), meta, source, (server.address, server.port)) {
                return egress.drop(frame, Verdict::TransportMalformed);
            }
        }
        // NAT without a session is refused where sessions are opened.
        (Forward::Nat, None) => return egress.drop(frame, Verdict::NoSession),
        (Forward::DsrL2, _) => {
            if !age(frame.head_mut(), meta) {
                return egress.drop(frame, Verdict::IpMalformed);
            }
        }
        (Forward::Ipip | Forward::Gue, _) => {
            if !age(frame.head_mut(), meta) {
                return egress.drop(frame, Verdict::IpMalformed);
            }
            if !encapsulate(&mut frame, meta, method, server) {
                return egress.drop(frame, Verdict::NoBuffer);
            }
            outer = Outer::WithoutChecksum;
        }
    }
    for flows in [&egress.counters.virtual_servers[id], &egress.counters.real_servers[real.index()]] {
        count(&flows.packets_in, &flows.bytes_in, meta);
    }
    egress.send(view, frame, Towards::Hop(hop), outer, now);
}

/// Sends a real server's reply to the client of `session`, whose tuple is `client`'s as it sent it.
#[inline]
pub fn reply<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    session: &Session,
    client: &crate::base::FlowKey,
    now: Instant,
) {
    if meta.ttl <= 1 {
        return egress.drop(frame, Verdict::TtlExpired);
    }
    if !translate(frame.head_mut(), meta, (client.dst, client.dst_port), (client.src, client.src_port)) {
        return egress.drop(frame, Verdict::TransportMalformed);
    }
    let id = view.services.real_servers[session.real.index()].virtual_server.index();
    for flows in [&egress.counters.virtual_servers[id], &egress.counters.real_servers[session.real.index()]] {
        count(&flows.packets_out, &flows.bytes_out, meta);
    }
    egress.send(view, frame, Towards::Address(client.src), Outer::Complete, now);
}

#[inline]
fn count(packets: &crate::table::counter::Counter, bytes: &crate::table::counter::Counter, meta: &Meta) {
    packets.inc();
    bytes.add(u64::from(meta.len));
}

/// Bytes that a method puts in front of a packet to this server.
fn overhead(method: Forward, server: &RealServer) -> usize {
    match method {
        Forward::Nat | Forward::DsrL2 => 0,
        Forward::Ipip => ipip::outer_len(server.address),
        Forward::Gue => ipip::outer_len(server.address) + gue::VARIANT_1_LEN,
    }
}

/// Gives a parsed TCP or UDP packet another source and destination, mends both checksums, and counts down its time to live.
/// `false`: the headers are no longer what the parser saw (can't be).
#[inline]
fn translate(packet: &mut [u8], meta: &Meta, src: End, dst: End) -> bool {
    let mut delta = Delta::default();
    delta.addr(meta.key.src, src.0);
    delta.addr(meta.key.dst, dst.0);
    delta.word16(meta.key.src_port, src.1);
    delta.word16(meta.key.dst_port, dst.1);
    if planted::is(Bug::ChecksumStale) {
        delta = Delta::default();
    }
    if !age(packet, meta) {
        return false;
    }
    if meta.key.is_v4() {
        let Ok(mut ip) = Ipv4::new(&mut *packet) else { return false };
        ip.set_src(src.0);
        ip.set_dst(dst.0);
    } else {
        let Ok(mut ip) = Ipv6::new(&mut *packet) else { return false };
        ip.set_src(src.0);
        ip.set_dst(dst.0);
    }
    let Some(l4) = packet.get_mut(usize::from(meta.l4)..) else { return false };
    if meta.key.protocol == protocol::TCP {
        let Ok(mut tcp) = Tcp::new(l4) else { return false };
        tcp.set_src_port(src.1);
        tcp.set_dst_port(dst.1);
        tcp.set_checksum(delta.apply(tcp.checksum()));
    } else {
        let Ok(mut udp) = Udp::new(l4) else { return false };
        udp.set_src_port(src.1);
        udp.set_dst_port(dst.1);
        udp.set_checksum(delta.apply_udp(udp.checksum()));
    }
    true
}

/// Counts down the time to live: what forwards a packet is a hop (RFC 1812 §5.3.1), and so no loop outlives it.
#[inline]
fn age(packet: &mut [u8], meta: &Meta) -> bool {
    if meta.key.is_v4() {
        Ipv4::new(packet).map(|mut ip| ip.decrement_ttl()).is_ok()
    } else {
        Ipv6::new(packet).map(|mut ip| ip.decrement_hop_limit()).is_ok()
    }
}

/// Puts the tunnel's headers in front. `false`: no headroom.
#[inline]
fn encapsulate<F: Frame>(frame: &mut F, meta: &Meta, method: Forward, server: &RealServer) -> bool {
    let inner = Inner { class: meta.class, len: usize::from(meta.len) };
    let outer = ipip::outer_len(server.address);
    let (between, next) = match method {
        Forward::Gue => (gue::VARIANT_1_LEN, protocol::UDP),
        _ => (0, ipip::inner_protocol(!meta.key.is_v4())),
    };
    if !frame.grow_front(outer + between) {
        return false;
    }
    let label = meta.hash.slot() as u32;
    let head = frame.head_mut();
    ipip::write_outer(head, server.tunnel_source, server.address, inner, between, next, label);
    if method == Forward::Gue {
        // No checksum: RFC 6935 allows it for tunnels, and what is inside has its own.
        udp::write_tunnel(&mut head[outer..], meta.hash.outer_port(), gue::PORT, meta.len);
    }
    true
}
