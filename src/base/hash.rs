//! The one keyed hash of a flow, and an independent finaliser for each use of it (MECHANISMS §0).
//!
//! SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, with the reduced rounds of their §7) over
//! the canonical tuple. An attacker without the key can aim neither at a bucket nor at a table slot; and because every
//! use finalises the hash with its own constant, a node that owns 1/N of the buckets still sees the whole of every
//! table's index space.

use super::limits::BUCKETS;
use super::{Addr, Bucket, FlowKey};

/// The cluster's 128-bit hash key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)") // a secret: whoever knows it can aim at buckets
    }
}

/// The keyed hash of one flow direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(transparent)]
pub struct FlowHash(pub u64);

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// SipHash's state, with `C` compression and `D` finalisation rounds.
struct Sip<const C: usize, const D: usize>([u64; 4]);

impl<const C: usize, const D: usize> Sip<C, D> {
    #[inline(always)]
    fn new(key: HashKey) -> Self {
        let [k0, k1] = key.0;
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        for _ in 0..C {
            round(&mut self.0);
        }
        self.0[0] ^= word;
    }

    /// `tail` holds the last bytes of the message (fewer than eight), `len` is the length of all of it.
    #[inline(always)]
    fn finish(mut self, tail: u64, len: usize) -> u64 {
        self.absorb(tail | (len as u64) << 56);
        self.0[2] ^= 0xff;
        for _ in 0..D {
            round(&mut self.0);
        }
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }

    fn bytes(key: HashKey, bytes: &[u8]) -> u64 {
        let mut sip = Self::new(key);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            sip.absorb(u64::from_le_bytes(*word));
        }
        let mut tail = [0; 8];
        tail[..rest.len()].copy_from_slice(rest);
        sip.finish(u64::from_le_bytes(tail), bytes.len())
    }
}

/// SipHash-1-3 of `words`, taken as little-endian bytes.
#[inline(always)]
pub fn siphash13<const N: usize>(key: HashKey, words: [u64; N]) -> u64 {
    let mut sip = Sip::<1, 3>::new(key);
    for word in words {
        sip.absorb(word);
    }
    sip.finish(0, N * 8)
}

/// SipHash-2-4 of `bytes`: the authentication code of control frames and of data frames' cookies.
pub fn mac(key: HashKey, bytes: &[u8]) -> u64 {
    Sip::<2, 4>::bytes(key, bytes)
}

/// SipHash-1-3 of `bytes`, for names and secrets; not for the packet path.
pub fn siphash13_bytes(key: HashKey, bytes: &[u8]) -> u64 {
    Sip::<1, 3>::bytes(key, bytes)
}

#[inline(always)]
fn word(b: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
}

impl HashKey {
    /// A key derived from a secret of any length; `domain` separates the keys made from one secret.
    pub fn derive(secret: &[u8], domain: u64) -> Self {
        Self([1, 2].map(|half| mac(HashKey([domain, half]), secret)))
    }

    /// The hash of a flow direction: two words for IPv4, five for IPv6.
    #[inline(always)]
    pub fn flow(self, key: &FlowKey) -> FlowHash {
        let tail = key.tail();
        FlowHash(if key.src.is_v4() {
            let [s, d] = [key.src.v4_bytes(), key.dst.v4_bytes()].map(u32::from_le_bytes);
            siphash13(self, [u64::from(s) | u64::from(d) << 32, tail])
        } else {
            let (s, d) = (&key.src.0, &key.dst.0);
            siphash13(self, [word(s, 0), word(s, 8), word(d, 0), word(d, 8), tail])
        })
    }

    /// The hash of one address, for questions about an address alone (who answers ARP for a VIP).
    pub fn addr(self, addr: Addr) -> u64 {
        siphash13(self, [word(&addr.0, 0), word(&addr.0, 8)])
    }
}

/// A bijection of 64 bits with good avalanche (the "Mix13" constants of D. Stafford).
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl FlowHash {
    /// The group bucket that this flow falls into.
    #[inline(always)]
    pub fn bucket(self) -> Bucket {
        Bucket((mix(self.0 ^ 0x6275_636b_6574_0001) as usize % BUCKETS) as u16)
    }

    /// 64 bits for the choice of a Maglev slot.
    #[inline(always)]
    pub fn slot(self) -> u64 {
        mix(self.0 ^ 0x736c_6f74_0000_0002)
    }

    /// 64 bits for the choice of a table line and tag. This use, which comes several times a packet, has the hash as it is:
    /// that the others are finalised keeps them apart from it as well.
    #[inline(always)]
    pub fn index(self) -> u64 {
        self.0
    }

    /// An IPv6 flow label for an outer header: 20 bits (RFC 6438 §2).
    #[inline(always)]
    pub fn label(self) -> u32 {
        self.slot() as u32 & 0xf_ffff
    }

    /// A UDP source port for an outer header, in the dynamic range (RFC 6335 §6), so that fabrics spread the flows.
    #[inline(always)]
    pub fn outer_port(self) -> u16 {
        0xc000 | (mix(self.0 ^ 0x706f_7274_0000_0004) & 0x3fff) as u16
    }
}

/// A number below `bound` from 64 uniform bits, without a division (Lemire, "Fast random integer generation in an
/// interval", 2019).
#[inline(always)]
pub fn reduce(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::Hasher;

    proptest! {
        #[test]
        fn agrees_with_the_reference(k in any::<[u64; 2]>(), w in any::<[u64; 5]>()) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(k[0], k[1]);
            for x in w {
                reference.write(&x.to_le_bytes());
            }
            prop_assert_eq!(siphash13(HashKey(k), w), reference.finish());
        }

        #[test]
        fn bytes_agree_with_the_reference(k in any::<[u64; 2]>(), bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut reference = siphasher::sip::SipHasher24::new_with_keys(k[0], k[1]);
            reference.write(&bytes);
            prop_assert_eq!(mac(HashKey(k), &bytes), reference.finish());
        }
    }

    #[test]
    fn uses_are_independent() {
        // Among the flows of one bucket, table lines and Maglev slots must still be spread evenly.
        let key = HashKey([1, 2]);
        let mut halves = [0u32; 2];
        let mut count = 0;
        for i in 0..2_000_000u32 {
            let src = Addr::v4((0x0a00_0000 + i).to_be_bytes());
            let h = key.flow(&FlowKey::new(src, Addr::v4([10, 9, 8, 7]), 1000, 80, 6));
            if h.bucket() == Bucket(17) {
                count += 1;
                halves[(h.index() >> 63) as usize] += 1;
                halves[(h.slot() >> 63) as usize] += 1;
            }
        }
        assert!((400..580).contains(&count), "{count} of about 488 flows in bucket 17");
        assert!(halves[0].abs_diff(halves[1]) < 200, "{halves:?}");
    }
}
