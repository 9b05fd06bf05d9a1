//! IP packets of clients and servers, right in all respects, and ways to spoil them.

use crate::draw::Draw;
use crate::solo::Side;
use steerage::base::{Addr, Mac};
use steerage::wire::checksum;
use steerage::wire::eth::{self, ethertype};
use steerage::wire::{ipv4, ipv6, protocol};

/// A TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP's control bits; none: UDP.
    pub flags: Option<u8>,
    /// Hops left.
    pub ttl: u8,
    /// Not to be fragmented (IPv4).
    pub dont_fragment: bool,
    /// Bytes behind the transport header.
    pub payload: usize,
    /// IPv4 options, or whole IPv6 extension headers with their own numbers: a multiple of 4 or 8 bytes.
    pub extra: Vec<u8>,
    /// With IPv6, the number of the first extension header.
    pub first_extra: u8,
}

impl Packet {
    /// What the other side answers.
    pub fn answer(&self, flags: u8) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            flags: self.flags.map(|_| flags),
            ttl: 64,
            ..self.clone()
        }
    }

    /// With other control bits, if it has any.
    pub fn with_flags(&self, flags: u8) -> Self {
        Self { flags: self.flags.map(|_| flags), ..self.clone() }
    }

    /// The IP packet with all its checksums.
    pub fn ip(&self) -> Vec<u8> {
        let v4 = self.src.is_v4();
        let number = if self.flags.is_some() { protocol::TCP } else { protocol::UDP };
        let fixed = if v4 { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN };
        let l4 = fixed + self.extra.len();
        let header = if self.flags.is_some() { 20 } else { 8 };
        // All of it at once: under AddressSanitizer allocations are what takes longest here.
        let mut out = vec![0; l4 + header + self.payload];
        out[fixed..l4].copy_from_slice(&self.extra);
        let transport = &mut out[l4..];
        transport[..2].copy_from_slice(&self.src_port.to_be_bytes());
        transport[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        let at = match self.flags {
            Some(flags) => {
                transport[12] = 5 << 4;
                transport[13] = flags;
                16
            }
            None => {
                transport[4..6].copy_from_slice(&(8 + self.payload as u16).to_be_bytes());
                6
            }
        };
        transport[header..].fill(self.payload as u8);
        let pseudo = checksum::pseudo_header(self.src, self.dst, number, transport.len());
        let sum = !checksum::add(pseudo, checksum::sum(transport));
        // RFC 768: a sum of zero is sent as all ones.
        let sum = if sum == 0 && number == protocol::UDP { 0xffff } else { sum };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        if v4 {
            let header = ipv4::Header {
                tos: 0,
                total_len: out.len() as u16,
                id: 7,
                flags_and_offset: if self.dont_fragment { ipv4::DONT_FRAGMENT } else { 0 },
                ttl: self.ttl,
                protocol: number,
                src: self.src,
                dst: self.dst,
            };
            header.write(&mut out);
            out[0] = 0x40 | (5 + self.extra.len() / 4) as u8;
            ipv4_checksum(&mut out);
        } else {
            let (behind, next) =
                (out.len() - fixed, if self.extra.is_empty() { number } else { self.first_extra });
            ipv6::write(&mut out, 0, 0, behind as u16, next, self.ttl, self.src, self.dst);
        }
        out
    }

    /// Reads what [`Self::ip`] wrote, after a translation. None: something else.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let key = steerage::wire::icmp::quoted_flow(packet).ok()?;
        let (l4, ttl) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, packet[8]),
            _ => (ipv6::upper(packet).ok()?.offset, packet[7]),
        };
        let (flags, header) = match key.protocol {
            protocol::TCP => (Some(*packet.get(l4 + 13)?), 20),
            protocol::UDP => (None, 8),
            _ => return None,
        };
        let payload = packet.len().checked_sub(l4 + header)?;
        Some(Self {
            src: key.src,
            dst: key.dst,
            src_port: key.src_port,
            dst_port: key.dst_port,
            flags,
            ttl,
            dont_fragment: true,
            payload,
            extra: Vec::new(),
            first_extra: 0,
        })
    }
}

/// Writes the checksum of the IPv4 header that `packet` starts with, options included.
pub fn ipv4_checksum(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts an Ethernet header in front.
pub fn frame(side: Side, src: Mac, tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let v4 = packet.first().is_none_or(|b| b >> 4 == 4);
    let at = if tag.is_some() { 18 } else { 14 };
    let mut out = Vec::with_capacity(at + packet.len());
    out.resize(at, 0);
    eth::write(&mut out, side.mac(), src, tag, if v4 { ethertype::IPV4 } else { ethertype::IPV6 });
    out.extend(packet);
    out
}

/// A chain of IPv6 extension headers that ends in `last`: the number of its first one, and its bytes.
pub fn chain(draw: &mut Draw, last: u8) -> (u8, Vec<u8>) {
    let mut next = last;
    let mut out = Vec::new();
    for _ in 0..draw.below(11) {
        let number = draw.one_of(&[0, 60, 43, 44, 51, 135, 59, 253]);
        let mut header = vec![0; 8];
        header[0] = next;
        match number {
            // An atomic fragment, mostly (RFC 6946).
            44 => header[2..4].copy_from_slice(&draw.one_of(&[0u16, 0, 0, 1, 8]).to_be_bytes()),
            51 => header[1] = draw.one_of(&[0, 0, 1, 2]),
            _ => {
                let more = draw.one_of(&[0, 0, 0, 1, 3, 31, 255]);
                header[1] = more;
                header.resize(8 + 8 * usize::from(more).min(31), 1);
            }
        }
        header.extend(out);
        (next, out) = (number, header);
    }
    (next, out)
}

/// Spoils a frame of which the IP header starts at `ip`, in one of many ways; mostly leaves it as it is.
pub fn spoil(draw: &mut Draw, frame: &mut Vec<u8>, ip: usize) {
    let word = |frame: &mut Vec<u8>, at: usize, value: u16| {
        if let Some(bytes) = frame.get_mut(at..at + 2) {
            bytes.copy_from_slice(&value.to_be_bytes());
        }
    };
    let v4 = frame.get(ip).is_none_or(|b| b >> 4 == 4);
    let mut mend = draw.once_in(2);
    match draw.below(32) {
        // A length field: IP's.
        17 => {
            let value = draw.word();
            word(frame, ip + if v4 { 2 } else { 4 }, value);
        }
        // An extreme one.
        18 => {
            let value = draw.one_of(&[0, 1, 19, 20, 39, 40, 0xffff]);
            word(frame, ip + if v4 { 2 } else { 4 }, value);
        }
        19 => {
            let keep = draw.one_of(&[0usize, 1, 13, 14, 18, 33, 34, 42, 53, 54, 60, 64, 96]);
            frame.truncate(keep);
        }
        20 => {
            let keep = usize::from(draw.word()) % (frame.len() + 1);
            frame.truncate(keep);
        }
        // Ethernet padding, or a tail that makes the frame longer than its packet.
        21 => {
            let more = draw.below(64);
            frame.extend(draw.bytes(more));
        }
        // Version and header length.
        22 => {
            let value = draw.byte();
            frame.get_mut(ip).into_iter().for_each(|b| *b = value);
        }
        // Fragments.
        23 if v4 => {
            let value = draw.one_of(&[0x2000, 0x0001, 0x2001, 0x1fff, 0x8000]);
            word(frame, ip + 6, value);
            mend = true;
        }
        // Hops.
        24 => {
            let value = draw.one_of(&[0, 1, 2, 255]);
            frame.get_mut(ip + if v4 { 8 } else { 7 }).into_iter().for_each(|b| *b = value);
            mend = true;
        }
        // A source that can't be.
        25 => {
            let source: &[u8] = if v4 {
                draw.one_of(&[&[0, 0, 0, 0], &[127, 0, 0, 1], &[224, 0, 0, 1], &[255; 4], &[10, 99, 0, 1]])
            } else {
                draw.one_of(&[&[0; 16], &[0xff; 16], &LOOPBACK, &V4_MAPPED])
            };
            let at = ip + if v4 { 12 } else { 8 };
            if let Some(bytes) = frame.get_mut(at..at + source.len()) {
                bytes.copy_from_slice(source);
            }
            mend = true;
        }
        // Any bytes, anywhere.
        26..=28 => {
            for _ in 0..=draw.below(4) {
                let (at, value) = (usize::from(draw.word()), draw.byte());
                let len = frame.len().max(1);
                frame.get_mut(at % len).into_iter().for_each(|b| *b = value);
            }
        }
        // Ethernet: another station, a group, another type.
        29 => {
            let to = draw.one_of(&[[2, 9, 9, 9, 9, 9], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]]);
            frame.get_mut(..6).into_iter().for_each(|b| b.copy_from_slice(&to));
        }
        30 => {
            let kind = draw.one_of(&[0x88a8, 0x8100, 0x86dd, 0x0800, 0x0806, 0x88cc]);
            word(frame, ip.saturating_sub(2), kind);
        }
        // The transport's lengths.
        31 => {
            let at = ip + if v4 { 20 } else { 40 } + draw.one_of(&[4, 12]);
            let value = draw.word();
            word(frame, at, value);
        }
        _ => return,
    }
    let header = frame.get(ip).map_or(0, |b| usize::from(b & 15) * 4);
    if mend && v4 && header >= 20 && frame.len() >= ip + header {
        ipv4_checksum(&mut frame[ip..]);
    }
}

const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const V4_MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4];
