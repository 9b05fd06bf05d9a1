//! A child process, its lines, and its end with the test's.

use crate::replica::{CHILD, Orders};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;

/// What a child has said.
#[derive(Clone, Debug)]
pub struct Said {
    pub id: u16,
    /// Which of its lives.
    pub life: usize,
    /// A line without its mark, or none: the process has ended.
    pub line: Option<String>,
}

pub struct Process {
    child: Child,
    input: ChildStdin,
    stopped: bool,
}

impl Process {
    /// Starts test `test` of this very program as a replica. With `disk`, in a mount namespace of its own in which the data
    /// directory has room for so many bytes.
    pub fn replica(test: &str, orders: &Orders, disk: Option<usize>, life: usize, to: Sender<Said>) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match disk {
            None => Command::new(&program),
            Some(bytes) => {
                std::fs::create_dir_all(&orders.data).unwrap();
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c"]);
                command.arg("mount -t tmpfs -o size=$0 none \"$1\" && shift && exec \"$@\"");
                command.arg(bytes.to_string()).arg(&orders.data).arg(&program);
                command
            }
        };
        command.args([test, "--exact", "--nocapture"]);
        command.env(CHILD, serde_json::to_string(orders).unwrap());
        Self::start(command, orders.id, life, to)
    }

    /// Starts the program itself as a witness.
    pub fn witness(id: u16, file: &Path, life: usize, to: Sender<Said>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
        command.arg("witness").arg(file);
        Self::start(command, id, life, to)
    }

    fn start(mut command: Command, id: u16, life: usize, to: Sender<Said>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("STEERAGE_LOG_TEST_NOISE").is_some() {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                // A process that was killed may leave half a line.
                let Ok(line) = line else { break };
                if let Some(at) = line.find('@') {
                    let _ = to.send(Said { id, life, line: Some(line[at + 1..].to_owned()) });
                }
            }
            let _ = to.send(Said { id, life, line: None });
        });
        Self { child, input, stopped: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a line; one that has died doesn't get it.
    pub fn command(&mut self, line: &str) {
        if !self.stopped {
            let _ = writeln!(self.input, "{line}");
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn pause(&mut self) {
        self.signal("STOP");
        self.stopped = true;
    }

    pub fn resume(&mut self) {
        self.signal("CONT");
        self.stopped = false;
    }

    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
