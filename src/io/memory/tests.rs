use super::*;
use crate::base::limits::{BURST, HEADROOM};

fn caps() -> PortCaps {
    PortCaps { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1500 }
}

#[test]
fn frames_grow_and_shrink_within_their_buffer() {
    let pool = MemoryPool::new(1, 256);
    let mut frame = pool.frame(b"0123456789").unwrap();
    assert!(frame.shrink_front(4));
    assert_eq!(frame.head(), b"456789");
    assert!(!frame.shrink_front(7) && frame.len() == 6, "shorter than that");
    assert!(frame.grow_front(4));
    assert_eq!(frame.head(), b"0123456789", "the bytes were only hidden");
    assert!(!frame.grow_front(HEADROOM + 1) && frame.len() == 10);
    assert!(frame.grow_front(HEADROOM));
    assert!(frame.grow_back(246));
    assert_eq!(frame.len(), HEADROOM + 256);
    assert!(!frame.grow_back(1));
    frame.truncate(1000);
    assert_eq!(frame.len(), HEADROOM + 256);
    frame.truncate(3);
    assert_eq!(frame.len(), 3);
    frame.truncate(usize::MAX);
    assert_eq!(frame.len(), 3);
    drop(frame);
    let fresh = pool.alloc().unwrap();
    assert!(fresh.is_empty() && fresh.rx_checksum() == RxChecksum::Unknown);
}

#[test]
fn a_pool_is_bounded_and_whole_again_after_use() {
    for buffers in [1, 7, 64, 1000, 4096] {
        let pool = MemoryPool::new(buffers, 64);
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(frames.len(), buffers);
        assert_eq!(pool.free(), 0);
        frames.truncate(buffers / 2);
        assert_eq!(pool.free(), buffers - buffers / 2);
        drop(frames);
        assert_eq!(pool.free(), buffers);
        assert!(pool.frame(&[0; 65]).is_none(), "longer than a buffer");
        assert_eq!(pool.free(), buffers);
    }
}

#[test]
fn frames_freed_on_other_threads_come_home() {
    let pool = MemoryPool::new(4096, 64);
    let (send, receive) = std::sync::mpsc::channel::<MemoryFrame>();
    // The other thread takes its frames before this one can use up the pool.
    let begin = std::sync::Arc::new(std::sync::Barrier::new(2));
    let other = {
        let (pool, begin) = (pool.clone(), begin.clone());
        std::thread::spawn(move || {
            let held: Vec<_> = (0..100).map_while(|_| pool.alloc()).collect();
            begin.wait();
            receive.into_iter().for_each(drop);
            held.len()
        })
    };
    begin.wait();
    let mut sent = 0;
    while sent < 100_000 {
        if let Some(frame) = pool.alloc() {
            send.send(frame).unwrap();
            sent += 1;
        }
    }
    drop(send);
    assert_eq!(other.join().unwrap(), 100);
    assert_eq!(pool.free(), 4096);
    assert_eq!(
        std::iter::from_fn(|| pool.alloc()).take(5000).collect::<Vec<_>>().len(),
        4096,
        "none is stranded"
    );
}

#[test]
fn many_pools_on_one_thread_do_not_mix() {
    let pools: Vec<_> = (0..40).map(|_| MemoryPool::new(256, 64)).collect();
    let frames: Vec<_> = pools.iter().flat_map(|p| (0..100).map_while(|_| p.alloc())).collect();
    assert_eq!(frames.len(), 4000);
    assert!(pools.iter().all(|p| p.free() == 156));
    drop(frames);
    assert!(pools.iter().all(|p| p.free() == 256));
}

#[test]
fn buffers_end_with_their_pool_or_their_frame() {
    let pool = MemoryPool::new(256, 64);
    let weak = pool.downgrade();
    drop(pool.alloc());
    let late = pool.alloc().unwrap();
    let elsewhere = pool.alloc().unwrap();
    drop(pool);
    assert_eq!(late.len(), 0);
    drop(late);
    std::thread::spawn(move || drop(elsewhere)).join().unwrap();
    assert!(weak.upgrade().is_none(), "nothing refers to the pool any more");
}

#[test]
fn a_link_carries_bytes_both_ways_and_counts_what_does_not_fit() {
    let pools = MemoryPools::new(64, 2048);
    let before = pools.free();
    let (mut port, link) = MemoryPort::link(caps(), pools.clone(), 40);
    for i in 0..45u8 {
        assert_eq!(link.inject(&[i; 60]), i < 40, "{i}");
    }
    assert_eq!(link.overflow(), (5, 0));
    let mut burst = Burst::new();
    assert_eq!(port.rx(&mut burst), BURST);
    assert_eq!(port.rx(&mut burst), 0, "the burst is full");
    assert_eq!(port.tx(&mut burst), 0);
    assert!(burst.is_empty());
    assert_eq!(port.rx(&mut burst), 8);
    assert_eq!(port.tx(&mut burst), 0);
    let sent = link.collect_all();
    assert_eq!(sent, (0..40u8).map(|i| vec![i; 60]).collect::<Vec<_>>());
    let stats = port.monitor().stats();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes), (40, 40, 2400, 2400));
    assert_eq!(pools.free(), before);
}

#[test]
fn a_full_direction_refuses_and_frees() {
    let pools = MemoryPools::new(64, 2048);
    let before = pools.free();
    let (mut port, link) = MemoryPort::link(caps(), pools.clone(), 4);
    let mut burst: Burst<_> = (0..10).map_while(|_| pools.data.frame(&[0; 60])).collect();
    assert_eq!(port.tx(&mut burst), 6);
    assert!(burst.is_empty());
    assert_eq!(link.overflow(), (0, 6));
    assert_eq!(pools.free(), before - 4);
    assert_eq!(link.collect_all().len(), 4);
    assert_eq!(port.monitor().stats().tx_errors, 6);
    assert_eq!(pools.free(), before);
}

#[test]
fn what_one_of_a_pair_sends_the_other_receives() {
    let pools = MemoryPools::new(64, 2048);
    let (mut a, mut b) = MemoryPort::pair((caps(), pools.clone()), (caps(), pools.clone()), 8);
    let mut burst: Burst<_> = [pools.data.frame(&[7; 100]).unwrap()].into_iter().collect();
    assert_eq!(a.tx(&mut burst), 0);
    assert_eq!(a.rx(&mut burst), 0);
    assert_eq!(b.rx(&mut burst), 1);
    assert_eq!(burst[0].head(), [7; 100]);
    assert_eq!(b.tx(&mut burst), 0);
    assert_eq!(a.rx(&mut burst), 1);
}

#[test]
fn frames_beyond_the_mtu_or_too_short_are_refused() {
    let pools = MemoryPools::new(64, 2048);
    let (mut port, link) = MemoryPort::link(caps(), pools.clone(), 8);
    let lengths = [13, 14, 1518, 1519];
    let mut burst: Burst<_> = lengths.iter().map_while(|&n| pools.data.frame(&vec![1; n])).collect();
    assert_eq!(port.tx(&mut burst), 2);
    assert_eq!(link.collect_all().iter().map(Vec::len).collect::<Vec<_>>(), [14, 1518]);
}

#[test]
fn a_link_says_what_a_device_found_out() {
    let pools = MemoryPools::new(64, 2048);
    let (mut port, link) = MemoryPort::link(caps(), pools, 8);
    assert!(link.inject_with(&[0; 60], RxChecksum::Bad));
    let mut burst = Burst::new();
    port.rx(&mut burst);
    assert_eq!(burst[0].rx_checksum(), RxChecksum::Bad);
}

#[test]
fn a_generator_repeats_its_order_and_takes_its_buffers_back() {
    let pools = MemoryPools::new(128, 2048);
    let before = pools.free();
    let templates = vec![vec![0; 60], vec![1; 61], vec![2; 62]];
    let mut port = MemoryPort::generator(caps(), pools.clone(), templates, vec![2, 0, 0, 1, 5]);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), BURST);
        seen.extend(burst.iter().map(|f| f.head()[0]));
        assert_eq!(port.tx(&mut burst), 0);
    }
    assert!(seen.iter().zip([2, 0, 0, 1, 2].iter().cycle()).all(|(a, b)| a == b));
    assert_eq!(pools.free(), before);
    let mut nothing = MemoryPort::generator(caps(), pools, Vec::new(), Vec::new());
    assert_eq!(nothing.rx(&mut Burst::new()), 0);
}

#[test]
fn a_generator_without_buffers_says_so() {
    let pools = MemoryPools::new(8, 2048);
    let mut port = MemoryPort::generator(caps(), pools, vec![vec![0; 60]], Vec::new());
    let mut burst = Burst::new();
    assert_eq!(port.rx(&mut burst), 8);
    assert_eq!(port.monitor().stats().rx_no_buffer, 1);
}

#[test]
fn a_device_has_a_link_for_each_queue() {
    let config = DeviceConfig {
        name: "front".into(),
        device: "memory".into(),
        queues: 3,
        mtu: 1600,
        rx_descriptors: 64,
        tx_descriptors: 64,
        promiscuous: true,
    };
    let pools = MemoryPools::new(64, 2048);
    let (mut device, links) = open(&config, Mac([2; 6]), &pools, 16);
    assert_eq!((device.queues.len(), links.len()), (3, 3));
    assert!(links[1].inject(&[1; 60]));
    let received: Vec<_> = device.queues.iter_mut().map(|q| q.rx(&mut Burst::new())).collect();
    assert_eq!(received, [0, 1, 0]);
    assert_eq!(device.monitor.stats().rx_packets, 1);
    assert_eq!(device.queues[0].caps().mtu, 1600);
}
