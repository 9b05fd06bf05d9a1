//! What is set at a device before its queues are: offloads, buffers, MTU.

use super::device::{AF_XDP_HEADROOM, AF_XDP_MTU, Steps};
use super::eal::error_text;
use super::error::DpdkError;
use super::log;
use super::pool::PAGE_BUFFER_BYTES;
use super::port::ETHERNET_BYTES;
use crate::io::DeviceConfig;
use std::ffi::c_int;

/// ENOTSUP of Linux; what a driver says to a function that it doesn't have.
pub(super) const ENOTSUP: c_int = 95;

pub(super) fn error_number(code: c_int) -> c_int {
    code.saturating_neg()
}

/// What of a device's offloads is used.
pub(super) struct Offloads {
    pub rx: u64,
    pub tx: u64,
    pub rss: u64,
}

impl Offloads {
    /// LRO is never asked for: it would merge packets that have to be forwarded as they came.
    pub fn choose(info: &dpdk_sys::rte_eth_dev_info, scatter: bool, chained: bool) -> Self {
        let mut rx = dpdk_sys::STEERAGE_RX_OFFLOAD_IPV4_CKSUM;
        if scatter {
            rx |= dpdk_sys::STEERAGE_RX_OFFLOAD_SCATTER;
        }
        // Many drivers have a faster transmit function for frames of one buffer, so chains are asked for only if there
        // can be any.
        let tx = if chained { dpdk_sys::STEERAGE_TX_OFFLOAD_MULTI_SEGS } else { 0 };
        Self {
            rx: rx & info.rx_offload_capa,
            tx: tx & info.tx_offload_capa,
            rss: dpdk_sys::STEERAGE_RSS_IP_TCP_UDP & info.flow_type_rss_offloads,
        }
    }

    /// Buffers that a frame to be sent may be made of. Zero in the device's word is no limit.
    pub fn max_segments(&self, info: &dpdk_sys::rte_eth_dev_info) -> u16 {
        match info.tx_desc_lim.nb_mtu_seg_max {
            _ if self.tx & dpdk_sys::STEERAGE_TX_OFFLOAD_MULTI_SEGS == 0 => 1,
            0 => u16::MAX,
            limit => limit,
        }
    }
}

/// Whether frames of the configured MTU need chained buffers of `bytes`.
///
/// # Errors
/// If they do and the device can't chain.
pub(super) fn wants_scatter(
    steps: &Steps<'_>,
    info: &dpdk_sys::rte_eth_dev_info,
    bytes: u16,
) -> Result<bool, DpdkError> {
    let mut wanted = u32::from(steps.config.mtu) + ETHERNET_BYTES;
    if steps.name.is_af_xdp() {
        if bytes > PAGE_BUFFER_BYTES {
            return Err(DpdkError::BufferTooLarge {
                port: steps.config.name.clone(),
                most: PAGE_BUFFER_BYTES,
            });
        }
        wanted += AF_XDP_HEADROOM;
    }
    if wanted <= u32::from(bytes) {
        return Ok(false);
    }
    if info.rx_offload_capa & dpdk_sys::STEERAGE_RX_OFFLOAD_SCATTER != 0 {
        return Ok(true);
    }
    Err(DpdkError::BufferTooSmall {
        port: steps.config.name.clone(),
        device: steps.name.name.clone(),
        mtu: steps.config.mtu,
        bytes,
        wanted,
    })
}

/// Whether a device with that configuration may deliver frames in several buffers of `bytes`.
pub(super) fn may_chain(config: &DeviceConfig, bytes: u16) -> bool {
    u32::from(config.mtu) + ETHERNET_BYTES > u32::from(bytes)
}

pub(super) fn check_mtu(steps: &Steps<'_>, info: &dpdk_sys::rte_eth_dev_info) -> Result<(), DpdkError> {
    let mut largest = largest_mtu(info);
    if steps.name.is_af_xdp() {
        largest = largest.min(AF_XDP_MTU);
    }
    if steps.config.mtu > largest {
        return Err(mtu_refused(steps, largest, "its driver's limit".into()));
    }
    Ok(())
}

pub(super) fn configure(steps: &Steps<'_>, id: u16, offloads: &Offloads) -> Result<(), DpdkError> {
    let config = steps.config;
    // SAFETY: all fields are numbers and pointers that may be null.
    let mut conf: dpdk_sys::rte_eth_conf = unsafe { std::mem::zeroed() };
    conf.rxmode.mtu = u32::from(config.mtu);
    conf.rxmode.offloads = offloads.rx;
    conf.txmode.offloads = offloads.tx;
    if config.queues > 1 && offloads.rss != 0 {
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        // The driver's own key: which worker receives a flow doesn't matter for who owns it.
        conf.rx_adv_conf.rss_conf.rss_hf = offloads.rss;
    }
    // SAFETY: the port exists and is stopped; `conf` is read during the call.
    let code = unsafe { dpdk_sys::rte_eth_dev_configure(id, config.queues, config.queues, &raw const conf) };
    steps.check("take its configuration", code)
}

/// The MTU that DPDK would let pass: a driver's limits are one for packets and one for frames.
fn largest_mtu(info: &dpdk_sys::rte_eth_dev_info) -> u16 {
    let packets = u32::from(info.max_mtu);
    let known = info.max_mtu != u16::MAX && info.max_rx_pktlen > packets;
    // Without a sensible pair of limits, an Ethernet header and a check sequence stand around the packet.
    let around = if known { info.max_rx_pktlen - packets } else { 14 + 4 };
    packets.min(info.max_rx_pktlen.saturating_sub(around)) as u16
}

/// Sets the MTU and reads it back.
pub(super) fn set_mtu(
    steps: &Steps<'_>,
    info: &dpdk_sys::rte_eth_dev_info,
    id: u16,
) -> Result<(), DpdkError> {
    ask_mtu(steps, info, id)?;
    let (wanted, mut set) = (steps.config.mtu, 0);
    // SAFETY: the port exists; a number to write.
    steps.check("tell its MTU", unsafe { dpdk_sys::rte_eth_dev_get_mtu(id, &raw mut set) })?;
    if set < wanted { Err(mtu_refused(steps, set, "it stayed at that".into())) } else { Ok(()) }
}

/// Asks for the MTU. A software device without the function carries whatever fits a buffer.
pub(super) fn ask_mtu(
    steps: &Steps<'_>,
    info: &dpdk_sys::rte_eth_dev_info,
    id: u16,
) -> Result<(), DpdkError> {
    log::forget();
    // SAFETY: the port is configured.
    let code = unsafe { dpdk_sys::rte_eth_dev_set_mtu(id, steps.config.mtu) };
    if code < 0 && error_number(code) != ENOTSUP {
        return Err(mtu_refused(steps, largest_mtu(info), log::said(&error_text(code))));
    }
    Ok(())
}

fn mtu_refused(steps: &Steps<'_>, largest: u16, why: String) -> DpdkError {
    let (port, device) = (steps.config.name.clone(), steps.name.name.clone());
    DpdkError::MtuRefused { port, device, wanted: steps.config.mtu, largest, why }
}
