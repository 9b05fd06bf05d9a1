//! A node of its own as a process, on capture files and with a log, and the commands that are given to it.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use steerage::run::client::{self, Answer, Request};

pub const CLUSTER: &str = include_str!("../cluster.toml");

const NODE: &str = r#"
profile = "lab"
cluster = "cluster.toml"
[node]
name = "n1"
admin_socket = "DIR/n1.sock"
LOG
[workers]
count = 1
[tables]
sessions = 1024
steering_sessions = 1024
[[port]]
name = "left"
role = "front"
device = "pcap:DIR/left.pcap:/dev/null"
[[port]]
name = "right"
role = "front"
device = "pcap:DIR/right.pcap:/dev/null"
[[port]]
name = "back"
role = "backplane"
device = "pcap:DIR/back.pcap:/dev/null"
mtu = 1600
[[interface]]
name = "clients"
port = "left"
addresses = ["10.10.0.11/24"]
[[interface]]
name = "servers"
port = "right"
addresses = ["10.30.0.11/24"]
"#;

/// The table of a node that decides.
pub const LOG: &str = "[log]\ndirectory = \"data\"";

/// A directory and a node in it, both gone at the end of the test.
pub struct Node {
    pub directory: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// The files of a node with this cluster file and `[log]` table; it doesn't run yet.
    pub fn files(test: &str, cluster: &str, log: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("steerage-admin-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let node = Self { directory, child: None };
        let text = NODE.replace("DIR", node.directory.to_str().unwrap()).replace("LOG", log);
        node.write("node.toml", &text);
        node.write("cluster.toml", cluster);
        // A capture file's header (little-endian, microseconds, Ethernet), and no frames.
        let words = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for port in ["left", "right", "back"] {
            fs::write(node.directory.join(port).with_extension("pcap"), &header).unwrap();
        }
        node
    }

    /// A node that has begun a cluster and serves.
    pub fn started(test: &str) -> Self {
        let mut node = Self::files(test, CLUSTER, LOG);
        node.start(&["--new-cluster"]);
        node.until_it_serves();
        node
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// Starts the process, and waits until it answers.
    pub fn start(&mut self, arguments: &[&str]) {
        self.start_within(&[], arguments);
    }

    /// The same by a command that becomes the one that it is given.
    pub fn start_within(&mut self, outer: &[&str], arguments: &[&str]) {
        let mut words =
            outer.iter().copied().chain([env!("CARGO_BIN_EXE_steerage"), "run", "-c", "node.toml"]);
        let mut command = Command::new(words.next().unwrap());
        command.current_dir(&self.directory).args(words).args(arguments);
        command.env_remove("STEERAGE_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.directory.join("messages")).unwrap());
        self.child = Some(command.spawn().unwrap());
        self.until("it answers", |node| client::get(&node.socket(), "/v1/health").is_ok());
    }

    /// Starts the process, which ends by itself; what it says.
    pub fn refuses_to_start(&mut self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
        command.current_dir(&self.directory).args(["run", "-c", "node.toml"]).stdin(Stdio::null());
        command.env_remove("STEERAGE_LOG").stdout(Stdio::null());
        command.stderr(fs::File::create(self.directory.join("messages")).unwrap());
        let child = self.child.insert(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it runs");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(1));
        fs::read_to_string(self.directory.join("messages")).unwrap()
    }

    pub fn until_it_serves(&mut self) {
        self.until("it serves", |node| {
            let status = node.ask("GET", "/v1/cluster", &[], "").1;
            status["nodes"][0]["phase"] == "active" && status["version"] == status["in_force"]
        });
    }

    /// Waits for something that has to come about.
    pub fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is(self) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let said = || fs::read_to_string(self.directory.join("messages")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "not until {what}: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process as a power failure would (SIGKILL).
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("n1.sock")
    }

    /// A request; status and body of the answer.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let request = Request { method, target, headers, body };
        let Answer { status, body } = client::send(&self.socket(), &request).unwrap();
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{target}: {error}: {body}")))
    }

    /// A command of the program, with this node to be asked and `input` to be read.
    pub fn command(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
        command.current_dir(&self.directory).args(arguments).args(["--socket", "n1.sock"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command that succeeds prints; its arguments by spaces.
    #[track_caller]
    pub fn does(&self, arguments: &str) -> String {
        let output = self.command(&arguments.split(' ').collect::<Vec<_>>(), "");
        let (said, why) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments}: {said}{why}");
        said
    }

    /// What a command that fails says.
    #[track_caller]
    pub fn fails(&self, arguments: &str) -> String {
        let output = self.command(&arguments.split(' ').collect::<Vec<_>>(), "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        said
    }

    /// The log's last write.
    pub fn last_write(&self) -> u64 {
        let history = self.ask("GET", "/v1/history", &[], "").1;
        history["records"][0]["index"].as_u64().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
