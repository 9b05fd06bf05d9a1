//! A replica in a process of its own, commanded by lines on its standard input. Its state machine is the list of all entries;
//! it tells on standard output what its log tells it.

use crate::faulty::{Faulty, Honesty};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use steerage::base::{Incarnation, NodeId};
use steerage::cluster::fences::Fences;
use steerage::cluster::log::{Log, Outcome, Output, Replica, ReplicaId, Ticket};
use steerage::run::log::{Config, Running, Timing, tls};

/// Set in a child: where its files are, and what else it needs.
pub const CHILD: &str = "STEERAGE_LOG_TEST_REPLICA";

/// What a child is told about itself.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Orders {
    pub id: u16,
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub certificates: PathBuf,
    pub first: Vec<Replica>,
    pub snapshot_every: usize,
    pub honesty: Option<Honesty>,
    /// Bytes that a disk of such honesty has room for.
    pub room: Option<usize>,
}

pub fn name(id: u16) -> String {
    format!("n{id}")
}

pub fn timing() -> Timing {
    Timing::LAB
}

pub fn config(orders: &Orders) -> Config {
    let name = name(orders.id);
    let file = |end: &str| orders.certificates.join(end);
    Config {
        id: ReplicaId(orders.id),
        listen: orders.listen,
        data: orders.data.clone(),
        tls: tls::Files {
            ca: file("ca.crt"),
            certificate: file(&format!("{name}.crt")),
            key: file(&format!("{name}.key")),
        },
        name,
        first: orders.first.clone(),
        timing: timing(),
        snapshot_every: orders.snapshot_every,
    }
}

/// In a child: runs the replica and doesn't come back. Elsewhere: nothing.
pub fn run_if_child() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let started = match orders.honesty {
        Some(honesty) => {
            std::fs::create_dir_all(&orders.data).unwrap();
            let backend = Faulty::open(&orders.data.join("log"), honesty, orders.room).unwrap();
            Running::start_backend(config(&orders), backend)
        }
        None => Running::start(config(&orders)),
    };
    match started {
        Ok(log) => obey(log),
        Err(error) => say(&format!("F {error}")),
    }
    std::process::exit(0);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody left to serve.
    if writeln!(out, "@{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

fn obey(mut log: Running) {
    let (line_in, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line_in.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut state: Vec<String> = Vec::new();
    let mut tags = std::collections::BTreeMap::new();
    let mut fenced = Fences::NONE;
    loop {
        loop {
            match lines.recv_timeout(Duration::from_millis(1)) {
                Ok(line) => command(&mut log, &line, &mut tags),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        while let Some(output) = log.take() {
            tell(&mut log, output, &mut state, &mut tags);
        }
        let now = log.fenced();
        if now != fenced {
            fenced = now;
            let each: Vec<String> = fenced.iter().map(|(node, life)| format!("{node}:{life}")).collect();
            say(&format!("N {}", each.join(",")));
        }
    }
}

fn command(log: &mut Running, line: &str, tags: &mut std::collections::BTreeMap<Ticket, String>) {
    if line == "resign" {
        return log.resign();
    }
    let (verb, rest) = line.split_once(' ').unwrap();
    if verb == "renew" {
        let (token, life) = rest.split_once(' ').unwrap();
        return log.renew(token.parse().unwrap(), Incarnation(life.parse().unwrap()));
    }
    if verb == "restore" {
        return log.restore(ReplicaId(rest.parse().unwrap()));
    }
    let ticket = match verb {
        "propose" => {
            let (tag, padding) = rest.split_once(' ').unwrap_or((rest, "0"));
            let mut bytes = tag.as_bytes().to_vec();
            bytes.resize(bytes.len() + padding.parse::<usize>().unwrap(), b'.');
            (log.propose(bytes, Fences::NONE), tag.to_owned())
        }
        "fence" => {
            let (node, life) = rest.split_once(' ').unwrap();
            let fences = Fences::upto(NodeId(node.parse().unwrap()), Incarnation(life.parse().unwrap()));
            (log.propose(line.as_bytes().to_vec(), fences), line.replace(' ', "-"))
        }
        "replicas" => (log.set_replicas(serde_json::from_str(rest).unwrap()), "replicas".to_owned()),
        other => panic!("{other:?} is no command"),
    };
    tags.insert(ticket.0, ticket.1);
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).unwrap().trim_end_matches('.').replace(' ', "-")
}

fn tell(
    log: &mut Running,
    output: Output,
    state: &mut Vec<String>,
    tags: &mut std::collections::BTreeMap<Ticket, String>,
) {
    match output {
        Output::Entry { index, bytes } => {
            assert_eq!(index, state.len() as u64 + 1, "an entry is missing or comes twice");
            state.push(text(&bytes));
            say(&format!("E {index} {}", text(&bytes)));
        }
        Output::Install { index, bytes } => {
            let whole = String::from_utf8(bytes).unwrap();
            *state = whole.lines().map(str::to_owned).collect();
            assert_eq!(index, state.len() as u64, "a snapshot that holds something else than it says");
            say(&format!("I {index}"));
            for (index, text) in (1..).zip(state.iter()) {
                say(&format!("E {index} {text}"));
            }
        }
        Output::Anew => {
            state.clear();
            say("A");
        }
        Output::WantSnapshot => {
            let whole: String = state.iter().map(|text| format!("{text}\n")).collect();
            log.snapshot(state.len() as u64, whole.into_bytes());
            say("W");
        }
        Output::Outcome(ticket, outcome) => {
            let tag = tags.remove(&ticket).unwrap();
            match outcome {
                Outcome::Committed(index) => {
                    assert!(state.len() as u64 >= index, "an outcome in front of its entry");
                    say(&format!("C {tag} {index}"));
                }
                Outcome::Refused(why) => say(&format!("X {tag} {why}")),
                Outcome::Unknown => say(&format!("U {tag}")),
            }
        }
        Output::Role { leader, term, quorum } => {
            say(&format!("R {} {term} {quorum}", leader.map_or(-1, |id| i32::from(id.0))));
        }
        Output::Renewed { token } => say(&format!("L {token}")),
        Output::Replicas(all) => {
            let voters: Vec<String> = all.iter().filter(|r| r.votes).map(|r| r.id.to_string()).collect();
            say(&format!("V {}", voters.join(",")));
        }
        Output::Failed(why) => {
            say(&format!("F {why}"));
        }
    }
}
