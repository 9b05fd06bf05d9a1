//! A node whose workers run in capsule's runtime instead of threads of ours.

use super::api::{self, Api};
use super::clock::{self, Clock};
use super::crew::{self, Panic};
use super::devices::{self, DeviceError, Kind};
use super::idle::Backoff;
use super::socket::SocketFile;
use super::{Exit, manage, member, say_totals, signals};
use crate::io::capsule::{Host, HostConfig, Panicked};
use crate::manage::config::{self, Config};
use crate::node::Node;
use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::SIGTERM;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The runtime's main core, where nothing happens but waiting for signals and management, unless configured.
const MAIN_CORE: usize = 0;

/// Runs the node of the configuration file at `path` until SIGTERM, SIGINT or SIGHUP, as [`super::run`] does. The calling
/// thread becomes the runtime's main thread, on the configured management core (else core 0), and management a thread there.
///
/// # Errors
/// [`Exit`]. All that was started is stopped again, the devices are closed and the socket is removed.
pub fn run(path: &Path, new_cluster: bool) -> Result<(), Exit> {
    let clock = Clock::start();
    let config = config::load(path)?;
    if Kind::of(config.ports.iter().map(|p| &p.device))? == Kind::Pcap {
        let port = config.ports.first().map(|p| p.device.name.clone()).unwrap_or_default();
        return Err(DeviceError::PcapOnCapsule(port).into());
    }
    if config.workers.cores.len() < usize::from(config.workers.count) {
        return Err(Exit::NoCores);
    }
    let asked = signals()?;
    // Before the devices: a second process of this node must not touch them.
    let (_file, listener) = SocketFile::claim(&config.admin_socket)?;
    serve((&config, new_cluster), clock, listener, asked)
}

fn serve(
    (config, new_cluster): (&Config, bool),
    clock: Clock,
    listener: UnixListener,
    asked: Arc<AtomicBool>,
) -> Result<(), Exit> {
    let (eal, buffers, devices) = devices::dpdk_config(config);
    let host_config = HostConfig {
        main_core: config.workers.management_core.unwrap_or(MAIN_CORE),
        cores: config.workers.cores.clone(),
        eal,
        buffers,
    };
    let (mut host, devices) = Host::open(&host_config, &devices)?;
    let incarnation = clock::incarnation();
    let (workers, mut manager) = Node::new(config, incarnation, devices, clock.now())?.into_parts();
    let (count, name) = (workers.len(), &config.cluster.nodes[config.me.index()].name);
    member::join(&mut manager, config, new_cluster, clock.now())?;
    for (mut worker, core) in workers.into_iter().zip(&config.workers.cores) {
        let mut backoff = Backoff::new(config.workers.idle);
        let name = format!("worker-{}", worker.id());
        worker.read_clock_by(Arc::new(move || clock.now()));
        host.add(*core, &name, move || {
            let now = clock.now();
            let busy = worker.turn(now);
            backoff.after(busy, now).take();
            busy
        })?;
    }
    let panics = host.panics();
    let (question_in, questions) = bounded(api::QUESTIONS);
    let api = Api::start(listener, question_in)?;
    let socket = config.admin_socket.display();
    tracing::info!(node = %name, %incarnation, workers = count, %socket, "started under capsule's runtime");
    let (ran, panic) = std::thread::scope(|scope| {
        let management =
            std::thread::Builder::new().name("management".to_owned()).spawn_scoped(scope, || {
                let _end = End(&asked);
                let panic = manage(&mut manager, clock, &questions, || first(&panics), &asked);
                if panic.is_none() {
                    tracing::info!("stopping");
                }
                panic
            })?;
        let over = asked.clone();
        let ran = host.run(move || over.load(Ordering::Relaxed));
        // If a port did not start, there was no signal.
        asked.store(true, Ordering::Relaxed);
        let panic = management.join().unwrap_or_else(|payload| {
            Some(Panic { thread: "management".to_owned(), message: crew::message(&*payload) })
        });
        Ok::<_, std::io::Error>((ran, panic))
    })?;
    drop(api);
    say_totals(&mut manager, clock);
    // The monitors first: the runtime closes a port after its last user.
    drop(manager);
    drop(host);
    ran?;
    panic.map_or(Ok(()), |panic| Err(panic.into()))
}

/// Ends the runtime with the management thread, also by its panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.0.load(Ordering::Relaxed) {
            // Nothing but a signal ends capsule's runtime. It can't fail: the signal exists.
            let _ = signal_hook::low_level::raise(SIGTERM);
        }
    }
}

/// The first worker that panicked, if one did.
fn first(panics: &Receiver<Panicked>) -> Option<Panic> {
    let panicked = panics.try_recv().ok()?;
    Some(Panic { thread: panicked.name, message: crew::message(&*panicked.payload) })
}
