//! IPv4 (RFC 791).

use super::checksum::{self, Delta};
use super::{Malformed, array, be16, need, put};
use crate::base::Addr;
use std::ops::{Deref, DerefMut};

/// Bytes of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// The "don't fragment" bit of [`Ipv4::flags_and_offset`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The "more fragments" bit of [`Ipv4::flags_and_offset`].
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// An IPv4 header, options included.
pub struct Ipv4<T>(T);

impl<T: Deref<Target = [u8]>> Ipv4<T> {
    /// Checks version and header length against the bytes, and the total length against the header. That the packet is all
    /// there (it may lie in further segments) is the caller's to check with [`Self::total_len`].
    #[inline]
    pub fn new(bytes: T) -> Result<Self, Malformed> {
        need(&bytes, MIN_HEADER_LEN)?;
        if bytes[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header = usize::from(bytes[0] & 0xf) * 4;
        if header < MIN_HEADER_LEN || usize::from(be16(&bytes, 2)) < header {
            return Err(Malformed::Length);
        }
        need(&bytes, header)?;
        Ok(Self(bytes))
    }

    /// Bytes of the header.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0xf) * 4
    }

    /// Bytes of the packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(be16(&self.0, 2))
    }

    /// Type of service (DSCP and ECN).
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0[1]
    }

    /// Identification, by which fragments find together.
    #[inline]
    pub fn id(&self) -> u16 {
        be16(&self.0, 4)
    }

    /// Flags (top three bits) and fragment offset in units of 8 bytes.
    #[inline]
    pub fn flags_and_offset(&self) -> u16 {
        be16(&self.0, 6)
    }

    /// Whether this is a part of a datagram.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_offset() & 0x3fff != 0
    }

    /// Whether the packet must not be fragmented on its way.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Addr {
        Addr::v4(array(&self.0, 12))
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr::v4(array(&self.0, 16))
    }

    /// Whether the header's checksum is right.
    #[inline(always)]
    pub fn checksum_ok(&self) -> bool {
        match self.0.first_chunk() {
            Some(header) if self.header_len() == MIN_HEADER_LEN => checksum::sum_header(header) == 0xffff,
            _ => checksum::sum(&self.0[..self.header_len()]) == 0xffff,
        }
    }
}

impl<T: DerefMut<Target = [u8]>> Ipv4<T> {
    /// Replaces the source and mends the header checksum; the transport's is the caller's.
    #[inline]
    pub fn set_src(&mut self, to: Addr) {
        let from = self.src();
        put(&mut self.0, 12, to.v4_bytes());
        self.mend(|delta| delta.addr(from, to));
    }

    /// Replaces the destination and mends the header checksum; the transport's is the caller's.
    #[inline]
    pub fn set_dst(&mut self, to: Addr) {
        let from = self.dst();
        put(&mut self.0, 16, to.v4_bytes());
        self.mend(|delta| delta.addr(from, to));
    }

    /// Takes one from the time to live (which is not zero) and mends the checksum (RFC 1141).
    #[inline]
    pub fn decrement_ttl(&mut self) {
        if let Some(header) = self.0.first_chunk_mut() {
            age(header);
        }
    }

    /// Sets the time to live and mends the checksum.
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = be16(&self.0, 8);
        let new = u16::from(ttl) << 8 | old & 0xff;
        put(&mut self.0, 8, new.to_be_bytes());
        self.mend(|delta| delta.word16(old, new));
    }

    #[inline]
    fn mend(&mut self, change: impl FnOnce(&mut Delta)) {
        let mut delta = Delta::default();
        change(&mut delta);
        let mended = delta.apply(be16(&self.0, 10));
        put(&mut self.0, 10, mended.to_be_bytes());
    }
}

/// What a router that translates addresses does to a header, options or not: both addresses replaced, time to live (not zero)
/// counted down, checksum mended. Returns how the addresses' change changes the transport's checksum.
#[inline(always)]
pub fn translate(header: &mut [u8; MIN_HEADER_LEN], src: Addr, dst: Addr) -> Delta {
    let mut addresses = Delta::default();
    addresses.addr(Addr::v4(array(header, 12)), src);
    addresses.addr(Addr::v4(array(header, 16)), dst);
    put(header, 12, src.v4_bytes());
    put(header, 16, dst.v4_bytes());
    age_by(header, addresses);
    addresses
}

/// Takes one from the time to live (which is not zero) and mends the checksum (RFC 1141).
#[inline(always)]
pub fn age(header: &mut [u8; MIN_HEADER_LEN]) {
    age_by(header, Delta::default());
}

#[inline(always)]
fn age_by(header: &mut [u8; MIN_HEADER_LEN], mut delta: Delta) {
    let old = be16(header, 8);
    let new = old.wrapping_sub(0x0100);
    delta.word16(old, new);
    put(header, 8, new.to_be_bytes());
    let mended = delta.apply(be16(header, 10));
    put(header, 10, mended.to_be_bytes());
}

/// The fields of a header that we originate, without options.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Type of service.
    pub tos: u8,
    /// Bytes of the packet, this header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and offset, see [`DONT_FRAGMENT`].
    pub flags_and_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
}

impl Header {
    /// Writes [`MIN_HEADER_LEN`] bytes with the checksum field zero, for [`fill_checksum`] or a template.
    #[inline]
    pub fn write_without_checksum(&self, out: &mut [u8]) {
        put(out, 0, [0x45, self.tos]);
        put(out, 2, self.total_len.to_be_bytes());
        put(out, 4, self.id.to_be_bytes());
        put(out, 6, self.flags_and_offset.to_be_bytes());
        put(out, 8, [self.ttl, self.protocol, 0, 0]);
        put(out, 12, self.src.v4_bytes());
        put(out, 16, self.dst.v4_bytes());
    }

    /// Writes [`MIN_HEADER_LEN`] bytes, checksum included.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        self.write_without_checksum(out);
        fill_checksum(out);
    }
}

/// Fills in the checksum of a header without options that was written with the field zero.
#[inline]
pub fn fill_checksum(header: &mut [u8]) {
    let checksum = !checksum::sum(&header[..MIN_HEADER_LEN]);
    put(header, 10, checksum.to_be_bytes());
}
