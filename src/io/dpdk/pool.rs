//! Pools of packet buffers.

use super::eal::Eal;
use super::error::DpdkError;
use super::frame::Mbuf;
use crate::base::limits::{HEAD_BYTES, HEADROOM};
use crate::io::LEAST_BUFFER_BYTES;
use dpdk_sys::{rte_mbuf, rte_mempool};
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

/// Buffers that a thread keeps to itself before it turns to the pool's shared ring; a pool lets a cache grow to half as
/// much again.
const CACHE: u32 = 256;
/// The same for control frames, of which there are few.
const CONTROL_CACHE: u32 = 32;
/// Buffers of a port's pool for control frames.
const CONTROL_BUFFERS: u32 = 2048;

const CACHE_LINE: usize = 64;
/// What a mempool puts in front of each object, rounded up to a cache line.
const OBJECT_HEADER: usize = CACHE_LINE;
/// Least bytes of packet data in a buffer.
const LEAST_BYTES: u16 = LEAST_BUFFER_BYTES;
/// Most bytes of packet data in a buffer: what 16-bit lengths hold with the headroom and the rounding.
const MOST_BYTES: u16 = 65_280;

const _: () = assert!(dpdk_sys::RTE_PKTMBUF_HEADROOM as usize >= HEADROOM);
const _: () = assert!(LEAST_BYTES as usize >= HEAD_BYTES);
const _: () = assert!(MOST_BYTES as usize + HEADROOM + 2 * CACHE_LINE <= u16::MAX as usize + 1);

/// A pool of packet buffers. It is never freed: frames hold no reference to it and may outlive the port.
#[derive(Debug)]
pub(super) struct PacketPool {
    pool: NonNull<rte_mempool>,
    _eal: Arc<Eal>,
}

// SAFETY: a mempool may be used by any number of threads at once.
unsafe impl Send for PacketPool {}
// SAFETY: as above.
unsafe impl Sync for PacketPool {}

/// What a new pool is to be like.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    /// The port's name, for messages.
    pub port: &'a str,
    /// DPDK's number of the port.
    pub id: u16,
    /// Buffers.
    pub buffers: u32,
    /// Least bytes of packet data in a buffer.
    pub bytes: u16,
    /// The NUMA node of the device; negative: any.
    pub socket: i32,
    /// Megabytes that were reserved for all, for messages.
    pub memory_mb: u32,
}

impl PacketPool {
    /// Makes a port's pool for received frames.
    pub fn data(eal: &Arc<Eal>, recipe: &Recipe<'_>) -> Result<Self, DpdkError> {
        Self::new(eal, recipe, &format!("data_{}", recipe.id), recipe.buffers, CACHE)
    }

    /// Makes a port's pool for control frames.
    pub fn control(eal: &Arc<Eal>, recipe: &Recipe<'_>) -> Result<Self, DpdkError> {
        Self::new(eal, recipe, &format!("control_{}", recipe.id), CONTROL_BUFFERS, CONTROL_CACHE)
    }

    fn new(
        eal: &Arc<Eal>,
        recipe: &Recipe<'_>,
        name: &str,
        buffers: u32,
        cache: u32,
    ) -> Result<Self, DpdkError> {
        let room = data_room(recipe.bytes)?;
        let name = CString::new(name).map_err(|_| DpdkError::BadArgument { argument: name.to_owned() })?;
        // SAFETY: the environment runs, and the name is a string; DPDK copies it.
        let pool = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), buffers, cache, 0, room, recipe.socket)
        };
        match NonNull::new(pool) {
            Some(pool) => Ok(Self { pool, _eal: eal.clone() }),
            None => Err(DpdkError::NoMemory {
                port: recipe.port.to_owned(),
                buffers,
                wanted_mb: (u64::from(buffers) * stride(room) as u64).div_ceil(1 << 20),
                memory_mb: recipe.memory_mb,
            }),
        }
    }

    /// The pool of packet buffers that another runtime has made under this name, if there is one. It must never be freed.
    #[cfg(feature = "capsule")]
    pub fn adopt(eal: &Arc<Eal>, name: &std::ffi::CStr) -> Option<Self> {
        // SAFETY: the environment runs, and the name is a string.
        let pool = unsafe { dpdk_sys::rte_mempool_lookup(name.as_ptr()) };
        NonNull::new(pool).map(|pool| Self { pool, _eal: eal.clone() })
    }

    /// The NUMA node that it lies on.
    #[cfg(feature = "capsule")]
    pub fn socket(&self) -> i32 {
        // SAFETY: the pool is never freed, and this number doesn't change once it is made.
        unsafe { self.pool.as_ref() }.socket_id
    }

    /// The pool, for DPDK.
    pub fn as_ptr(&self) -> *mut rte_mempool {
        self.pool.as_ptr()
    }

    /// A frame without bytes.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool was made by rte_pktmbuf_pool_create and is never freed.
        unsafe { Mbuf::alloc(self.pool) }
    }

    /// Buffers that are free, those in threads' caches included. Exact only while nothing moves.
    pub fn free(&self) -> usize {
        // SAFETY: the pool is never freed.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) as usize }
    }

    /// Bytes from one buffer to the next.
    pub fn stride(&self) -> usize {
        // SAFETY: the pool is never freed, and these numbers don't change once it is made.
        let pool = unsafe { self.pool.as_ref() };
        (pool.header_size + pool.elt_size + pool.trailer_size) as usize
    }
}

/// Bytes of packet data that a buffer holds behind its headroom if at least `bytes` are asked for.
pub(super) fn buffer_bytes(bytes: u16) -> Result<u16, DpdkError> {
    Ok(data_room(bytes)? - dpdk_sys::RTE_PKTMBUF_HEADROOM as u16)
}

/// Bytes of packet data in the largest buffer whose stride is at most a page of 4 KiB.
pub(super) const PAGE_BUFFER_BYTES: u16 =
    (4096 - CACHE_LINE - OBJECT_HEADER - size_of::<rte_mbuf>() - dpdk_sys::RTE_PKTMBUF_HEADROOM as usize)
        as u16;

/// Buffers that queues with so many descriptors and so many threads' caches can hold at once.
pub(super) fn least_buffers(queues: u16, rx_descriptors: u16, tx_descriptors: u16) -> u32 {
    let queues = u32::from(queues);
    queues * (u32::from(rx_descriptors) + u32::from(tx_descriptors)) + queues * (CACHE + CACHE / 2)
}

fn stride(room: u16) -> usize {
    OBJECT_HEADER + size_of::<rte_mbuf>() + usize::from(room)
}

/// The data room (headroom included) for `bytes` of packet data, a little more so that the stride is an odd number of cache
/// lines: with an even one, the headers of all buffers would share half of the cache's sets, and of the memory channels.
fn data_room(bytes: u16) -> Result<u16, DpdkError> {
    if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
        return Err(DpdkError::BufferBytes { bytes, least: LEAST_BYTES, most: MOST_BYTES });
    }
    let room = usize::from(bytes) + dpdk_sys::RTE_PKTMBUF_HEADROOM as usize;
    let lines = (OBJECT_HEADER + size_of::<rte_mbuf>() + room).div_ceil(CACHE_LINE) | 1;
    Ok((lines * CACHE_LINE - OBJECT_HEADER - size_of::<rte_mbuf>()) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_odd_numbers_of_cache_lines() {
        for bytes in [LEAST_BYTES, 513, 2048, 2049, 2111, 2112, 2113, 4096, 9216, MOST_BYTES - 1, MOST_BYTES]
        {
            let room = data_room(bytes).unwrap();
            assert!(usize::from(room) >= usize::from(bytes) + HEADROOM);
            assert_eq!(stride(room) % (2 * CACHE_LINE), CACHE_LINE, "{bytes}");
            assert!(
                usize::from(room) < usize::from(bytes) + HEADROOM + 2 * CACHE_LINE,
                "no more than needed"
            );
        }
    }

    #[test]
    fn the_largest_buffer_within_a_page_is_known() {
        assert_eq!(buffer_bytes(PAGE_BUFFER_BYTES).unwrap(), PAGE_BUFFER_BYTES);
        assert!(stride(data_room(PAGE_BUFFER_BYTES).unwrap()) <= 4096);
        assert!(stride(data_room(PAGE_BUFFER_BYTES + 1).unwrap()) > 4096);
    }

    #[test]
    fn senseless_sizes_are_refused() {
        for bytes in [0, LEAST_BYTES - 1, MOST_BYTES + 1, u16::MAX] {
            let refused = data_room(bytes).unwrap_err();
            assert_eq!(refused, DpdkError::BufferBytes { bytes, least: LEAST_BYTES, most: MOST_BYTES });
        }
    }
}
