//! Threads, clocks and sockets: a node as a process, and the command line's side of its admin API.

pub mod admin;
pub mod api;
pub mod authority;
#[cfg(feature = "capsule")]
pub mod capsule;
pub mod client;
pub mod clock;
pub mod crew;
pub mod devices;
pub mod draw;
pub mod explain;
pub mod gate;
pub mod health;
pub mod idle;
pub mod log;
pub mod member;
pub mod show;
pub mod socket;

use crate::base::Instant;
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::namespace::Outcome;
use crate::cluster::state::Entry;
use crate::io::OpenDevice;
use crate::io::pcap::{Output, PcapPort};
use crate::manage::config::{self, Config, Errors};
use crate::manage::manager::Manager;
use crate::node::{Node, NodeError};
use crate::path::port::Port;
use crate::path::worker::Worker;
use api::{Api, Question, Reply};
use clock::Clock;
use crew::{Crew, Job, Panic, Refused};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use devices::{DeviceError, Kind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use socket::{SocketError, SocketFile};
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two turns of the management thread.
const STEP: Duration = Duration::from_millis(1);

/// What [`Exit::code`] is for a panic.
pub const EXIT_PANIC: u8 = 3;

/// Why a node did not run, or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Errors),
    /// A device is not up.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Configuration and devices don't fit.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The admin socket can't be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The node can't take part in its cluster.
    #[error(transparent)]
    Member(#[from] member::MemberError),
    /// A worker thread did not start.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The management thread can't be pinned.
    #[error("the management thread did not start: {0}")]
    Management(String),
    /// Signals or the admin API's thread.
    #[error("the process can't be set up: {0}")]
    System(#[from] std::io::Error),
    /// Capsule's runtime doesn't host the workers.
    #[cfg(feature = "capsule")]
    #[error(transparent)]
    Capsule(#[from] crate::io::capsule::CapsuleError),
    /// Capsule's runtime pins its threads.
    #[cfg(feature = "capsule")]
    #[error("capsule's runtime needs a core for each worker: set `cores` in `[workers]`")]
    NoCores,
    /// A worker panicked.
    #[error("{0}; the node has stopped")]
    Panic(#[from] Panic),
}

impl Exit {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Panic(_) => EXIT_PANIC,
            _ => 1,
        }
    }
}

/// Runs the node of the configuration file at `path` until SIGTERM, SIGINT or SIGHUP. (A second signal ends the process at once,
/// with 128 and its number.) The calling thread becomes the management thread. For `new_cluster` see [`member::join`].
///
/// # Errors
/// [`Exit`]. All that was started is stopped again, the devices are closed and the socket is removed.
pub fn run(path: &Path, new_cluster: bool) -> Result<(), Exit> {
    let clock = Clock::start();
    let config = config::load(path)?;
    let kind = Kind::of(config.ports.iter().map(|p| &p.device))?;
    let asked = signals()?;
    // Before the devices: a second process of this node must not touch them.
    let (_file, listener) = SocketFile::claim(&config.admin_socket)?;
    match kind {
        Kind::Pcap => {
            let devices = devices::open_pcap(&config)?;
            let outputs: Vec<Output> = devices.iter().flat_map(|d| &d.queues).map(PcapPort::output).collect();
            let result = serve((&config, new_cluster), devices, clock, listener, &asked, || Ok(()));
            // All ports are gone now, and with them what they had still to write.
            result.and(devices::written(&config, &outputs).map_err(Exit::from))
        }
        #[cfg(feature = "dpdk")]
        Kind::Dpdk => {
            let devices = devices::open_dpdk(&config)?;
            let register = || crate::io::dpdk::register_thread().map_err(|error| error.to_string());
            serve((&config, new_cluster), devices, clock, listener, &asked, register)
        }
        #[cfg(not(feature = "dpdk"))]
        Kind::Dpdk => {
            let port = config.ports.first().map(|p| p.device.name.clone()).unwrap_or_default();
            Err(DeviceError::NoDpdk(port).into())
        }
    }
}

/// A flag that the first SIGTERM, SIGINT or SIGHUP sets. (A terminal that is closed sends the last; there is nothing that
/// could be read again.)
fn signals() -> Result<Arc<AtomicBool>, std::io::Error> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        // As nohup(1) asks.
        if signal == SIGHUP && ignored(signal) {
            continue;
        }
        // In this order: the shutdown must not see the flag that the same signal sets.
        flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())?;
        flag::register(signal, asked.clone())?;
    }
    Ok(asked)
}

/// Whether the process was started with `signal` ignored (`SigIgn` in proc_pid_status(5)).
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Builds a node on `devices` and runs it until `asked` or a worker's panic. `prepare` runs on each worker thread.
fn serve<P: Port, G: 'static>(
    (config, new_cluster): (&Config, bool),
    devices: Vec<OpenDevice<P>>,
    clock: Clock,
    listener: UnixListener,
    asked: &AtomicBool,
    prepare: fn() -> Result<G, String>,
) -> Result<(), Exit> {
    let incarnation = clock::incarnation();
    let (workers, mut manager) = Node::new(config, incarnation, devices, clock.now())?.into_parts();
    let (count, name) = (workers.len(), &config.cluster.nodes[config.me.index()].name);
    member::join(&mut manager, config, new_cluster, clock.now())?;
    // The manager outlives the workers: with its device monitors, the devices are closed on this thread.
    let crew = Crew::start(clock, jobs(config, clock, workers), prepare)?;
    // After the workers have started: they would inherit this.
    crew::pin(config.workers.management_core).map_err(Exit::Management)?;
    let (question_in, questions) = bounded(api::QUESTIONS);
    let api = Api::start(listener, question_in)?;
    let socket = config.admin_socket.display();
    tracing::info!(node = %name, %incarnation, workers = count, %socket, "started");
    let panic = manage(&mut manager, clock, &questions, || crew.panicked(), asked);
    if panic.is_none() {
        tracing::info!("stopping");
    }
    // A worker that goes down with the first one adds nothing.
    let panic = panic.or(crew.stop());
    drop(api);
    say_totals(&mut manager, clock);
    panic.map_or(Ok(()), |panic| Err(panic.into()))
}

/// Tells what a node that has stopped has done.
fn say_totals(manager: &mut Manager, clock: Clock) {
    let totals = manager.stats(clock.now()).totals;
    // Drops are of all ports, so the frames are, too.
    let count = |names: [&str; 2]| names.iter().filter_map(|name| totals.counters.get(name)).sum::<u64>();
    let (received, sent) = (count(["rx", "backplane_rx"]), count(["tx", "backplane_tx"]));
    tracing::info!(received, sent, dropped = totals.drops_total, "stopped");
}

fn jobs<P: Port>(
    config: &Config,
    clock: Clock,
    workers: Vec<Worker<P>>,
) -> Vec<Job<impl FnMut(Instant) -> bool + Send + use<P>>> {
    let each = workers.into_iter().map(|mut worker| {
        worker.read_clock_by(Arc::new(move || clock.now()));
        let id = worker.id();
        Job {
            name: format!("worker-{id}"),
            core: config.workers.cores.get(id.index()).copied(),
            idle: config.workers.idle,
            turn: move |now| worker.turn(now),
        }
    });
    each.collect()
}

/// The management thread's loop. The panic that ended it, if that was not `asked`.
fn manage(
    manager: &mut Manager,
    clock: Clock,
    questions: &Receiver<Question>,
    panicked: impl Fn() -> Option<Panic>,
    asked: &AtomicBool,
) -> Option<Panic> {
    let mut ready = false;
    let mut explaining = BTreeMap::new();
    let mut deciding: BTreeMap<Ask, Reply<Option<Answer>>> = BTreeMap::new();
    loop {
        manager.turn(clock.now());
        while let Some((ticket, answer)) = manager.explained(clock.now()) {
            let reply: Option<Reply<_>> = explaining.remove(&ticket);
            if let Some(reply) = reply {
                reply.give(answer);
            }
        }
        let decided: Vec<_> = deciding.keys().filter_map(|ask| Some((*ask, manager.answer(*ask)?))).collect();
        for (ask, answer) in decided {
            if let Some(reply) = deciding.remove(&ask) {
                reply.give(Some(answer));
            }
        }
        if manager.ready(clock.now()) != ready {
            ready = !ready;
            tracing::info!("{}", if ready { "ready" } else { "not ready" });
        }
        if let Some(panic) = panicked() {
            return Some(panic);
        }
        if asked.load(Ordering::Relaxed) {
            return None;
        }
        match questions.recv_timeout(STEP) {
            Ok(Question::Stats(reply)) => reply.give(manager.stats(clock.now())),
            Ok(Question::Explain(request, reply)) => {
                explaining.insert(manager.explain(request, clock.now()), reply);
            }
            Ok(Question::Look(look)) => look(manager, clock.now()),
            Ok(Question::Preview(changes, reply)) => reply.give(manager.preview(&changes)),
            Ok(Question::Ask(entry, reply)) => match put(manager, entry, clock.now()) {
                Ok(Some(ask)) => _ = deciding.insert(ask, reply),
                Ok(None) => reply.give(None),
                Err(answer) => reply.give(Some(answer)),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(STEP),
        }
    }
}

/// Has something decided, unless it is a write by which this very node couldn't serve.
fn put(manager: &mut Manager, entry: Entry, now: Instant) -> Result<Option<Ask>, Answer> {
    if let Entry::Write(write) = &entry {
        let faults = manager.misfits(&write.changes);
        if !faults.is_empty() {
            return Err(Answer::Written(Outcome::Refused { faults, more: 0 }));
        }
    }
    Ok(manager.ask(entry, now))
}

#[cfg(test)]
mod tests;
