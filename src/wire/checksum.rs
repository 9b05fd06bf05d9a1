//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::base::Addr;

/// The ones' complement sum of `bytes` as big-endian 16-bit words, folded to 16 bits; an odd last byte counts as the high
/// half of a word.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut acc: u64 = words.iter().map(|w| u64::from(u32::from_be_bytes(*w))).sum();
    for (i, byte) in rest.iter().enumerate() {
        acc += u64::from(*byte) << (8 * (3 - i));
    }
    fold(acc)
}

/// The same of as few bytes as an IPv4 header without options has.
#[inline(always)]
pub fn sum_header(bytes: &[u8; 20]) -> u16 {
    let (words, _) = bytes.as_chunks::<4>();
    // As they lie in memory: the order of bytes is undone in the sum (RFC 1071 §2 (B)).
    u16::from_be(fold(words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum()))
}

/// Folds a sum of 32-bit words to the sum of its 16-bit words, carries around the end.
#[inline(always)]
fn fold(acc: u64) -> u16 {
    let (words, carry) = (acc as u32).overflowing_add((acc >> 32) as u32);
    let words = words + u32::from(carry);
    add(words as u16, (words >> 16) as u16)
}

/// Adds two folded sums.
#[inline(always)]
pub fn add(a: u16, b: u16) -> u16 {
    let (s, carry) = a.overflowing_add(b);
    s + u16::from(carry)
}

/// The sum of the pseudo-header that transports cover: RFC 9293 §3.1 for IPv4, RFC 8200 §8.1 for IPv6. Both addresses are
/// of one family; `len` is that of the transport header and its payload.
pub fn pseudo_header(src: Addr, dst: Addr, protocol: u8, len: usize) -> u16 {
    // The constant prefix of an IPv4 address in 16 bytes must not enter the sum.
    let from = if src.is_v4() { 12 } else { 0 };
    let addresses = add(sum(&src.0[from..]), sum(&dst.0[from..]));
    add(addresses, fold(len as u64 + u64::from(protocol)))
}

/// How a rewrite changes a checksum: collects replaced words, then mends the field (RFC 1624 eqn. 3). The words are added as
/// they lie in memory: the order of bytes is the same for all and undone at the end (RFC 1071 §2 (B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// The checksum over what sums to `sum` and these words.
    #[inline(always)]
    pub fn added<const N: usize>(sum: u16, words: [u16; N]) -> u16 {
        !fold(words.iter().fold(u64::from(sum), |sum, word| sum + u64::from(*word)))
    }

    /// Two bytes on an even offset changed.
    #[inline(always)]
    pub fn word16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old.to_be()) + u64::from(new.to_be());
    }

    /// Four bytes on an even offset changed.
    #[inline(always)]
    pub fn word32(&mut self, old: u32, new: u32) {
        self.in_memory(old.to_be(), new.to_be());
    }

    /// The same of words as they lie in memory.
    #[inline(always)]
    fn in_memory(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// An address changed to another of its family.
    #[inline(always)]
    pub fn addr(&mut self, old: Addr, new: Addr) {
        let word = |a: &Addr, i: usize| u32::from_ne_bytes([a.0[i], a.0[i + 1], a.0[i + 2], a.0[i + 3]]);
        if !old.is_v4() {
            for i in [0, 4, 8] {
                self.in_memory(word(&old, i), word(&new, i));
            }
        }
        self.in_memory(word(&old, 12), word(&new, 12));
    }

    /// The checksum field after the change. It is the one that a full computation gives (RFC 1624 §3: never 0xffff for
    /// 0x0000), provided that `field` came from one, and that what it covers is not all zero after the change; a
    /// pseudo-header and an IPv4 header never are.
    #[inline(always)]
    pub fn apply(self, field: u16) -> u16 {
        u16::from_be(!fold(self.0 + u64::from(!field.to_be())))
    }

    /// The same for UDP, whose zero means "no checksum" and stays, and whose computed zero is sent as all ones (RFC 768).
    #[inline(always)]
    pub fn apply_udp(self, field: u16) -> u16 {
        match field {
            0 => 0,
            _ => match self.apply(field) {
                0 => 0xffff,
                c => c,
            },
        }
    }
}
