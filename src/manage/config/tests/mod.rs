//! Whole configurations, from text to errors or a [`Config`].

mod cluster;
mod documents;
mod files;
mod machine;
mod random;
mod servers;
mod shared;

use super::*;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The cores of the machine that tests pretend to run on.
const CORES: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// A node file without an error.
const NODE: &str = r#"
profile = "lab"
cluster = "cluster.toml"
[node]
name = "n1"
[workers]
count = 2
cores = [1, 2]
management_core = 0
[timeouts]
udp = "7s"
[[port]]
name = "front"
role = "front"
device = "net_af_xdp0,iface=front"
queues = 1
mtu = 1500
[[port]]
name = "back"
role = "backplane"
device = "net_af_xdp1,iface=back"
mtu = 1600
[[interface]]
name = "lan"
port = "front"
addresses = ["10.10.0.11/24", "fd10::11/64"]
[[route]]
to = "10.30.0.0/16"
via = "10.10.0.1"
"#;

/// A cluster file without an error.
const CLUSTER: &str = r#"
[cluster]
key = "000102030405060708090a0b0c0d0e0f"
data_port = 6600
control_port = 6599
heartbeat = "50ms"
suspicion = "400ms"
maglev_slots = 65537
[[node]]
name = "n1"
backplane = "10.20.0.11"
workers = 2 # n1
[[node]]
name = "n2"
backplane = "10.20.0.12"
workers = 3 # n2
[[group]]
name = "edge"
members = ["n1"]
[[group]]
name = "far"
members = ["n2"]
[[snat]]
address = "10.10.0.101"
node = "n1"
[[snat]]
address = "10.10.0.102"
group = "edge"
node = "n1" # edge
[[virtual_server]]
name = "web"
address = "10.99.0.1"
port = 80
forward = "nat"
ingress = "steered"
[[virtual_server.real_server]]
name = "s1"
address = "10.10.0.21"
port = 8080
weight = 1
[[virtual_server.real_server]]
name = "s2"
address = "10.30.0.22"
weight = 0
[[virtual_server]]
name = "dsr"
address = "fd99::2"
port = 53
protocol = "udp"
group = "edge"
forward = "dsr-l2"
ingress = "local"
[[virtual_server.real_server]]
name = "s1"
address = "fd10::21"
[[virtual_server]]
name = "tunnel"
address = "10.99.0.3"
port = 81
forward = "gue"
idle = "1h"
[[virtual_server.real_server]]
name = "s1"
address = "fd10::22"
"#;

/// Files by name.
struct Files(BTreeMap<&'static str, String>);

impl Files {
    fn new() -> Self {
        Self([("node.toml", NODE.to_owned()), ("cluster.toml", CLUSTER.to_owned())].into())
    }

    /// Replaces what stands exactly once in `file`.
    fn edit(mut self, file: &'static str, from: &str, to: &str) -> Self {
        let text = self.0.get_mut(file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
        *text = text.replace(from, to);
        self
    }

    fn node(self, from: &str, to: &str) -> Self {
        self.edit("node.toml", from, to)
    }

    fn cluster(self, from: &str, to: &str) -> Self {
        self.edit("cluster.toml", from, to)
    }

    fn put(mut self, file: &'static str, text: &str) -> Self {
        self.0.insert(file, text.to_owned());
        self
    }

    /// Adds to the end of the node file.
    fn node_end(mut self, text: &str) -> Self {
        self.0.get_mut("node.toml").unwrap().push_str(text);
        self
    }

    /// Adds to the end of the cluster file.
    fn cluster_end(mut self, text: &str) -> Self {
        self.0.get_mut("cluster.toml").unwrap().push_str(text);
        self
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.0.get(path.to_str().unwrap());
        text.cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn load(&self) -> Result<Config, Errors> {
        load_from(&|path| self.read(path), Path::new("node.toml"), Some(&CORES))
    }

    /// Loads without an error.
    #[track_caller]
    fn good(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Loads with exactly these errors, in any order. Each is the file, a piece of text that stands on its line (its first
    /// occurrence counts), and pieces of what is said of it, separated by `…`.
    #[track_caller]
    fn bad(&self, expected: &[(&str, &str, &str)]) {
        let errors = self.load().expect_err("loaded");
        let mut left = errors.0.clone();
        for (file, line, said) in expected {
            let number = self.0[file].lines().position(|l| l.contains(line)).expect(line) + 1;
            let prefix = format!("{file}:{number}: ");
            let found = left.iter().position(|error| {
                let shown = error.to_string();
                shown.starts_with(&prefix) && said.split('…').all(|piece| shown.contains(piece))
            });
            let Some(found) = found else { panic!("no {prefix}{said}\nin\n{errors}") };
            left.remove(found);
        }
        assert!(left.is_empty(), "besides:\n{}", Errors(left));
    }
}

/// Tests of one error each: a list of edits, and what they cause.
macro_rules! refused {
    ($($name:ident: $files:expr => $($expected:expr),+;)*) => {
        $(
            #[test]
            fn $name() {
                $files.bad(&[$($expected),+]);
            }
        )*
    };
}
use refused;
