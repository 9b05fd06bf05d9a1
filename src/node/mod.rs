//! One whole appliance as a steppable value: its workers and its manager, wired to each other. Production pins the parts to
//! threads ([`Node::into_parts`]); tests and the simulator call [`Node::turn`].

use crate::asdr::Bounds;
use crate::base::limits::{MAX_GROUPS, RING_FRAMES};
use crate::base::{Incarnation, Instant, PortId, WorkerId};
use crate::cluster::namespace::MAX_REAL_SERVER_IDS;
use crate::manage::compile::{self, CompileError};
use crate::manage::config::{Config, PortRole};
use crate::manage::manager::{Device, Manager, WorkerLink};
use crate::path::counters::Counters;
use crate::path::egress::{Egress, Handoff, PortSlot};
use crate::path::message::CHANNEL;
use crate::path::port::{OpenDevice, Port, PortCaps};
use crate::path::promise::Promises;
use crate::path::shared::Shared;
use crate::path::worker::{Parts, Worker};
use crate::table::lease::Lease;
use crate::table::publish;
use crate::table::ring::{self, Consumer, Producer};
use crate::view::Forward;
use crossbeam_channel::bounded;
use std::sync::Arc;

/// Why a node can't be built from its configuration and devices.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    /// The configuration contradicts itself in a way that only shows here.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A device without a queue.
    #[error("port \"{0}\" has no queue, so no worker can use it")]
    NoQueue(String),
    /// A steered packet would not fit the backplane.
    #[error(
        "backplane port \"{backplane}\" carries packets of {mtu} bytes, but a packet of {front_mtu} bytes from port \
         \"{front}\" needs {needed} when it is steered: raise the backplane's MTU or lower the front's"
    )]
    BackplaneMtu {
        /// The backplane port.
        backplane: String,
        /// Its MTU.
        mtu: u16,
        /// The front port.
        front: String,
        /// Its MTU.
        front_mtu: u16,
        /// What the backplane's has to be.
        needed: usize,
    },
}

/// Sessions of a worker that wait at a time until other nodes have them, at most.
const BUSY: u16 = 4096;

/// See the module's text.
pub struct Node<P: Port> {
    workers: Vec<Worker<P>>,
    manager: Manager,
}

/// Rings between every two workers: `producers[from][to]`, `consumers[to]` in order of `from`.
struct Mesh<F> {
    producers: Vec<Vec<Option<Producer<Handoff<F>>>>>,
    consumers: Vec<Vec<Consumer<Handoff<F>>>>,
}

impl<F: Send> Mesh<F> {
    fn new(workers: usize) -> Self {
        let mut mesh = Self {
            producers: (0..workers).map(|_| Vec::new()).collect(),
            consumers: (0..workers).map(|_| Vec::new()).collect(),
        };
        for from in 0..workers {
            for to in 0..workers {
                let pair = (from != to).then(|| ring::ring(RING_FRAMES));
                let (producer, consumer) = pair.unzip();
                mesh.producers[from].push(producer);
                mesh.consumers[to].extend(consumer);
            }
        }
        mesh
    }
}

impl<P: Port> Node<P> {
    /// Builds a node on `devices`, which stand in the order of the configuration's ports.
    pub fn new(
        config: &Config,
        incarnation: Incarnation,
        devices: Vec<OpenDevice<P>>,
        now: Instant,
    ) -> Result<Self, NodeError> {
        let caps = capabilities(config, &devices)?;
        check_backplane(config, &caps)?;
        let view = compile::compile(config, incarnation, &caps)?;
        // With a log, more may come while the node runs.
        let real_servers = view.services.real_servers.len();
        let room = if config.log.is_some() { MAX_REAL_SERVER_IDS } else { real_servers };
        // Without a log, the first View says what there will be.
        let servers = &view.services.virtual_servers;
        let nat = config.log.is_some() || servers.iter().any(|server| server.forward == Forward::Nat);
        let count = usize::from(config.workers.count);
        let (views, subscribers) = publish::channel(view, count);
        let (event_in, events) = bounded(CHANNEL * count);
        let (heartbeat_in, heartbeats) = bounded(CHANNEL);
        let lease = Arc::new(Lease::unlimited());
        let mut mesh = Mesh::new(count);
        let mut queues: Vec<_> =
            devices.into_iter().map(|d| (d.queues.len(), d.queues.into_iter(), d.monitor)).collect();
        let (mut workers, mut links) = (Vec::new(), Vec::new());
        for (i, view) in subscribers.into_iter().enumerate() {
            let id = WorkerId(i as u16);
            let counters = Arc::new(Counters::new(room));
            counters.real_servers.populate(0..real_servers);
            let (command_in, commands) = bounded(CHANNEL);
            let ports =
                queues.iter_mut().zip(&caps).zip(&config.ports).map(|(((count, queues, _), caps), port)| {
                    let backplane = port.role == PortRole::Backplane;
                    PortSlot::new(queues.next(), *count as u16, caps.clone(), backplane)
                });
            let rings = std::mem::take(&mut mesh.producers[i]);
            workers.push(Worker::new(Parts {
                id,
                view,
                egress: Egress::new(
                    id,
                    ports.collect(),
                    rings,
                    (event_in.clone(), heartbeat_in.clone()),
                    Promises::new(lease.clone()),
                    counters.clone(),
                ),
                rings: std::mem::take(&mut mesh.consumers[i]),
                commands,
                sessions: config.tables.sessions,
                session_names: 1 + usize::from(nat),
                steering_sessions: config.tables.steering_sessions,
                shared: Shared::new(
                    config.me,
                    id,
                    config.cluster.hash_key,
                    config.tables.sessions,
                    bounds(config, (id.0, config.workers.count)),
                ),
            }));
            links.push(WorkerLink { counters, commands: command_in });
        }
        let devices = queues
            .into_iter()
            .zip(caps)
            .zip(&config.ports)
            .map(|(((_, _, monitor), caps), port)| Device { name: port.device.name.clone(), caps, monitor });
        let manager = Manager::new(
            config.clone(),
            incarnation,
            (views, lease),
            (events, heartbeats),
            links,
            devices.collect(),
            now,
        );
        Ok(Self { workers, manager })
    }

    /// One turn of every part.
    pub fn turn(&mut self, now: Instant) {
        for worker in &mut self.workers {
            worker.turn(now);
        }
        self.manager.turn(now);
    }

    /// The management side.
    pub fn manager(&mut self) -> &mut Manager {
        &mut self.manager
    }

    /// A worker.
    pub fn worker(&mut self, id: WorkerId) -> &mut Worker<P> {
        &mut self.workers[id.index()]
    }

    /// A worker's queue pair on a port.
    pub fn port(&mut self, worker: WorkerId, port: PortId) -> Option<&mut P> {
        self.workers[worker.index()].port_mut(port)
    }

    /// The parts, for threads of their own.
    pub fn into_parts(self) -> (Vec<Worker<P>>, Manager) {
        (self.workers, self.manager)
    }
}

/// How much a worker shares with other nodes' at most: without a log nothing.
fn bounds(config: &Config, worker: (u16, u16)) -> Bounds {
    let shares = config.log.is_some();
    let (entries, groups) = if shares { (config.tables.shared_entries, MAX_GROUPS) } else { (0, 0) };
    let busy = if shares { BUSY } else { 0 };
    Bounds {
        entries: [0, entries, 0],
        groups,
        worker,
        busy,
        waiters: 2 * busy,
        again: config.cluster.heartbeat,
        patience: config.cluster.suspicion * 2,
        grace: config.cluster.suspicion * 8,
        // A bucket takes a record for each copy then.
        audit: config.cluster.suspicion * 25,
    }
}

fn capabilities<P: Port>(config: &Config, devices: &[OpenDevice<P>]) -> Result<Vec<PortCaps>, NodeError> {
    let each = config.ports.iter().zip(devices).map(|(port, device)| match device.queues.first() {
        Some(queue) => Ok(queue.caps().clone()),
        None => Err(NodeError::NoQueue(port.device.name.clone())),
    });
    each.collect()
}

/// The devices' real MTUs may be below those that were asked for.
fn check_backplane(config: &Config, caps: &[PortCaps]) -> Result<(), NodeError> {
    let of = |role| config.ports.iter().zip(caps).filter(move |(p, _)| p.role == role);
    if config.cluster.nodes.len() < 2 {
        return Ok(()); // nobody to steer to
    }
    let overhead = crate::path::backplane::overhead(config.cluster.nodes[config.me.index()].backplane);
    for (backplane, back) in of(PortRole::Backplane) {
        for (front, caps) in of(PortRole::Front) {
            let needed = usize::from(caps.mtu) + overhead;
            if usize::from(back.mtu) < needed {
                return Err(NodeError::BackplaneMtu {
                    backplane: backplane.device.name.clone(),
                    mtu: back.mtu,
                    front: front.device.name.clone(),
                    front_mtu: caps.mtu,
                    needed,
                });
            }
        }
    }
    Ok(())
}
