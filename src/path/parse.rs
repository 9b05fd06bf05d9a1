//! From bytes to facts: Ethernet, VLAN, IP, transport. Whatever lies in its lengths is refused here.

use super::meta::{Kind, Meta};
use super::port::{Frame, RxChecksum};
use super::verdict::Verdict;
use crate::base::{Addr, FlowHash, FlowKey, InterfaceId, Mac, PortId};
use crate::view::View;
use crate::wire::backplane::Stage;
use crate::wire::eth::{self, Eth, ethertype};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::wire::vlan::{self, Vlan};
use crate::wire::{Malformed, protocol};

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

/// Reads the Ethernet header of a frame that `port`, whose address is `mac`, received.
#[inline]
pub fn link<F: Frame>(frame: &F, view: &View, port: PortId, mac: Mac) -> Result<Link, Verdict> {
    let bytes = frame.head();
    let header = Eth::new(bytes).map_err(|_| Verdict::EthernetMalformed)?;
    let dst = header.dst();
    if dst != mac && !dst.is_multicast() {
        return Err(Verdict::NotOurMac);
    }
    let (mut payload, mut ethertype, mut vlan) = (eth::HEADER_LEN, header.ethertype(), 0);
    if ethertype == ethertype::VLAN {
        let tag = Vlan::parse(&bytes[eth::HEADER_LEN..]).map_err(|_| Verdict::EthernetMalformed)?;
        (payload, ethertype, vlan) = (eth::HEADER_LEN + vlan::TAG_LEN, tag.ethertype, tag.id);
    }
    if matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
        return Err(Verdict::UnknownVlan);
    }
    let interface = view.interface_of(port, vlan).ok_or(Verdict::UnknownVlan)?;
    Ok(Link { interface, group: dst.is_multicast(), ethertype, payload })
}

/// Reads the IP packet at the start of `frame`, cuts off what lies behind it (Ethernet padding), and gives its facts. With
/// `verify` an IPv4 header checksum that the device didn't look at is checked.
#[inline]
pub fn packet<F: Frame>(frame: &mut F, interface: InterfaceId, verify: bool) -> Result<Meta, Verdict> {
    let bytes = frame.head();
    let meta =
        match bytes.first().map(|b| b >> 4) {
            Some(4) => {
                let ip = Ipv4::new(bytes).map_err(|_| Verdict::IpMalformed)?;
                if verify {
                    match frame.rx_checksum() {
                        RxChecksum::Good => {}
                        RxChecksum::Bad => return Err(Verdict::IpChecksum),
                        RxChecksum::Unknown if ip.checksum_ok() => {}
                        RxChecksum::Unknown => return Err(Verdict::IpChecksum),
                    }
                }
                if ip.is_fragment() {
                    return Err(Verdict::Fragment);
                }
                let (src, dst) = (ip.src(), ip.dst());
                let [s, d] = [src.v4_bytes(), dst.v4_bytes()];
                // RFC 1122 §3.2.1.3: what can't be a source; and nothing that we forward is multicast.
                if s[0] == 0 || s[0] == 127 || s[0] >= 224 || d[0] >= 224 || src == dst {
                    return Err(Verdict::BadAddress);
                }
                facts(interface, FlowKey::new(src, dst, 0, 0, ip.protocol()), ip.header_len(), ip.total_len())
                    .with(ip.ttl(), ip.tos(), ip.dont_fragment())
            }
            Some(6) => {
                let ip = Ipv6::new(bytes).map_err(|_| Verdict::IpMalformed)?;
                let (src, dst) = (ip.src(), ip.dst());
                // RFC 4291 §2.7, §2.5.3, §2.5.5. The unspecified source is duplicate address detection's alone.
                if src.0[0] == 0xff
                    || src.is_v4()
                    || dst.is_v4()
                    || src == dst
                    || src.0[..15] == [0; 15] && src.0[15] == 1
                {
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
                facts(interface, FlowKey::new(src, dst, 0, 0, upper.protocol), upper.offset, ip.total_len())
                    .with(ip.hop_limit(), ip.traffic_class(), true)
            }
            _ => return Err(Verdict::IpMalformed),
        };
    if usize::from(meta.len) > frame.len() || meta.l4 > meta.len {
        return Err(Verdict::IpMalformed);
    }
    frame.truncate(usize::from(meta.len));
    transport(frame.head(), meta)
}

/// Whether a packet and the frame that it came in belong together: of one family, and a packet to one host in a frame to one
/// station (RFC 1122 §3.3.6, RFC 1812 §5.3.4: else every node of a link would forward it).
#[inline]
pub fn fits(link: &Link, meta: Meta) -> Result<Meta, Verdict> {
    if meta.key.is_v4() != (link.ethertype == ethertype::IPV4) {
        return Err(Verdict::IpMalformed);
    }
    if link.group && meta.key.dst.0[0] != 0xff {
        return Err(Verdict::BadAddress);
    }
    Ok(meta)
}

fn facts(interface: InterfaceId, key: FlowKey, l4: usize, len: usize) -> Meta {
    Meta {
        key,
        hash: FlowHash(0),
        kind: Kind::Flow,
        stage: Stage::Receive,
        interface,
        tcp_flags: 0,
        ttl: 0,
        class: 0,
        dont_fragment: true,
        l4: l4 as u16,
        len: len.min(usize::from(u16::MAX)) as u16,
    }
}

impl Meta {
    fn with(self, ttl: u8, class: u8, dont_fragment: bool) -> Self {
        Self { ttl, class, dont_fragment, ..self }
    }
}

/// Reads the transport header of a packet whose IP headers are read.
#[inline]
fn transport(bytes: &[u8], mut meta: Meta) -> Result<Meta, Verdict> {
    let l4 = bytes.get(usize::from(meta.l4)..).ok_or(Verdict::IpMalformed)?;
    let payload = usize::from(meta.len - meta.l4);
    let (v4, number) = (meta.key.is_v4(), meta.key.protocol);
    match number {
        protocol::TCP => {
            let tcp = Tcp::new(l4).map_err(|_| Verdict::TransportMalformed)?;
            let flags = tcp.flags();
            // No stack sends these; scanners do, and a SYN that isn't one must not open a session.
            if flags & tcp::flags::SYN != 0 && flags & (tcp::flags::FIN | tcp::flags::RST) != 0 {
                return Err(Verdict::TransportMalformed);
            }
            (meta.key.src_port, meta.key.dst_port, meta.tcp_flags) = (tcp.src_port(), tcp.dst_port(), flags);
        }
        protocol::UDP => {
            let udp = Udp::new(l4).map_err(|_| Verdict::TransportMalformed)?;
            if udp.len() > payload {
                return Err(Verdict::TransportMalformed);
            }
            (meta.key.src_port, meta.key.dst_port) = (udp.src_port(), udp.dst_port());
        }
        protocol::ICMP if v4 => meta.kind = Kind::Icmp,
        protocol::ICMPV6 if !v4 => meta.kind = Kind::Icmp,
        // Something to one of our addresses, but nothing that we make virtual servers for.
        _ => return Err(Verdict::NoVirtualServer),
    }
    if meta.kind == Kind::Flow && meta.key.src == Addr::UNSPECIFIED {
        return Err(Verdict::BadAddress);
    }
    Ok(meta)
}
