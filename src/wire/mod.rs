//! Wire formats: checked views over bytes. A constructor looks at every length it relies on, so that the accessors can't
//! fail; what is inside a field is the caller's to judge.
//!
//! A view borrows anything that derefs to bytes: `&[u8]` to read, `&mut [u8]` to write as well.

pub mod arp;
pub mod backplane;
pub mod checksum;
pub mod control;
pub mod eth;
pub mod gue;
pub mod icmp;
pub mod ipip;
pub mod ipv4;
pub mod ipv6;
pub mod state;
pub mod tcp;
pub mod udp;
pub mod vlan;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the header, or than a length field says.
    #[error("truncated")]
    Truncated,
    /// A version field with another number.
    #[error("wrong version")]
    Version,
    /// A length field that can't be (a header length below the minimum, a total below the header).
    #[error("impossible length")]
    Length,
    /// A field with a value that this format does not have.
    #[error("unknown value")]
    Value,
    /// More extension headers than we walk.
    #[error("too many extension headers")]
    TooDeep,
}

#[inline(always)]
fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

#[inline(always)]
fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[inline(always)]
fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

#[inline(always)]
fn array<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[at..at + N]);
    out
}

#[inline(always)]
fn put<const N: usize>(b: &mut [u8], at: usize, value: [u8; N]) {
    b[at..at + N].copy_from_slice(&value);
}

/// `Err(Truncated)` unless `b` has `n` bytes.
#[inline(always)]
fn need(b: &[u8], n: usize) -> Result<(), Malformed> {
    if b.len() < n { Err(Malformed::Truncated) } else { Ok(()) }
}

/// Replaces the ports, with which TCP's and UDP's headers both begin; returns `delta` with that change.
#[inline(always)]
fn translate_ports(header: &mut [u8], mut delta: checksum::Delta, src: u16, dst: u16) -> checksum::Delta {
    delta.word16(be16(header, 0), src);
    delta.word16(be16(header, 2), dst);
    put(header, 0, src.to_be_bytes());
    put(header, 2, dst.to_be_bytes());
    delta
}

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}
