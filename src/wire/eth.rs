//! Ethernet II (IEEE 802.3 §3.2, type encapsulation).

use super::{Malformed, array, be16, need, put};
use crate::base::Mac;
use std::ops::{Deref, DerefMut};

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;

/// Ethertypes (IANA "IEEE 802 Numbers").
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// An Ethernet header.
pub struct Eth<T>(T);

impl<T: Deref<Target = [u8]>> Eth<T> {
    /// Checks that the header is there.
    #[inline]
    pub fn new(bytes: T) -> Result<Self, Malformed> {
        need(&bytes, HEADER_LEN)?;
        Ok(Self(bytes))
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Mac {
        Mac(array(&self.0, 0))
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Mac {
        Mac(array(&self.0, 6))
    }

    /// Type of what follows.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        be16(&self.0, 12)
    }
}

/// Writes an Ethernet header, with an 802.1Q tag if `vlan` is given; returns its length. `out` must have room.
#[inline]
pub fn write(out: &mut [u8], dst: Mac, src: Mac, vlan: Option<u16>, ethertype: u16) -> usize {
    put(out, 0, dst.0);
    put(out, 6, src.0);
    match vlan {
        None => {
            put(out, 12, ethertype.to_be_bytes());
            HEADER_LEN
        }
        Some(id) => {
            put(out, 12, ethertype::VLAN.to_be_bytes());
            put(out, 14, (id & 0xfff).to_be_bytes());
            put(out, 16, ethertype.to_be_bytes());
            HEADER_LEN + super::vlan::TAG_LEN
        }
    }
}

impl<T: DerefMut<Target = [u8]>> Eth<T> {
    /// Sets the destination.
    #[inline]
    pub fn set_dst(&mut self, mac: Mac) {
        put(&mut self.0, 0, mac.0);
    }

    /// Sets the source.
    #[inline]
    pub fn set_src(&mut self, mac: Mac) {
        put(&mut self.0, 6, mac.0);
    }
}
