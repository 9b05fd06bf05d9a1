//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443), and Neighbour Discovery's solicitation and advertisement (RFC 4861).

use super::{Malformed, array, be16, be32, checksum, need, protocol, put};
use crate::base::{Addr, Mac};

/// Bytes of the header that every message starts with, its four type-dependent bytes included.
pub const HEADER_LEN: usize = 8;
/// Bytes of a neighbour solicitation or advertisement with one link-layer address option.
pub const ND_LEN: usize = 32;
/// Bytes of one without the option.
pub const ND_BARE_LEN: usize = 24;

/// A message's meaning, the same for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Echo request.
    EchoRequest,
    /// Echo reply.
    EchoReply,
    /// An error that quotes a packet: unreachable, too big, time exceeded, parameter problem.
    Error,
    /// ICMPv6 neighbour solicitation.
    NeighbourSolicitation,
    /// ICMPv6 neighbour advertisement.
    NeighbourAdvertisement,
    /// Anything else.
    Other,
}

/// An ICMP message.
#[derive(Clone, Copy)]
pub struct Icmp<'a> {
    bytes: &'a [u8],
    v6: bool,
}

impl<'a> Icmp<'a> {
    /// Checks that the header is there.
    pub fn new(bytes: &'a [u8], v6: bool) -> Result<Self, Malformed> {
        need(bytes, HEADER_LEN)?;
        Ok(Self { bytes, v6 })
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        match (self.v6, self.bytes[0]) {
            (false, 8) | (true, 128) => Kind::EchoRequest,
            (false, 0) | (true, 129) => Kind::EchoReply,
            (false, 3 | 4 | 11 | 12) => Kind::Error,
            (true, 1..=127) => Kind::Error,
            (true, 135) => Kind::NeighbourSolicitation,
            (true, 136) => Kind::NeighbourAdvertisement,
            _ => Kind::Other,
        }
    }

    /// Type and code fields.
    pub fn type_and_code(&self) -> (u8, u8) {
        (self.bytes[0], self.bytes[1])
    }

    /// The next-hop MTU that a "too big" states: RFC 1191 §4 for IPv4, RFC 4443 §3.2 for IPv6.
    pub fn mtu(&self) -> Option<u32> {
        match (self.v6, self.bytes[0], self.bytes[1]) {
            (false, 3, 4) => Some(u32::from(be16(self.bytes, 6))),
            (true, 2, _) => Some(be32(self.bytes, 4)),
            _ => None,
        }
    }

    /// The packet that an error quotes, as far as it is there.
    pub fn quoted(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }
}

/// The flow that a packet quoted in an ICMP error belongs to. Eight bytes of transport are enough (RFC 792); a quote
/// that is no first fragment of TCP or UDP is `Value`. Bytes behind the end that the quoted packet states for itself
/// (padding, extensions of RFC 4884) are no part of it.
pub fn quoted_flow(mut quote: &[u8]) -> Result<crate::base::FlowKey, Malformed> {
    need(quote, 1)?;
    let (src, dst, upper_protocol, at) = if quote[0] >> 4 == 4 {
        let ip = super::ipv4::Ipv4::new(quote)?;
        if ip.flags_and_offset() & 0x1fff != 0 {
            return Err(Malformed::Value);
        }
        quote = &quote[..ip.total_len().min(quote.len())];
        (ip.src(), ip.dst(), ip.protocol(), ip.header_len())
    } else {
        let ip = super::ipv6::Ipv6::new(quote)?;
        quote = &quote[..ip.total_len().min(quote.len())];
        let upper = super::ipv6::upper(quote)?;
        if upper.fragment.is_some_and(|f| f.offset != 0) || ip.src().is_v4() || ip.dst().is_v4() {
            return Err(Malformed::Value);
        }
        (ip.src(), ip.dst(), upper.protocol, upper.offset)
    };
    if upper_protocol != protocol::TCP && upper_protocol != protocol::UDP {
        return Err(Malformed::Value);
    }
    need(quote, at + 8)?;
    Ok(crate::base::FlowKey::new(src, dst, be16(quote, at), be16(quote, at + 2), upper_protocol))
}

/// Turns an echo request, whose bytes these are ([`HEADER_LEN`] at least), into its reply and mends the checksum.
pub fn echo_reply(message: &mut [u8], v6: bool) {
    let (request, reply) = if v6 { (128u16, 129u16) } else { (8, 0) };
    let mut delta = checksum::Delta::default();
    delta.word16(request << 8 | u16::from(message[1]), reply << 8 | u16::from(message[1]));
    message[0] = reply as u8;
    let mut mended = delta.apply(be16(message, 2));
    // Without a pseudo-header the whole reply may be zero, and a zero in the checksum of zeros is refused (RFC 1071 §1: the
    // sum has to be all ones). The mending can't tell that from a sum of all ones.
    if mended == 0 && !v6 && message[4..].iter().all(|b| *b == 0) {
        mended = 0xffff;
    }
    put(message, 2, mended.to_be_bytes());
}

/// Writes the header of a "packet too big" (IPv6) or "fragmentation needed" (IPv4) in front of the quote that stands
/// behind it in `message`, and the checksum over both. `src` and `dst` are the outer packet's.
pub fn write_too_big(message: &mut [u8], mtu: u16, src: Addr, dst: Addr) {
    let v6 = !src.is_v4();
    put(message, 0, if v6 { [2, 0, 0, 0] } else { [3, 4, 0, 0] });
    put(message, 4, u32::from(mtu).to_be_bytes());
    finish(message, src, dst);
}

/// Fills in the checksum of a whole message.
fn finish(message: &mut [u8], src: Addr, dst: Addr) {
    put(message, 2, [0, 0]);
    let pseudo =
        if src.is_v4() { 0 } else { checksum::pseudo_header(src, dst, protocol::ICMPV6, message.len()) };
    let sum = !checksum::add(pseudo, checksum::sum(message));
    put(message, 2, sum.to_be_bytes());
}

/// Whether a whole message's checksum is right.
pub fn checksum_ok(message: &[u8], src: Addr, dst: Addr) -> bool {
    let pseudo =
        if src.is_v4() { 0 } else { checksum::pseudo_header(src, dst, protocol::ICMPV6, message.len()) };
    checksum::add(pseudo, checksum::sum(message)) == 0xffff
}

/// A neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// An advertisement; else a solicitation.
    pub advertisement: bool,
    /// The advertisement answers a solicitation.
    pub solicited: bool,
    /// The advertisement replaces what was known before.
    pub overrides: bool,
    /// The address asked for or advertised.
    pub target: Addr,
    /// The link-layer address option: the source's in a solicitation, the target's in an advertisement.
    pub mac: Option<Mac>,
}

impl Neighbour {
    /// Reads a message of either kind, its options included. An option of length zero is `Length`, a code other than zero
    /// or a multicast target is `Value` (RFC 4861 §7.1.1, §7.1.2). Hop limit and checksum are the caller's to check.
    pub fn parse(b: &[u8]) -> Result<Self, Malformed> {
        need(b, 24)?;
        let advertisement = match b[0] {
            135 => false,
            136 => true,
            _ => return Err(Malformed::Value),
        };
        if b[1] != 0 || b[8] == 0xff {
            return Err(Malformed::Value);
        }
        let wanted = if advertisement { 2 } else { 1 };
        let mut mac = None;
        let mut at = 24;
        while at < b.len() {
            need(b, at + 2)?;
            let len = usize::from(b[at + 1]) * 8;
            if len == 0 {
                return Err(Malformed::Length);
            }
            need(b, at + len)?;
            if b[at] == wanted && len == 8 {
                mac = Some(Mac(array(b, at + 2)));
            }
            at += len;
        }
        Ok(Self {
            advertisement,
            solicited: advertisement && b[4] & 0x40 != 0,
            overrides: advertisement && b[4] & 0x20 != 0,
            target: Addr(array(b, 8)),
            mac,
        })
    }

    /// Writes the message, checksum included, and returns its length: [`ND_LEN`] bytes, without a MAC [`ND_BARE_LEN`]. `src`
    /// and `dst` are the packet's.
    pub fn write(&self, out: &mut [u8], src: Addr, dst: Addr) -> usize {
        let len = if self.mac.is_some() { ND_LEN } else { ND_BARE_LEN };
        let out = &mut out[..len];
        out.fill(0);
        out[0] = if self.advertisement { 136 } else { 135 };
        if self.advertisement {
            out[4] = u8::from(self.solicited) << 6 | u8::from(self.overrides) << 5;
        }
        put(out, 8, self.target.0);
        if let Some(mac) = self.mac {
            put(out, 24, [if self.advertisement { 2 } else { 1 }, 1]);
            put(out, 26, mac.0);
        }
        finish(out, src, dst);
        len
    }
}

/// The solicited-node multicast address of an IPv6 address (RFC 4291 §2.7.1).
pub fn solicited_node(addr: Addr) -> Addr {
    let mut out = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    out[13..].copy_from_slice(&addr.0[13..]);
    Addr(out)
}

/// The Ethernet address of an IPv6 multicast address (RFC 2464 §7).
pub fn multicast_mac(addr: Addr) -> Mac {
    Mac([0x33, 0x33, addr.0[12], addr.0[13], addr.0[14], addr.0[15]])
}
