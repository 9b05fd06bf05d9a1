//! Changes, as commands make them: what they will do is said first, and what has moved behind.

use super::{Admin, How, Said, Terminal};
use crate::cluster::namespace::{Change, RequestId};
use crate::run::client::Request;
use crate::run::draw::random;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How often a write is asked for of which nobody knows what became of it.
const TRIES: usize = 3;
/// Buckets that move are waited for so long.
const REST: Duration = Duration::from_secs(10);
/// Between two looks at those.
const LOOK: Duration = Duration::from_millis(100);

/// A change as the API takes it.
pub(super) fn wanted(change: &Change) -> Result<Value, String> {
    let object = change.value.as_ref().map(|object| object.write(serde_json::value::Serializer));
    let object = object.transpose().map_err(|error| format!("{}: can't be written: {error}", change.key))?;
    Ok(match object {
        Some(object) => json!({ "key": change.key, "expected": change.expected, "object": object }),
        None => json!({ "key": change.key, "expected": change.expected, "delete": true }),
    })
}

/// Makes changes, after `agreed` if they would change anything; what happens is said.
pub(super) fn write(
    changes: &[Value],
    how: &How,
    terminal: &mut dyn Terminal,
    agreed: impl FnOnce(&mut dyn Terminal) -> Result<(), String>,
) -> Result<(), String> {
    write_with(false, changes, how, terminal, agreed)
}

/// Makes changes even if they remove nodes that connections go through.
pub(super) fn forced(changes: &[Value], how: &How, terminal: &mut dyn Terminal) -> Result<(), String> {
    write_with(true, changes, how, terminal, |_| Ok(()))
}

fn write_with(
    force: bool,
    changes: &[Value],
    how: &How,
    terminal: &mut dyn Terminal,
    agreed: impl FnOnce(&mut dyn Terminal) -> Result<(), String>,
) -> Result<(), String> {
    let post = Post { target: "/v1/writes".to_owned(), force, body: Value::from(changes).to_string() };
    post.make(how, terminal, agreed, |said| format!("written at index {}\n", said["index"]))
}

/// What changes something when it is posted, and tells what it would do with `dry_run=true`.
pub(super) struct Post {
    pub target: String,
    /// Even if connections end by it.
    pub force: bool,
    pub body: String,
}

impl Post {
    fn send(&self, admin: &Admin, trial: bool, headers: &[(&str, &str)]) -> Result<Said, String> {
        let Self { target, force, body } = self;
        let target = format!("{target}?dry_run={trial}{}", if *force { "&force=true" } else { "" });
        admin.ask(&Request { method: "POST", target: &target, headers, body })
    }

    /// Says what it would do, does it after `agreed`, and says what was `done` by the answer, and what has moved.
    pub fn make(
        &self,
        how: &How,
        terminal: &mut dyn Terminal,
        agreed: impl FnOnce(&mut dyn Terminal) -> Result<(), String>,
        done: impl FnOnce(&Value) -> String,
    ) -> Result<(), String> {
        let admin = Admin::of(&how.which)?;
        let mut moving = false;
        // Who repeats a request wants what became of it, not what it would do now.
        if how.request.is_none() {
            let forecast = self.send(&admin, true, &[])?.good()?.value;
            let nothing = forecast["differences"].as_array().is_none_or(Vec::is_empty);
            if nothing {
                terminal.say("nothing is different\n");
                return Ok(());
            }
            terminal.say(&told(&forecast));
            moving = forecast["buckets"].as_array().is_some_and(|groups| !groups.is_empty());
            if how.dry_run {
                terminal.say("nothing was changed\n");
                return Ok(());
            }
            agreed(terminal)?;
        }
        let before = if moving { Some(owned(&admin)?) } else { None };
        let drawn =
            || random().map(RequestId).ok_or("the system gives no random numbers: give an id with --request");
        let request = how.request.map_or_else(drawn, Ok)?.to_string();
        let headers = [("idempotency-key", request.as_str())];
        let mut said = self.send(&admin, false, &headers)?;
        for _ in 1..TRIES {
            if said.status == 504 {
                said = self.send(&admin, false, &headers)?;
            }
        }
        terminal.say(&done(&said.good()?.value));
        if let Some(before) = before {
            terminal.say(&moved(&admin, &before)?);
        }
        Ok(())
    }
}

/// A preview for people.
pub(super) fn told(forecast: &Value) -> String {
    let mut out = String::new();
    let list = |key| forecast[key].as_array().map_or(&[][..], Vec::as_slice);
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for difference in list("differences") {
        let _ = writeln!(out, "{}", line(difference));
    }
    if forecast["virtual_servers"].as_u64().is_some_and(|count| count > 0) {
        let _ = writeln!(out, "virtual servers changed: {}", forecast["virtual_servers"]);
    }
    for group in list("buckets") {
        let _ = writeln!(
            out,
            "buckets that will move in group {}: {} of {}",
            word(&group["group"]),
            group["moving"],
            group["of"]
        );
    }
    for server in list("migrations") {
        let _ = writeln!(
            out,
            "buckets of virtual server {} that will move from group {} to {}: {} of {}",
            word(&server["virtual_server"]),
            word(&server["from"]),
            word(&server["to"]),
            server["moving"],
            server["of"]
        );
    }
    if forecast["real_servers_ending"].as_u64().is_some_and(|count| count > 0) {
        let _ = writeln!(
            out,
            "real servers with which sessions end: {}; such sessions on this node: {}",
            forecast["real_servers_ending"], forecast["sessions_here_ending"]
        );
    }
    if !list("buckets").is_empty() {
        let _ = writeln!(
            out,
            "sessions of this node in buckets that will move: about {} of {}",
            forecast["sessions_here_moving"], forecast["sessions_here"]
        );
    }
    out
}

/// A difference in a line.
fn line(difference: &Value) -> String {
    let deed = difference["deed"].as_str().unwrap_or_default();
    let sign = match deed {
        "add" => '+',
        "remove" => '-',
        _ => '~',
    };
    let mut line = format!("{sign} {}", difference["key"].as_str().unwrap_or("?"));
    for (i, field) in difference["fields"].as_array().into_iter().flatten().enumerate() {
        let show = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        let _ = write!(line, "{} {} ", if i == 0 { ":" } else { "," }, field["name"].as_str().unwrap_or("?"));
        let _ = match deed {
            "add" => write!(line, "{}", show(&field["new"])),
            _ => write!(line, "{} → {}", show(&field["old"]), show(&field["new"])),
        };
    }
    line
}

/// How many buckets of each group each node owns.
fn owned(admin: &Admin) -> Result<Vec<(String, String, u64)>, String> {
    Ok(counts(&admin.get("/v1/cluster")?.value))
}

fn counts(status: &Value) -> Vec<(String, String, u64)> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let each = nodes.flat_map(|node| {
        let name = node["name"].as_str().unwrap_or_default();
        let groups = node["buckets"].as_object().into_iter().flatten();
        groups.map(move |(group, count)| (group.clone(), name.to_owned(), count.as_u64().unwrap_or(0)))
    });
    each.collect()
}

/// Waits until nothing moves, and tells what has.
fn moved(admin: &Admin, before: &[(String, String, u64)]) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        let status = admin.get("/v1/cluster")?.value;
        let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
        let left: u64 = groups.iter().filter_map(|group| group["moving"].as_u64()).sum();
        let in_force = status["version"] == status["in_force"];
        if !(left == 0 && in_force) && begin.elapsed() < REST {
            std::thread::sleep(LOOK);
            continue;
        }
        let gained = counts(&status).into_iter().map(|(group, node, now)| {
            let had = before.iter().find(|(g, n, _)| *g == group && *n == node).map_or(0, |(.., had)| *had);
            now.saturating_sub(had)
        });
        let gained: u64 = gained.sum();
        let took = begin.elapsed().as_secs_f64();
        return Ok(match (left, in_force) {
            (0, true) if gained == 0 => {
                "no bucket has moved yet: a node gets its share once it serves\n".to_owned()
            }
            (0, true) => format!("buckets that have moved: {gained}; at rest after {took:.1} s\n"),
            _ => format!(
                "buckets that have moved: {gained}; {left} still move after {took:.0} s: see `steerage status`\n"
            ),
        });
    }
}
