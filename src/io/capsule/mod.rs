//! Capsule's runtime as the host of workers: it starts DPDK, makes the pools, configures the ports and pins a thread to each
//! core; a worker's turns run in one of its pipelines, on raw bursts. Capsule's own packet types are not used, for the reasons
//! in `docs/capsule.md`.
//!
//! The queues are [`DpdkPort`]s, so a worker can't tell this host from `io::dpdk` and a thread of `run`.
#![allow(unsafe_code)]

mod pipeline;

use super::dpdk::hosted::{Hosted, take_apart};
use super::dpdk::{BufferConfig, DpdkError, DpdkPort, EalConfig};
use super::{DeviceConfig, OpenDevice};
use ::capsule::Runtime;
use ::capsule::config::RuntimeConfig;
use crossbeam_channel::{Receiver, Sender, unbounded};
pub use pipeline::Panicked;
use pipeline::Turns;
use serde_json::json;
use std::mem::ManuallyDrop;
use std::sync::Mutex;

/// Buffers that each thread keeps to itself; capsule's default is none.
const CACHE: u32 = 256;

/// Why capsule's runtime doesn't host.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleError {
    /// A worker on the runtime's main core, whose pipelines capsule drops only after it has closed the ports.
    #[error(
        "core {0} is the main core of capsule's runtime, and can't have a worker: choose another for one of them"
    )]
    MainCore(usize),
    /// Two workers on one core, where capsule has one thread and one queue.
    #[error("core {0} has two workers: under capsule's runtime each needs a core of its own")]
    SharedCore(usize),
    /// DPDK or a device.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// The runtime's own words.
    #[error("capsule's runtime: {0}")]
    Runtime(String),
}

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The core that the thread which opens the host is pinned to; no worker's.
    pub main_core: usize,
    /// A core for each worker, in their order.
    pub cores: Vec<usize>,
    /// DPDK's environment. [`EalConfig::args`] must hold no white space.
    pub eal: EalConfig,
    /// Buffers for each device. Capsule makes one pool of all for each NUMA node, with its own 2048 bytes a buffer.
    pub buffers: BufferConfig,
}

/// Capsule's runtime with the ports open and not started.
pub struct Host {
    runtime: ManuallyDrop<Runtime>,
    hosted: Hosted,
    panic_in: Sender<Panicked>,
    panics: Receiver<Panicked>,
}

impl Host {
    /// Starts capsule's runtime, once a process, and gives the queues of `devices` in that order: each worker's stand at its
    /// place, as far as the device has as many. The calling thread is pinned to the main core, and has to be the one that
    /// calls [`Host::run`].
    ///
    /// # Errors
    /// [`CapsuleError`].
    pub fn open(
        config: &HostConfig,
        devices: &[DeviceConfig],
    ) -> Result<(Self, Vec<OpenDevice<DpdkPort>>), CapsuleError> {
        for (i, core) in config.cores.iter().enumerate() {
            if *core == config.main_core {
                return Err(CapsuleError::MainCore(*core));
            }
            if config.cores[..i].contains(core) {
                return Err(CapsuleError::SharedCore(*core));
            }
        }
        let runtime_config = runtime_config(config, devices)?;
        let build = || Runtime::build(runtime_config);
        let (hosted, runtime) = Hosted::start(config.eal.memory_mb, build)?;
        let (panic_in, panics) = unbounded();
        let mut host = Self { runtime: ManuallyDrop::new(runtime), hosted, panic_in, panics };
        let open = devices.iter().map(|device| {
            let cores = cores_of(config, device);
            host.hosted.adopt(device, &queues(cores))
        });
        let open = open.collect::<Result<_, _>>()?;
        Ok((host, open))
    }

    /// Installs a worker's `turn` on one of the configured cores. It says whether there was something to do. Its thread has an
    /// identity in DPDK.
    ///
    /// # Errors
    /// [`CapsuleError::Runtime`] if the core is none of a port's.
    pub fn add<T>(&mut self, core: usize, name: &str, turn: T) -> Result<(), CapsuleError>
    where
        T: FnMut() -> bool + Send + 'static,
    {
        // Capsule asks for more than it needs: what installs a pipeline is called once, on one thread.
        let turns = Mutex::new(Turns::new(name, turn, self.panic_in.clone()));
        let install = |_| turns.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.runtime.add_pipeline_to_core(core, install) {
            Ok(_) => Ok(()),
            Err(error) => Err(CapsuleError::Runtime(error.to_string())),
        }
    }

    /// Where panics of turns are told: a turn that panicked is not called again and is gone with all it owned. Capsule by
    /// itself would only lose the thread.
    pub fn panics(&self) -> Receiver<Panicked> {
        self.panics.clone()
    }

    /// Starts the ports and lets the turns run until the process gets SIGTERM, SIGINT or SIGHUP and `over` is true then. After
    /// that, the turns are gone with all they owned, and the ports are stopped. Queues that no turn owns must not be in use
    /// then.
    ///
    /// # Errors
    /// [`CapsuleError::Runtime`] if a port doesn't start.
    pub fn run(&mut self, over: impl Fn() -> bool + 'static) -> Result<(), CapsuleError> {
        self.runtime.set_on_signal(move |_| over());
        self.runtime.execute().map_err(|error| CapsuleError::Runtime(error.to_string()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Capsule closes the ports, whoever still uses them. Then they stay open until the process ends.
        if self.hosted.unused() {
            // SAFETY: nothing uses the runtime after this; its pools and the environment stay mapped (`capsule-ffi`), so a late
            // frame does no harm.
            unsafe { ManuallyDrop::drop(&mut self.runtime) };
        }
    }
}

/// The cores of the workers that have a queue of the device.
fn cores_of<'a>(config: &'a HostConfig, device: &DeviceConfig) -> &'a [usize] {
    &config.cores[..config.cores.len().min(usize::from(device.queues))]
}

/// The number of each core's queue: capsule counts them in the order of the cores' numbers.
fn queues(cores: &[usize]) -> Vec<u16> {
    cores.iter().map(|core| cores.iter().filter(|other| *other < core).count() as u16).collect()
}

fn runtime_config(config: &HostConfig, devices: &[DeviceConfig]) -> Result<RuntimeConfig, CapsuleError> {
    let eal = &config.eal;
    let mut args: Vec<String> = Vec::new();
    args.extend(["-m".into(), eal.memory_mb.to_string(), "--no-telemetry".into()]);
    let memory: &[&str] = if eal.hugepages { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    args.extend(memory.iter().map(|a| (*a).to_owned()));
    args.extend(["--log-level".into(), "*:warning".into()]);
    let mut ports = Vec::new();
    let mut pci = false;
    for device in devices {
        let (name, arguments, is_pci) = take_apart(&device.device);
        pci |= is_pci;
        ports.push(json!({
            "name": device.name,
            "device": name,
            "args": arguments,
            "cores": cores_of(config, device),
            "rxd": device.rx_descriptors,
            "txd": device.tx_descriptors,
            "promiscuous": device.promiscuous,
        }));
    }
    if !pci {
        args.push("--no-pci".into());
    }
    args.extend(eal.args.iter().cloned());
    // Its types for cores are private: a value that is read is the only way to them.
    let value = json!({
        "app_name": "steerage",
        "app_group": eal.file_prefix,
        "master_core": config.main_core,
        "cores": config.cores,
        "mempool": { "capacity": config.buffers.buffers as usize * devices.len().max(1), "cache_size": CACHE },
        "ports": ports,
        "dpdk_args": args.join(" "),
    });
    serde_json::from_value(value).map_err(|error| CapsuleError::Runtime(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_follow_the_numbers_of_the_cores() {
        assert_eq!(queues(&[1, 2, 3]), [0, 1, 2]);
        assert_eq!(queues(&[7, 2, 5]), [2, 0, 1]);
    }
}
