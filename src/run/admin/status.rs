//! `steerage status`: the cluster on one screen.
//!
//! What is shown comes from another process, perhaps of another version: what is missing is shown as `-`.

use crate::run::show::{Set, Table};
use serde_json::Value;
use std::fmt::Write;

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `all 1365, edge 2048`
fn by_group(counts: &Value) -> String {
    let each: Vec<_> = counts.as_object().into_iter().flatten().map(|(g, n)| format!("{g} {n}")).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

/// The cluster's status (`GET /v1/cluster`).
pub(super) fn screen(status: &Value) -> String {
    let quorum = if status["quorum"] == true { "quorum" } else { "NO QUORUM: nothing can be changed" };
    let mut out = format!(
        "{quorum}, leader {}, voters {}\nindex {}, version {}, in force {}; wire version {}; told by {}\n",
        text(&status["leader"]),
        list(&status["voters"]).iter().map(text).collect::<Vec<_>>().join(" "),
        text(&status["index"]),
        text(&status["version"]),
        text(&status["in_force"]),
        text(&status["wire"]),
        text(&status["node"]),
    );
    if let Some(why) = status["out"].as_str() {
        let _ = writeln!(out, "node {} IS OUT: {why}", text(&status["node"]));
    }
    use Set::{Left, Right};
    let columns = [
        ("node", Left),
        ("phase", Left),
        ("ready", Left),
        ("software", Left),
        ("life", Right),
        ("heard ms ago", Right),
        ("prepared", Right),
        ("adopted", Right),
        ("weight", Right),
        ("owns", Left),
        ("hands over", Left),
    ];
    let mut nodes = Table::new("Nodes (buckets by group)", &columns);
    for node in list(&status["nodes"]) {
        nodes.rows.push(vec![
            text(&node["name"]),
            match node["drained"] == true && node["phase"] != "draining" {
                true => format!("{}, drained", text(&node["phase"])),
                false => text(&node["phase"]),
            },
            if node["ready"] == true { "yes" } else { "no" }.to_owned(),
            text(&node["software"]),
            text(&node["life"]),
            text(&node["heard_ms_ago"]),
            text(&node["prepared"]),
            text(&node["adopted"]),
            text(&node["weight"]),
            by_group(&node["buckets"]),
            by_group(&node["leaving"]),
        ]);
    }
    nodes.write(&mut out);
    for node in list(&status["nodes"]).iter().filter(|node| node["reason"].is_string()) {
        let [name, phase, why] = ["name", "phase", "reason"].map(|field| text(&node[field]));
        let _ = writeln!(out, "  {name} is {phase}: {why}");
    }
    let columns =
        [("group", Left), ("to move", Right), ("handing over", Right), ("unowned", Right), ("members", Left)];
    let mut groups = Table::new("Groups (buckets)", &columns);
    for group in list(&status["groups"]) {
        groups.rows.push(vec![
            text(&group["name"]),
            text(&group["moving"]),
            text(&group["handing_over"]),
            text(&group["unowned"]),
            list(&group["members"]).iter().map(text).collect::<Vec<_>>().join(" "),
        ]);
    }
    groups.write(&mut out);
    let migrating = list(&status["migrating"]);
    for server in migrating.iter().take(MIGRATING) {
        let [name, from] = ["virtual_server", "from"].map(|field| text(&server[field]));
        let nodes = list(&server["nodes"]).iter().map(text).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "  {name} still has sessions in group {from}, where it was before: at {nodes}");
    }
    if migrating.len() > MIGRATING {
        let _ = writeln!(out, "  and {} more: `steerage status --json` has all", migrating.len() - MIGRATING);
    }
    let mut vips = Table::new("VIPs", &[("address", Left), ("answered by", Left)]);
    let all = list(&status["vips"]);
    for vip in all.iter().take(VIPS) {
        vips.rows.push(vec![text(&vip["address"]), text(&vip["owner"])]);
    }
    vips.write(&mut out);
    if all.len() > VIPS {
        let _ = writeln!(out, "  and {} more: `steerage status --json` has all", all.len() - VIPS);
    }
    let health = &status["health"];
    let [up, rising, down] = ["up", "rising", "down"].map(|word| text(&health[word]));
    let _ = writeln!(out, "\nReal servers that are checked: {up} up, {rising} rising, {down} down");
    let which = list(&health["which"]);
    for real in which.iter().take(DOWN) {
        let [server, name, why] = ["virtual_server", "real_server", "reason"].map(|field| text(&real[field]));
        let _ = writeln!(out, "  {server}/{name}: {why}");
    }
    if which.len() > DOWN {
        let _ = writeln!(out, "  and more: `steerage status --json` tells of {}", which.len());
    }
    out
}

/// Virtual servers between groups that one screen has room for.
const MIGRATING: usize = 5;
/// VIPs that one screen has room for.
const VIPS: usize = 10;
/// Real servers that are down that one screen has room for.
const DOWN: usize = 5;
