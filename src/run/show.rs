//! Statistics as tables for people.
//!
//! What is shown comes from another process, perhaps of another version: a number that is missing is shown as `-`.

use serde_json::Value;
use std::fmt::Write;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Left,
    Right,
}
use Set::{Left, Right};

/// A table under a title.
pub(super) struct Table {
    title: &'static str,
    columns: Vec<(&'static str, Set)>,
    /// A cell for each column.
    pub(super) rows: Vec<Vec<String>>,
    /// What stands below it.
    note: Option<String>,
}

impl Table {
    pub(super) fn new(title: &'static str, columns: &[(&'static str, Set)]) -> Self {
        Self { title, columns: columns.to_vec(), rows: Vec::new(), note: None }
    }

    /// Appends the table; one without rows and note is left out.
    pub(super) fn write(&self, out: &mut String) {
        if self.rows.is_empty() && self.note.is_none() {
            return;
        }
        let _ = writeln!(out, "\n{}", self.title);
        if !self.rows.is_empty() {
            self.write_rows(out);
        }
        if let Some(note) = &self.note {
            let _ = writeln!(out, "  ({note})");
        }
    }

    fn write_rows(&self, out: &mut String) {
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let widths: Vec<usize> = (0..heads.len())
            .map(|i| self.rows.iter().chain([&heads]).map(|row| row[i].chars().count()).max().unwrap_or(0))
            .collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, set)) in row.iter().zip(&widths).zip(&self.columns) {
                let _ = match set {
                    Left => write!(line, "  {cell:<width$}"),
                    Right => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
}

/// The whole of a node's statistics (`GET /v1/stats`). Without `all`, servers without traffic are only counted.
pub fn tables(stats: &Value, all: bool) -> String {
    let mut out = head(stats);
    let servers = servers(stats, all);
    for table in [workers(stats), drops(stats), ports(stats), servers, peers(stats), neighbours(stats)] {
        table.write(&mut out);
    }
    out
}

fn head(stats: &Value) -> String {
    let (view, adopted) = (count(stats, "view"), count(stats, "view_adopted"));
    let ready = if stats["ready"] == true { "ready" } else { "NOT READY" };
    let up = stats["uptime_s"].as_f64().map_or("-".to_owned(), duration);
    let behind = if view == adopted { String::new() } else { format!(" (a worker still uses {adopted})") };
    format!("Node {}: {ready}, up {up}, view {view}{behind}\n", text(stats, "node"))
}

fn workers(stats: &Value) -> Table {
    const COUNTS: [(&str, &str); 11] = [
        ("received", "rx"),
        ("sent", "tx"),
        ("steered out", "steered_out"),
        ("steered in", "steered_in"),
        ("ring out", "ring_out"),
        ("ring in", "ring_in"),
        ("hashed", "hashed"),
        ("cached", "steering_hits"),
        ("sessions", "sessions"),
        ("steering", "steering_sessions"),
        ("evicted", "sessions_evicted"),
    ];
    let mut columns = vec![("worker", Left)];
    columns.extend(COUNTS.map(|(head, _)| (head, Right)));
    columns.extend([("dropped", Right), ("busy", Right)]);
    let mut table = Table::new("Workers (packets)", &columns);
    let row = |name: String, of: &Value, dropped: Option<u64>| {
        let mut row = vec![name];
        row.extend(COUNTS.map(|(_, key)| count(of, key)));
        row.push(dropped.map_or("-".to_owned(), thousands));
        row.push(share(of["busy_turns"].as_u64(), of["turns"].as_u64()));
        row
    };
    let each = list(stats, "workers");
    for worker in each {
        let dropped = worker["drops"].as_object().map(|d| d.values().filter_map(Value::as_u64).sum());
        table.rows.push(row(count(worker, "id"), worker, dropped));
    }
    if each.len() > 1 {
        let totals = &stats["totals"];
        table.rows.push(row("all".to_owned(), totals, totals["drops_total"].as_u64()));
    }
    table
}

fn drops(stats: &Value) -> Table {
    let mut table = Table::new("Dropped packets", &[("reason", Left), ("packets", Right), ("share", Right)]);
    let totals = &stats["totals"];
    let mut reasons: Vec<(&str, u64)> = totals["drops"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(reason, n)| Some((reason.as_str(), n.as_u64()?)))
        .collect();
    reasons.sort_by_key(|(reason, n)| (std::cmp::Reverse(*n), *reason));
    for (reason, n) in reasons {
        let share = share(Some(n), totals["drops_total"].as_u64());
        table.rows.push(vec![reason.replace('_', " "), thousands(n), share]);
    }
    table
}

fn ports(stats: &Value) -> Table {
    let columns = [
        ("port", Left),
        ("link", Left),
        ("MAC", Left),
        ("MTU", Right),
        ("received", Right),
        ("", Right),
        ("missed", Right),
        ("errors", Right),
        ("no buffer", Right),
        ("sent", Right),
        ("", Right),
        ("errors", Right),
    ];
    let mut table = Table::new("Ports (frames)", &columns);
    for port in list(stats, "ports") {
        let link = match (port["link_up"].as_bool(), port["link_mbps"].as_u64()) {
            (Some(true), Some(mbps)) if mbps > 0 => bit_rate(mbps),
            (Some(true), _) => "up".to_owned(),
            (Some(false), _) => "DOWN".to_owned(),
            (None, _) => "-".to_owned(),
        };
        table.rows.push(vec![
            text(port, "name"),
            link,
            text(port, "mac"),
            port["mtu"].as_u64().map_or("-".to_owned(), |mtu| mtu.to_string()),
            count(port, "rx_packets"),
            size(port, "rx_bytes"),
            count(port, "rx_missed"),
            count(port, "rx_errors"),
            count(port, "rx_no_buffer"),
            count(port, "tx_packets"),
            size(port, "tx_bytes"),
            count(port, "tx_errors"),
        ]);
    }
    table
}

fn servers(stats: &Value, all: bool) -> Table {
    let columns = [
        ("name", Left),
        ("address", Left),
        ("forward", Left),
        ("group", Left),
        ("connections", Right),
        ("sessions", Right),
        ("packets in", Right),
        ("", Right),
        ("packets out", Right),
        ("", Right),
    ];
    let mut table = Table::new("Virtual servers and their real servers", &columns);
    let traffic = |of: &Value| {
        [
            count(of, "connections"),
            count(of, "sessions"),
            count(of, "packets_in"),
            size(of, "bytes_in"),
            count(of, "packets_out"),
            size(of, "bytes_out"),
        ]
    };
    let (mut hidden, mut hidden_real) = (0, 0);
    for server in list(stats, "virtual_servers") {
        let (real, quiet): (Vec<&Value>, Vec<&Value>) =
            list(server, "real_servers").iter().partition(|real| all || !is_quiet(real));
        hidden_real += quiet.len() as u64;
        if !all && real.is_empty() && is_quiet(server) {
            hidden += 1;
            continue;
        }
        let place = format!("{}/{}", endpoint(server), text(server, "protocol"));
        let local = if server["ingress"] == "local" { ", local" } else { "" };
        let away = if server["member"] == false { " (not here)" } else { "" };
        let mut row = vec![
            text(server, "name"),
            place,
            format!("{}{local}", text(server, "forward")),
            format!("{}{away}", text(server, "group")),
        ];
        row.extend(traffic(server));
        table.rows.push(row);
        for real in real {
            let mut row = vec![
                format!("  {}", text(real, "name")),
                format!("  {}", endpoint(real)),
                String::new(),
                String::new(),
            ];
            row.extend(traffic(real));
            table.rows.push(row);
        }
    }
    if hidden + hidden_real > 0 {
        table.note = Some(format!(
            "{} virtual and {} real servers without traffic are not shown: see them with --all",
            thousands(hidden),
            thousands(hidden_real)
        ));
    }
    table
}

/// Whether a virtual or real server says that nothing went through it, and has no sessions.
fn is_quiet(of: &Value) -> bool {
    ["connections", "sessions", "packets_in", "bytes_in", "packets_out", "bytes_out"]
        .iter()
        .all(|key| of[*key] == 0)
}

fn peers(stats: &Value) -> Table {
    let columns = [
        ("node", Left),
        ("state", Left),
        ("heard", Right),
        ("view", Right),
        ("buckets", Right),
        ("life", Right),
    ];
    let mut table = Table::new("Other nodes", &columns);
    for peer in list(stats, "peers") {
        let state = match (peer["up"] == true, peer["ready"] == true) {
            (true, true) => "up",
            (true, false) => "up, not ready",
            (false, _) => "DOWN",
        };
        // Of one that was never heard, nothing is known.
        let differs = peer["same_configuration"] == false && peer["heard_ms_ago"].is_u64();
        let other = if differs { ", other configuration!" } else { "" };
        table.rows.push(vec![
            text(peer, "name"),
            format!("{state}{other}"),
            peer["heard_ms_ago"]
                .as_u64()
                .map_or("never".to_owned(), |ms| format!("{} ms ago", thousands(ms))),
            count(peer, "view"),
            count(peer, "buckets"),
            peer["incarnation"].as_u64().map_or("-".to_owned(), |n| n.to_string()),
        ]);
    }
    table
}

fn neighbours(stats: &Value) -> Table {
    let mut table = Table::new("Neighbours", &[("interface", Left), ("address", Left), ("MAC", Left)]);
    for neighbour in list(stats, "neighbours") {
        let mac = neighbour["mac"].as_str().unwrap_or("NOT RESOLVED").to_owned();
        table.rows.push(vec![text(neighbour, "interface"), text(neighbour, "address"), mac]);
    }
    table
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or("-").to_owned()
}

fn count(of: &Value, key: &str) -> String {
    of[key].as_u64().map_or("-".to_owned(), thousands)
}

fn size(of: &Value, key: &str) -> String {
    of[key].as_u64().map_or("-".to_owned(), bytes)
}

/// `10.0.0.1:80`, `[fd00::1]:80`.
fn endpoint(of: &Value) -> String {
    let (address, port) = (text(of, "address"), of["port"].as_u64().unwrap_or(0));
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.23 GB`: three digits, decimal units.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    // What would be rounded to 1000 has the next unit already.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

fn bit_rate(mbps: u64) -> String {
    if mbps.is_multiple_of(1000) { format!("{} Gbit/s", mbps / 1000) } else { format!("{mbps} Mbit/s") }
}

/// `12.5 %`; `-` without a whole.
fn share(part: Option<u64>, whole: Option<u64>) -> String {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0 => format!("{:.1} %", part as f64 / whole as f64 * 100.0),
        _ => "-".to_owned(),
    }
}

/// `3 d 04:05:06`.
fn duration(seconds: f64) -> String {
    let all = seconds as u64;
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3600 % 24, all / 60 % 60, all % 60);
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if days > 0 { format!("{days} d {clock}") } else { clock }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
