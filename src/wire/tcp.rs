//! TCP (RFC 9293 §3.1).

use super::checksum::Delta;
use super::{Malformed, be16, be32, need, put, translate_ports};
use std::ops::{Deref, DerefMut};

/// Bytes of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Offset of the checksum field.
pub const CHECKSUM_AT: usize = 16;

/// Control bits.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Breaks a connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
}

/// A TCP header, options included.
pub struct Tcp<T>(T);

impl<T: Deref<Target = [u8]>> Tcp<T> {
    /// Checks that the header, as long as its data offset says, is there.
    #[inline]
    pub fn new(bytes: T) -> Result<Self, Malformed> {
        need(&bytes, MIN_HEADER_LEN)?;
        let header = usize::from(bytes[12] >> 4) * 4;
        if header < MIN_HEADER_LEN {
            return Err(Malformed::Length);
        }
        need(&bytes, header)?;
        Ok(Self(bytes))
    }

    /// Bytes of the header.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[12] >> 4) * 4
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

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        be32(&self.0, 4)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn ack(&self) -> u32 {
        be32(&self.0, 8)
    }

    /// Control bits, see [`flags`].
    #[inline]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// Checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(&self.0, CHECKSUM_AT)
    }
}

impl<T: DerefMut<Target = [u8]>> Tcp<T> {
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
pub fn translate(header: &mut [u8; MIN_HEADER_LEN], addresses: Delta, src_port: u16, dst_port: u16) {
    let mended = translate_ports(header, addresses, src_port, dst_port).apply(be16(header, CHECKSUM_AT));
    put(header, CHECKSUM_AT, mended.to_be_bytes());
}
