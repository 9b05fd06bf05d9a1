//! Frames that ask for a neighbour's Ethernet address, or announce our own.

use crate::base::limits::HEAD_BYTES;
use crate::base::{Addr, InterfaceId, Mac};
use crate::path::message::Command;
use crate::view::Interface;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::eth::{self, ethertype};
use crate::wire::icmp::{self, Neighbour as Discovery};
use crate::wire::{ipv6, protocol};
use arrayvec::ArrayVec;

/// "Who has `address`?", from the interface's own address; none if it has none of that family.
pub fn ask(id: InterfaceId, interface: &Interface, address: Addr) -> Option<Command> {
    let source = interface.source_for(address)?;
    let frame = if address.is_v4() {
        let request = Arp {
            operation: Operation::Request,
            sender_mac: interface.mac,
            sender: source,
            target_mac: Mac::default(),
            target: address,
        };
        arp_frame(interface, &request)
    } else {
        let to = icmp::solicited_node(address);
        let question = Discovery {
            advertisement: false,
            solicited: false,
            overrides: false,
            target: address,
            mac: Some(interface.mac),
        };
        discovery_frame(interface, &question, source, to)
    };
    Some(Command::Transmit { interface: id, frame, promise: false })
}

/// "`address` is here", unasked, to everyone on the link (RFC 5227 §3, RFC 4861 §7.2.6).
pub fn announce(id: InterfaceId, interface: &Interface, address: Addr) -> Command {
    let frame = if address.is_v4() {
        let claim = Arp {
            operation: Operation::Request,
            sender_mac: interface.mac,
            sender: address,
            target_mac: Mac::default(),
            target: address,
        };
        arp_frame(interface, &claim)
    } else {
        let to = Addr([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let claim = Discovery {
            advertisement: true,
            solicited: false,
            overrides: true,
            target: address,
            mac: Some(interface.mac),
        };
        discovery_frame(interface, &claim, address, to)
    };
    Command::Transmit { interface: id, frame, promise: true }
}

fn arp_frame(interface: &Interface, message: &Arp) -> ArrayVec<u8, HEAD_BYTES> {
    let mut out = [0; HEAD_BYTES];
    let l2 = eth::write(&mut out, Mac::BROADCAST, interface.mac, interface.vlan, ethertype::ARP);
    message.write(&mut out[l2..]);
    out[..l2 + arp::LEN].iter().copied().collect()
}

fn discovery_frame(
    interface: &Interface,
    message: &Discovery,
    src: Addr,
    dst: Addr,
) -> ArrayVec<u8, HEAD_BYTES> {
    let mut out = [0; HEAD_BYTES];
    let l2 = eth::write(&mut out, icmp::multicast_mac(dst), interface.mac, interface.vlan, ethertype::IPV6);
    ipv6::write(&mut out[l2..], 0, 0, icmp::ND_LEN as u16, protocol::ICMPV6, 255, src, dst);
    let payload = l2 + ipv6::HEADER_LEN;
    message.write(&mut out[payload..], src, dst);
    out[..payload + icmp::ND_LEN].iter().copied().collect()
}
