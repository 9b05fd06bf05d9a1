//! The command line, from outside: exit codes, messages, and a node that runs on capture files.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const NODE: &str = r#"
profile = "lab"
cluster = "cluster.toml"
[node]
name = "n1"
admin_socket = "SOCKET"
[workers]
count = 1
[tables]
sessions = 1024
steering_sessions = 1024
shared_entries = 1024
[[port]]
name = "left"
role = "front"
device = "pcap:DIR/left-in.pcap:DIR/left-out.pcap"
[[port]]
name = "right"
role = "front"
device = "pcap:DIR/right-in.pcap:DIR/right-out.pcap"
[[interface]]
name = "clients"
port = "left"
addresses = ["10.10.0.11/24"]
[[interface]]
name = "servers"
port = "right"
addresses = ["10.30.0.11/24"]
"#;

const CLUSTER: &str = include_str!("cluster.toml");

/// The Ethernet address of the client in `left-in.pcap`.
const CLIENT: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
/// That of the first node's first port, if it is a pair of capture files.
const LEFT: [u8; 6] = [2, 0, 0, 0, 0, 0];

/// A directory with a node's files, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("steerage-cli-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let scratch = Self(directory);
        let at = |text: &str| {
            let socket = scratch.socket();
            text.replace("SOCKET", socket.to_str().unwrap()).replace("DIR", scratch.0.to_str().unwrap())
        };
        scratch.write("node.toml", at(NODE).as_bytes());
        scratch.write("cluster.toml", CLUSTER.as_bytes());
        scratch.write("left-in.pcap", &capture(&[who_has([10, 10, 0, 11])]));
        scratch.write("right-in.pcap", &capture(&[]));
        scratch
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.file(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        self.write(name, text.replace(from, to).as_bytes());
    }

    fn socket(&self) -> PathBuf {
        self.file("run/n1.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running node, killed at the end of the test if it still runs.
struct Node(Option<Child>);

impl Node {
    /// Starts a node and waits until it answers.
    fn start(scratch: &Scratch) -> Self {
        Self::start_by(steerage(&["run", "-c"]), scratch)
    }

    /// The same by `command`, to which the node file is added.
    fn start_by(mut command: Command, scratch: &Scratch) -> Self {
        command.arg(scratch.file("node.toml")).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut node = Self(Some(command.spawn().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !stats(&scratch.socket()).status.success() {
            let ended = node.0.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", node.fate());
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    /// Kills it if it runs, and tells what it said.
    fn fate(mut self) -> String {
        let mut child = self.0.take().unwrap();
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        format!("the node did not answer: {}: {}", output.status, said(&output))
    }

    fn signal(&self, name: &str) {
        let pid = self.0.as_ref().unwrap().id();
        let kill = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for its end.
    fn end(mut self) -> Output {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the node did not end within 20 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn steerage(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
    command.args(arguments).env_remove("STEERAGE_LOG").stdin(Stdio::null());
    command
}

fn stats(socket: &Path) -> Output {
    steerage(&["stats", "--json", "--socket"]).arg(socket).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A capture file (little-endian, microseconds, Ethernet).
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// The frames of a capture file.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes = &bytes[24..];
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        frames.push(bytes[16..16 + len].to_vec());
        bytes = &bytes[16 + len..];
    }
    frames
}

/// The client's ARP request for `address` (RFC 826).
fn who_has(address: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(CLIENT);
    frame.extend([10, 10, 0, 1]);
    frame.extend([0; 6]);
    frame.extend(address);
    frame.resize(60, 0);
    frame
}

#[test]
fn check_says_ok_and_what_the_files_say() {
    let scratch = Scratch::new("check");
    let file = scratch.file("node.toml");
    let good = steerage(&["check"]).arg(&file).output().unwrap();
    let text = printed(&good);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(text.starts_with(&format!("{}: ok\n", file.display())), "{text}");
    for part in ["n1 (1 of 1 in the cluster)", "left (pcap:", "1 with 1 real servers: web", "run/n1.sock"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn check_and_run_name_every_error_with_its_line() {
    let scratch = Scratch::new("broken");
    scratch.edit("node.toml", "port = \"left\"", "port = \"lift\"");
    scratch.edit("node.toml", "sessions = 1024", "sesions = 1024");
    scratch.edit("cluster.toml", "forward = \"nat\"", "forward = \"net\"");
    for verb in [&["check"][..], &["run", "-c"]] {
        let bad = steerage(verb).arg(scratch.file("node.toml")).output().unwrap();
        let text = said(&bad);
        assert_eq!((bad.status.code(), printed(&bad).as_str()), (Some(1), ""), "{text}");
        for part in ["node.toml:10: ", "sesions", "cluster.toml:", "forward", "net"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    assert!(!scratch.socket().exists());
}

#[cfg(not(feature = "sim"))]
#[test]
fn the_product_knows_no_planted_faults() {
    let refused = steerage(&["run", "--plant", "lease-unchecked", "-c", "node.toml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("--plant"), "{}", said(&refused));
}

#[test]
fn a_missing_file_is_an_error() {
    for verb in [&["check"][..], &["run", "-c"], &["stats", "-c"]] {
        let missing = steerage(verb).arg("/nonexistent/node.toml").output().unwrap();
        assert_eq!(missing.status.code(), Some(1));
        assert!(said(&missing).contains("/nonexistent/node.toml"), "{}", said(&missing));
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_version_is_told() {
    for wrong in [&["run"][..], &["check"], &["sail"], &["stats", "--socket", "a", "-c", "b"]] {
        assert_eq!(steerage(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
    let version = steerage(&["--version"]).output().unwrap();
    assert_eq!(printed(&version), concat!("steerage ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn stats_without_a_node_says_so() {
    let scratch = Scratch::new("nobody");
    let by_socket = stats(&scratch.socket());
    let by_config = steerage(&["stats", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    for nobody in [by_socket, by_config] {
        assert_eq!(nobody.status.code(), Some(1));
        assert!(said(&nobody).contains("run/n1.sock: there is no such socket"), "{}", said(&nobody));
    }
}

#[test]
fn a_node_runs_on_capture_files_until_sigterm() {
    let scratch = Scratch::new("run");
    let node = Node::start(&scratch);
    let deadline = Instant::now() + Duration::from_secs(20);
    let found = loop {
        let output = stats(&scratch.socket());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if found["totals"]["rx"] == 1 && found["ports"][0]["tx_packets"].as_u64() > Some(0) {
            break found;
        }
        assert!(Instant::now() < deadline, "{found:#}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((&found["node"], &found["ports"][0]["name"]), (&"n1".into(), &"left".into()));
    let tables = steerage(&["stats", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    assert!(printed(&tables).contains("\nVirtual servers and their real servers\n"), "{}", printed(&tables));

    node.signal("TERM");
    let ended = node.end();
    let text = said(&ended);
    assert_eq!(ended.status.code(), Some(0), "{text}");
    assert!(text.contains("started") && text.contains("stopped"), "{text}");
    assert!(!scratch.socket().exists());

    let sent = frames(&fs::read(scratch.file("left-out.pcap")).unwrap());
    let is_at = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 2];
    let answers = sent.iter().filter(|f| f[..6] == CLIENT && f[12..22] == is_at);
    let answers: Vec<_> = answers.map(|f| (&f[22..28], &f[28..32], &f[38..42])).collect();
    assert_eq!(answers, [(&LEFT[..], &[10, 10, 0, 11][..], &[10, 10, 0, 1][..])], "{sent:x?}");
}

#[test]
fn a_second_node_on_the_same_socket_is_refused_and_a_dead_ones_socket_taken() {
    let scratch = Scratch::new("second");
    let node = Node::start(&scratch);
    let second = steerage(&["run", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("another process is listening on this socket"), "{}", said(&second));
    assert!(stats(&scratch.socket()).status.success(), "the first one isn't disturbed");

    node.signal("KILL");
    assert_eq!(node.end().status.code(), None);
    assert!(scratch.socket().exists());
    let nobody = stats(&scratch.socket());
    assert!(said(&nobody).contains("nobody listens"), "{}", said(&nobody));
    let successor = Node::start(&scratch);
    successor.signal("INT");
    assert_eq!(successor.end().status.code(), Some(0));
    assert!(!scratch.socket().exists());
}

#[test]
fn devices_that_cannot_be_opened_leave_no_socket_behind() {
    let scratch = Scratch::new("devices");
    scratch.write("left-in.pcap", b"no capture");
    let broken = steerage(&["run", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    assert_eq!(broken.status.code(), Some(1));
    let text = said(&broken);
    assert!(text.contains("port \"left\": ") && text.contains("left-in.pcap"), "{text}");
    assert!(!scratch.socket().exists());

    let one_left = format!("pcap:{0}/left-in.pcap:{0}/left-out.pcap", scratch.0.display());
    scratch.edit("node.toml", &one_left, "net_null0");
    let mixed = steerage(&["run", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    assert_eq!(mixed.status.code(), Some(1));
    assert!(said(&mixed).contains("either capture files or network devices"), "{}", said(&mixed));
}

#[test]
fn sighup_stops_a_node_as_sigterm_does() {
    let scratch = Scratch::new("hangup");
    // Whatever the tests themselves were started by.
    let mut fresh = Command::new("env");
    fresh.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_steerage"), "run", "-c"]);
    fresh.env_remove("STEERAGE_LOG").stdin(Stdio::null());
    let node = Node::start_by(fresh, &scratch);
    node.signal("HUP");
    let ended = node.end();
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(said(&ended).contains("stopped") && !scratch.socket().exists(), "{}", said(&ended));
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let scratch = Scratch::new("full");
    scratch.edit("node.toml", &scratch.file("left-out.pcap").display().to_string(), "/dev/full");
    let node = Node::start(&scratch);
    node.signal("TERM");
    let ended = node.end();
    assert_eq!(ended.status.code(), Some(1), "{}", said(&ended));
    assert!(said(&ended).contains("port \"left\": /dev/full: No space left"), "{}", said(&ended));
    assert!(!scratch.socket().exists());
}

#[test]
fn a_capture_file_is_not_overwritten_by_what_was_made_of_it() {
    let scratch = Scratch::new("same");
    let before = fs::read(scratch.file("left-in.pcap")).unwrap();
    let output = scratch.file("left-out.pcap");
    std::os::unix::fs::symlink(scratch.file("left-in.pcap"), &output).unwrap();
    let linked = steerage(&["run", "-c"]).arg(scratch.file("node.toml")).output().unwrap();
    assert_eq!(linked.status.code(), Some(1));
    assert!(
        said(&linked).contains("port \"left\": ") && said(&linked).contains("the same port"),
        "{}",
        said(&linked)
    );
    fs::remove_file(&output).unwrap();
    scratch.edit("node.toml", "left-out", "left-in");
    let named = steerage(&["check"]).arg(scratch.file("node.toml")).output().unwrap();
    assert_eq!(named.status.code(), Some(1));
    assert!(said(&named).contains("is written, and stands twice"), "{}", said(&named));
    assert_eq!(fs::read(scratch.file("left-in.pcap")).unwrap(), before);
}

#[test]
fn sighup_is_ignored_where_it_was_ignored_before() {
    let scratch = Scratch::new("nohup");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" run -c \"$1\"", env!("CARGO_BIN_EXE_steerage")]);
    shell.env_remove("STEERAGE_LOG").stdin(Stdio::null());
    let node = Node::start_by(shell, &scratch);
    node.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert!(stats(&scratch.socket()).status.success(), "it runs on");
    node.signal("TERM");
    assert_eq!(node.end().status.code(), Some(0));
}

/// Explains a tuple as `arguments` say; `from` names the node or file.
fn explain(arguments: &[&str], from: &[&Path]) -> Output {
    steerage(&["explain"]).args(arguments).args(from).output().unwrap()
}

#[test]
fn explain_reads_a_tuple_or_says_what_is_wrong_with_it() {
    let scratch = Scratch::new("tuple");
    let file = scratch.file("node.toml");
    let by_file = [Path::new("-c"), &file];
    for (tuple, why) in [
        (["icmp", "10.10.0.1:1", "10.99.0.1:80"], "is no protocol"),
        (["tcp", "10.10.0.1", "10.99.0.1:80"], "source \"10.10.0.1\" is no address and port"),
        (["tcp", "10.10.0.1:1", "10.99.0.1:http"], "destination \"10.99.0.1:http\""),
        (["tcp", "2001:db8::1:80", "[2001:db8::2]:80"], "in brackets"),
        (["udp", "10.10.0.1:1", "[2001:db8::2]:80"], "two families"),
        (["udp", "[::ffff:10.10.0.1]:1", "[2001:db8::2]:80"], "write the IPv4 address"),
        (["udp", "[fe80::1%eth0]:1", "[2001:db8::2]:80"], "no address and port"),
    ] {
        let wrong = explain(&tuple, &by_file);
        assert_eq!((wrong.status.code(), printed(&wrong).as_str()), (Some(2), ""), "{tuple:?}");
        assert!(said(&wrong).contains(why), "{}", said(&wrong));
    }
    let tuple = ["tcp", "10.10.0.1:1000", "10.99.0.1:80"];
    for more in [&["more"][..], &["--receiver", "n7"], &["--socket", "a"]] {
        let wrong = explain(&[&tuple[..], more].concat(), &by_file);
        assert_eq!(wrong.status.code(), Some(2), "{more:?}: {}", said(&wrong));
        if more[0] == "--receiver" {
            assert!(said(&wrong).contains("\"n7\" is no node of the cluster: n1"), "{}", said(&wrong));
        }
    }
    assert_eq!(explain(&tuple[..2], &by_file).status.code(), Some(2));
}

#[test]
fn explain_without_a_node_or_file_says_so() {
    let scratch = Scratch::new("unexplained");
    let tuple = ["tcp", "10.10.0.1:1000", "10.99.0.1:80"];
    let nobody = explain(&tuple, &[Path::new("--socket"), &scratch.socket()]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said(&nobody).contains("run/n1.sock: there is no such socket"), "{}", said(&nobody));
    let missing = explain(&tuple, &[Path::new("-c"), Path::new("/nonexistent/node.toml")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("/nonexistent/node.toml"), "{}", said(&missing));
}

/// The client's SYN to the virtual server.
fn syn(port: u16) -> Vec<u8> {
    let mut frame = LEFT.to_vec();
    frame.extend(CLIENT);
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([10, 10, 0, 1, 10, 99, 0, 1]);
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[test]
fn explain_tells_a_running_nodes_sessions_and_its_files_a_fresh_flow() {
    let scratch = Scratch::new("explain");
    scratch.write("left-in.pcap", &capture(&[syn(1000)]));
    let node = Node::start(&scratch);
    let (socket, file) = (scratch.socket(), scratch.file("node.toml"));
    let (by_socket, by_file) = ([Path::new("--socket"), &socket], [Path::new("-c"), &file]);
    let value = |source: &str, destination: &str, from: &[&Path]| -> serde_json::Value {
        let output = explain(&["tcp", source, destination, "--json"], from);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let vip = "10.99.0.1:80";
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut known = value("10.10.0.1:1000", vip, &by_socket);
    while known["session"].is_null() {
        assert!(Instant::now() < deadline, "{known:#}");
        std::thread::sleep(Duration::from_millis(20));
        known = value("10.10.0.1:1000", vip, &by_socket);
    }
    assert_eq!((&known["session"]["state"], &known["rewrite"]["kind"]), (&"half open".into(), &"nat".into()));
    // The reply to its SNAT port finds the same session.
    let reply = value("10.30.0.21:8080", known["rewrite"]["source"].as_str().unwrap(), &by_socket);
    assert_eq!(reply["session"]["direction"], "reply", "{reply:#}");
    assert_eq!(reply["rewrite"]["destination"], "10.10.0.1:1000");
    let (fresh, read) = (value("10.10.0.1:1001", vip, &by_socket), value("10.10.0.1:1001", vip, &by_file));
    for field in ["hash", "bucket", "real_server", "rewrite"] {
        assert_eq!(fresh[field], read[field], "{field}");
    }
    assert_eq!((&fresh["rewrite"]["kind"], &read["live"]), (&"nat-new".into(), &false.into()));

    let text = printed(&explain(&["tcp", "10.10.0.1:1000", vip], &by_socket));
    for part in [
        "\nvirtual server  web at 10.99.0.1:80",
        "\nsession         half open",
        "because: ",
        "on servers, port right",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What only the node can see is wrong usage all the same.
    let unknown = explain(&["tcp", "10.10.0.1:1000", vip, "--receiver", "n 7"], &by_socket);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    assert!(said(&unknown).contains("\"n 7\" is no node"), "{}", said(&unknown));
    node.signal("TERM");
    assert_eq!(node.end().status.code(), Some(0));
}

/// The manual shows what the program prints.
#[test]
fn the_manuals_example_of_explain_is_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let (_, example) = manual.split_once("\n$ steerage ").unwrap();
    let (line, shown) = example.split_once('\n').unwrap();
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = steerage(&arguments).current_dir(root).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(printed(&output), shown.split("```").next().unwrap());
}
