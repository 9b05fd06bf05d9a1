//! DPDK devices: the environment, pools, and one [`DpdkPort`] for each queue pair of each device.
//!
//! Ownership: a queue holds its device and its pools, and those hold the environment. A device is stopped and closed when
//! its last queue and its monitor are gone. Frames hold nothing, so that they stay one pointer; the memory of the pools is
//! left mapped until the process ends, which makes a late frame harmless.
#![allow(unsafe_code)]

mod device;
mod eal;
mod error;
mod frame;
#[cfg(feature = "capsule")]
pub(super) mod hosted;
mod log;
mod name;
mod pool;
mod port;
mod rights;
mod settings;

pub use eal::{EalConfig, RegisteredThread, register_thread};
pub use error::DpdkError;
pub use frame::Mbuf;
pub use port::DpdkPort;

use super::{DeviceConfig, OpenDevice};
use device::{Device, probe};
use eal::Eal;
use name::DeviceName;
use port::DpdkMonitor;
use settings::may_chain;
use std::sync::Arc;

/// The buffers of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Buffers of a port's pool for received frames.
    pub buffers: u32,
    /// Bytes of packet data that a buffer holds at least, headroom not counted. A few more are used, so that the distance
    /// between buffers is an odd number of cache lines.
    pub bytes: u16,
}

/// Starts DPDK and brings up `devices`, in that order. Once a process.
///
/// # Errors
/// The first thing that stands in the way; what was brought up until then is closed again.
pub fn open(
    eal: &EalConfig,
    devices: &[DeviceConfig],
    buffers: &BufferConfig,
) -> Result<Vec<OpenDevice<DpdkPort>>, DpdkError> {
    let names: Vec<DeviceName> = devices.iter().map(|d| DeviceName::parse(&d.device)).collect();
    for (i, name) in names.iter().enumerate() {
        if let Some(first) = names[..i].iter().position(|n| n.name == name.name) {
            let (port, other) = (devices[i].name.clone(), devices[first].name.clone());
            return Err(DpdkError::Twice { port, device: name.name.clone(), other });
        }
    }
    let chained = devices.iter().any(|d| may_chain(d, buffers.bytes));
    let environment = Eal::start(eal, &names)?;
    let mut open = Vec::with_capacity(devices.len());
    for (config, name) in devices.iter().zip(&names) {
        let id = probe(&environment, config, name)?;
        let device = Device::start(&environment, config, name, id, (eal, buffers), chained)?;
        let (queues, counters) = (0..config.queues).map(|queue| DpdkPort::new(&device, queue)).unzip();
        let monitor = Box::new(DpdkMonitor { device: Arc::clone(&device), queues: counters });
        open.push(OpenDevice { queues, monitor });
    }
    Ok(open)
}
