//! Longest-prefix match over few routes, both families.
//!
//! The routes of a family cut its address space into at most `2n + 1` intervals, each with one answer, which are found
//! once, when the table is built; a lookup is one binary search for the interval, whatever the prefix lengths are
//! (Lampson, Srinivasan and Varghese, "IP lookups using multiway and multicolumn search", INFOCOM 1998, §2).

use crate::base::Addr;
use std::cmp::Reverse;

/// A prefix for which two routes were given (its network address and length).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two routes to {0}/{1}")]
pub struct Duplicate(pub Addr, pub u8);

/// The answers of one family: `values[i]` holds from `starts[i]` until the next start. The first start is zero.
#[derive(Clone, Debug)]
struct Intervals<K, T> {
    starts: Box<[K]>,
    values: Box<[Option<T>]>,
}

impl<K: Copy + Ord, T: Copy> Intervals<K, T> {
    #[inline]
    fn find(&self, key: K, below: impl Fn(K, K) -> bool) -> Option<T> {
        // The search goes on in `starts[low..low + size]`, and `starts[low] <= key`. The number of steps depends on the
        // length alone and the choice is a conditional move, so there is no branch for an address to mispredict.
        let (mut low, mut size) = (0, self.starts.len());
        while size > 1 {
            let half = size / 2;
            let middle = low + half;
            let Some(&start) = self.starts.get(middle) else { break };
            low = std::hint::select_unpredictable(!below(key, start), middle, low);
            size -= half;
        }
        self.values.get(low).copied().flatten()
    }
}

/// Routes to values (next hops, interfaces).
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    v4: Intervals<u32, T>,
    v6: Intervals<u128, T>,
}

/// A prefix as the addresses that it covers.
struct Range<T> {
    first: u128,
    last: u128,
    value: T,
}

/// Cuts ranges, of which any two are disjoint or nested, into intervals; the innermost range wins.
fn cut<T: Copy>(mut ranges: Vec<Range<T>>) -> (Vec<u128>, Vec<Option<T>>) {
    ranges.sort_unstable_by_key(|range| (range.first, Reverse(range.last)));
    let mut cuts: Vec<(u128, Option<T>)> = vec![(0, None)];
    let mut cut = |start, value| match cuts.last_mut() {
        Some(last) if last.0 == start => last.1 = value,
        _ => cuts.push((start, value)),
    };
    // The ranges around the current place, outermost first.
    let mut around: Vec<(u128, T)> = Vec::new();
    for Range { first, last, value } in ranges {
        while let Some((end, _)) = around.pop_if(|(end, _)| *end < first) {
            cut(end + 1, around.last().map(|&(_, outer)| outer));
        }
        cut(first, Some(value));
        around.push((last, value));
    }
    while let Some((end, _)) = around.pop() {
        // What ends with the address space has nothing behind it.
        if let Some(start) = end.checked_add(1) {
            cut(start, around.last().map(|&(_, outer)| outer));
        }
    }
    cuts.into_iter().unzip()
}

impl<T: Copy> RouteTable<T> {
    /// A table of `routes`: prefix (address and length in bits, of the address's own family) and value. Bits of the address
    /// behind the prefix are ignored. A default route is one of length zero, for its family alone.
    ///
    /// # Errors
    /// [`Duplicate`] if two routes have one prefix.
    ///
    /// # Panics
    /// If a length is above 32 for IPv4, or 128 for IPv6.
    pub fn build(routes: Vec<((Addr, u8), T)>) -> Result<Self, Duplicate> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for ((addr, length), value) in routes {
            let (bits, family) = if addr.is_v4() { (32, &mut v4) } else { (128, &mut v6) };
            assert!(u32::from(length) <= bits, "a prefix of {length} bits for {addr}");
            let all = u128::MAX >> (128 - bits);
            let host = all.checked_shr(u32::from(length)).unwrap_or(0);
            let first = u128::from_be_bytes(addr.0) & all & !host;
            family.push(Range { first, last: first | host, value });
        }
        if let Some(addr) = twice(&v4) {
            let (first, length) = addr;
            return Err(Duplicate(Addr::v4((first as u32).to_be_bytes()), length - 96));
        }
        if let Some((first, length)) = twice(&v6) {
            return Err(Duplicate(Addr(first.to_be_bytes()), length));
        }
        let (starts, values) = cut(v4);
        // Every v4 range lies below 2^32; a cut at 2^32, behind the last address, is never asked for.
        let kept = starts.iter().take_while(|&&start| start <= u128::from(u32::MAX)).count();
        let v4 = Intervals {
            starts: starts[..kept].iter().map(|&start| start as u32).collect(),
            values: values[..kept].into(),
        };
        let (starts, values) = cut(v6);
        Ok(Self { v4, v6: Intervals { starts: starts.into(), values: values.into() } })
    }

    /// The value of the longest prefix that covers `addr`.
    #[inline]
    pub fn lookup(&self, addr: Addr) -> Option<T> {
        if addr.is_v4() {
            self.v4.find(u32::from_be_bytes(addr.v4_bytes()), |a, b| a < b)
        } else {
            self.v6.find(u128::from_be_bytes(addr.0), |a, b| {
                // In halves and without a shortcut: a plain comparison of 128 bits compiles to branches.
                let (a, b) = ([(a >> 64) as u64, a as u64], [(b >> 64) as u64, b as u64]);
                (a[0] < b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
            })
        }
    }
}

/// The lowest prefix that is there twice: its first address, and its length as one of 128 bits.
fn twice<T>(ranges: &[Range<T>]) -> Option<(u128, u8)> {
    let mut prefixes: Vec<_> = ranges.iter().map(|range| (range.first, range.last)).collect();
    prefixes.sort_unstable();
    let &[(first, last), _] = prefixes.windows(2).find(|pair| pair[0] == pair[1])? else { return None };
    Some((first, (first ^ last).leading_zeros() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Addresses that share prefixes often: few distinct bytes, both families.
    fn addr() -> impl Strategy<Value = Addr> {
        let byte = || prop_oneof![Just(0u8), Just(0xff), Just(0x80), any::<u8>()];
        prop_oneof![
            prop::array::uniform4(byte()).prop_map(Addr::v4),
            prop::array::uniform16(byte()).prop_filter_map("IPv4", |b| Some(Addr(b)).filter(|a| !a.is_v4())),
        ]
    }

    fn prefix() -> impl Strategy<Value = (Addr, u8)> {
        (addr(), prop_oneof![0..=128u8, Just(0), Just(8), Just(32)])
            .prop_map(|(addr, length)| (addr, if addr.is_v4() { length.min(32) } else { length }))
    }

    fn covers((network, length): (Addr, u8), addr: Addr) -> bool {
        let bits = |a: Addr| if a.is_v4() { a.v4_bytes().to_vec() } else { a.0.to_vec() };
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (7 - i % 8) & 1;
        network.is_v4() == addr.is_v4()
            && (0..usize::from(length)).all(|i| bit(&bits(network), i) == bit(&bits(addr), i))
    }

    proptest! {
        #[test]
        fn finds_the_longest_prefix(
            prefixes in prop::collection::vec(prefix(), 0..40),
            questions in prop::collection::vec(addr(), 40),
            flips in prop::collection::vec(0..128usize, 40),
        ) {
            let same = |a: (Addr, u8), b: (Addr, u8)| a.1 == b.1 && covers(a, b.0);
            let distinct = (0..prefixes.len()).all(|i| (0..i).all(|j| !same(prefixes[i], prefixes[j])));
            let routes: Vec<_> = prefixes.iter().copied().zip(0u32..).collect();
            let table = match RouteTable::build(routes.clone()) {
                Ok(table) => {
                    prop_assert!(distinct);
                    table
                }
                Err(Duplicate(addr, length)) => {
                    prop_assert!(prefixes.iter().filter(|&&p| same(p, (addr, length))).count() >= 2);
                    return Ok(());
                }
            };
            // Besides any addresses, ones near the edges of prefixes: a network's own with one bit turned.
            let near = prefixes.iter().zip(&flips).map(|(&(mut addr, _), &flip)| {
                let v4 = addr.is_v4();
                let flip = if v4 { 96 + flip % 32 } else { flip };
                addr.0[flip / 8] ^= 0x80 >> (flip % 8);
                addr
            });
            for addr in questions.into_iter().chain(near).chain(prefixes.iter().map(|p| p.0)) {
                let best = routes.iter().filter(|(prefix, _)| covers(*prefix, addr)).max_by_key(|(prefix, _)| prefix.1);
                prop_assert_eq!(table.lookup(addr), best.map(|(_, value)| *value), "{}", addr);
            }
        }
    }

    fn parse(prefix: &str) -> (Addr, u8) {
        let (addr, length) = prefix.split_once('/').unwrap();
        (Addr::from(addr.parse::<std::net::IpAddr>().unwrap()), length.parse().unwrap())
    }

    #[test]
    fn edges() {
        let prefixes = [
            "0.0.0.0/0",
            "255.255.255.255/32",
            "10.0.0.0/8",
            "10.255.255.255/32",
            "::/0",
            "ffff::/16",
            "::1/128",
        ];
        let table = RouteTable::build(prefixes.iter().map(|p| (parse(p), *p)).collect()).unwrap();
        let ask = |addr: &str| table.lookup(parse(&format!("{addr}/0")).0);
        assert_eq!(ask("0.0.0.0"), Some("0.0.0.0/0"));
        assert_eq!(ask("255.255.255.254"), Some("0.0.0.0/0"));
        assert_eq!(ask("255.255.255.255"), Some("255.255.255.255/32"));
        assert_eq!(ask("10.255.255.254"), Some("10.0.0.0/8"));
        assert_eq!(ask("10.255.255.255"), Some("10.255.255.255/32"));
        assert_eq!(ask("11.0.0.0"), Some("0.0.0.0/0"));
        assert_eq!(ask("::"), Some("::/0"));
        assert_eq!(ask("::1"), Some("::1/128"));
        assert_eq!(ask("::2"), Some("::/0"));
        assert_eq!(ask("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some("ffff::/16"));
        assert_eq!(RouteTable::<()>::build(Vec::new()).unwrap().lookup(Addr::v4([1, 2, 3, 4])), None);
    }

    #[test]
    fn a_default_route_serves_its_own_family() {
        let table = RouteTable::build(vec![(parse("0.0.0.0/0"), ())]).unwrap();
        assert_eq!(table.lookup(parse("2001:db8::1/128").0), None);
        let table = RouteTable::build(vec![(parse("::/0"), ())]).unwrap();
        assert_eq!(table.lookup(Addr::v4([192, 0, 2, 1])), None);
    }

    #[test]
    fn duplicates_are_named() {
        let v4 = vec![(parse("10.1.2.3/8"), 1), (parse("10.0.0.0/8"), 2), (parse("10.0.0.0/9"), 3)];
        assert_eq!(RouteTable::build(v4).unwrap_err().to_string(), "two routes to 10.0.0.0/8");
        let v6 = vec![(parse("2001:db8::/32"), 1), (parse("2001:db8::1/32"), 2)];
        assert_eq!(RouteTable::build(v6).unwrap_err(), Duplicate(parse("2001:db8::/32").0, 32));
    }

    #[test]
    #[should_panic(expected = "a prefix of 33 bits")]
    fn a_length_of_the_wrong_family_is_a_bug() {
        let _ = RouteTable::build(vec![((Addr::v4([10, 0, 0, 0]), 33), ())]);
    }
}
