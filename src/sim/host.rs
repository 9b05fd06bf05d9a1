//! What every station on the front link does: answers those who look for its address.

use super::packet;
use crate::base::{Addr, Mac};
use crate::wire::arp::{Arp, Operation};
use crate::wire::eth::{self, Eth, ethertype};
use crate::wire::icmp::{self, Neighbour};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::protocol;

/// ARP or neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Who has this address? The second one asks, from the third.
    Question(Addr, Addr, Mac),
    /// I have it, as you wanted to know.
    Answer,
    /// I have it, let everyone know.
    Claim,
}

/// What a frame asks or says of Ethernet addresses, if it does.
pub fn lookup(frame: &[u8]) -> Option<Lookup> {
    let header = Eth::new(frame).ok()?;
    let payload = &frame[eth::HEADER_LEN..];
    match header.ethertype() {
        ethertype::ARP => {
            let message = Arp::parse(payload).ok()?;
            Some(match message.operation {
                Operation::Request if message.sender == message.target => Lookup::Claim,
                Operation::Request => Lookup::Question(message.target, message.sender, message.sender_mac),
                Operation::Reply => Lookup::Answer,
            })
        }
        ethertype::IPV6 => {
            let ip = Ipv6::new(payload).ok().filter(|ip| ip.next_header() == protocol::ICMPV6)?;
            let message = Neighbour::parse(payload.get(ipv6::HEADER_LEN..ip.total_len())?).ok()?;
            Some(match message.mac {
                _ if message.advertisement && message.solicited => Lookup::Answer,
                _ if message.advertisement => Lookup::Claim,
                mac => Lookup::Question(message.target, ip.src(), mac?),
            })
        }
        _ => None,
    }
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
