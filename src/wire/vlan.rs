//! The 802.1Q tag that stands behind an Ethernet header's addresses (IEEE 802.1Q §9.6).

use super::{Malformed, be16, need};

/// Bytes that a tag adds to the header.
pub const TAG_LEN: usize = 4;

/// A tag: what follows the tag's ethertype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// VLAN identifier, 12 bits; zero is a priority tag, which names no VLAN.
    pub id: u16,
    /// Type of what follows the tag.
    pub ethertype: u16,
}

impl Vlan {
    /// Reads the tag control information and the type behind it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        need(bytes, TAG_LEN)?;
        Ok(Self { id: be16(bytes, 0) & 0xfff, ethertype: be16(bytes, 2) })
    }
}
