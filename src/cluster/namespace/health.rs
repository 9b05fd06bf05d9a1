//! How a real server's health is checked.

use super::text::{Reason, duration};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;
use utoipa::ToSchema;

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Nothing: the real server counts as up.
    None,
    /// Opens a TCP connection.
    Tcp,
    /// Asks for a page and looks at status and body.
    Http,
    /// The same over TLS.
    Https,
    /// Sends a datagram and waits for another; one that is refused (ICMP port unreachable) is a failure.
    Udp,
    /// Sends an echo request (RFC 792, RFC 4443 §4.1).
    Icmp,
}

/// A health check of a real server, or of all real servers of a virtual server that say nothing else.
///
/// A probe goes to the real server's own address. What a field says is looked at for the kinds of probe that its text
/// names; with another kind it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// What a probe does.
    #[serde(rename = "type")]
    pub probe: Probe,
    /// Time from the start of a probe to that of the next.
    #[serde(with = "duration", default = "default_interval")]
    #[schema(value_type = String)]
    pub interval: Duration,
    /// How long a probe may take as a whole; at most `interval`.
    #[serde(with = "duration", default = "default_timeout")]
    #[schema(value_type = String)]
    pub timeout: Duration,
    /// Good probes in a row that bring a real server up.
    #[serde(default = "default_rise")]
    pub rise: u8,
    /// Bad probes in a row that take it down.
    #[serde(default = "default_fall")]
    pub fall: u8,
    /// The port that is probed, unless it is the real server's (`tcp`, `http`, `https`, `udp`).
    #[serde(default)]
    pub port: Option<u16>,
    /// The path asked for, with its query; `/` unless set (`http`, `https`).
    #[serde(default)]
    pub path: Option<String>,
    /// The `Host` header and TLS's server name, unless it is the real server's address (`http`, `https`).
    #[serde(default)]
    pub host: Option<String>,
    /// Whether the certificate has to be valid for `host` (`https`).
    #[serde(default)]
    pub verify: bool,
    /// The status codes that are good; 200 to 399 if there is none (`http`, `https`).
    #[serde(default)]
    pub expect_status: Vec<u16>,
    /// A text that the body has to hold (`http`, `https`).
    #[serde(default)]
    pub expect_body: Option<String>,
    /// The datagram, as UTF-8; an empty one unless set (`udp`).
    #[serde(default)]
    pub send: Option<String>,
    /// A text that the answer has to hold; any answer is good unless set (`udp`).
    #[serde(default)]
    pub expect: Option<String>,
    /// Half-life of the penalty for each change of state, by which one that flaps is held down (after RFC 2439 §4.2);
    /// no damping unless set.
    #[serde(with = "duration::option", default)]
    #[schema(value_type = Option<String>)]
    pub damping: Option<Duration>,
}

/// [`HealthSpec::interval`] unless set.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
/// [`HealthSpec::timeout`] unless set.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// [`HealthSpec::rise`] unless set.
pub const DEFAULT_RISE: u8 = 2;
/// [`HealthSpec::fall`] unless set.
pub const DEFAULT_FALL: u8 = 3;
/// What [`HealthSpec::rise`] and [`HealthSpec::fall`] may be.
pub const COUNTS: RangeInclusive<u8> = 1..=100;
/// What [`HealthSpec::expect_status`] may hold (RFC 9110 §15).
pub const STATUSES: RangeInclusive<u16> = 100..=599;
/// The shortest [`HealthSpec::interval`]: a probe is no load test.
const SHORTEST: Duration = Duration::from_millis(100);
/// Bytes of a text: it fits into one datagram of any link.
const MAX_TEXT: usize = 1024;

fn default_interval() -> Duration {
    DEFAULT_INTERVAL
}

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

fn default_rise() -> u8 {
    DEFAULT_RISE
}

fn default_fall() -> u8 {
    DEFAULT_FALL
}

impl HealthSpec {
    /// A check of this kind with all else as it is unless set.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
            port: None,
            path: None,
            host: None,
            verify: false,
            expect_status: Vec::new(),
            expect_body: None,
            send: None,
            expect: None,
            damping: None,
        }
    }

    /// Whether a status code is a good one.
    pub fn accepts(&self, status: u16) -> bool {
        if self.expect_status.is_empty() {
            (200..400).contains(&status)
        } else {
            self.expect_status.contains(&status)
        }
    }

    /// All that is wrong with it, by field.
    pub fn faults(&self) -> Vec<(&'static str, Reason)> {
        let mut found = Vec::new();
        let mut fault = |field, message: String| found.push((field, Reason::new(message)));
        if self.interval < SHORTEST {
            fault("interval", format!("{:?} is too short: at least {SHORTEST:?}", self.interval));
        }
        if self.timeout > self.interval {
            fault("timeout", format!("{:?} is longer than the interval, {:?}", self.timeout, self.interval));
        }
        for (field, count) in [("rise", self.rise), ("fall", self.fall)] {
            if !COUNTS.contains(&count) {
                fault(field, format!("{count} is out of range: {} to {}", COUNTS.start(), COUNTS.end()));
            }
        }
        if self.port == Some(0) {
            fault("port", "0 is out of range: 1 to 65535".to_owned());
        }
        for status in self.expect_status.iter().filter(|status| !STATUSES.contains(status)) {
            let (low, high) = (STATUSES.start(), STATUSES.end());
            fault("expect_status", format!("{status} is out of range: {low} to {high}"));
        }
        let http = matches!(self.probe, Probe::Http | Probe::Https);
        let udp = self.probe == Probe::Udp;
        let fields = [
            ("port", self.port.is_some(), http || udp || self.probe == Probe::Tcp),
            ("path", self.path.is_some(), http),
            ("host", self.host.is_some(), http),
            ("verify", self.verify, self.probe == Probe::Https),
            ("expect_status", !self.expect_status.is_empty(), http),
            ("expect_body", self.expect_body.is_some(), http),
            ("send", self.send.is_some(), udp),
            ("expect", self.expect.is_some(), udp),
        ];
        for (field, _, _) in fields.iter().filter(|(_, set, fits)| *set && !fits) {
            fault(field, format!("means nothing for type = {:?}", self.probe.word()));
        }
        let texts = [
            ("path", &self.path),
            ("host", &self.host),
            ("expect_body", &self.expect_body),
            ("send", &self.send),
            ("expect", &self.expect),
        ];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            let token = matches!(field, "path" | "host");
            if text.len() > MAX_TEXT {
                fault(field, format!("has {} bytes; at most {MAX_TEXT} are possible", text.len()));
            } else if text.is_empty() {
                fault(field, "is empty".to_owned());
            } else if token && !text.bytes().all(|b| b.is_ascii_graphic()) {
                fault(field, format!("{text:?} has other characters than visible ASCII ones"));
            } else if field == "path" && !text.starts_with('/') {
                fault(field, format!("{text:?} does not begin with `/`"));
            }
        }
        found
    }
}

impl Probe {
    /// The word for it in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_needs_its_kind_only() {
        let spec: HealthSpec = serde_json::from_str(r#"{"type": "http", "interval": "5s"}"#).unwrap();
        assert_eq!(spec, HealthSpec { interval: Duration::from_secs(5), ..HealthSpec::new(Probe::Http) });
        assert_eq!(spec.faults(), []);
        assert!(serde_json::from_str::<HealthSpec>(r#"{"type": "http", "intervall": "5s"}"#).is_err());
        assert!(spec.accepts(204) && spec.accepts(301) && !spec.accepts(404));
        let teapot = HealthSpec { expect_status: vec![418], ..spec };
        assert!(teapot.accepts(418) && !teapot.accepts(200));
        let bytes = postcard::to_allocvec(&teapot).unwrap();
        assert_eq!(postcard::from_bytes::<HealthSpec>(&bytes).unwrap(), teapot);
    }

    #[test]
    fn what_is_wrong_is_said_by_field() {
        let fields =
            |spec: &HealthSpec| spec.faults().into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        let tcp = HealthSpec::new(Probe::Tcp);
        let text = |text: &str| Some(text.to_owned());
        for (spec, expected) in [
            (
                HealthSpec { interval: Duration::from_millis(99), timeout: SHORTEST, ..tcp.clone() },
                &["interval", "timeout"][..],
            ),
            (HealthSpec { rise: 0, fall: 101, ..tcp.clone() }, &["rise", "fall"]),
            (HealthSpec { port: Some(0), ..tcp.clone() }, &["port"]),
            (HealthSpec { path: text("/"), verify: true, ..tcp.clone() }, &["path", "verify"]),
            (HealthSpec { send: text("x"), ..HealthSpec::new(Probe::Http) }, &["send"]),
            (HealthSpec { port: Some(7), ..HealthSpec::new(Probe::Icmp) }, &["port"]),
            (
                HealthSpec { path: text("x"), host: text("a b"), ..HealthSpec::new(Probe::Http) },
                &["path", "host"],
            ),
            (
                HealthSpec { expect_status: vec![99, 200, 600], ..HealthSpec::new(Probe::Https) },
                &["expect_status", "expect_status"],
            ),
            (
                HealthSpec { send: text(""), expect: Some("x".repeat(1025)), ..HealthSpec::new(Probe::Udp) },
                &["send", "expect"],
            ),
        ] {
            assert_eq!(fields(&spec), expected, "{spec:?}");
        }
    }
}
