//! From bytes to facts: Ethernet, VLAN, IP, transport. Whatever lies in its lengths is refused here.

use super::meta::{Kind, Meta};
use super::port::{Frame, RxChecksum};
use super::verdict::Verdict;
use crate::base::{Addr, FlowHash, FlowKey, HashKey, InterfaceId, Mac, PortId};
use crate::view::View;
use crate::wire::backplane::Stage;
use crate::wire::eth::{self, Eth, ethertype};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::wire::vlan::{self, Vlan};
use crate::wire::{Malformed, protocol};
use std::cmp::Ordering;

/// What an Ethernet frame carries, and for which of our interfaces.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The interface.
    pub interface: InterfaceId,
    /// It was sent to all, or to a group.
    pub group: bool,
    /// Type of the payload.
    pub ethertype: u16,
    /// Offset of the payload.
    pub payload: usize,
}

/// Where frames of a burst were received.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    port: PortId,
    mac: Mac,
    /// The interface of frames without a tag.
    untagged: Option<InterfaceId>,
}

impl Intake {
    /// For frames that `port`, whose address is `mac`, received.
    #[inline]
    pub fn new(view: &View, port: PortId, mac: Mac) -> Self {
        Self { port, mac, untagged: view.interface_of(port, 0) }
    }
}

/// Reads the Ethernet header at the start of a frame.
#[inline(always)]
pub fn link(bytes: &[u8], view: &View, intake: &Intake) -> Result<Link, Verdict> {
    let header = Eth::new(bytes).map_err(|_| Verdict::EthernetMalformed)?;
    let dst = header.dst();
    if dst != intake.mac && !dst.is_multicast() {
        return Err(Verdict::NotOurMac);
    }
    let ethertype = header.ethertype();
    let group = dst.is_multicast();
    if matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
        return tagged(bytes, view, intake, group);
    }
    let interface = intake.untagged.ok_or(Verdict::UnknownVlan)?;
    Ok(Link { interface, group, ethertype, payload: eth::HEADER_LEN })
}

/// Reads the tag of a frame that has one.
#[inline]
fn tagged(bytes: &[u8], view: &View, intake: &Intake, group: bool) -> Result<Link, Verdict> {
    if bytes[12..14] != ethertype::VLAN.to_be_bytes() {
        return Err(Verdict::UnknownVlan);
    }
    let tag = Vlan::parse(&bytes[eth::HEADER_LEN..]).map_err(|_| Verdict::EthernetMalformed)?;
    if matches!(tag.ethertype, ethertype::VLAN | ethertype::QINQ) {
        return Err(Verdict::UnknownVlan);
    }
    let interface = view.interface_of(intake.port, tag.id).ok_or(Verdict::UnknownVlan)?;
    Ok(Link { interface, group, ethertype: tag.ethertype, payload: eth::HEADER_LEN + vlan::TAG_LEN })
}

/// Reads the IP packet of a frame that came in on a front port, and cuts the frame to it. Packet and frame must belong
/// together: be of one family, and a packet to one host in a frame to one station (RFC 1122 §3.3.6, RFC 1812 §5.3.4: else
/// every node of a link would forward it).
#[inline(always)]
pub fn front<F: Frame>(frame: &mut F, link: &Link, key: HashKey, meta: &mut Meta) -> Result<(), Verdict> {
    let bytes = frame.head().get(link.payload..).ok_or(Verdict::EthernetMalformed)?;
    let whole = frame.len() - link.payload;
    if link.ethertype == ethertype::IPV4 {
        v4(bytes, Known { whole, checksum: Some(frame.rx_checksum()), hash: Hash::Key(key) }, meta)?;
    } else {
        v6(bytes, Known { whole, checksum: None, hash: Hash::Key(key) }, meta)?;
    }
    meta.interface = link.interface;
    if link.group && meta.key.dst.0[0] != 0xff {
        return Err(Verdict::BadAddress);
    }
    trim(frame, link.payload, meta)
}

/// Cuts a frame to the packet that was found at `offset`.
#[inline(always)]
pub fn trim<F: Frame>(frame: &mut F, offset: usize, meta: &Meta) -> Result<(), Verdict> {
    if !frame.shrink_front(offset) {
        return Err(Verdict::IpMalformed);
    }
    frame.truncate(usize::from(meta.len));
    Ok(())
}

/// Where a packet's hash comes from.
#[derive(Clone, Copy)]
pub enum Hash {
    /// To be computed under this key.
    Key(HashKey),
    /// Who steered it has computed it.
    Given(FlowHash),
    /// Nobody asks for it.
    None,
}

/// What is known of a packet before it is read.
#[derive(Clone, Copy)]
pub struct Known {
    /// Bytes of the frame from the IP header on: more than are at hand, if it has further segments; or than the packet has
    /// (Ethernet padding).
    pub whole: usize,
    /// The device's word on an IPv4 header checksum, if that is to be right.
    pub checksum: Option<RxChecksum>,
    /// Where the hash comes from.
    pub hash: Hash,
}

/// Reads into `meta` the facts (all but the interface) of the IP packet at the start of `bytes`.
#[inline(always)]
pub fn packet(bytes: &[u8], known: Known, meta: &mut Meta) -> Result<(), Verdict> {
    match bytes.first().map(|b| b >> 4) {
        Some(4) => v4(bytes, known, meta),
        Some(6) => v6(bytes, known, meta),
        _ => Err(Verdict::IpMalformed),
    }
}

#[inline(always)]
fn v4(bytes: &[u8], known: Known, meta: &mut Meta) -> Result<(), Verdict> {
    let ip = Ipv4::new(bytes).map_err(|_| Verdict::IpMalformed)?;
    match known.checksum {
        None | Some(RxChecksum::Good) => {}
        Some(RxChecksum::Unknown) if ip.checksum_ok() => {}
        Some(RxChecksum::Unknown | RxChecksum::Bad) => return Err(Verdict::IpChecksum),
    }
    if ip.is_fragment() {
        return Err(Verdict::Fragment);
    }
    let (src, dst) = (ip.src(), ip.dst());
    let [s, d] = [src.v4_bytes(), dst.v4_bytes()].map(u32::from_be_bytes);
    // RFC 1122 §3.2.1.3: what can't be a source; and nothing that we forward is multicast.
    if matches!(s >> 24, 0 | 127 | 224..) || d >> 24 >= 224 || s == d {
        return Err(Verdict::BadAddress);
    }
    (meta.ttl, meta.class, meta.dont_fragment) = (ip.ttl(), ip.tos(), ip.dont_fragment());
    let place = Place { l4: ip.header_len(), len: ip.total_len() };
    transport(bytes, known, place, FlowKey::new(src, dst, 0, 0, ip.protocol()), protocol::ICMP, meta)
}

#[inline(always)]
fn v6(bytes: &[u8], known: Known, meta: &mut Meta) -> Result<(), Verdict> {
    let ip = Ipv6::new(bytes).map_err(|_| Verdict::IpMalformed)?;
    let (src, dst) = (ip.src(), ip.dst());
    let [s, d] = [src, dst].map(|a| u128::from_be_bytes(a.0));
    // RFC 4291 §2.7, §2.5.3, §2.5.5. The unspecified source is duplicate address detection's alone.
    if s >> 120 == 0xff || s >> 32 == 0xffff || d >> 32 == 0xffff || s == d || s == 1 {
        return Err(Verdict::BadAddress);
    }
    let upper = ipv6::upper(bytes).map_err(|e| match e {
        Malformed::Truncated => Verdict::IpMalformed,
        _ => Verdict::ExtensionHeaders,
    })?;
    // A fragment header on a whole datagram is no fragment (RFC 6946).
    if upper.fragment.is_some_and(|f| f.more || f.offset != 0) {
        return Err(Verdict::Fragment);
    }
    (meta.ttl, meta.class, meta.dont_fragment) = (ip.hop_limit(), ip.traffic_class(), true);
    let place = Place { l4: upper.offset, len: ip.total_len() };
    transport(bytes, known, place, FlowKey::new(src, dst, 0, 0, upper.protocol), protocol::ICMPV6, meta)
}

/// Where a packet's parts are.
struct Place {
    /// Offset of the transport header.
    l4: usize,
    /// Bytes of the packet.
    len: usize,
}

/// Reads the transport header of a packet whose IP headers are read; `icmp` is the number that its family has for that.
#[inline(always)]
fn transport(
    bytes: &[u8],
    known: Known,
    Place { l4, len }: Place,
    mut key: FlowKey,
    icmp: u8,
    meta: &mut Meta,
) -> Result<(), Verdict> {
    if len > known.whole || l4 > len || len > usize::from(u16::MAX) {
        return Err(Verdict::IpMalformed);
    }
    (meta.l4, meta.len, meta.kind) = (l4 as u16, len as u16, Kind::Flow);
    (meta.stage, meta.sender_knows) = (Stage::Receive, Ordering::Equal);
    meta.local = None;
    let header = bytes.get(l4..len.min(bytes.len())).ok_or(Verdict::IpMalformed)?;
    (key.src_port, key.dst_port) = match key.protocol {
        protocol::TCP => {
            let tcp = Tcp::new(header).map_err(|_| Verdict::TransportMalformed)?;
            let flags = tcp.flags();
            // No stack sends these; scanners do, and a SYN that isn't one must not open a session.
            if flags & tcp::flags::SYN != 0 && flags & (tcp::flags::FIN | tcp::flags::RST) != 0 {
                return Err(Verdict::TransportMalformed);
            }
            meta.tcp_flags = flags;
            (tcp.src_port(), tcp.dst_port())
        }
        protocol::UDP => {
            let udp = Udp::new(header).map_err(|_| Verdict::TransportMalformed)?;
            if udp.len() > len - l4 {
                return Err(Verdict::TransportMalformed);
            }
            meta.tcp_flags = 0;
            (udp.src_port(), udp.dst_port())
        }
        number if number == icmp => {
            (meta.kind, meta.tcp_flags) = (Kind::Icmp, 0);
            (0, 0)
        }
        // Something to one of our addresses, but nothing that we make virtual servers for.
        _ => return Err(Verdict::NoVirtualServer),
    };
    // The unspecified source is for neighbour discovery alone.
    if key.src == Addr::UNSPECIFIED && meta.kind == Kind::Flow {
        return Err(Verdict::BadAddress);
    }
    meta.key = key;
    // Here, where the tuple is at hand in registers.
    match known.hash {
        Hash::Key(secret) => meta.hash = secret.flow(&key),
        Hash::Given(hash) => meta.hash = hash,
        Hash::None => {}
    }
    Ok(())
}
