//! Golden packets: whole nodes on capture files. scapy writes what comes in (`make.py`) and computes what has to go out
//! (`cases.py`); a node makes its output of it, which has to hold exactly those frames, to be the committed file byte for
//! byte, and to please tshark and scapy (`check.py`), who in their turn have to complain about every damaged packet.
//!
//! `STEERAGE_BLESS=1` writes the committed files anew; everything else is checked then as well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use steerage::base::{Incarnation, Instant, Mac, PortId, WorkerId};
use steerage::io::memory::MemoryPools;
use steerage::io::pcap::{self, PcapPort};
use steerage::manage::config::{self, Config};
use steerage::node::Node;

const FRONT: Mac = Mac([2, 0, 0, 0, 1, 1]);
const BACK: Mac = Mac([2, 0, 0, 0, 2, 1]);
const BUFFERS: usize = 512;
const BUFFER_BYTES: usize = 2048;
/// The node's life; `world.py` knows it.
const LIFE: Incarnation = Incarnation(7);
/// Turns behind the last frame of the input: nothing is under way any more.
const LAST_TURNS: usize = 4;
/// Longer than any input; a node that doesn't take its frames must not hang the test.
const MOST_TURNS: usize = 1000;

/// A case as `make.py` describes it.
#[derive(Deserialize)]
struct Case {
    name: String,
    /// Family of the backplane's addresses.
    backplane: u8,
    /// Packets to be refused, by reason.
    drops: BTreeMap<String, u64>,
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("steerage-golden-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, case: &str, port: &str, what: &str) -> PathBuf {
        self.0.join(format!("{case}.{port}.{what}.pcap"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Runs one of the scripts beside this file, bounded in time.
fn script(name: &str, arguments: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "/usr/bin/python3", "-B"]).arg(here().join(name)).args(arguments).args(files);
    command.output().unwrap_or_else(|e| panic!("timeout (coreutils) can't be run: {e}"))
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// The test stands on both tools: without them it has shown nothing, and fails.
fn need_tools() {
    for (tool, arguments, package) in [
        ("/usr/bin/python3", &["-c", "import scapy.all"][..], "python3-scapy"),
        ("tshark", &["--version"][..], "tshark"),
    ] {
        let works = Command::new(tool).args(arguments).output().is_ok_and(|o| o.status.success());
        assert!(works, "golden packets need {package}: apt-get install {package}");
    }
}

/// The virtual servers that `cases.py` names: name, address, forwarding, group, and the real server.
const VIRTUAL_SERVERS: [(&str, &str, &str, &str, &str); 17] = [
    ("nat-4", "10.99.0.1", "nat", "here", "10.10.0.21"),
    ("nat-6", "fd99::1", "nat", "here", "fd10::21"),
    ("dsr-4", "10.99.0.2", "dsr-l2", "here", "10.10.0.21"),
    ("dsr-6", "fd99::2", "dsr-l2", "here", "fd10::21"),
    ("4in4", "10.99.0.3", "ipip", "here", "10.10.0.21"),
    ("6in6", "fd99::3", "ipip", "here", "fd10::21"),
    ("4in6", "10.99.0.5", "ipip", "here", "fd10::21"),
    ("6in4", "fd99::5", "ipip", "here", "10.10.0.21"),
    ("gue-4in4", "10.99.0.4", "gue", "here", "10.10.0.21"),
    ("gue-6in6", "fd99::4", "gue", "here", "fd10::21"),
    ("gue-4in6", "10.99.0.6", "gue", "here", "fd10::21"),
    ("gue-6in4", "fd99::6", "gue", "here", "10.10.0.21"),
    ("away-4", "10.99.0.7", "nat", "there", "10.10.0.21"),
    ("away-6", "fd99::7", "nat", "there", "fd10::21"),
    ("tagged", "10.99.0.8", "dsr-l2", "here", "10.70.0.21"),
    ("on-link-4", "10.10.0.99", "dsr-l2", "here", "10.10.0.21"),
    ("on-link-6", "fd10::99", "dsr-l2", "here", "fd10::21"),
];

/// Node n1 with n2 for a peer. Each virtual server has one real server, so that nothing depends on the balancing; those
/// of the group "here" are n1's alone, those of "there" the peer's.
fn configuration(backplane: u8, device: impl Fn(&str) -> String) -> Config {
    let node = format!(
        "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n\
         [tables]\nsessions = 4096\nsteering_sessions = 4096\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"{}\"\nmtu = 1500\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"{}\"\nmtu = 1700\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[interface]]\nname = \"tagged\"\nport = \"front\"\nvlan = 7\naddresses = [\"10.70.0.11/24\", \"fd70::11/64\"]\n\
         [[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.10.0.254\"\n\
         [[route]]\nto = \"fd77::/16\"\nvia = \"fd10::fe\"\n",
        device("front"),
        device("back"),
    );
    let mut cluster =
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n".to_string();
    let subnet = if backplane == 4 { "10.20.0.1" } else { "fd20::1" };
    for i in [1, 2] {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"{subnet}{i}\"\nworkers = 1\n");
    }
    for (i, group) in [(1, "here"), (2, "there")] {
        cluster += &format!("[[group]]\nname = \"{group}\"\nmembers = [\"n{i}\"]\n");
        for address in [format!("10.10.0.1{}1", i - 1), format!("fd10::1{}1", i - 1)] {
            cluster += &format!("[[snat]]\naddress = \"{address}\"\ngroup = \"{group}\"\nnode = \"n{i}\"\n");
        }
    }
    for (name, address, forward, group, server) in VIRTUAL_SERVERS {
        let port = if forward == "nat" { "port = 8080\n" } else { "" };
        for protocol in ["tcp", "udp"] {
            cluster += &format!(
                "[[virtual_server]]\nname = \"{name}-{protocol}\"\naddress = \"{address}\"\nport = 80\n\
                 protocol = \"{protocol}\"\nforward = \"{forward}\"\ngroup = \"{group}\"\n\
                 [[virtual_server.real_server]]\nname = \"s\"\naddress = \"{server}\"\n{port}"
            );
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(node.clone()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None).unwrap_or_else(|e| panic!("{e}"))
}

/// Lets a node read a case's captures and write its own, a millisecond a turn, and gives what it refused.
fn run(scratch: &Scratch, case: &Case) -> BTreeMap<String, u64> {
    let file = |port: &str, what| scratch.file(&case.name, port, what).display().to_string();
    let config =
        configuration(case.backplane, |port| format!("pcap:{}:{}", file(port, "in"), file(port, "out")));
    let pools = MemoryPools::new(BUFFERS, BUFFER_BYTES);
    let free = pools.free();
    let devices = config.ports.iter().zip([FRONT, BACK]);
    let devices = devices.map(|(port, mac)| pcap::open(&port.device, mac, pools.clone()).unwrap()).collect();
    let mut now = Instant::ZERO;
    let mut node = Node::<PcapPort>::new(&config, LIFE, devices, now).unwrap();
    let mut left = MOST_TURNS;
    let mut turn = |node: &mut Node<PcapPort>| {
        left =
            left.checked_sub(1).unwrap_or_else(|| panic!("{}: the node doesn't take its frames", case.name));
        now = now + Duration::from_millis(1);
        node.turn(now);
    };
    while (0..2).any(|port| !node.port(WorkerId(0), PortId(port)).unwrap().exhausted()) {
        turn(&mut node);
    }
    (0..LAST_TURNS).for_each(|_| turn(&mut node));
    let drops = node.manager().stats(now).totals.drops;
    drop(node);
    assert_eq!(pools.free(), free, "{}: buffers", case.name);
    drops
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_string(), count))
        .collect()
}

/// Writes the inputs of one stage and runs its cases; their names.
fn stage(scratch: &Scratch, stage: &str) -> Vec<String> {
    let made = script("make.py", &[stage], std::slice::from_ref(&scratch.0));
    assert!(made.status.success(), "make.py {stage}: {}", text(&made));
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(scratch.0.join("cases.json")).unwrap()).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        assert_eq!(run(scratch, case), case.drops, "{}: refused packets", case.name);
    }
    cases.into_iter().map(|case| case.name).collect()
}

/// Demands that `outputs` are the committed files, or makes them so.
fn golden(outputs: &[PathBuf]) {
    let bless = std::env::var_os("STEERAGE_BLESS").is_some_and(|v| v == "1");
    for output in outputs {
        let name = output.file_name().unwrap().to_str().unwrap().replace(".out.", ".");
        let committed = here().join(&name);
        let new = fs::read(output).unwrap();
        if bless {
            fs::write(&committed, new).unwrap();
            continue;
        }
        let old = fs::read(&committed).unwrap_or_else(|e| panic!("{name}: {e}; STEERAGE_BLESS=1 writes it"));
        assert!(
            old == new,
            "{name} differs from what the node sent, first at byte {:?} (of {} and {})",
            old.iter().zip(&new).position(|(a, b)| a != b),
            old.len(),
            new.len()
        );
    }
}

#[test]
fn captures_in_captures_out() {
    need_tools();
    let scratch = Scratch::new();
    let mut cases = stage(&scratch, "first");
    cases.extend(stage(&scratch, "answered"));
    let outputs: Vec<_> =
        cases.iter().flat_map(|case| ["front", "back"].map(|port| scratch.file(case, port, "out"))).collect();
    let cases: Vec<_> =
        outputs.iter().filter(|o| !o.to_str().unwrap().contains("openers")).cloned().collect();
    let checked = script("check.py", &[], &cases);
    assert!(checked.status.success(), "check.py: {}", text(&checked));
    golden(&cases);
}
