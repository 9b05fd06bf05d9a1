//! A process of its own for each test that starts DPDK, which a process can do once.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "STEERAGE_DPDK_TEST_CHILD";
/// A child that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a child process of its own, as root or (`root` false) as nobody.
pub fn child(test: &str, root: bool, body: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        return body();
    }
    let id = Command::new("id").arg("-u").output().unwrap();
    assert_eq!(id.stdout, b"0\n", "the tests of DPDK devices need root");
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]);
    if !root {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    }
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    let mut running = command
        .env(CHILD, test)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let late = loop {
        if running.try_wait().unwrap().is_some() {
            break false;
        }
        if begin.elapsed() > PATIENCE {
            running.kill().unwrap();
            break true;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let id = running.id();
    let output = running.wait_with_output().unwrap();
    // DPDK leaves an empty directory for each prefix; there is none if the test did not start it.
    _ = std::fs::remove_dir(format!("/var/run/dpdk/{}", prefix(id)));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!late && output.status.success(), "{test}: {} late={late}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{test} did not run:\n{out}");
}

/// The prefix of process `id`, which is a child's from its start: `unshare` and `setpriv` become what they run.
pub fn prefix(id: u32) -> String {
    format!("steerage-test-{id}")
}
