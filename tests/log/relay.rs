//! A way to a replica that can be cut, for each of the others apart. Who comes is known by the process that has the other end
//! of the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections end, and new ones with them.
    Closed,
    /// Nothing comes through, and nobody is told.
    Silent,
}

/// Who may pass: by sender, then receiver.
#[derive(Default)]
pub struct Ways {
    closed: Mutex<Vec<(u16, u16, Way)>>,
    /// Process and number of those that run.
    pub running: Mutex<Vec<(u32, u16)>>,
}

impl Ways {
    pub fn set(&self, from: u16, to: u16, way: Way) {
        let mut closed = self.closed.lock().unwrap();
        closed.retain(|(f, t, _)| (*f, *t) != (from, to));
        closed.push((from, to, way));
    }

    pub fn open_all(&self) {
        self.closed.lock().unwrap().clear();
    }

    fn get(&self, from: u16, to: u16) -> Way {
        let closed = self.closed.lock().unwrap();
        closed.iter().find(|(f, t, _)| (*f, *t) == (from, to)).map_or(Way::Open, |(_, _, way)| *way)
    }

    /// Whose socket has the local port `port`; none if nobody has it any more.
    fn whose(&self, port: u16) -> Option<u16> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let wanted = format!(":{port:04X}");
        let row =
            table.lines().find(|row| row.split_whitespace().nth(1).is_some_and(|l| l.ends_with(&wanted)))?;
        let socket = format!("socket:[{}]", row.split_whitespace().nth(9)?);
        let running = self.running.lock().unwrap().clone();
        let has = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|f| std::fs::read_link(f.path()).ok()).any(|l| l.as_os_str() == socket.as_str())
        };
        running.into_iter().find(|(pid, _)| has(*pid)).map(|(_, id)| id)
    }
}

pub struct Relay {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Relay {
    /// A relay in front of replica `to`, which listens at `target`.
    pub fn start(to: u16, target: SocketAddr, ways: Arc<Ways>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => {
                        let (ways, ended) = (ways.clone(), ended.clone());
                        std::thread::spawn(move || pass(&near, to, target, &ways, &ended));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { address, stop }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pass(near: &TcpStream, to: u16, target: SocketAddr, ways: &Ways, ended: &AtomicBool) {
    near.set_nonblocking(false).unwrap();
    let Some(from) = near.peer_addr().ok().and_then(|peer| ways.whose(peer.port())) else { return };
    let Ok(far) = TcpStream::connect(target) else { return };
    for stream in [near, &far] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(near, &far, || ways.get(from, to), ended));
        // Answers go where the one who is answered may be sent to.
        one_way(&far, near, || ways.get(to, from).min(ways.get(from, to)), ended);
    });
}

impl Way {
    /// The worse of two.
    fn min(self, other: Self) -> Self {
        if self == Self::Open { other } else { self }
    }
}

fn one_way(from: &TcpStream, to: &TcpStream, way: impl Fn() -> Way, ended: &AtomicBool) {
    let mut bytes = vec![0; 65_536];
    let (mut from_, mut to_) = (from, to);
    while !ended.load(Ordering::Relaxed) && way() != Way::Closed {
        if way() == Way::Silent {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match from_.read(&mut bytes) {
            Ok(0) => break,
            Ok(got) => {
                // What was under way when the way fell silent waits, as in a network's queues.
                while way() == Way::Silent && !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                if to_.write_all(&bytes[..got]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
