//! Values as people write them, in files and in JSON; binary formats have the value itself.

use crate::base::Addr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a value is refused, and what to do about it where that isn't obvious.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Reason {
    /// Without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With one.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The longest duration that makes sense anywhere: beyond it somebody mistook the unit.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// What to say to somebody who wrote a duration that is none.
pub const DURATION_HINT: &str =
    "a duration is a whole number and a unit: \"500us\", \"50ms\", \"5s\", \"15m\", \"2h\", \"1d\"";

/// Units, the largest first, and their microseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

/// A duration from a whole number and a unit; above zero, at most 366 days.
pub fn parse_duration(text: &str) -> Result<Duration, Reason> {
    let bad = || Reason::new(format!("{text:?} is no duration")).hint(DURATION_HINT);
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    if digits.is_empty() {
        return Err(bad());
    }
    // Digits that overflow are too many whatever the unit.
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    match Duration::from_micros(number.saturating_mul(*micros)) {
        Duration::ZERO => Err(Reason::new("must be above zero")),
        d if d > MAX_DURATION => Err(Reason::new(format!("{text:?} is out of range: at most \"366d\""))),
        d => Ok(d),
    }
}

/// The shortest text that [`parse_duration`] reads as `duration`, of which what is below a microsecond is left out.
pub fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (unit, each) = UNITS.iter().find(|(_, each)| micros.is_multiple_of(*each)).unwrap_or(&UNITS[5]);
    format!("{}{unit}", micros / each)
}

/// Whether `name` can stand in a path, a metric's label and a command line without quoting.
pub fn check_name(name: &str) -> Result<(), Reason> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) || name.starts_with(['.', '-']) {
        let reason = Reason::new(format!("{name:?} is no name"));
        return Err(reason.hint(
            "a name has 1 to 64 letters, digits, `-`, `_` or `.`, and starts with none of `-` and `.`",
        ));
    }
    Ok(())
}

/// An address of either family, each in its own form.
pub fn parse_address(text: &str) -> Result<Addr, Reason> {
    let bad = || Reason::new(format!("{text:?} is no IPv4 or IPv6 address"));
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Err(Reason::new(format!("{text:?} is an IPv4-mapped IPv6 address"))
                .hint("write the IPv4 address"))
        }
        Ok(ip) => Ok(ip.into()),
        Err(_) if text.contains('/') => Err(bad().hint("no prefix length stands here")),
        Err(_) => Err(bad()),
    }
}

/// An address and a port, IPv6 in brackets. A zone (RFC 4007 §11) is refused: it means something on one node alone.
pub fn parse_socket(text: &str) -> Result<SocketAddr, Reason> {
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(_)) if text.contains('%') => {
            let reason = Reason::new(format!("{text:?} has a zone, which means nothing on other nodes"));
            Err(reason.hint("write an address that needs none"))
        }
        Ok(at) => Ok(at),
        Err(_) => Err(Reason::new(format!("{text:?} is no address with a port"))
            .hint("write it as \"192.0.2.1:7000\" or \"[2001:db8::1]:7000\"")),
    }
}

/// Addresses with ports that may be missing, for `#[serde(with)]`: what [`parse_socket`] reads for people, binary otherwise.
pub mod socket {
    use super::{SocketAddr, parse_socket};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes one.
    pub fn serialize<S: Serializer>(socket: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        socket.serialize(to)
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        if from.is_human_readable() {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| parse_socket(&text).map_err(D::Error::custom)).transpose()
        } else {
            Option::deserialize(from)
        }
    }
}

/// Addresses for `#[serde(with)]`: text for people, the 16 bytes otherwise.
pub mod address {
    use super::{Addr, parse_address};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes one.
    pub fn serialize<S: Serializer>(address: &Addr, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(address) } else { address.0.serialize(to) }
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Addr, D::Error> {
        if from.is_human_readable() {
            parse_address(&String::deserialize(from)?).map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(from).map(Addr)
        }
    }
}

/// Durations for `#[serde(with)]`: text for people, microseconds otherwise.
pub mod duration {
    use super::{Duration, parse_duration, show_duration};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes one.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&show_duration(*duration))
        } else {
            u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).serialize(to)
        }
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            parse_duration(&text).map_err(D::Error::custom)
        } else {
            u64::deserialize(from).map(Duration::from_micros)
        }
    }

    /// The same for one that may be missing.
    pub mod option {
        use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct Wrapped(#[serde(with = "super")] Duration);

        /// Writes one.
        pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            duration.map(Wrapped).serialize(to)
        }

        /// Reads one.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Wrapped>::deserialize(from)?.map(|wrapped| wrapped.0))
        }
    }
}

/// The candidate with the smallest edit distance to `name`, if it is near enough to be meant.
pub fn nearest<'a>(candidates: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    // A third of the letters wrong is still a typo; more is another word. Very long names are no typos of anything.
    let bound = name.len() / 3;
    let near = candidates.filter(|c| c.len().abs_diff(name.len()) <= bound);
    let best = near.map(|c| (distance(c.as_bytes(), name.as_bytes()), c)).min()?;
    (best.0 <= bound).then_some(best.1)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours, each costs one.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        let [before, last, row] = &mut rows;
        row[0] = i;
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in
            [("", "", 0), ("", "ab", 2), ("count", "cuont", 1), ("idle", "idel", 1), ("mtu", "mut", 1)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), d, "{a} {b}");
        }
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }

    #[test]
    fn sockets_have_no_zone() {
        for text in ["192.0.2.1:7000", "[2001:db8::1]:7000"] {
            assert_eq!(parse_socket(text).unwrap().to_string(), text);
        }
        // Binary formats leave a zone out, so what the log carried would be another address than what was asked for.
        for bad in ["[fe80::1%3]:7000", "[fe80::1%0]:7000", "2001:db8::1:7000", "192.0.2.1", ""] {
            assert!(parse_socket(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_as_written() {
        for text in ["1us", "50ms", "1500us", "5s", "90s", "15m", "2h", "366d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(parse_duration("60s").unwrap()), "1m");
        for bad in ["", "5", "s", "0s", "367d", "1.5s", "-1s", "5 s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
