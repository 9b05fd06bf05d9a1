//! IPv6 and its extension headers (RFC 8200).

use super::checksum::Delta;
use super::{Malformed, array, be16, be32, need, put};
use crate::base::Addr;
use crate::base::limits::{MAX_EXT_BYTES, MAX_EXT_HEADERS};
use std::ops::{Deref, DerefMut};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// The least MTU of an IPv6 link (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

/// An IPv6 fixed header.
pub struct Ipv6<T>(T);

impl<T: Deref<Target = [u8]>> Ipv6<T> {
    /// Checks version and that the header is there; that the payload is, the caller must check.
    #[inline]
    pub fn new(bytes: T) -> Result<Self, Malformed> {
        need(&bytes, HEADER_LEN)?;
        if bytes[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        Ok(Self(bytes))
    }

    /// Traffic class (DSCP and ECN).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (be16(&self.0, 0) >> 4) as u8
    }

    /// Bytes of the packet, the fixed header included. (Jumbograms, whose field is zero, come out as a bare header.)
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(be16(&self.0, 4)) + HEADER_LEN
    }

    /// Type of the header that follows.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Addr {
        Addr(array(&self.0, 8))
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr(array(&self.0, 24))
    }
}

impl<T: DerefMut<Target = [u8]>> Ipv6<T> {
    /// Replaces the source; the transport's checksum is the caller's.
    #[inline]
    pub fn set_src(&mut self, to: Addr) {
        put(&mut self.0, 8, to.0);
    }

    /// Replaces the destination; the transport's checksum is the caller's.
    #[inline]
    pub fn set_dst(&mut self, to: Addr) {
        put(&mut self.0, 24, to.0);
    }

    /// Sets the hop limit.
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.0[7] = hops;
    }

    /// Takes one from the hop limit, which is not zero.
    #[inline]
    pub fn decrement_hop_limit(&mut self) {
        if let Some(header) = self.0.first_chunk_mut() {
            age(header);
        }
    }
}

/// What a router that translates addresses does to a header: both addresses replaced, hop limit (not zero) counted down.
/// Returns how the addresses' change changes the transport's checksum.
#[inline(always)]
pub fn translate(header: &mut [u8; HEADER_LEN], src: Addr, dst: Addr) -> Delta {
    let mut addresses = Delta::default();
    addresses.addr(Addr(array(header, 8)), src);
    addresses.addr(Addr(array(header, 24)), dst);
    put(header, 8, src.0);
    put(header, 24, dst.0);
    age(header);
    addresses
}

/// Takes one from the hop limit, which is not zero.
#[inline(always)]
pub fn age(header: &mut [u8; HEADER_LEN]) {
    header[7] = header[7].wrapping_sub(1);
}

/// The fragment header (RFC 8200 §4.5) that a walk met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in bytes.
    pub offset: u16,
    /// More follow.
    pub more: bool,
    /// By which fragments find together.
    pub id: u32,
}

/// Where a packet's transport header starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Its protocol. Of a non-first fragment: what its fragment header names, which may be an extension header that only
    /// the first fragment carries (RFC 8200 §4.5).
    pub protocol: u8,
    /// Its offset from the start of the fixed header. Behind a non-first fragment's header there is no transport header.
    pub offset: usize,
    /// The fragment header on the way, if any. One with offset zero and none to follow is a whole packet (RFC 6946).
    pub fragment: Option<Fragment>,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Walks the extension headers of the packet at the start of `b` (whose fixed header was checked). At most
/// [`MAX_EXT_HEADERS`] in [`MAX_EXT_BYTES`]; more is `TooDeep`, and a hop-by-hop header that isn't the first, or a
/// routing header with segments left, is `Value`.
#[inline]
pub fn upper(b: &[u8]) -> Result<Upper, Malformed> {
    let protocol = b[6];
    // Nearly every packet has none.
    if !is_extension(protocol) {
        return Ok(Upper { protocol, offset: HEADER_LEN, fragment: None });
    }
    walk(b, protocol)
}

fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6)
}

fn walk(b: &[u8], mut next: u8) -> Result<Upper, Malformed> {
    let mut offset = HEADER_LEN;
    let mut fragment = None;
    for depth in 0..=MAX_EXT_HEADERS {
        if !is_extension(next) {
            return Ok(Upper { protocol: next, offset, fragment });
        }
        if depth == MAX_EXT_HEADERS {
            break;
        }
        if next == HOP_BY_HOP && depth > 0 {
            return Err(Malformed::Value);
        }
        need(b, offset + 8)?;
        let len = match next {
            FRAGMENT => {
                if fragment.is_some() {
                    return Err(Malformed::Value);
                }
                let field = be16(b, offset + 2);
                let part = Fragment { offset: field & 0xfff8, more: field & 1 == 1, id: be32(b, offset + 4) };
                fragment = Some(part);
                8
            }
            // Its fixed part alone has twelve bytes (RFC 4302 §2.2), which the field counts as one.
            AUTHENTICATION if b[offset + 1] == 0 => return Err(Malformed::Length),
            AUTHENTICATION => (usize::from(b[offset + 1]) + 2) * 4,
            // One with segments left names another destination than the fixed header does, and it is that one which the
            // transport's checksum covers (RFC 8200 §4.4, §8.1): we are a destination, not a waypoint.
            ROUTING if b[offset + 3] != 0 => return Err(Malformed::Value),
            _ => (usize::from(b[offset + 1]) + 1) * 8,
        };
        let header = next;
        next = b[offset];
        offset += len;
        if offset - HEADER_LEN > MAX_EXT_BYTES {
            break;
        }
        need(b, offset)?;
        if header == FRAGMENT && fragment.is_some_and(|f| f.offset != 0) {
            // What follows is the middle of something: no header to walk.
            return Ok(Upper { protocol: next, offset, fragment });
        }
    }
    Err(Malformed::TooDeep)
}

/// Writes a fixed header of [`HEADER_LEN`] bytes; `payload_len` counts what follows it.
#[inline]
#[allow(clippy::too_many_arguments)] // the header's own fields, in their order
pub fn write(
    out: &mut [u8],
    class: u8,
    flow_label: u32,
    payload_len: u16,
    next: u8,
    hops: u8,
    src: Addr,
    dst: Addr,
) {
    put(out, 0, (6u32 << 28 | u32::from(class) << 20 | (flow_label & 0xf_ffff)).to_be_bytes());
    put(out, 4, payload_len.to_be_bytes());
    put(out, 6, [next, hops]);
    put(out, 8, src.0);
    put(out, 24, dst.0);
}
