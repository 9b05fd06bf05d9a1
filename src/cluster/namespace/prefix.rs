//! Prefixes: an address and the number of its leading bits that count, which for IPv4 are those of its four bytes.

use crate::base::Addr;

/// An address with a prefix length.
pub type Prefix = (Addr, u8);

/// The length of a prefix that covers one address of this family.
pub fn host_len(addr: Addr) -> u8 {
    if addr.is_v4() { 32 } else { 128 }
}

/// `addr` with all bits behind the prefix cleared.
pub fn network((addr, len): Prefix) -> Addr {
    let keep = if addr.is_v4() { 96 + u32::from(len) } else { u32::from(len) };
    let mask = u128::MAX.checked_shl(128 - keep.min(128)).unwrap_or(0);
    Addr((u128::from_be_bytes(addr.0) & mask).to_be_bytes())
}

/// The last address of a prefix.
pub fn last(prefix: Prefix) -> Addr {
    let bits = if prefix.0.is_v4() { 96 + u32::from(prefix.1) } else { u32::from(prefix.1) };
    let behind = u128::MAX.checked_shr(bits).unwrap_or(0);
    Addr((u128::from_be_bytes(network(prefix).0) | behind).to_be_bytes())
}

/// Whether `addr` is of the prefix's family and in it.
pub fn contains(prefix: Prefix, addr: Addr) -> bool {
    prefix.0.is_v4() == addr.is_v4() && network((addr, prefix.1)) == network(prefix)
}

/// Whether one of the two is in the other.
pub fn overlap(a: Prefix, b: Prefix) -> bool {
    if a.1 <= b.1 { contains(a, b.0) } else { contains(b, a.0) }
}

/// Why a host can't have this address, if it can't.
pub fn not_a_host(addr: Addr) -> Option<&'static str> {
    let ip = addr.ip();
    let broadcast = addr == Addr::v4([255; 4]);
    match () {
        () if ip.is_unspecified() => Some("is the unspecified address"),
        () if ip.is_multicast() => Some("is a multicast address"),
        () if ip.is_loopback() => Some("is a loopback address"),
        () if broadcast => Some("is the broadcast address"),
        () if addr.is_v4() && addr.v4_bytes()[0] == 0 => Some("is in 0.0.0.0/8, which is no host's"),
        () => None,
    }
}

/// Why a host on this prefix can't have its address, if it can't.
pub fn not_on_link((addr, len): Prefix) -> Option<&'static str> {
    if !addr.is_v4() || len >= 31 {
        return None; // RFC 3021: both addresses of a /31 are hosts'
    }
    let host = u32::from_be_bytes(addr.v4_bytes()) & (u32::MAX >> len);
    match host {
        0 => Some("is the address of its network"),
        h if h == u32::MAX >> len => Some("is the broadcast address of its network"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn a(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn networks() {
        for (addr, len, net) in [
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("fd00:1:2:3::4", 48, "fd00:1:2::"),
            ("fd00::1", 0, "::"),
            ("fd00::1", 128, "fd00::1"),
        ] {
            assert_eq!(network((a(addr), len)), a(net), "{addr}/{len}");
        }
        for (addr, len, end) in [
            ("10.1.2.3", 24, "10.1.2.255"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("fd00::1", 64, "fd00::ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(last((a(addr), len)), a(end), "{addr}/{len}");
        }
    }

    #[test]
    fn families_never_meet() {
        assert!(contains((a("0.0.0.0"), 0), a("10.1.1.1")));
        assert!(!contains((a("0.0.0.0"), 0), a("fd00::1")));
        assert!(!contains((a("::"), 0), a("10.1.1.1")));
        assert!(overlap((a("10.0.0.0"), 8), (a("10.1.0.0"), 16)));
        assert!(overlap((a("10.1.0.0"), 16), (a("10.0.0.0"), 8)));
        assert!(!overlap((a("10.1.0.0"), 16), (a("10.2.0.0"), 16)));
    }

    #[test]
    fn hosts() {
        for bad in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "127.0.0.1", "::1", "255.255.255.255", "0.1.2.3"]
        {
            assert!(not_a_host(a(bad)).is_some(), "{bad}");
        }
        assert_eq!(not_a_host(a("10.0.0.1")), None);
        assert!(not_on_link((a("10.0.0.0"), 24)).is_some());
        assert!(not_on_link((a("10.0.0.255"), 24)).is_some());
        assert_eq!(not_on_link((a("10.0.0.255"), 16)), None);
        assert_eq!(not_on_link((a("10.0.0.0"), 31)), None);
        assert_eq!(not_on_link((a("10.0.0.0"), 32)), None);
        assert_eq!(not_on_link((a("fd00::"), 64)), None);
    }
}
