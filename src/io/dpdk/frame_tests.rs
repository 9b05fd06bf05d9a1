//! Chains of buffers, which virtual devices don't deliver with a short first segment. One test: DPDK starts once a process.

use super::*;
use crate::base::limits::HEADROOM;
use crate::io::dpdk::eal::{Eal, EalConfig};
use crate::io::dpdk::pool::{PacketPool, Recipe};

/// A frame of segments of these lengths, whose bytes count up from zero.
fn chain(pool: &PacketPool, lengths: &[usize]) -> Mbuf {
    let mut next_byte = 0u8;
    let mut segments: Vec<Mbuf> = Vec::new();
    for &len in lengths {
        let mut segment = pool.alloc().unwrap();
        assert!(segment.grow_back(len));
        for byte in segment.head_mut() {
            *byte = next_byte;
            next_byte = next_byte.wrapping_add(1);
        }
        segments.push(segment);
    }
    let mut rest: *mut rte_mbuf = std::ptr::null_mut();
    for mut segment in segments.drain(1..).rev() {
        segment.header_mut().next = rest;
        rest = segment.0.as_ptr();
        std::mem::forget(segment);
    }
    let mut first = segments.remove(0);
    let header = first.header_mut();
    header.next = rest;
    header.nb_segs = lengths.len() as u16;
    header.pkt_len = lengths.iter().sum::<usize>() as u32;
    first
}

/// The lengths of a frame's segments, and all its bytes.
fn take_apart(frame: &Mbuf) -> (Vec<usize>, Vec<u8>) {
    let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
    let mut next = frame.0.as_ptr();
    while let Some(segment) = NonNull::new(next) {
        // The borrow stands for a frame of one segment; it must not be dropped.
        let view = std::mem::ManuallyDrop::new(Mbuf(segment));
        lengths.push(view.head().len());
        bytes.extend_from_slice(view.head());
        next = view.header().next;
    }
    assert_eq!(lengths.len(), usize::from(frame.segments()));
    assert_eq!(bytes.len(), frame.len());
    (lengths, bytes)
}

fn counting(n: usize) -> Vec<u8> {
    (0..n).map(|i| i as u8).collect()
}

#[test]
fn chains() {
    let config = EalConfig {
        hugepages: false,
        memory_mb: 64,
        file_prefix: "steerage-frames".into(),
        args: Vec::new(),
    };
    let eal = Eal::start(&config, &[]).unwrap();
    let recipe = Recipe { port: "p", id: 0, buffers: 512, bytes: 2048, socket: -1, memory_mb: 64 };
    let pool = PacketPool::data(&eal, &recipe).unwrap();
    assert_eq!(pool.free(), 512);

    // A short start is filled from what follows, and emptied segments go.
    for (lengths, whole, after) in [
        (vec![300], true, vec![300]),
        (vec![192, 10], true, vec![192, 10]),
        (vec![20, 172], false, vec![192]),
        (vec![20, 100], false, vec![120]),
        (vec![14, 20, 0, 20, 1000], false, vec![192, 862]),
        (vec![0, 50, 500], false, vec![192, 358]),
        (vec![191, 1, 1], false, vec![192, 1]),
    ] {
        let mut frame = chain(&pool, &lengths);
        assert_eq!(frame.head_is_whole(), whole, "{lengths:?}");
        assert!(frame.gather_head());
        assert!(frame.head_is_whole());
        assert_eq!(take_apart(&frame), (after, counting(lengths.iter().sum())), "{lengths:?}");
    }
    assert_eq!(pool.free(), 512, "no segment is lost");

    // Without tailroom the start can't be filled; nor from a chain that ends before its length says.
    let mut frame = chain(&pool, &[10, 300]);
    frame.header_mut().data_off = frame.header().buf_len - 11;
    assert!(!frame.gather_head());
    drop(frame);
    let mut frame = chain(&pool, &[10, 20]);
    frame.header_mut().pkt_len = 500;
    assert!(!frame.gather_head());
    drop(frame);

    for (lengths, cut, after) in [
        (vec![100, 100, 100], 300, vec![100, 100, 100]),
        (vec![100, 100, 100], 299, vec![100, 100, 99]),
        (vec![100, 100, 100], 200, vec![100, 100]),
        (vec![100, 100, 100], 101, vec![100, 1]),
        (vec![100, 100, 100], 100, vec![100]),
        (vec![100, 100, 100], 0, vec![0]),
        (vec![100, 0, 100], 150, vec![100, 0, 50]),
        (vec![100], 60, vec![60]),
    ] {
        let mut frame = chain(&pool, &lengths);
        frame.truncate(cut);
        assert_eq!(take_apart(&frame), (after, counting(cut)), "{lengths:?} cut to {cut}");
    }

    let mut frame = chain(&pool, &[100, 900]);
    assert!(!frame.grow_back(1), "only the last segment has a tail");
    assert!(!frame.shrink_front(101));
    assert!(frame.shrink_front(100) && frame.len() == 900 && frame.head().is_empty());
    assert!(frame.grow_front(100 + HEADROOM) && frame.len() == 1000 + HEADROOM);
    assert!(frame.shrink_front(HEADROOM));
    assert!(frame.gather_all());
    assert_eq!(take_apart(&frame), (vec![1000], counting(1000)));
    let mut too_long = chain(&pool, &[2000, 2000]);
    assert!(!too_long.gather_all());
    assert_eq!(take_apart(&too_long).0, [2000, 2000]);
    drop((frame, too_long));

    let mut frame = chain(&pool, &[100]);
    let says = |frame: &mut Mbuf, flags| {
        frame.header_mut().ol_flags = flags;
        frame.rx_checksum()
    };
    let (good, bad) = (dpdk_sys::STEERAGE_MBUF_RX_IP_CKSUM_GOOD, dpdk_sys::STEERAGE_MBUF_RX_IP_CKSUM_BAD);
    assert_eq!(says(&mut frame, good), RxChecksum::Good);
    assert_eq!(says(&mut frame, bad), RxChecksum::Bad);
    assert_eq!(says(&mut frame, good | bad), RxChecksum::Unknown);
    assert_eq!(says(&mut frame, 0), RxChecksum::Unknown);
    frame.header_mut().ol_flags = good;
    frame.clear_flags();
    assert_eq!(frame.header().ol_flags, 0);
    drop(frame);
    assert_eq!(pool.free(), 512);
}
