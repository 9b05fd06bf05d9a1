//! What is done to a packet on its way to the real server or back: NAT, MAC rewrite, tunnels.

use super::egress::{Egress, Towards};
use super::icmp;
use super::meta::Meta;
use super::port::{Frame, Port};
use super::verdict::Verdict;
use crate::base::planted::{self, Bug};
use crate::base::{Addr, FlowKey, Instant, RealServerId};
use crate::table::session::Session;
use crate::view::{Forward, Reach, View};
use crate::wire::checksum::Delta;
use crate::wire::{ipv4, ipv6, protocol, tcp, udp};

/// One end of a flow.
type End = (Addr, u16);

/// Sends a client's packet to its real server, NATed by `session` if it has a SNAT port.
#[inline(always)]
pub fn forward<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    real: RealServerId,
    session: Option<&Session>,
    now: Instant,
) {
    let way = &view.adjacencies.servers[real.index()];
    let adjacency = &way.adjacency;
    if meta.ttl <= 1 {
        return egress.drop(frame, Verdict::TtlExpired);
    }
    if meta.len > adjacency.mtu {
        if adjacency.reach == Reach::No {
            return egress.drop(frame, Verdict::NoRoute);
        }
        return icmp::too_big(view, egress, frame, meta, usize::from(adjacency.mtu), now);
    }
    match (way.forward, session) {
        (Forward::Nat, Some(session)) => {
            let source = (view.services.snats[session.snat.index()].address, session.snat_port);
            if !translate(frame.head_mut(), meta, source, (way.address, way.port)) {
                return egress.drop(frame, Verdict::TransportMalformed);
            }
        }
        // NAT without a session is refused where sessions are opened.
        (Forward::Nat, None) => return egress.drop(frame, Verdict::NoSession),
        (Forward::DsrL2 | Forward::Ipip | Forward::Gue, _) => {
            if !age(frame.head_mut(), meta) {
                return egress.drop(frame, Verdict::IpMalformed);
            }
        }
    }
    let counters = &egress.counters.real_servers[real.index()];
    counters.packets_in.inc();
    counters.bytes_in.add(u64::from(meta.len));
    egress.forward(frame, adjacency, Towards::Hop(adjacency.hop), &meta.packet(), 0, now);
}

/// Sends a real server's reply to the client of `session`, whose tuple is `client`'s as it sent it.
#[inline(always)]
pub fn reply<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    session: &Session,
    client: &FlowKey,
    now: Instant,
) {
    if meta.ttl <= 1 {
        return egress.drop(frame, Verdict::TtlExpired);
    }
    if !translate(frame.head_mut(), meta, (client.dst, client.dst_port), (client.src, client.src_port)) {
        return egress.drop(frame, Verdict::TransportMalformed);
    }
    let counters = &egress.counters.real_servers[session.real.index()];
    counters.packets_out.inc();
    counters.bytes_out.add(u64::from(meta.len));
    egress.send(view, frame, Towards::Address(client.src), now);
}

/// Gives a parsed TCP or UDP packet another source and destination, mends both checksums, and counts down its time to live.
/// `false`: the headers are no longer what the parser saw (can't be).
#[inline(always)]
fn translate(packet: &mut [u8], meta: &Meta, src: End, dst: End) -> bool {
    let addresses = if meta.key.is_v4() {
        let Some(ip) = packet.first_chunk_mut() else { return false };
        ipv4::translate(ip, src.0, dst.0)
    } else {
        let Some(ip) = packet.first_chunk_mut() else { return false };
        ipv6::translate(ip, src.0, dst.0)
    };
    let addresses = if planted::is(Bug::ChecksumStale) { Delta::default() } else { addresses };
    let Some(l4) = packet.get_mut(usize::from(meta.l4)..) else { return false };
    if meta.key.protocol == protocol::TCP {
        let Some(header) = l4.first_chunk_mut() else { return false };
        tcp::translate(header, addresses, src.1, dst.1);
    } else {
        let Some(header) = l4.first_chunk_mut() else { return false };
        udp::translate(header, addresses, src.1, dst.1);
    }
    true
}

/// Counts down the time to live: what forwards a packet is a hop (RFC 1812 §5.3.1), and so no loop outlives it.
#[inline(always)]
fn age(packet: &mut [u8], meta: &Meta) -> bool {
    if meta.key.is_v4() {
        packet.first_chunk_mut().map(ipv4::age).is_some()
    } else {
        packet.first_chunk_mut().map(ipv6::age).is_some()
    }
}
