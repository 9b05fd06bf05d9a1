//! The kernel NIC interface, which DPDK 22.11 no longer builds and 23.11 no longer has. Capsule names it even where it isn't
//! used. Here it can be named, and starting it is an error.

use crate::rte_mempool;
use std::ffi::{c_char, c_int, c_uint};

/// ENOTSUP of Linux.
const ENOTSUP: c_int = 95;

/// An interface. There is none, so no function below is called with one.
pub enum rte_kni {}

/// What an interface is asked to be; the fields that capsule fills in.
#[derive(Default)]
pub struct rte_kni_conf {
    pub name: [c_char; 32],
    pub group_id: u16,
    pub mbuf_size: c_uint,
    pub mac_addr: [u8; 6],
}

/// What the kernel may ask of a port; as above.
#[derive(Default)]
pub struct rte_kni_ops {
    pub port_id: u16,
    pub change_mtu: Option<extern "C" fn(u16, c_uint) -> c_int>,
    pub config_network_if: Option<extern "C" fn(u16, u8) -> c_int>,
    pub config_mac_address: Option<extern "C" fn(u16, *mut u8) -> c_int>,
    pub config_promiscusity: Option<extern "C" fn(u16, u8) -> c_int>,
}

/// Refuses: capsule's `Runtime::build` says "Operation not supported".
pub unsafe fn rte_kni_init(_most: c_uint) -> c_int {
    -ENOTSUP
}

pub unsafe fn rte_kni_alloc(
    _pool: *mut rte_mempool,
    _conf: *const rte_kni_conf,
    _ops: *mut rte_kni_ops,
) -> *mut rte_kni {
    std::ptr::null_mut()
}

pub unsafe fn rte_kni_get_name(_kni: *const rte_kni) -> *const c_char {
    c"".as_ptr()
}

pub unsafe fn rte_kni_rx_burst(_kni: *mut rte_kni, _frames: *mut *mut crate::rte_mbuf, _n: c_uint) -> c_uint {
    0
}

pub unsafe fn rte_kni_tx_burst(_kni: *mut rte_kni, _frames: *mut *mut crate::rte_mbuf, _n: c_uint) -> c_uint {
    0
}

pub unsafe fn rte_kni_handle_request(_kni: *mut rte_kni) -> c_int {
    -ENOTSUP
}

pub unsafe fn rte_kni_release(_kni: *mut rte_kni) -> c_int {
    -ENOTSUP
}

pub unsafe fn rte_kni_close() {}
