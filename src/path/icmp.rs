//! ICMP: echo for our addresses, "too big" to clients.

use super::egress::{Egress, Towards};
use super::local;
use super::meta::Meta;
use super::port::{Frame, Port};
use super::verdict::Verdict;
use crate::base::limits::HEAD_BYTES;
use crate::base::{Addr, Instant};
use crate::view::{Owned, View};
use crate::wire::icmp::{self, Icmp, Kind};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{ipip, protocol};

/// "Too big" messages that a worker sends in a second (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8 ask for a limit).
pub const ERRORS_A_SECOND: u32 = 1000;

/// Handles an ICMP packet to one of our addresses.
pub fn receive<P: Port>(view: &View, egress: &mut Egress<P>, frame: P::Frame, meta: &Meta, now: Instant) {
    let v6 = !meta.key.is_v4();
    let Some(message) = frame.head().get(usize::from(meta.l4)..) else {
        return egress.drop(frame, Verdict::TransportMalformed);
    };
    let Ok(parsed) = Icmp::new(message, v6) else { return egress.drop(frame, Verdict::TransportMalformed) };
    let on_backplane = view.services.interfaces[meta.interface.index()].backplane;
    match parsed.kind() {
        Kind::EchoRequest if on_backplane => egress.drop(frame, Verdict::IcmpIgnored), // nobody there looks by ping
        Kind::EchoRequest => echo(view, egress, frame, meta, now),
        Kind::NeighbourSolicitation | Kind::NeighbourAdvertisement => {
            local::discovery(view, egress, frame, meta, now)
        }
        _ => egress.drop(frame, Verdict::IcmpIgnored),
    }
}

/// Answers an echo request to an interface, a VIP or a SNAT address.
fn echo<P: Port>(view: &View, egress: &mut Egress<P>, mut frame: P::Frame, meta: &Meta, now: Instant) {
    let owned = |address| view.services.owned.get(address);
    if matches!(owned(&meta.key.dst), None | Some(Owned::Backplane)) {
        return egress.drop(frame, Verdict::NotOurAddress);
    }
    if owned(&meta.key.src).is_some() || meta.key.src == Addr::UNSPECIFIED {
        return egress.drop(frame, Verdict::BadAddress);
    }
    let answer = meta.key.reversed();
    let (whole, l4) = (frame.head().len() == frame.len(), usize::from(meta.l4));
    // Only a message in one piece can be summed; of others the requester checks the echo itself.
    if whole && !icmp::checksum_ok(&frame.head()[l4..], meta.key.src, meta.key.dst) {
        return egress.drop(frame, Verdict::TransportMalformed);
    }
    let head = frame.head_mut();
    icmp::echo_reply(&mut head[l4..], !meta.key.is_v4());
    // A new packet of ours with the old one's headers: its hop count starts anew. Options and extension headers go back
    // as they came.
    if meta.key.is_v4() {
        let Ok(mut ip) = Ipv4::new(head) else { return egress.drop(frame, Verdict::IpMalformed) };
        ip.set_src(answer.src);
        ip.set_dst(answer.dst);
        ip.set_ttl(ipip::TTL);
    } else {
        let Ok(mut ip) = Ipv6::new(head) else { return egress.drop(frame, Verdict::IpMalformed) };
        ip.set_src(answer.src);
        ip.set_dst(answer.dst);
        ip.set_hop_limit(ipip::TTL);
    }
    egress.counters.echo_replies.inc();
    egress.send(view, frame, Towards::Address(answer.dst), now);
}

/// Tells a client that its packet is larger than the way to the real server: "fragmentation needed" (RFC 1191) or "packet
/// too big" (RFC 8201), from the VIP, quoting the packet, whose frame becomes the message.
#[cold]
pub fn too_big<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    mtu: usize,
    now: Instant,
) {
    if !meta.dont_fragment || egress.errors_left == 0 {
        return egress.drop(frame, Verdict::TooBigSilent);
    }
    egress.errors_left -= 1;
    let (vip, client) = (meta.key.dst, meta.key.src);
    let (header, least_mtu, number) = if vip.is_v4() {
        (ipv4::MIN_HEADER_LEN, 576, protocol::ICMP)
    } else {
        (ipv6::HEADER_LEN, ipv6::MIN_MTU, protocol::ICMPV6)
    };
    // As much of the packet as a minimal MTU carries (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)), and as lies in one piece.
    let ours = header + icmp::HEADER_LEN;
    frame.truncate((least_mtu - ours).min(frame.head().len()));
    if !frame.grow_front(ours) {
        return egress.drop(frame, Verdict::NoBuffer);
    }
    let len = frame.len();
    let head = frame.head_mut();
    icmp::write_too_big(&mut head[header..], mtu.min(usize::from(u16::MAX)) as u16, vip, client);
    write_header(head, len, number, vip, client);
    egress.counters.too_big_sent.inc();
    egress.counters.count_drop(Verdict::TooBig);
    egress.send(view, frame, Towards::Address(client), now);
}

/// Writes the IP header of a packet of `len` bytes that we originate.
pub(super) fn write_header(head: &mut [u8], len: usize, number: u8, src: Addr, dst: Addr) {
    if src.is_v4() {
        let header = ipv4::Header {
            tos: 0,
            total_len: len as u16,
            id: 0,
            flags_and_offset: ipv4::DONT_FRAGMENT, // atomic: its id means nothing (RFC 6864 §4.1)
            ttl: ipip::TTL,
            protocol: number,
            src,
            dst,
        };
        header.write(head);
    } else {
        ipv6::write(head, 0, 0, (len - ipv6::HEADER_LEN) as u16, number, ipip::TTL, src, dst);
    }
}

const _: () = assert!(HEAD_BYTES >= ipv6::HEADER_LEN + icmp::ND_LEN);
