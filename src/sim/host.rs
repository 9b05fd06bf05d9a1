//! What every station on the front link does: answers those who look for its address, and takes packets out of tunnels.

use super::oracle::Arrival;
use super::packet::{self, Bad, Packet};
use crate::base::{Addr, Mac};
use crate::wire::arp::{Arp, Operation};
use crate::wire::eth::{self, Eth, ethertype};
use crate::wire::gue::{self, Gue};
use crate::wire::icmp::{self, Neighbour};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{protocol, udp};

/// ARP or neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Who has this address? The second one asks, from the third.
    Question(Addr, Addr, Mac),
    /// I have it, as you wanted to know.
    Answer(Addr),
    /// I have it, let everyone know.
    Claim(Addr),
}

/// What a frame asks or says of Ethernet addresses, if it does.
pub fn lookup(frame: &[u8]) -> Option<Lookup> {
    let header = Eth::new(frame).ok()?;
    let payload = &frame[eth::HEADER_LEN..];
    match header.ethertype() {
        ethertype::ARP => {
            let message = Arp::parse(payload).ok()?;
            Some(match message.operation {
                Operation::Request if message.sender == message.target => Lookup::Claim(message.target),
                Operation::Request => Lookup::Question(message.target, message.sender, message.sender_mac),
                Operation::Reply => Lookup::Answer(message.sender),
            })
        }
        ethertype::IPV6 => {
            let ip = Ipv6::new(payload).ok().filter(|ip| ip.next_header() == protocol::ICMPV6)?;
            let message = Neighbour::parse(payload.get(ipv6::HEADER_LEN..ip.total_len())?).ok()?;
            Some(match message.mac {
                _ if message.advertisement && message.solicited => Lookup::Answer(message.target),
                _ if message.advertisement => Lookup::Claim(message.target),
                mac => Lookup::Question(message.target, ip.src(), mac?),
            })
        }
        _ => None,
    }
}

/// Who has `target`, of IPv4? `asker`, whose Ethernet address is `mac`, wants to know.
pub fn question(mac: Mac, asker: Addr, target: Addr) -> Vec<u8> {
    let mut out = vec![0; eth::HEADER_LEN + crate::wire::arp::LEN];
    eth::write(&mut out, Mac([0xff; 6]), mac, None, ethertype::ARP);
    let request = Arp {
        operation: Operation::Request,
        sender_mac: mac,
        sender: asker,
        target_mac: Mac::default(),
        target,
    };
    request.write(&mut out[eth::HEADER_LEN..]);
    out
}

/// The answer of the station with the address `mac` to a question for `target`.
pub fn answer(mac: Mac, target: Addr, asker: Addr, asker_mac: Mac) -> Vec<u8> {
    if target.is_v4() {
        let mut out = vec![0; eth::HEADER_LEN + crate::wire::arp::LEN];
        eth::write(&mut out, asker_mac, mac, None, ethertype::ARP);
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: target,
            target_mac: asker_mac,
            target: asker,
        };
        reply.write(&mut out[eth::HEADER_LEN..]);
        return out;
    }
    let mut out = vec![0; ipv6::HEADER_LEN + icmp::ND_LEN];
    ipv6::write(&mut out, 0, 0, icmp::ND_LEN as u16, protocol::ICMPV6, 255, target, asker);
    let message = Neighbour { advertisement: true, solicited: true, overrides: true, target, mac: Some(mac) };
    message.write(&mut out[ipv6::HEADER_LEN..], target, asker);
    packet::ethernet(asker_mac, mac, &out)
}

/// Takes the outer headers of a packet off, as the kernel of a real server with these addresses does, and reads it.
pub fn unwrap(has: impl Fn(Addr) -> bool, packet: &[u8]) -> Result<(Arrival, Packet), Bad> {
    let (dst, next, header, len) = match packet.first().map(|b| b >> 4) {
        Some(4) => {
            let ip = Ipv4::new(packet).map_err(|_| Bad::Malformed)?;
            if !ip.checksum_ok() {
                return Err(Bad::IpChecksum);
            }
            (ip.dst(), ip.protocol(), ipv4::MIN_HEADER_LEN, ip.total_len())
        }
        Some(6) => {
            let ip = Ipv6::new(packet).map_err(|_| Bad::Malformed)?;
            (ip.dst(), ip.next_header(), ipv6::HEADER_LEN, ip.total_len())
        }
        _ => return Err(Bad::Malformed),
    };
    if !has(dst) {
        return Packet::read(packet).map(|packet| (Arrival::Plain, packet));
    }
    let inside = packet.get(header..len).ok_or(Bad::Malformed)?;
    let family = |next| match next {
        protocol::IPV4 => Some(4),
        protocol::IPV6 => Some(6),
        _ => None,
    };
    let inner = |arrival, inner: &[u8], next| {
        let same = inner.first().map(|b| b >> 4) == family(next);
        if same { Packet::read(inner).map(|packet| (arrival, packet)) } else { Err(Bad::Malformed) }
    };
    match next {
        protocol::IPV4 | protocol::IPV6 => inner(Arrival::Ipip, inside, next),
        protocol::UDP if inside.get(2..4) == Some(&gue::PORT.to_be_bytes()) => {
            let inside = inside.get(udp::HEADER_LEN..).ok_or(Bad::Malformed)?;
            let header = Gue::parse(inside).map_err(|_| Bad::Malformed)?;
            inner(Arrival::Gue, &inside[header.offset..], header.protocol)
        }
        _ => Packet::read(packet).map(|packet| (Arrival::Nat, packet)),
    }
}
