//! `steerage get`, `set`, `delete` and `history`.

use super::write::write;
use super::{Admin, How, Said, Terminal};
use crate::cluster::namespace::{Key, Kind};
use crate::run::client::{self, Request};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;
use time::OffsetDateTime;

pub(super) fn key(text: &str) -> Result<Key, String> {
    text.parse().map_err(|why: crate::cluster::namespace::text::Reason| why.to_string())
}

/// The object, if there is one.
pub(super) fn object(admin: &Admin, key: &Key) -> Result<Option<Said>, String> {
    let target = format!("/v1/objects/{key}");
    let said = admin.ask(&Request { method: "GET", target: &target, ..Request::default() })?;
    if said.status == 404 { Ok(None) } else { said.good().map(Some) }
}

pub(super) fn get(admin: &Admin, what: Option<&str>, json: bool) -> Result<String, String> {
    let kind = what.filter(|word| *word != "cluster" && Kind::ALL.iter().any(|kind| kind.word() == *word));
    if let (Some(what), None) = (what, kind) {
        let key = key(what)?;
        let said = object(admin, &key)?.ok_or(format!("{key}: does not exist"))?;
        let fields = &said.value["object"];
        return Ok(if json { format!("{fields:#}\n") } else { one(&said.value) });
    }
    let query = |after: Option<&str>| {
        let words = [("kind", kind), ("after", after)];
        let words = words.into_iter().filter_map(|(name, word)| Some((name, word?)));
        let words: Vec<_> = words.map(|(name, word)| format!("{name}={}", client::escaped(word))).collect();
        format!("/v1/objects?{}", words.join("&"))
    };
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut page = admin.get(&query(after.as_deref()))?.value;
        all.extend(page["objects"].as_array_mut().map(std::mem::take).unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if json {
        return Ok(format!("{:#}\n", Value::from(all)));
    }
    let lines = all.iter().map(|item| {
        let fields: Vec<_> = flat(&item["object"]).into_iter().map(|(n, v)| format!("{n} {v}")).collect();
        format!("{}: {}\n", word(&item["key"]), fields.join(", "))
    });
    Ok(lines.collect())
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// An object over several lines.
fn one(item: &Value) -> String {
    let mut out = format!("{} (version {}, id {})\n", word(&item["key"]), item["version"], item["id"]);
    for (name, value) in flat(&item["object"]) {
        let _ = writeln!(out, "  {name} = {value}");
    }
    out
}

/// Fields, with a dot between a table and what is in it.
fn flat(fields: &Value) -> Vec<(String, String)> {
    let Value::Object(fields) = fields else { return Vec::new() };
    let each = fields.iter().flat_map(|(name, value)| match value {
        Value::Object(_) => {
            flat(value).into_iter().map(|(inner, text)| (format!("{name}.{inner}"), text)).collect()
        }
        value => vec![(name.clone(), value.to_string())],
    });
    each.collect()
}

pub(super) fn set(
    text: &str,
    (fields, json): (&[String], Option<&Path>),
    expect: Option<u64>,
    how: &How,
    terminal: &mut dyn Terminal,
) -> Result<(), String> {
    let key = key(text)?;
    let (object, expected) = match json {
        Some(file) => (whole(&key, file)?, expect),
        None => {
            let now = object(&Admin::of(&how.which)?, &key)?;
            let version = now.as_ref().map_or(Some(0), |said| said.value["version"].as_u64());
            let mut object = now.map_or(json!({}), |mut said| said.value["object"].take());
            for field in fields {
                assign(&key, &mut object, field)?;
            }
            (object, expect.or(version))
        }
    };
    write(&[json!({ "key": key, "expected": expected, "object": object })], how, terminal, |_| Ok(()))
}

/// An object's fields from a file.
fn whole(key: &Key, file: &Path) -> Result<Value, String> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| format!("{}: can't be read: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{key}: {} is no JSON: {error}", file.display()))
}

/// Sets what `NAME=VALUE` says.
fn assign(key: &Key, object: &mut Value, field: &str) -> Result<(), String> {
    let (name, value) = field
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or(format!("{key}: {field:?} is no field and value: write NAME=VALUE"))?;
    let (path, last) = name.rsplit_once('.').map_or((None, name), |(path, last)| (Some(path), last));
    let mut table = object;
    for part in path.into_iter().flat_map(|path| path.split('.')) {
        table = &mut table[part];
        if table.is_null() {
            *table = Value::Object(Map::new());
        }
        if !table.is_object() {
            return Err(format!("{key}: {part} is no table, so there is no {name} in it"));
        }
    }
    let Value::Object(table) = table else { return Err(format!("{key}: it has no fields")) };
    if value.is_empty() {
        table.remove(last);
        return Ok(());
    }
    let read = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    table.insert(last.to_owned(), read);
    Ok(())
}

pub(super) fn delete(
    text: &str,
    expect: Option<u64>,
    how: &How,
    terminal: &mut dyn Terminal,
) -> Result<(), String> {
    let key = key(text)?;
    write(&[json!({ "key": key, "expected": expect, "delete": true })], how, terminal, |_| Ok(()))
}

pub(super) fn history(admin: &Admin, of: Option<&str>, json: bool) -> Result<String, String> {
    let of = of.map(key).transpose()?;
    let query = of.map(|key| format!("?key={}", client::escaped(&key.to_string()))).unwrap_or_default();
    let said = admin.get(&format!("/v1/history{query}"))?;
    if json {
        return Ok(said.body + "\n");
    }
    let records = said.value["records"].as_array().into_iter().flatten().rev();
    let lines = records.map(|record| {
        // What a cluster began with has no time: each node proposes the same.
        let at = record["at"].as_u64().filter(|at| *at > 0).map_or("-".to_owned(), moment);
        let index = record["index"].to_string();
        format!("{index:>8}  {at:<20}  {:<12}  {}\n", word(&record["who"]), word(&record["summary"]))
    });
    Ok(lines.collect())
}

/// Milliseconds since 1970 as date and time of day, UTC.
fn moment(milliseconds: u64) -> String {
    match OffsetDateTime::from_unix_timestamp((milliseconds / 1000) as i64) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(fields: &[&str]) -> Result<Value, String> {
        let mut object = json!({ "port": 80, "health": { "type": "tcp" } });
        for field in fields {
            assign(&Key::Cluster, &mut object, field)?;
        }
        Ok(object)
    }

    #[test]
    fn fields_are_set_and_unset() {
        let object = assigned(&["port=81", "group=edge", "health.path=/x", "members=[\"a\"]", "name=\"7\""]);
        let wanted = json!({ "port": 81, "group": "edge", "health": { "type": "tcp", "path": "/x" },
            "members": ["a"], "name": "7" });
        assert_eq!(object, Ok(wanted));
        assert_eq!(assigned(&["port=", "health.type="]), Ok(json!({ "health": {} })));
        assert_eq!(assigned(&["a.b.c=1"]).unwrap()["a"]["b"]["c"], 1);
        for wrong in ["port", "=1", "port.x=1"] {
            assert!(assigned(&[wrong]).unwrap_err().starts_with("cluster: "), "{wrong}");
        }
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(moment(1_767_225_600_999), "2026-01-01T00:00:00Z");
    }
}
