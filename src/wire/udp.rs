//! UDP (RFC 768).

use super::checksum::Delta;
use super::{Malformed, be16, checksum, need, protocol, put, translate_ports};
use crate::base::Addr;
use std::ops::{Deref, DerefMut};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 6;

/// A UDP header.
pub struct Udp<T>(T);

impl<T: Deref<Target = [u8]>> Udp<T> {
    /// Checks that the header is there and that its length covers it.
    #[inline]
    pub fn new(bytes: T) -> Result<Self, Malformed> {
        need(&bytes, HEADER_LEN)?;
        if usize::from(be16(&bytes, 4)) < HEADER_LEN {
            return Err(Malformed::Length);
        }
        Ok(Self(bytes))
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        be16(&self.0, 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        be16(&self.0, 2)
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(be16(&self.0, 4))
    }

    /// Whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == HEADER_LEN
    }

    /// Checksum field; zero: none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(&self.0, CHECKSUM_AT)
    }
}

impl<T: DerefMut<Target = [u8]>> Udp<T> {
    /// Sets the source port; the checksum is the caller's.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        put(&mut self.0, 0, port.to_be_bytes());
    }

    /// Sets the destination port; the checksum is the caller's.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        put(&mut self.0, 2, port.to_be_bytes());
    }

    /// Sets the checksum field.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put(&mut self.0, CHECKSUM_AT, checksum.to_be_bytes());
    }
}

/// Replaces both ports and mends the checksum after a change of `addresses`.
#[inline(always)]
pub fn translate(header: &mut [u8; HEADER_LEN], addresses: Delta, src_port: u16, dst_port: u16) {
    let mended = translate_ports(header, addresses, src_port, dst_port).apply_udp(be16(header, CHECKSUM_AT));
    put(header, CHECKSUM_AT, mended.to_be_bytes());
}

/// Writes a header with the checksum zero ("none"), as tunnels may (RFC 6935, RFC 6936): what is inside has its own.
/// `payload_len` counts what follows the header.
#[inline]
pub fn write_tunnel(out: &mut [u8], src_port: u16, dst_port: u16, payload_len: u16) {
    put(out, 0, src_port.to_be_bytes());
    put(out, 2, dst_port.to_be_bytes());
    put(out, 4, payload_len.saturating_add(HEADER_LEN as u16).to_be_bytes());
    put(out, 6, [0, 0]);
}

/// Fills in the checksum of a whole datagram, header and payload, whose field is zero.
pub fn fill_checksum(datagram: &mut [u8], src: Addr, dst: Addr) {
    let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, datagram.len());
    let sum = match !checksum::add(pseudo, checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    };
    put(datagram, CHECKSUM_AT, sum.to_be_bytes());
}
