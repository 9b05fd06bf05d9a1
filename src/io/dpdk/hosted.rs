//! Queues of devices that capsule's runtime has brought up. The environment, the data pools and the ports are the runtime's;
//! the queues, the frames and the pools of control frames are those of all DPDK devices.

use super::device::{Device, c_string};
use super::eal::Eal;
use super::error::DpdkError;
use super::name::DeviceName;
use super::pool::PacketPool;
use super::port::{DpdkMonitor, DpdkPort};
use crate::io::{DeviceConfig, OpenDevice};
use std::sync::Arc;

/// The environment of another runtime, with its pools and the ports that were taken on.
pub(in crate::io) struct Hosted {
    eal: Arc<Eal>,
    pools: Vec<Arc<PacketPool>>,
    memory_mb: u32,
    devices: Vec<Arc<Device>>,
}

/// A device's name and arguments, as capsule wants them apart, and whether it is a PCI device.
pub(in crate::io) fn take_apart(device: &str) -> (String, Option<String>, bool) {
    let name = DeviceName::parse(device);
    (name.name, Some(name.arguments).filter(|a| !a.is_empty()), name.pci)
}

impl Hosted {
    /// Has the environment started by `start`, once a process, and takes on its pools: `mempool0`, `mempool1` and so on, which
    /// must stay mapped until the process ends. `memory_mb` is for messages.
    ///
    /// # Errors
    /// [`DpdkError`]: DPDK ran before, or `start` failed.
    pub fn start<T, E: std::fmt::Display>(
        memory_mb: u32,
        start: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), DpdkError> {
        let (eal, started) = Eal::hosted(start)?;
        let found = (0..).map_while(|i| {
            let name = std::ffi::CString::new(format!("mempool{i}")).ok()?;
            PacketPool::adopt(&eal, &name).map(Arc::new)
        });
        let pools = found.collect();
        Ok((Self { eal, pools, memory_mb, devices: Vec::new() }, started))
    }

    /// The queues with these numbers of a device that the runtime has configured and not started.
    ///
    /// # Errors
    /// [`DpdkError`]: there is no such port, or it can't carry packets of the MTU.
    pub fn adopt(
        &mut self,
        config: &DeviceConfig,
        queues: &[u16],
    ) -> Result<OpenDevice<DpdkPort>, DpdkError> {
        let name = DeviceName::parse(&config.device);
        let missing = |why: &str| DpdkError::Probe {
            port: config.name.clone(),
            device: config.device.clone(),
            why: why.to_owned(),
        };
        let mut id = 0;
        let c = c_string(&name.name)?;
        // SAFETY: a string, and a place for the number.
        if unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c.as_ptr(), &raw mut id) } < 0 {
            return Err(missing("no port has its name"));
        }
        // SAFETY: the port exists.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
        let near = self.pools.iter().find(|pool| pool.socket() == socket).or(self.pools.first());
        let data = near.ok_or_else(|| missing("its runtime has no buffers"))?;
        let device = Device::adopt(&self.eal, config, &name, id, data, self.memory_mb)?;
        let (queues, counters) = queues.iter().map(|&queue| DpdkPort::new(&device, queue)).unzip();
        self.devices.push(Arc::clone(&device));
        Ok(OpenDevice { queues, monitor: Box::new(DpdkMonitor { device, queues: counters }) })
    }

    /// Whether all queues and monitors are gone.
    pub fn unused(&self) -> bool {
        self.devices.iter().all(|device| Arc::strong_count(device) == 1)
    }
}
