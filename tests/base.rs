//! Addresses, flow keys, hashes, random numbers and time.

use proptest::prelude::*;
use siphasher::sip::SipHasher13;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use steerage::base::limits::BUCKETS;
use steerage::base::rng::Rng;
use steerage::base::time::TICK_SHIFT;
use steerage::base::{Addr, FlowHash, FlowKey, HashKey, Instant, Mac, Tick, hash};

fn key() -> impl Strategy<Value = FlowKey> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|a| a.map(Addr::v4)),
        any::<[[u8; 16]; 2]>().prop_map(|a| a.map(Addr)),
    ];
    (addresses, any::<[u16; 2]>(), any::<u8>())
        .prop_map(|([src, dst], [from, to], protocol)| FlowKey::new(src, dst, from, to, protocol))
}

/// The tuple as bytes, of which the hash is defined: addresses, ports, protocol, all in little-endian words of eight.
fn tuple_bytes(key: &FlowKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    for addr in [key.src, key.dst] {
        if key.src.is_v4() { bytes.extend(addr.v4_bytes()) } else { bytes.extend(addr.0) }
    }
    bytes.extend(key.src_port.to_le_bytes());
    bytes.extend(key.dst_port.to_le_bytes());
    bytes.extend([key.protocol, 0, 0, 0]);
    bytes
}

proptest! {
    #[test]
    fn addresses_are_the_standard_library_s(v4: [u8; 4], v6: [u8; 16]) {
        let standard = IpAddr::V4(Ipv4Addr::from(v4));
        let own = Addr::from(standard);
        prop_assert_eq!(own, Addr::v4(v4));
        prop_assert!(own.is_v4());
        prop_assert_eq!((own.ip(), own.v4_bytes()), (standard, v4));
        prop_assert_eq!(own.to_string(), standard.to_string());

        let standard = IpAddr::V6(Ipv6Addr::from(v6));
        let own = Addr::from(standard);
        prop_assert!(!own.is_v4());
        prop_assert_eq!((own.0, own.ip()), (v6, standard));
        prop_assert_eq!(own.to_string(), standard.to_string());
    }

    #[test]
    fn flow_hashes_are_those_of_the_tuple(k: [u64; 2], key in key()) {
        let mut reference = SipHasher13::new_with_keys(k[0], k[1]);
        reference.write(&tuple_bytes(&key));
        prop_assert_eq!(HashKey(k).flow(&key), FlowHash(reference.finish()));
    }

    #[test]
    fn equal_keys_and_only_those_hash_alike(k: [u64; 2], a in key(), b in key()) {
        let k = HashKey(k);
        prop_assert_eq!(a == b, k.flow(&a) == k.flow(&b));
        prop_assert_eq!(a.reversed().reversed(), a);
        let symmetric = a.src == a.dst && a.src_port == a.dst_port;
        prop_assert_eq!(a.reversed() == a, symmetric);
        prop_assert_eq!(a.is_v4(), a.src.is_v4());
    }

    /// No field of the tuple is left out of the hash.
    #[test]
    fn each_bit_of_the_tuple_changes_the_hash(k: [u64; 2], key in key(), bit in 0usize..16, at in 0usize..4) {
        let k = HashKey(k);
        let mut other = key;
        match at {
            // The last two bytes, so that an IPv4 address stays one.
            0 => other.src.0[14 + bit / 8] ^= 1 << (bit % 8),
            1 => other.dst.0[14 + bit / 8] ^= 1 << (bit % 8),
            2 => (other.src_port, other.dst_port) = (key.src_port ^ 1 << bit, key.dst_port),
            _ => other.protocol ^= 1 << (bit % 8),
        }
        prop_assert_ne!(k.flow(&key), k.flow(&other));
        other = key;
        other.dst_port ^= 1 << bit;
        prop_assert_ne!(k.flow(&key), k.flow(&other));
    }

    #[test]
    fn derived_values_are_in_range(h: u64, bits: u64, bound in 1u64..) {
        let h = FlowHash(h);
        prop_assert!(h.bucket().index() < BUCKETS);
        prop_assert!(h.outer_port() >= 49_152);
        prop_assert!(hash::reduce(bits, bound) < bound);
    }

    #[test]
    fn reduction_keeps_order_and_reaches_both_ends(a: u64, b: u64, bound in 1u64..1 << 32) {
        prop_assert_eq!(hash::reduce(a.min(b), bound).cmp(&hash::reduce(a.max(b), bound)).is_gt(), false);
        prop_assert_eq!((hash::reduce(0, bound), hash::reduce(u64::MAX, bound)), (0, bound - 1));
    }

    #[test]
    fn the_mixer_is_a_bijection(x: u64) {
        // Its inverse: each xor-shift undone, each factor's inverse modulo 2^64.
        let unshift = |y: u64, by: u32| y ^ y >> by ^ y.checked_shr(2 * by).unwrap_or(0);
        let y = unshift(hash::mix(x), 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
        let y = unshift(y, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
        prop_assert_eq!(unshift(y, 30), x);
    }

    #[test]
    fn keys_of_one_secret_differ_by_domain(secret in prop::collection::vec(any::<u8>(), 0..64), a: u64, b: u64) {
        prop_assert_eq!(HashKey::derive(&secret, a) == HashKey::derive(&secret, b), a == b);
    }

    #[test]
    fn a_seed_replays(seed: u64, bound in 1u64..) {
        let (mut a, mut b) = (Rng::new(seed), Rng::new(seed));
        for _ in 0..8 {
            prop_assert_eq!(a.next_u64(), b.next_u64());
            prop_assert!(a.below(bound) < bound);
            b.next_u64();
        }
    }

    #[test]
    fn time_never_runs_back(a: u64, b: u64, d in 0u64..1 << 62) {
        let (a, b) = (Instant(a), Instant(b));
        prop_assert_eq!(a.since(b).as_nanos(), u128::from(a.0.saturating_sub(b.0)));
        prop_assert_eq!(a - b, a.since(b));
        prop_assert!(a + Duration::from_nanos(d) >= a);
        prop_assert_eq!(Instant(d).tick(), Tick((d >> TICK_SHIFT) as u32));
    }

    /// An entry that is given the ticks that cover a time lives at least so long, less the tick it was made in.
    #[test]
    fn ticks_cover_what_they_are_made_for(start in 0u64..1 << 58, d in 0u64..1 << 58) {
        let wait = Duration::from_nanos(d);
        let (start, end) = (Instant(start), Instant(start) + wait);
        let passed = end.tick().since(start.tick());
        prop_assert!(passed <= Tick::covering(wait), "{} ticks of {}", passed, Tick::covering(wait));
        prop_assert!(u64::from(Tick::covering(wait)) << TICK_SHIFT >= d);
        prop_assert_eq!(start.tick().since(end.tick()), 0);
    }
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration.
fn inverse(x: u64) -> u64 {
    (0..6).fold(x, |y, _| y.wrapping_mul(2u64.wrapping_sub(x.wrapping_mul(y))))
}

#[test]
fn beyond_the_end_of_time() {
    assert_eq!(Instant(u64::MAX) + Duration::from_secs(1), Instant(u64::MAX));
    assert_eq!(Instant::ZERO + Duration::MAX, Instant(u64::MAX));
    assert_eq!(Tick::covering(Duration::MAX), u32::MAX);
}

#[test]
fn ethernet_addresses() {
    assert_eq!(Mac([0, 1, 2, 0xab, 0xcd, 0xef]).to_string(), "00:01:02:ab:cd:ef");
    assert!(Mac::BROADCAST.is_multicast());
    assert!(Mac([1, 0, 0, 0, 0, 0]).is_multicast() && !Mac([0xfe, 0xff, 0xff, 0, 0, 0]).is_multicast());
}

#[test]
fn secrets_are_not_printed() {
    let shown = format!("{:?}", HashKey([0xdead_beef, 0x1234_5678]));
    assert!(!shown.contains("3735928559") && !shown.to_lowercase().contains("beef"), "{shown}");
}

#[test]
fn every_bucket_and_the_whole_range_of_ports_are_reached() {
    let key = HashKey([3, 4]);
    let flow = |i: u32| key.flow(&FlowKey::new(Addr::v4(i.to_be_bytes()), Addr::v4([10, 0, 0, 1]), 1, 2, 6));
    let buckets: BTreeSet<_> = (0..60_000).map(|i| flow(i).bucket()).collect();
    assert_eq!(buckets.len(), BUCKETS);
    let ports: Vec<_> = (0..60_000).map(|i| flow(i).outer_port()).collect();
    assert!(ports.iter().min() < Some(&49_160) && ports.iter().max() > Some(&65_527));
}
