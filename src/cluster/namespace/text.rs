//! Values as people write them, in files and in JSON; binary formats have the value itself.

use std::fmt;
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
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

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
        d if d > LONGEST => Err(Reason::new(format!("{text:?} is out of range: at most \"366d\""))),
        d => Ok(d),
    }
}

/// The shortest text that [`parse_duration`] reads as `duration`, of which what is below a microsecond is left out.
pub fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (unit, each) = UNITS.iter().find(|(_, each)| micros.is_multiple_of(*each)).unwrap_or(&UNITS[5]);
    format!("{}{unit}", micros / each)
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

#[cfg(test)]
mod tests {
    use super::*;

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
