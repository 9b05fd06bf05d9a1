//! `steerage run --capsule`, from outside.

use super::child;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A node's files, gone at the end of the test.
struct Files(PathBuf);

impl Files {
    fn new(workers: &str, device: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("steerage-capsule-run-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let node = format!(
            "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"{}\"\n\
             [workers]\ncount = 1\n{workers}\n[tables]\nsessions = 1024\nsteering_sessions = 1024\n\
             [dpdk]\nhugepages = false\nmemory_mb = 128\nbuffers = 4096\n\
             [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"{device}\"\n\
             [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\"]\n",
            dir.join("socket").display(),
        );
        std::fs::write(dir.join("node.toml"), node).unwrap();
        let cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n\
             [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n";
        std::fs::write(dir.join("cluster.toml"), cluster).unwrap();
        Self(dir)
    }

    fn steerage(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
        command.args(arguments).arg("-c").arg(self.0.join("node.toml")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Waits for the end of a process, some seconds at most.
fn end(mut process: Child) -> Output {
    let begin = Instant::now();
    while process.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.wait_with_output().unwrap()
}

fn cpus_of_threads(process: u32) -> Vec<(String, String)> {
    let threads = std::fs::read_dir(Path::new("/proc").join(process.to_string()).join("task")).unwrap();
    let read = |path: PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        (field("Name:"), field("Cpus_allowed_list:"))
    };
    threads.map(|thread| read(thread.unwrap().path())).collect()
}

#[test]
fn a_node_runs_and_stops() {
    child("process::a_node_runs_and_stops", true, || {
        let files = Files::new("cores = [1]\nmanagement_core = 0", "net_null0");
        let node = files.steerage(&["run", "--capsule"]).spawn().unwrap();
        let id = node.id();
        let begin = Instant::now();
        let counted = loop {
            let stats = files.steerage(&["stats", "--json"]).output().unwrap();
            let json: Option<serde_json::Value> = serde_json::from_slice(&stats.stdout).ok();
            // The device's frames are of no protocol that is known.
            let dropped = json.and_then(|json| json["totals"]["drops_total"].as_u64());
            if let Some(dropped) = dropped.filter(|dropped| *dropped > 100_000) {
                break dropped;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", String::from_utf8_lossy(&stats.stderr));
            std::thread::sleep(Duration::from_millis(20));
        };
        let threads = cpus_of_threads(id);
        let pinned =
            |name: &str| threads.iter().find(|(n, _)| n.starts_with(name)).map(|(_, cpus)| cpus.as_str());
        assert_eq!((pinned("steerage-core1"), pinned("management")), (Some("1"), Some("0")), "{threads:?}");
        let asked = Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap();
        assert!(asked.success());
        let output = end(node);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        for part in ["started under capsule's runtime", "stopping", "stopped"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(counted > 0 && !files.0.join("socket").exists());
        _ = std::fs::remove_dir("/var/run/dpdk/steerage-n1");
    });
}

#[test]
fn what_it_lacks_is_said() {
    child("process::what_it_lacks_is_said", true, || {
        for (workers, device, parts) in [
            ("", "net_null0", ["cores", "[workers]"]),
            ("cores = [1]", "pcap:a:b", ["port \"front\"", "--capsule"]),
            ("cores = [0]", "net_null0", ["core 0", "main core"]),
        ] {
            let files = Files::new(workers, device);
            let output = end(files.steerage(&["run", "--capsule"]).spawn().unwrap());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    });
}
