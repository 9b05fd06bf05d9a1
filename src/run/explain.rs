//! An explanation as text for people: a line a fact, and below each fact why it is so.
//!
//! What is shown comes from another process, perhaps of another version: a part that is missing is left out.

use serde_json::Value;
use std::fmt::Write;

/// Column in which the facts begin.
const INDENT: usize = 16;

/// The lines of an explanation (`GET /v1/explain`).
pub fn lines(said: &Value) -> String {
    let mut out = String::new();
    let tuple = &said["tuple"];
    let _ = writeln!(
        out,
        "{} {} -> {}",
        text(tuple, "protocol"),
        text(tuple, "source"),
        text(tuple, "destination")
    );
    let source = if said["live"] == true {
        format!("by node {} as it runs, view {}", text(said, "told_by"), text(said, "view"))
    } else {
        format!("by the files of node {}, for a fresh flow", text(said, "told_by"))
    };
    let _ = writeln!(out, "{source}\n");

    fact(&mut out, "received by", &said["receiver"], receiver);
    fact(&mut out, "virtual server", &said["virtual_server"], virtual_server);
    if let Some(hash) = said["hash"].as_str() {
        line(&mut out, "hash", hash);
    }
    fact(&mut out, "bucket", &said["bucket"], |bucket| text(bucket, "number"));
    fact(&mut out, "owner", &said["owner"], owner);
    let steered = &said["owner"]["steered"];
    fact(&mut out, "steered", steered, |s| {
        format!("UDP {} -> {}", text(s, "source"), text(s, "destination"))
    });
    fact(&mut out, "  by", &steered["next_hop"], next_hop);
    fact(&mut out, "session", &said["session"], session);
    fact(&mut out, "maglev slot", &said["real_server"], |r| {
        format!("{} of {}", text(r, "slot"), text(r, "slots"))
    });
    fact(&mut out, "real server", &said["real_server"], real_server);
    fact(&mut out, "rewrite", &said["rewrite"], rewrite);
    fact(&mut out, "next hop", &said["next_hop"], next_hop);
    fact(&mut out, "DROPPED", &said["dropped"], |dropped| text(dropped, "reason"));
    for note in said["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line(&mut out, "note", note);
    }
    out
}

/// A fact, if there is one, and why.
fn fact(out: &mut String, name: &str, of: &Value, show: impl Fn(&Value) -> String) {
    if of.is_null() {
        return;
    }
    line(out, name, &show(of));
    // The slot says the same of the server that it names.
    if let Some(why) = of["why"].as_str().filter(|why| !why.is_empty() && name != "maglev slot") {
        let _ = writeln!(out, "{:INDENT$}  because: {why}", "");
    }
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<INDENT$}{text}");
}

/// A field as text: strings as they are, `-` for what is missing.
fn text(of: &Value, key: &str) -> String {
    match &of[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn receiver(of: &Value) -> String {
    let each = of["workers"].as_array().into_iter().flatten().map(|worker| {
        let by = match worker["by"].as_str() {
            Some("session") => "the flow's session",
            Some("steering_session") => "a steering session",
            _ => "hash",
        };
        let to = match worker["node"].as_str() {
            Some(node) => format!("{node} worker {}", text(worker, "worker")),
            None => "dropped".to_owned(),
        };
        format!("\n{:INDENT$}  worker {}: {to}, by {by}", "", text(worker, "id"))
    });
    text(of, "node") + &each.collect::<String>()
}

fn virtual_server(of: &Value) -> String {
    let ingress = if of["ingress"] == "local" { ", ingress local" } else { "" };
    format!(
        "{} at {}, {}, group {}{ingress}",
        text(of, "name"),
        text(of, "address"),
        text(of, "forward"),
        text(of, "group")
    )
}

fn owner(of: &Value) -> String {
    let worker = of["worker"].as_u64().map_or(String::new(), |worker| format!(" worker {worker}"));
    let core = of["core"].as_u64().map_or(String::new(), |core| format!(" (core {core})"));
    text(of, "node") + &worker + &core
}

fn session(of: &Value) -> String {
    let times =
        ["idle_s", "lifetime_s"].map(|key| of[key].as_f64().map_or("-".to_owned(), |s| format!("{s:.0}")));
    format!(
        "{}, from {} to {}, this is its {} direction; idle {} s of {} s",
        text(of, "state"),
        text(of, "client"),
        text(of, "virtual_server"),
        text(of, "direction"),
        times[0],
        times[1]
    )
}

fn real_server(of: &Value) -> String {
    format!(
        "{} at {}, weight {}, {} slots of {}",
        text(of, "name"),
        text(of, "address"),
        text(of, "weight"),
        text(of, "own_slots"),
        text(of, "slots")
    )
}

fn rewrite(of: &Value) -> String {
    let outer = |key: &str| match of[key].as_str() {
        Some(address) => address.to_owned(),
        None => "(the owner's address)".to_owned(),
    };
    match of["kind"].as_str().unwrap_or_default() {
        "nat" => format!("NAT to {} -> {}", text(of, "source"), text(of, "destination")),
        "nat-new" => {
            let words = |key: &str| -> Vec<String> {
                of[key].as_array().into_iter().flatten().map(|v| v.to_string().replace('"', "")).collect()
            };
            let ports = words("ports");
            let ends = [ports.first(), ports.last()].map(|port| port.map_or("-", String::as_str));
            format!(
                "NAT to (one of {}, port {} to {} in steps of 4096) -> {}",
                words("sources").join(", "),
                ends[0],
                ends[1],
                text(of, "destination")
            )
        }
        "dsr-l2" => "the Ethernet addresses only".to_owned(),
        "ipip" => format!("in IP: {} -> {}", outer("outer_source"), outer("outer_destination")),
        "gue" => format!(
            "in IP and UDP: {} port {} -> {} port {}",
            outer("outer_source"),
            text(of, "outer_source_port"),
            outer("outer_destination"),
            text(of, "outer_destination_port")
        ),
        other => other.to_owned(),
    }
}

fn next_hop(of: &Value) -> String {
    let mac = of["mac"].as_str().map_or(String::new(), |mac| format!(" ({mac})"));
    let vlan = of["vlan"].as_u64().map_or(String::new(), |id| format!(", VLAN {id}"));
    format!("{}{mac} on {}, port {}{vlan}", text(of, "address"), text(of, "interface"), text(of, "port"))
}
