//! Generic UDP encapsulation (draft-ietf-intarea-gue-09).

use super::{Malformed, need, protocol};

/// IANA's UDP port for GUE.
pub const PORT: u16 = 6080;
/// Bytes between the outer IP header and the inner packet in variant 1: the UDP header alone (§4).
pub const VARIANT_1_LEN: usize = super::udp::HEADER_LEN;

/// What a GUE payload (behind the UDP header) carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gue {
    /// Protocol number of what follows.
    pub protocol: u8,
    /// Offset at which it starts.
    pub offset: usize,
}

impl Gue {
    /// Reads variant 0 (a header with a protocol field, §3) and variant 1 (a bare IP packet, §4). Control messages and
    /// other variants are `Value`.
    pub fn parse(b: &[u8]) -> Result<Self, Malformed> {
        need(b, 4)?;
        match b[0] >> 6 {
            0 if b[0] & 0x20 == 0 => {
                let offset = 4 + usize::from(b[0] & 0x1f) * 4;
                need(b, offset)?;
                Ok(Self { protocol: b[1], offset })
            }
            1 => match b[0] >> 4 {
                4 => Ok(Self { protocol: protocol::IPV4, offset: 0 }),
                6 => Ok(Self { protocol: protocol::IPV6, offset: 0 }),
                _ => Err(Malformed::Value),
            },
            _ => Err(Malformed::Value),
        }
    }
}
