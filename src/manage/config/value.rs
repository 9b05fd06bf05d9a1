//! From TOML values to the field's types. Each reader says what it expected when it can't.

use super::error::Problem;
use crate::base::Addr;
use crate::cluster::namespace::prefix::{Prefix, host_len, network, not_a_host, not_on_link};
use crate::cluster::namespace::text::{
    DURATION_HINT, check_name, nearest, parse_address, parse_duration, parse_socket,
};
use crate::cluster::namespace::{HealthSpec, Name};
use serde::Deserialize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

fn wrong_type(expected: &str, found: &DeValue<'_>) -> Problem {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Problem::new(format!("expected {expected}, found {found}"))
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Problem> {
    match value {
        DeValue::String(s) if s.is_empty() => Err(Problem::new("is empty")),
        DeValue::String(s) if s.contains('\0') => Err(Problem::new("holds a NUL character")),
        DeValue::String(s) => Ok(s.clone().into_owned()),
        other => Err(wrong_type("a string", other)),
    }
}

/// A name that can stand in a path, a metric's label and a command line without quoting.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, Problem> {
    let name = text(value)?;
    check_name(&name)?;
    Ok(name)
}

/// The name of an object of the cluster.
pub(super) fn object_name(value: &DeValue<'_>) -> Result<Name, Problem> {
    Name::new(&text(value)?)
}

/// An address and a port.
pub(super) fn socket(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    parse_socket(&text(value)?)
}

/// A health check: a table, whose keys its type knows.
pub(super) fn health(value: &DeValue<'_>) -> Result<HealthSpec, Problem> {
    if value.as_table().is_none() {
        return Err(wrong_type("a table", value).hint("write { type = \"tcp\" }, for instance"));
    }
    HealthSpec::deserialize(json(value)).map_err(|error| Problem::new(error.to_string()))
}

/// The same value in the form that the admin API has it.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => serde_json::Value::String(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok().into(),
        DeValue::Float(digits) => digits.as_str().parse::<f64>().ok().into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(all) => all.iter().map(|one| json(one.get_ref())).collect(),
        DeValue::Table(table) => {
            let fields = table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            serde_json::Value::Object(fields.collect())
        }
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| wrong_type("true or false", value))
}

/// An integer of `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, Problem>
where
    T: TryFrom<i128> + Into<u64> + Copy,
{
    let (low, high): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
    move |value| {
        let DeValue::Integer(digits) = value else {
            return Err(wrong_type("an integer", value));
        };
        let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok();
        let fits = number.filter(|n| (i128::from(low)..=i128::from(high)).contains(n));
        fits.and_then(|n| T::try_from(n).ok())
            .ok_or_else(|| Problem::new(format!("{digits} is out of range: {low} to {high}")))
    }
}

/// A size that this machine can index with.
pub(super) fn size(range: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Result<usize, Problem> {
    let integer = integer(range);
    move |value| integer(value).map(|n| n as usize)
}

/// A number and its unit, above zero.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    match value {
        DeValue::String(text) => parse_duration(text),
        other => Err(wrong_type("a duration", other).hint(DURATION_HINT)),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Problem> {
    move |value| {
        let all = || words.iter().map(|(w, _)| format!("{w:?}")).collect::<Vec<_>>().join(", ");
        let DeValue::String(text) = value else {
            return Err(wrong_type(&format!("one of {}", all()), value));
        };
        words.iter().find(|(w, _)| w == text).map(|(_, t)| *t).ok_or_else(|| {
            let problem = Problem::new(format!("{text:?} is none of {}", all()));
            match nearest(words.iter().map(|(w, _)| *w), text) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem,
            }
        })
    }
}

/// The address of a host.
pub(super) fn host(value: &DeValue<'_>) -> Result<Addr, Problem> {
    let DeValue::String(text) = value else {
        return Err(wrong_type("an address", value));
    };
    let addr = parse_address(text)?;
    match not_a_host(addr) {
        Some(why) => Err(Problem::new(format!("{addr} {why}"))),
        None => Ok(addr),
    }
}

fn split_prefix(value: &DeValue<'_>, what: &str, example: &str) -> Result<Prefix, Problem> {
    let DeValue::String(text) = value else {
        return Err(wrong_type(what, value));
    };
    let Some((addr, len)) = text.split_once('/') else {
        return Err(
            Problem::new(format!("{text:?} has no prefix length")).hint(format!("write it as {example:?}"))
        );
    };
    let addr = parse_address(addr)?;
    let longest = host_len(addr);
    let plain = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
    match len.parse::<u8>() {
        Ok(n) if plain && n <= longest => Ok((addr, n)),
        _ => Err(Problem::new(format!("{len:?} is no prefix length of {addr}: 0 to {longest}"))),
    }
}

/// The address of an interface with the prefix that is on its link.
pub(super) fn interface_address(value: &DeValue<'_>) -> Result<Prefix, Problem> {
    let prefix = split_prefix(value, "an address with its prefix length", "10.0.0.1/24")?;
    if prefix.1 == 0 {
        return Err(Problem::new(format!("{}/0 puts every address on link", prefix.0)));
    }
    match not_a_host(prefix.0).or_else(|| not_on_link(prefix)) {
        Some(why) => Err(Problem::new(format!("{} {why}", prefix.0))),
        None => Ok(prefix),
    }
}

/// The destination of a route: no bit set behind the prefix.
pub(super) fn prefix(value: &DeValue<'_>) -> Result<Prefix, Problem> {
    let prefix = split_prefix(value, "a prefix", "10.0.0.0/8")?;
    let base = network(prefix);
    if base != prefix.0 {
        let problem = Problem::new(format!("{}/{} has bits set behind its prefix", prefix.0, prefix.1));
        return Err(problem.hint(format!("did you mean {base}/{}?", prefix.1)));
    }
    if base.ip().is_multicast() {
        return Err(Problem::new(format!("{base}/{} is a multicast prefix", prefix.1)));
    }
    Ok(prefix)
}

/// At least 128 bits in hexadecimal digits. No message repeats any of them.
pub(super) fn key(text: &str) -> Result<Vec<u8>, Problem> {
    const HINT: &str = "make a key with `openssl rand -hex 32`; all nodes have the same";
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits
        .ok_or_else(|| Problem::new("the key has other characters than hexadecimal digits").hint(HINT))?;
    if digits.len() < 32 {
        return Err(Problem::new(format!(
            "the key has {} hexadecimal digits; it needs at least 32",
            digits.len()
        ))
        .hint(HINT));
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Problem::new("the key has an odd number of hexadecimal digits").hint(HINT));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
