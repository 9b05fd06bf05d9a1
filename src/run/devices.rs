//! Which kind of devices a configuration asks for. A node's ports share one kind of frame, so they are all of one kind.

use crate::base::{Mac, NodeId};
#[cfg(feature = "dpdk")]
use crate::io::dpdk::{BufferConfig, EalConfig};
use crate::io::memory::MemoryPools;
use crate::io::pcap::{self, Output, PcapError, PcapPort};
use crate::io::{DeviceConfig, OpenDevice};
use crate::manage::config::Config;

/// Why the devices are not up.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Capture files beside real devices.
    #[error(
        "port \"{pcap}\" is a pair of capture files and port \"{other}\" is not: a node has either capture files or \
         network devices"
    )]
    Mixed {
        /// The port with capture files.
        pcap: String,
        /// The other.
        other: String,
    },
    /// A device that only exists within one process.
    #[error(
        "port \"{0}\": the other end of a `memory` device is in the same process, and a node of its own has nothing \
         there: use a network device or `pcap:IN:OUT`"
    )]
    Memory(String),
    /// Capture files under capsule's runtime, which has DPDK's devices only.
    #[cfg(feature = "capsule")]
    #[error(
        "port \"{0}\": capsule's runtime has no `pcap:IN:OUT` devices: use one of DPDK's \
         (`net_pcap0,rx_pcap=IN,tx_pcap=OUT`), or leave out `--capsule`"
    )]
    PcapOnCapsule(String),
    /// Built without DPDK.
    #[cfg(not(feature = "dpdk"))]
    #[error(
        "port \"{0}\": this binary was built without DPDK (feature `dpdk`) and only has `pcap:IN:OUT` devices"
    )]
    NoDpdk(String),
    /// A capture file can't be used.
    #[error("port \"{port}\": {error}")]
    Pcap {
        /// The port.
        port: String,
        /// Why.
        error: PcapError,
    },
    /// DPDK or a device of it is not up.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] crate::io::dpdk::DpdkError),
}

/// The kind of a configuration's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Capture files.
    Pcap,
    /// Network devices through DPDK.
    Dpdk,
}

impl Kind {
    /// The kind of `devices`.
    ///
    /// # Errors
    /// If they are of several, or of one that can't be opened here.
    pub fn of<'a>(devices: impl Iterator<Item = &'a DeviceConfig> + Clone) -> Result<Self, DeviceError> {
        let is_pcap = |d: &&DeviceConfig| d.device.starts_with("pcap:");
        if let Some(memory) = devices.clone().find(|d| d.device == "memory") {
            return Err(DeviceError::Memory(memory.name.clone()));
        }
        match (devices.clone().find(is_pcap), devices.clone().find(|d| !is_pcap(d))) {
            (Some(pcap), Some(other)) => {
                Err(DeviceError::Mixed { pcap: pcap.name.clone(), other: other.name.clone() })
            }
            (Some(_), None) => Ok(Self::Pcap),
            (None, _) => Ok(Self::Dpdk),
        }
    }
}

/// The Ethernet address of a port that has no hardware: locally administered (IEEE 802-2014 §8.4), and different for each
/// port of each node: `02:00:00:` node (2 bytes) `:` port.
pub fn made_up_mac(node: NodeId, port: usize) -> Mac {
    let [high, low] = node.0.to_be_bytes();
    Mac([0x02, 0, 0, high, low, port as u8])
}

/// Opens all ports as capture files.
///
/// # Errors
/// The first file that can't be used, or would be overwritten while it is used otherwise.
pub fn open_pcap(config: &Config) -> Result<Vec<OpenDevice<PcapPort>>, DeviceError> {
    let names = config.ports.iter().map(|port| port.device.device.as_str());
    if let Err((port, error)) = pcap::distinct(names) {
        return Err(DeviceError::Pcap { port: config.ports[port].device.name.clone(), error });
    }
    let bytes = usize::from(config.dpdk.buffer_bytes);
    let each = config.ports.iter().enumerate().map(|(i, port)| {
        let pools = MemoryPools::new(config.dpdk.buffers as usize, bytes);
        pcap::open(&port.device, made_up_mac(config.me, i), pools)
            .map_err(|error| DeviceError::Pcap { port: port.device.name.clone(), error })
    });
    each.collect()
}

/// Whether the ports' outputs, in their order, were written whole. To be asked when the ports are gone.
///
/// # Errors
/// The first output that was not.
pub fn written(config: &Config, outputs: &[Output]) -> Result<(), DeviceError> {
    config.ports.iter().zip(outputs).try_for_each(|(port, output)| {
        output.result().map_err(|error| DeviceError::Pcap { port: port.device.name.clone(), error })
    })
}

/// Starts DPDK and opens all ports.
///
/// # Errors
/// The first thing that stands in the way.
#[cfg(feature = "dpdk")]
pub fn open_dpdk(config: &Config) -> Result<Vec<OpenDevice<crate::io::dpdk::DpdkPort>>, DeviceError> {
    let (eal, buffers, devices) = dpdk_config(config);
    Ok(crate::io::dpdk::open(&eal, &devices, &buffers)?)
}

/// What DPDK and its devices are to be like.
#[cfg(feature = "dpdk")]
pub(super) fn dpdk_config(config: &Config) -> (EalConfig, BufferConfig, Vec<DeviceConfig>) {
    let eal = EalConfig {
        hugepages: config.dpdk.hugepages,
        memory_mb: config.dpdk.memory_mb,
        file_prefix: format!("steerage-{}", config.cluster.nodes[config.me.index()].name),
        args: config.dpdk.eal_args.clone(),
    };
    let buffers = BufferConfig { buffers: config.dpdk.buffers, bytes: config.dpdk.buffer_bytes };
    (eal, buffers, config.ports.iter().map(|p| p.device.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(devices: &[&str]) -> Result<Kind, String> {
        let devices: Vec<DeviceConfig> = devices
            .iter()
            .enumerate()
            .map(|(i, device)| DeviceConfig {
                name: format!("p{i}"),
                device: (*device).to_owned(),
                queues: 1,
                mtu: 1500,
                rx_descriptors: 64,
                tx_descriptors: 64,
                promiscuous: false,
            })
            .collect();
        Kind::of(devices.iter()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_kinds_are_told_apart_and_not_mixed() {
        assert_eq!(kind(&["pcap:a:b", "pcap:c:d"]), Ok(Kind::Pcap));
        assert_eq!(kind(&["0000:3b:00.0", "net_tap0"]), Ok(Kind::Dpdk));
        assert_eq!(kind(&["net_pcap0,rx_pcap=a"]), Ok(Kind::Dpdk), "DPDK's own driver");
        let mixed = kind(&["net_tap0", "pcap:a:b"]).unwrap_err();
        assert!(mixed.contains("\"p1\"") && mixed.contains("\"p0\""), "{mixed}");
        assert!(kind(&["pcap:a:b", "memory"]).unwrap_err().contains("port \"p1\""));
    }

    #[test]
    fn made_up_addresses_differ() {
        assert_eq!(made_up_mac(NodeId(0x102), 3), Mac([2, 0, 0, 1, 2, 3]));
    }
}
