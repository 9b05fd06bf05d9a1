//! What [capsule](https://docs.rs/capsule/0.1.5) 0.1.5 expects of its own bindings to DPDK 19.11, given by [`dpdk_sys`], the
//! DPDK of this system. `[patch.crates-io]` in the workspace's manifest puts this crate in the place of the published one, so
//! that capsule's sources are used as they are. Most names are still right and pass through; what stands here was renamed,
//! removed, inline in C, or has to act otherwise than it did.
//!
//! It serves capsule without features, and with `metrics`; not `pcap-dump`.
#![allow(unsafe_code, missing_docs)]
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod arguments;
mod kni;

pub use dpdk_sys::*;
pub use kni::*;

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;

/// The names of DPDK 19.11 for what has the prefix `RTE_` now.
pub const ETH_RSS_IP: u64 = dpdk_sys::STEERAGE_RSS_IP;
pub const ETH_RSS_TCP: u64 = dpdk_sys::STEERAGE_RSS_TCP;
pub const ETH_RSS_UDP: u64 = dpdk_sys::STEERAGE_RSS_UDP;
pub const ETH_RSS_SCTP: u64 = dpdk_sys::STEERAGE_RSS_SCTP;
/// No bit: capsule turns the offload on wherever it is offered, and it is only sound if all frames that a queue sends come
/// from one pool. Steerage's control frames have a pool of their own, and frames pass between ports.
pub const DEV_TX_OFFLOAD_MBUF_FAST_FREE: u64 = 0;

/// Receive modes; a module, as capsule's bindings made one of each enumeration.
pub mod rte_eth_rx_mq_mode {
    pub const ETH_MQ_RX_RSS: dpdk_sys::rte_eth_rx_mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
}

/// Starts DPDK with capsule's arguments in today's words. The strings are copies that live for ever: DPDK keeps pointers to
/// some, and capsule frees its own after the call.
pub unsafe fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int {
    // SAFETY: the caller hands over `argc` strings.
    let given = unsafe { arguments::read(argc, argv) };
    let mut argv: Vec<*mut c_char> = arguments::renamed(given).into_iter().map(|a| a.into_raw()).collect();
    let argc = argv.len() as c_int;
    argv.push(std::ptr::null_mut());
    // SAFETY: `argc` strings that are never freed, and a null pointer; DPDK may reorder the array.
    unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) }
}

/// Leaves the environment as it is until the process ends, which capsule's runtime does not outlive: it would unmap the pools,
/// to which a late frame still goes back.
pub unsafe fn rte_eal_cleanup() -> c_int {
    0
}

/// Leaves the pool mapped, for the same reason.
pub unsafe fn rte_mempool_free(_pool: *mut rte_mempool) {}

/// Ends a thread's identity in DPDK with the thread.
struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread was registered, and a thread-local value is dropped on its thread.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

thread_local! {
    static REGISTERED: RefCell<Option<Registered>> = const { RefCell::new(None) };
}

/// Pins the calling thread, and gives it an identity in DPDK if it has none: capsule starts its threads itself, and without
/// an identity each allocation and each free goes to the pool's shared ring instead of the thread's own cache.
pub unsafe fn rte_thread_set_affinity(cpus: *mut rte_cpuset_t) -> c_int {
    // SAFETY: reads a thread-local.
    if unsafe { dpdk_sys::steerage_lcore_id() } == dpdk_sys::LCORE_ID_ANY {
        // SAFETY: the environment runs: capsule pins threads after it has started DPDK.
        if unsafe { dpdk_sys::rte_thread_register() } < 0 {
            // SAFETY: reads a thread-local.
            return -unsafe { dpdk_sys::steerage_errno() };
        }
        REGISTERED.set(Some(Registered));
    }
    // SAFETY: the caller hands over a set of CPUs.
    unsafe { dpdk_sys::rte_thread_set_affinity(cpus) }
}

/// The NUMA node of a CPU, as libnuma has it; -1 where the kernel doesn't tell.
pub unsafe fn numa_node_of_cpu(cpu: c_int) -> c_int {
    let exists = |node: &c_int| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/node{node}")).exists();
    (0..dpdk_sys::RTE_MAX_NUMA_NODES as c_int).find(exists).unwrap_or(-1)
}

/// The last error of this thread.
pub unsafe fn _rte_errno() -> c_int {
    // SAFETY: reads a thread-local.
    unsafe { dpdk_sys::steerage_errno() }
}

/// `rte_pktmbuf_alloc`.
#[inline]
pub unsafe fn _rte_pktmbuf_alloc(pool: *mut rte_mempool) -> *mut rte_mbuf {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::steerage_alloc(pool) }
}

/// `rte_pktmbuf_alloc_bulk`.
#[inline]
pub unsafe fn _rte_pktmbuf_alloc_bulk(
    pool: *mut rte_mempool,
    frames: *mut *mut rte_mbuf,
    n: c_uint,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::steerage_alloc_bulk(pool, frames, n) }
}

/// `rte_pktmbuf_free`.
#[inline]
pub unsafe fn _rte_pktmbuf_free(frame: *mut rte_mbuf) {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::steerage_free(frame) }
}

/// Frees frames, each to its own pool. Capsule asks to put them all back to the pool of the first, even where it has found
/// that they are of several, and only the first segment of each.
pub unsafe fn _rte_mempool_put_bulk(_pool: *mut rte_mempool, frames: *const *mut c_void, n: c_uint) {
    // SAFETY: capsule hands over `n` frames that are its own; the array is not written to.
    unsafe { dpdk_sys::rte_pktmbuf_free_bulk(frames.cast_mut().cast(), n) }
}

/// `rte_eth_rx_burst`.
#[inline]
pub unsafe fn _rte_eth_rx_burst(port: u16, queue: u16, frames: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::steerage_rx_burst(port, queue, frames, n) }
}

/// `rte_eth_tx_burst`.
#[inline]
pub unsafe fn _rte_eth_tx_burst(port: u16, queue: u16, frames: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::steerage_tx_offer(port, queue, frames, n) }
}
