//! IP in IP: 4in4 (RFC 2003), 6in4 (RFC 4213 §3), 4in6 and 6in6 (RFC 2473).

use super::{ipv4, ipv6, protocol};
use crate::base::Addr;

/// Hop limit of the headers that we put in front (RFC 2003 §3.1 leaves it to the configuration; this is Linux's default).
pub const TTL: u8 = 64;

/// What the packet inside says of itself, for the header outside.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// DSCP and ECN (RFC 6040 §4.1: copied).
    pub class: u8,
    /// Bytes of the packet.
    pub len: usize,
}

/// Bytes of the outer IP header towards `dst`.
#[inline]
pub fn outer_len(dst: Addr) -> usize {
    if dst.is_v4() { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// The protocol number of a bare inner packet.
#[inline]
pub fn inner_protocol(v6: bool) -> u8 {
    if v6 { protocol::IPV6 } else { protocol::IPV4 }
}

/// Writes the outer IP header ([`outer_len`] bytes) of a tunnel: `between` counts the bytes of further headers between it
/// and the inner packet, `next` is the protocol of what follows it, `label` the IPv6 flow label. An IPv4 header says "don't
/// fragment", as RFC 2003 §3.1 allows whatever the inner one says: its identification then means nothing (RFC 6864 §4.1), and
/// no fabric can mix up fragments of two packets. Its checksum is left zero, for [`super::ipv4::fill_checksum`] or
/// whoever makes a template of the header.
#[inline]
pub fn write_outer(out: &mut [u8], src: Addr, dst: Addr, inner: Inner, between: usize, next: u8, label: u32) {
    let payload = inner.len + between;
    if dst.is_v4() {
        let header = ipv4::Header {
            tos: inner.class,
            total_len: (payload + ipv4::MIN_HEADER_LEN) as u16,
            id: 0,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            ttl: TTL,
            protocol: next,
            src,
            dst,
        };
        header.write_without_checksum(out);
    } else {
        ipv6::write(out, inner.class, label, payload as u16, next, TTL, src, dst);
    }
}
