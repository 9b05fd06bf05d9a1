//! ARP and neighbour discovery: answers for the addresses that this node owns, and what neighbours tell of themselves.

use super::egress::Egress;
use super::message::Event;
use super::meta::Meta;
use super::parse::Link;
use super::port::{Frame, Port};
use super::promise::Promises;
use super::verdict::Verdict;
use crate::base::{Addr, Instant, InterfaceId, Mac};
use crate::view::{Neighbour, Owned, View, prefix_holds};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::eth::{self, Eth, ethertype};
use crate::wire::icmp::{self, Neighbour as Discovery};
use crate::wire::{ipv6, protocol};

/// Hop limit of every neighbour discovery message: proof that no router has passed it on (RFC 4861 §7.1.1).
const ON_LINK_HOPS: u8 = 255;

/// Handles an ARP frame, still with its Ethernet header.
pub fn arp<P: Port>(view: &View, egress: &mut Egress<P>, mut frame: P::Frame, link: &Link, now: Instant) {
    let Some(Ok(message)) = frame.head().get(link.payload..).map(Arp::parse) else {
        return egress.drop(frame, Verdict::ArpMalformed);
    };
    let interface = &view.services.interfaces[link.interface.index()];
    let ours = answers(view, &mut egress.promises, link.interface, message.target, now);
    let asked_us = ours && message.operation == Operation::Request;
    let how = match message.operation {
        Operation::Reply => Said::Answer { overrides: true },
        Operation::Request if asked_us => Said::Question,
        Operation::Request => Said::InPassing,
    };
    let told = learn(view, egress, link.interface, message.sender, message.sender_mac, how);
    if !asked_us {
        // What a neighbour on the link tells of itself, in whatever message, has been heard: no drop.
        return if told { drop(frame) } else { egress.drop(frame, Verdict::NeighbourIgnored) };
    }
    let reply = Arp {
        operation: Operation::Reply,
        sender_mac: interface.mac,
        sender: message.target,
        target_mac: message.sender_mac,
        target: message.sender,
    };
    reply.write(&mut frame.head_mut()[link.payload..]);
    frame.truncate(link.payload + arp::LEN);
    if let Ok(mut header) = Eth::new(frame.head_mut()) {
        header.set_dst(message.sender_mac);
        header.set_src(interface.mac);
    }
    egress.transmit(interface.port, frame);
}

/// Handles a neighbour solicitation or advertisement; the frame starts at its IPv6 header.
pub fn discovery<P: Port>(
    view: &View,
    egress: &mut Egress<P>,
    mut frame: P::Frame,
    meta: &Meta,
    now: Instant,
) {
    let message = &frame.head()[usize::from(meta.l4)..];
    // RFC 4861 §7.1: hop limit, code, checksum, options, and a target that isn't multicast.
    let valid = meta.ttl == ON_LINK_HOPS
        && frame.head().len() == frame.len()
        && message.get(1) == Some(&0)
        && icmp::checksum_ok(message, meta.key.src, meta.key.dst);
    let parsed = Discovery::parse(message).ok().filter(|m| valid && m.target.0[0] != 0xff);
    let Some(message) = parsed else { return egress.drop(frame, Verdict::ArpMalformed) };
    let interface = &view.services.interfaces[meta.interface.index()];
    // A question from nowhere has no address to tell, and one that was asked of a group only (§7.1.1); an answer to a
    // group answers no question (§7.1.2).
    let nowhere = meta.key.src == Addr::UNSPECIFIED;
    let group = meta.key.dst.0[0] == 0xff;
    if nowhere && (message.mac.is_some() || !group) || message.advertisement && message.solicited && group {
        return egress.drop(frame, Verdict::ArpMalformed);
    }
    if message.advertisement {
        let how = Said::Answer { overrides: message.overrides };
        let told =
            message.mac.is_some_and(|mac| learn(view, egress, meta.interface, message.target, mac, how));
        return if told { drop(frame) } else { egress.drop(frame, Verdict::NeighbourIgnored) };
    }
    if !answers(view, &mut egress.promises, meta.interface, message.target, now) {
        return egress.drop(frame, Verdict::NeighbourIgnored);
    }
    // Without a source address someone wants to take ours (duplicate address detection): all are told (§7.2.4).
    let to = if nowhere { ALL_NODES } else { meta.key.src };
    let mac = match message.mac {
        _ if nowhere => icmp::multicast_mac(ALL_NODES),
        Some(mac) => mac,
        None => match view.mac_of(Neighbour { interface: meta.interface, address: to }) {
            Some(mac) => mac,
            None => return egress.drop(frame, Verdict::NeighbourIgnored),
        },
    };
    if let Some(source) = message.mac {
        learn(view, egress, meta.interface, to, source, Said::Question);
    }
    // The solicitation's frame becomes the advertisement, with an Ethernet header in front.
    let len = ipv6::HEADER_LEN + icmp::ND_LEN;
    let l2 = interface.link_header_len();
    frame.truncate(len);
    let missing = len - frame.len();
    if frame.head().len() != frame.len() || !frame.grow_back(missing) || !frame.grow_front(l2) {
        return egress.drop(frame, Verdict::NoBuffer);
    }
    let answer = Discovery {
        advertisement: true,
        solicited: !nowhere,
        overrides: true,
        target: message.target,
        mac: Some(interface.mac),
    };
    let head = frame.head_mut();
    eth::write(head, mac, interface.mac, interface.vlan, ethertype::IPV6);
    let packet = &mut head[l2..];
    ipv6::write(packet, 0, 0, icmp::ND_LEN as u16, protocol::ICMPV6, ON_LINK_HOPS, message.target, to);
    answer.write(&mut packet[ipv6::HEADER_LEN..], message.target, to);
    egress.transmit(interface.port, frame);
}

const ALL_NODES: Addr = Addr([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Whether this node answers for `address` on that interface: for the interface's own, and on front ports, while its lease
/// holds, for the VIPs and SNAT addresses that it advertises (MECHANISMS §0).
fn answers(
    view: &View,
    promises: &mut Promises,
    interface: InterfaceId,
    address: Addr,
    now: Instant,
) -> bool {
    let on = &view.services.interfaces[interface.index()];
    let advertised = !on.backplane && view.advertised.get(&address).is_some();
    on.addresses.iter().any(|(a, _)| *a == address) || advertised && promises.may(now)
}

/// How a neighbour told its Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// By asking for one of ours: it is about to send us something.
    Question,
    /// By answering, or announcing itself; `overrides` what was known (RFC 4861 §7.2.5).
    Answer {
        /// The new address counts if there is another.
        overrides: bool,
    },
    /// By asking for someone else's.
    InPassing,
}

/// Tells the management thread what a neighbour said of itself, if that can matter: an answer always, as it may be awaited; a
/// question to us if it is news; what was said in passing only if it contradicts what we know. `false` if it was nothing: an
/// address that can't be on this link, or ours.
fn learn<P: Port>(
    view: &View,
    egress: &Egress<P>,
    interface: InterfaceId,
    address: Addr,
    mac: Mac,
    how: Said,
) -> bool {
    let on_link = view.services.interfaces[interface.index()]
        .addresses
        .iter()
        .any(|(own, len)| prefix_holds(*own, *len, address) && *own != address);
    let ours = view.services.owned.get(&address).is_some_and(|owned| owned != Owned::Backplane);
    if !on_link || mac.is_multicast() || ours {
        return false;
    }
    let neighbour = Neighbour { interface, address };
    let known = view.mac_of(neighbour);
    let matters = match how {
        Said::Question => known != Some(mac),
        Said::Answer { overrides } => overrides || known.is_none_or(|k| k == mac),
        Said::InPassing => known.is_some_and(|k| k != mac),
    };
    if matters {
        egress.tell(Event::Heard { neighbour, mac, asked_us: how == Said::Question });
    }
    true
}
