//! Bringing up a device: what it offers, what is made of it, start and end.

use super::eal::{Eal, error_text};
use super::error::DpdkError;
use super::log;
use super::name::DeviceName;
use super::pool::{PAGE_BUFFER_BYTES, PacketPool, Recipe, buffer_bytes, least_buffers};
use super::port::ETHERNET_BYTES;
use super::rights::{Rights, denied};
#[cfg(feature = "capsule")]
use super::settings::ask_mtu;
use super::settings::{ENOTSUP, Offloads, check_mtu, configure, error_number, set_mtu, wants_scatter};
use super::{BufferConfig, EalConfig};
use crate::base::Mac;
use crate::io::DeviceConfig;
use crate::path::port::{DeviceStats, PortCaps};
use std::ffi::{CString, c_int};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// AF_XDP's driver fills its rings from the pool and keeps as much again in flight, whatever the descriptors say.
const AF_XDP_BUFFERS: u32 = 16_384;
/// The kernel keeps so many bytes of each AF_XDP buffer for itself (XDP_PACKET_HEADROOM).
pub(super) const AF_XDP_HEADROOM: u32 = 256;
/// What is left of the largest buffer that AF_XDP takes: its memory is cut at pages.
pub(super) const AF_XDP_MTU: u16 = PAGE_BUFFER_BYTES - (AF_XDP_HEADROOM + ETHERNET_BYTES) as u16;

/// A device that is configured and running; closed when the last of its queues and its monitor are gone.
#[derive(Debug)]
pub(super) struct Device {
    /// DPDK's number of the port.
    pub id: u16,
    /// What the path may know.
    pub caps: PortCaps,
    /// Whether received frames say what their IPv4 checksum is.
    pub rx_checksums: bool,
    /// Buffers that a frame it sends may be made of.
    pub max_segments: u16,
    /// Where it puts received frames.
    pub data: Arc<PacketPool>,
    /// Control frames that originate here.
    pub control: Arc<PacketPool>,
    /// The kernel's interface that a virtual device sits on.
    interface: Option<CString>,
    /// Keeps the kernel receiving multicast for a driver that has no way to ask for it.
    _multicast: Option<OwnedFd>,
    /// None if another runtime closes it.
    _open: Option<OpenPort>,
    _eal: Arc<Eal>,
}

/// Stops and closes a port, whether it came up whole or not.
#[derive(Debug)]
struct OpenPort(u16);

impl Drop for OpenPort {
    fn drop(&mut self) {
        // SAFETY: the port exists, and no queue is in use: each holds the device. Stopping a stopped port does nothing.
        unsafe { dpdk_sys::rte_eth_dev_stop(self.0) };
        // SAFETY: the port exists and is stopped.
        unsafe { dpdk_sys::rte_eth_dev_close(self.0) };
    }
}

/// Names a port and its device in errors, and makes errors of return codes.
pub(super) struct Steps<'a> {
    pub config: &'a DeviceConfig,
    pub name: &'a DeviceName,
}

impl Steps<'_> {
    pub fn check(&self, step: &'static str, code: c_int) -> Result<(), DpdkError> {
        if code >= 0 { Ok(()) } else { Err(self.failed(step, code)) }
    }

    fn failed(&self, step: &'static str, code: c_int) -> DpdkError {
        // Many drivers return a plain -1, which is no error number.
        let unsaid = if code == -1 { "its driver gives no reason".into() } else { error_text(code) };
        let why = log::said(&unsaid);
        if let Some(needs) = lacking(self.name, &why) {
            return DpdkError::NoPermission { what: self.what(), needs, why };
        }
        DpdkError::Device { port: self.config.name.clone(), device: self.name.name.clone(), step, why }
    }

    /// A failed receive queue is where AF_XDP finds out that it can't have the interface.
    fn af_xdp(&self, error: DpdkError) -> DpdkError {
        match error {
            DpdkError::Device { port, device, why, .. } if self.name.is_af_xdp() => {
                DpdkError::AfXdp { port, device, largest: AF_XDP_MTU, why }
            }
            other => other,
        }
    }

    fn what(&self) -> String {
        format!("port {} ({})", self.config.name, self.config.device)
    }
}

/// How Steerage would have to run for a device that failed with these words, if rights are what is missing.
fn lacking(name: &DeviceName, why: &str) -> Option<String> {
    let rights = Rights::own();
    match rights.missing(name) {
        Some(capabilities) => Some(format!("as root, or with {capabilities}, which it lacks")),
        None if rights.all() || !denied(why) => None,
        None if name.pci => {
            Some("as root, or as a user who may read and write the device's /dev/vfio/GROUP".into())
        }
        None => Some("as root".into()),
    }
}

/// Makes DPDK know the device and returns its number.
pub(super) fn probe(eal: &Eal, config: &DeviceConfig, name: &DeviceName) -> Result<u16, DpdkError> {
    if let Some(interface) = name.interface() {
        let c = c_string(interface)?;
        // SAFETY: a string.
        if unsafe { dpdk_sys::if_nametoindex(c.as_ptr()) } == 0 {
            return Err(DpdkError::NoInterface {
                port: config.name.clone(),
                interface: interface.to_owned(),
            });
        }
    }
    log::forget();
    let mut code = 0;
    if !name.pci {
        let c = c_string(&name.with_bus())?;
        // SAFETY: the environment runs; a string, which DPDK copies.
        code = unsafe { dpdk_sys::rte_dev_probe(c.as_ptr()) };
    }
    let mut id = 0;
    let c = c_string(&name.name)?;
    // SAFETY: a string, and a place for the number.
    let found = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c.as_ptr(), &raw mut id) };
    if code >= 0 && found >= 0 {
        return Ok(id);
    }
    Err(if name.pci {
        why_no_pci(eal, config, name, Path::new("/sys/bus/pci/devices"))
    } else {
        why_no_vdev(config, name, code)
    })
}

pub(super) fn c_string(text: &str) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|_| DpdkError::BadArgument { argument: text.to_owned() })
}

fn why_no_vdev(config: &DeviceConfig, name: &DeviceName, code: c_int) -> DpdkError {
    let why = log::said(&error_text(code));
    if let Some(needs) = lacking(name, &why) {
        let what = format!("port {} ({})", config.name, config.device);
        return DpdkError::NoPermission { what, needs, why };
    }
    if why.contains("no driver found") || why.contains("failed to parse device") {
        return DpdkError::UnknownDriver { port: config.name.clone(), driver: name.name.clone() };
    }
    DpdkError::Probe { port: config.name.clone(), device: config.device.clone(), why }
}

/// Why the PCI device did not come up at start. `devices` is sysfs's directory of them.
fn why_no_pci(eal: &Eal, config: &DeviceConfig, name: &DeviceName, devices: &Path) -> DpdkError {
    let (port, address) = (config.name.clone(), name.name.clone());
    let device = devices.join(&address);
    if !device.exists() {
        return DpdkError::NoPciDevice { port, address };
    }
    let driver = std::fs::read_link(device.join("driver"))
        .ok()
        .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "none".into());
    if ["vfio-pci", "uio_pci_generic", "igb_uio"].contains(&driver.as_str()) {
        let why = format!("{driver} has it: {}", eal.said);
        if let Some(needs) = lacking(name, &why) {
            return DpdkError::NoPermission { what: format!("port {port} ({address})"), needs, why };
        }
        return DpdkError::Probe { port, device: config.device.clone(), why };
    }
    DpdkError::PciDriver { port, address, driver }
}

impl Device {
    /// Configures and starts port `id`. `chained`: some device of the process may deliver frames in several buffers.
    pub fn start(
        eal: &Arc<Eal>,
        config: &DeviceConfig,
        name: &DeviceName,
        id: u16,
        (environment, buffers): (&EalConfig, &BufferConfig),
        chained: bool,
    ) -> Result<Arc<Self>, DpdkError> {
        let steps = Steps { config, name };
        let open = OpenPort(id);
        let info = describe(&steps, id)?;
        let offered = info.max_rx_queues.min(info.max_tx_queues);
        if config.queues > offered {
            let (port, device) = (config.name.clone(), name.name.clone());
            return Err(DpdkError::TooManyQueues { port, device, wanted: config.queues, offered });
        }
        // SAFETY: the port exists.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
        let recipe = Recipe {
            port: &config.name,
            id,
            buffers: buffers.buffers,
            bytes: buffers.bytes,
            socket,
            memory_mb: environment.memory_mb,
        };
        check_mtu(&steps, &info)?;
        let scatter = wants_scatter(&steps, &info, buffer_bytes(buffers.bytes)?)?;
        let offloads = Offloads::choose(&info, scatter, chained);
        configure(&steps, id, &offloads)?;

        let (mut rx_descriptors, mut tx_descriptors) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port exists and is configured; two numbers to read and write.
        let adjusted = unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx_descriptors, &raw mut tx_descriptors)
        };
        steps.check("choose its descriptors", adjusted)?;
        let mut least = least_buffers(config.queues, rx_descriptors, tx_descriptors);
        if name.is_af_xdp() {
            least = least.max(AF_XDP_BUFFERS);
        }
        if buffers.buffers < least {
            let port = config.name.clone();
            return Err(DpdkError::TooFewBuffers { port, buffers: buffers.buffers, wanted: least });
        }
        let data = Arc::new(PacketPool::data(eal, &recipe)?);
        let control = Arc::new(PacketPool::control(eal, &recipe)?);

        for queue in 0..config.queues {
            let mut rx = info.default_rxconf;
            rx.offloads = offloads.rx;
            // SAFETY: the port is configured with so many queues; `rx` is read during the call; the pool lives for ever.
            let code = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    rx_descriptors,
                    socket as u32,
                    &raw const rx,
                    data.as_ptr(),
                )
            };
            steps.check("set up a receive queue", code).map_err(|error| steps.af_xdp(error))?;
            let mut tx = info.default_txconf;
            tx.offloads = offloads.tx;
            // SAFETY: as above.
            let code = unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(id, queue, tx_descriptors, socket as u32, &raw const tx)
            };
            steps.check("set up a transmit queue", code)?;
        }
        set_mtu(&steps, &info, id)?;
        // SAFETY: the port is configured.
        steps.check("start", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        if config.promiscuous {
            // SAFETY: the port exists.
            let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(id) };
            // Devices without address filters have nothing to switch.
            if error_number(code) != ENOTSUP {
                steps.check("receive frames for any address", code)?;
            }
        }
        let multicast = all_multicast(&steps, id)?;
        let mac = address(&steps, id)?;
        Ok(Arc::new(Self {
            id,
            caps: PortCaps { mac, mtu: config.mtu },
            rx_checksums: offloads.rx & dpdk_sys::STEERAGE_RX_OFFLOAD_IPV4_CKSUM != 0,
            max_segments: offloads.max_segments(&info),
            data,
            control,
            interface: name.kernel_interface().map(c_string).transpose()?,
            _multicast: multicast,
            _open: Some(open),
            _eal: eal.clone(),
        }))
    }

    /// Takes on port `id`, which another runtime has configured without offloads, to receive into `data`, and will start,
    /// stop and close.
    #[cfg(feature = "capsule")]
    pub fn adopt(
        eal: &Arc<Eal>,
        config: &DeviceConfig,
        name: &DeviceName,
        id: u16,
        data: &Arc<PacketPool>,
        memory_mb: u32,
    ) -> Result<Arc<Self>, DpdkError> {
        let steps = Steps { config, name };
        let info = describe(&steps, id)?;
        check_mtu(&steps, &info)?;
        let bytes = dpdk_sys::RTE_MBUF_DEFAULT_DATAROOM as u16;
        let around = ETHERNET_BYTES + if name.is_af_xdp() { AF_XDP_HEADROOM } else { 0 };
        let wanted = u32::from(config.mtu) + around;
        if wanted > u32::from(bytes) {
            let (port, device) = (config.name.clone(), name.name.clone());
            return Err(DpdkError::BufferTooSmall { port, device, mtu: config.mtu, bytes, wanted });
        }
        // SAFETY: the port exists.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
        let recipe = Recipe { port: &config.name, id, buffers: 0, bytes, socket, memory_mb };
        let control = Arc::new(PacketPool::control(eal, &recipe)?);
        // What DPDK notes as the MTU of a device without the function, it takes from a configuration that isn't ours.
        ask_mtu(&steps, &info, id)?;
        let multicast = all_multicast(&steps, id)?;
        Ok(Arc::new(Self {
            id,
            caps: PortCaps { mac: address(&steps, id)?, mtu: config.mtu },
            rx_checksums: false,
            max_segments: 1,
            data: data.clone(),
            control,
            interface: name.kernel_interface().map(c_string).transpose()?,
            _multicast: multicast,
            _open: None,
            _eal: eal.clone(),
        }))
    }

    /// The device's counters and link now.
    pub fn stats(&self) -> DeviceStats {
        // SAFETY: all fields are numbers.
        let mut stats: dpdk_sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: the port runs; `stats` is writable. A device without counters leaves zeros.
        unsafe { dpdk_sys::rte_eth_stats_get(self.id, &raw mut stats) };
        // SAFETY: all fields are numbers.
        let mut link: dpdk_sys::rte_eth_link = unsafe { std::mem::zeroed() };
        // SAFETY: as for the counters.
        unsafe { dpdk_sys::rte_eth_link_get_nowait(self.id, &raw mut link) };
        let unknown = link.link_speed == dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN;
        DeviceStats {
            link_up: u32::from(link.link_status()) == dpdk_sys::RTE_ETH_LINK_UP && self.interface_runs(),
            link_mbps: if unknown { 0 } else { link.link_speed },
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffer: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        }
    }
}

impl Device {
    /// Whether the kernel's interface below, if there is one, is up: AF_XDP's driver never looks again after its start.
    fn interface_runs(&self) -> bool {
        let Some(name) = &self.interface else { return true };
        // SAFETY: a string. Negative is an interface of which nothing can be learnt; then the driver's word counts.
        let runs = unsafe { dpdk_sys::steerage_interface_runs(name.as_ptr()) };
        runs != 0
    }
}

/// What the device offers.
fn describe(steps: &Steps<'_>, id: u16) -> Result<dpdk_sys::rte_eth_dev_info, DpdkError> {
    log::forget();
    // SAFETY: all fields are numbers and pointers, for which zero is a value.
    let mut info: dpdk_sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
    // SAFETY: the port exists; `info` is writable.
    steps.check("describe itself", unsafe { dpdk_sys::rte_eth_dev_info_get(id, &raw mut info) })?;
    Ok(info)
}

/// The device's Ethernet address.
fn address(steps: &Steps<'_>, id: u16) -> Result<Mac, DpdkError> {
    // SAFETY: six bytes, for which zero is a value.
    let mut mac: dpdk_sys::rte_ether_addr = unsafe { std::mem::zeroed() };
    // SAFETY: the port exists; `mac` is writable.
    steps.check("tell its address", unsafe { dpdk_sys::rte_eth_macaddr_get(id, &raw mut mac) })?;
    Ok(Mac(mac.addr_bytes))
}

/// Receives all multicast: neighbour discovery arrives by it (RFC 4861 §7.2.1), and cards filter it. A driver of a kernel
/// interface has no function for that, so there the kernel is asked, for as long as the result lives.
fn all_multicast(steps: &Steps<'_>, id: u16) -> Result<Option<OwnedFd>, DpdkError> {
    const STEP: &str = "receive multicast frames";
    log::forget();
    // SAFETY: the port exists.
    let code = unsafe { dpdk_sys::rte_eth_allmulticast_enable(id) };
    if error_number(code) != ENOTSUP {
        return steps.check(STEP, code).map(|()| None);
    }
    let Some(interface) = steps.name.interface() else { return Ok(None) };
    let c = c_string(interface)?;
    // SAFETY: a string.
    let index = unsafe { dpdk_sys::if_nametoindex(c.as_ptr()) };
    log::forget();
    // SAFETY: a number; the shim opens a socket of its own.
    let socket = unsafe { dpdk_sys::steerage_all_multicast(index) };
    steps.check(STEP, socket)?;
    // SAFETY: the shim just opened it, and nobody else has it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(socket) }))
}
