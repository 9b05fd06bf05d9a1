//! DPDK on devices that every Linux machine has. A process can start DPDK once, so each test runs itself again as a child,
//! in a network namespace of its own that ends with it. Needs root.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // The helpers are as much part of the tests as the tests.

mod capture;
mod captures;
mod child;
mod errors;

use capture::capture;
use child::{child, prefix};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use steerage::base::limits::{BURST, HEADROOM};
use steerage::io::dpdk::{BufferConfig, DpdkError, DpdkPort, EalConfig, Mbuf, open, register_thread};
use steerage::io::{DeviceConfig, OpenDevice};
use steerage::path::port::{Burst, Frame, Pool, Port};

/// Local experimental EtherType (IEEE 802): tells our frames from what the kernel sends by itself.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

fn eal(hugepages: bool, memory_mb: u32) -> EalConfig {
    let file_prefix = prefix(std::process::id());
    EalConfig { hugepages, memory_mb, file_prefix, args: Vec::new() }
}

fn device(name: &str, device: &str) -> DeviceConfig {
    DeviceConfig {
        name: name.into(),
        device: device.into(),
        queues: 1,
        mtu: 1500,
        rx_descriptors: 512,
        tx_descriptors: 512,
        promiscuous: true,
    }
}

const FEW: BufferConfig = BufferConfig { buffers: 4096, bytes: 2048 };
const MANY: BufferConfig = BufferConfig { buffers: 16_384, bytes: 2048 };

fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The one queue of a device.
fn only(device: &mut OpenDevice<DpdkPort>) -> &mut DpdkPort {
    &mut device.queues[0]
}

/// An Ethernet frame of `len` bytes that are all different from those of other seeds.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, seed]);
    bytes.extend(ETHER_TYPE);
    bytes.extend((0..len.saturating_sub(14)).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)));
    bytes
}

fn frame(port: &mut DpdkPort, bytes: &[u8]) -> Mbuf {
    let mut frame = port.alloc(Pool::Data).unwrap();
    assert!(frame.is_empty() && frame.grow_back(bytes.len()));
    frame.head_mut().copy_from_slice(bytes);
    frame
}

/// Receives until `n` of our own frames are there, for some seconds at most.
fn receive(port: &mut DpdkPort, n: usize) -> Vec<Mbuf> {
    let (begin, mut ours) = (Instant::now(), Vec::new());
    while ours.len() < n && begin.elapsed() < Duration::from_secs(5) {
        let mut burst = Burst::new();
        port.rx(&mut burst);
        ours.extend(burst.drain(..).filter(|f| f.len() >= 14 && f.head()[12..14] == ETHER_TYPE));
    }
    ours
}

/// Sends frames of these lengths from one port to the other and checks that they arrive whole and in order.
fn carry(from: &mut DpdkPort, to: &mut DpdkPort, lengths: &[usize]) {
    for (round, chunk) in lengths.chunks(BURST).enumerate() {
        let sent: Vec<_> =
            chunk.iter().enumerate().map(|(i, &n)| bytes((round * BURST + i) as u8, n)).collect();
        let mut burst: Burst<Mbuf> = sent.iter().map(|b| frame(from, b)).collect();
        assert_eq!(from.tx(&mut burst), 0, "the device takes all");
        assert!(burst.is_empty());
        let received = receive(to, sent.len());
        assert_eq!(received.len(), sent.len());
        for (got, sent) in received.iter().zip(&sent) {
            assert!(got.head() == &sent[..], "{} bytes arrive as {}", sent.len(), got.len());
        }
    }
}

#[test]
fn null_pools_and_frames() {
    child("null_pools_and_frames", true, || {
        let config = DeviceConfig { queues: 2, ..device("front", "net_null0") };
        let mut devices = open(&eal(true, 64), &[config], &FEW).unwrap();
        let port = &mut devices[0].queues[0];
        for pool in [Pool::Data, Pool::Control] {
            assert_eq!(port.buffer_stride(pool) % 128, 64, "an odd number of cache lines");
        }
        let (data, control) = (port.free_buffers(Pool::Data), port.free_buffers(Pool::Control));
        assert_eq!((data, control), (4096, 2048));
        for pool in [Pool::Data, Pool::Control] {
            let mut frame = port.alloc(pool).unwrap();
            assert!(frame.is_empty() && frame.grow_back(100) && frame.len() == 100);
            assert!(!frame.grow_front(HEADROOM + 1) && frame.grow_front(HEADROOM));
            assert_eq!(frame.head().len(), 100 + HEADROOM);
            assert!(frame.shrink_front(HEADROOM) && !frame.shrink_front(101) && frame.len() == 100);
            frame.truncate(101);
            frame.truncate(60);
            assert_eq!(frame.head_mut().len(), 60);
            assert!(!frame.grow_back(5000));
        }
        for queue in &mut devices[0].queues {
            let mut burst = Burst::new();
            assert_eq!(queue.rx(&mut burst), BURST);
            assert_eq!(queue.rx(&mut burst), 0, "no room");
            burst.truncate(20);
            assert_eq!(queue.rx(&mut burst), 12);
            assert_eq!(queue.tx(&mut burst), 0);
            assert_eq!(queue.tx(&mut burst), 0);
        }
        let mut held: Vec<Mbuf> = std::iter::from_fn(|| devices[0].queues[0].alloc(Pool::Control)).collect();
        assert_eq!(held.len(), 2048, "bounded");
        held.clear();
        let stats = devices[0].monitor.stats();
        assert_eq!((stats.rx_packets, stats.tx_packets), (88, 64));
        let port = &devices[0].queues[0];
        assert_eq!((port.free_buffers(Pool::Data), port.free_buffers(Pool::Control)), (data, control));
    });
}

#[test]
fn ring_carries_frames_and_refuses_what_it_cannot() {
    child("ring_carries_frames_and_refuses_what_it_cannot", true, || {
        let mut devices = open(&eal(false, 128), &[device("front", "net_ring0")], &FEW).unwrap();
        let port = only(&mut devices[0]);
        let before = port.free_buffers(Pool::Data);
        let lengths = [60, 13, 14, 1518, 1519];
        let mut burst: Burst<Mbuf> = lengths.iter().map(|&len| frame(port, &bytes(1, len)[..len])).collect();
        assert_eq!(port.tx(&mut burst), 2, "too short, too long");
        let mut received = Burst::new();
        assert_eq!(port.rx(&mut received), 3);
        assert_eq!(received.iter().map(Frame::len).collect::<Vec<_>>(), [60, 14, 1518]);
        received.clear();
        assert_eq!(devices[0].monitor.stats().tx_errors, 2);
        // The ring fills up: what it doesn't take is given back.
        let port = only(&mut devices[0]);
        let mut refused = 0;
        for _ in 0..100 {
            let mut burst: Burst<Mbuf> = (0..BURST).map(|_| frame(port, &bytes(3, 60))).collect();
            refused += port.tx(&mut burst);
            assert!(burst.is_empty());
        }
        assert!(refused > 0 && refused < 3200);
        let received = receive(port, 3200 - refused);
        assert_eq!(received.len(), 3200 - refused);
        drop(received);
        assert_eq!(port.free_buffers(Pool::Data), before);
    });
}

/// Frames that are dropped after the last port, on two threads.
fn outlive(hugepages: bool) {
    let mut devices = open(&eal(hugepages, 64), &[device("front", "net_null0")], &FEW).unwrap();
    let mut late = Burst::new();
    assert_eq!(only(&mut devices[0]).rx(&mut late), BURST);
    let elsewhere: Vec<Mbuf> = late.drain(..10).collect();
    drop(devices);
    assert_eq!(register_thread().unwrap_err(), DpdkError::NotStarted);
    late[0].head_mut()[0] = 1;
    std::thread::spawn(move || drop(elsewhere)).join().unwrap();
    drop(late);
    let again = open(&eal(hugepages, 64), &[], &FEW);
    assert_eq!(again.err(), Some(DpdkError::AlreadyStarted));
}

#[test]
fn frames_in_hugepages_may_outlive_the_ports() {
    child("frames_in_hugepages_may_outlive_the_ports", true, || outlive(true));
}

#[test]
fn frames_in_ordinary_pages_may_outlive_the_ports() {
    child("frames_in_ordinary_pages_may_outlive_the_ports", true, || outlive(false));
}

#[test]
fn worker_threads_register() {
    child("worker_threads_register", true, || {
        assert_eq!(register_thread().unwrap_err(), DpdkError::NotStarted);
        let before = std::thread::available_parallelism().unwrap();
        let config = DeviceConfig { queues: 2, ..device("front", "net_null0") };
        let mut devices = open(&eal(true, 64), &[config], &FEW).unwrap();
        assert_eq!(std::thread::available_parallelism().unwrap(), before, "nothing is pinned");
        let ports = std::mem::take(&mut devices[0].queues);
        let workers: Vec<_> = ports
            .into_iter()
            .map(|mut port| {
                std::thread::spawn(move || {
                    let _registered = register_thread().unwrap();
                    let mut burst = Burst::new();
                    for _ in 0..1000 {
                        assert_eq!(port.rx(&mut burst), BURST);
                        assert_eq!(port.tx(&mut burst), 0);
                    }
                    port
                })
            })
            .collect();
        let ports: Vec<DpdkPort> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        assert_eq!(ports[0].free_buffers(Pool::Data), 4096, "caches of ended threads count");
        let mut all: Vec<_> = Vec::new();
        let mut port = ports.into_iter().next().unwrap();
        while let Some(frame) = port.alloc(Pool::Data) {
            all.push(frame);
        }
        drop(register_thread().unwrap());
        drop(register_thread().unwrap());
        assert!(all.len() > 3000, "{}", all.len());
    });
}

#[test]
fn pcap_files_in_and_out() {
    child("pcap_files_in_and_out", true, || {
        let dir = std::env::temp_dir().join(format!("steerage-dpdk-pcap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let frames: Vec<_> =
            [60, 64, 1514, 1000].iter().enumerate().map(|(i, &n)| bytes(i as u8, n)).collect();
        std::fs::write(path("in"), capture(&frames)).unwrap();
        let name = format!("net_pcap0,rx_pcap={},tx_pcap={}", path("in").display(), path("out").display());
        let mut devices = open(&eal(true, 64), &[device("front", &name)], &FEW).unwrap();
        let port = only(&mut devices[0]);
        let before = port.free_buffers(Pool::Data);
        let mut burst: Burst<Mbuf> = receive(port, 4).into_iter().collect();
        assert_eq!(burst.len(), 4);
        assert_eq!(port.tx(&mut burst), 0);
        assert_eq!(port.free_buffers(Pool::Data), before);
        drop(devices);
        let written = std::fs::read(path("out")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(capture::frames(&written) == frames);
    });
}

/// Two ends of a veth pair, up, with room for tunnels.
fn veth(mtu: u16) {
    run("ip", &format!("link add left mtu {mtu} type veth peer name right mtu {mtu}"));
    for end in ["left", "right"] {
        run("ip", &format!("link set {end} up"));
    }
}

/// A kernel interface's flags (netdevice(7)), as sysfs of our own namespace has them.
fn flags(interface: &str) -> u32 {
    let script = format!("mount -t sysfs sysfs /sys && cat /sys/class/net/{interface}/flags");
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).expect(&text)
}

#[test]
fn interfaces_of_the_kernel_receive_multicast_and_tell_their_link() {
    const IFF_ALLMULTI: u32 = 0x200;
    child("interfaces_of_the_kernel_receive_multicast_and_tell_their_link", true, || {
        veth(1500);
        run("ip", "link add other type veth peer name another");
        run("ip", "link set other up");
        run("ip", "link set another up");
        let quiet = |name, it| DeviceConfig { promiscuous: false, ..device(name, it) };
        let configs = [quiet("front", "net_af_xdp0,iface=left"), quiet("back", "net_af_packet0,iface=other")];
        assert_eq!((flags("left") & IFF_ALLMULTI, flags("other") & IFF_ALLMULTI), (0, 0));
        let mut devices = open(&eal(true, 128), &configs, &MANY).unwrap();
        assert_eq!(
            (flags("left") & IFF_ALLMULTI, flags("other") & IFF_ALLMULTI),
            (IFF_ALLMULTI, IFF_ALLMULTI)
        );
        for (i, peer) in ["right", "another"].iter().enumerate() {
            // The kernel tells the other end's carrier a moment later.
            let mut becomes = |up| {
                (0..200).any(|_| {
                    std::thread::sleep(Duration::from_millis(10));
                    devices[i].monitor.stats().link_up == up
                })
            };
            assert!(becomes(true), "{peer}");
            run("ip", &format!("link set {peer} down"));
            assert!(becomes(false), "{peer} is down");
            run("ip", &format!("link set {peer} up"));
            assert!(becomes(true), "{peer} is up again");
        }
        drop(devices);
        assert_eq!(flags("left") & IFF_ALLMULTI, 0, "nothing is left behind");
    });
}

#[test]
fn af_packet_on_veth() {
    child("af_packet_on_veth", true, || {
        veth(1500);
        let devices = ["left", "right"].map(|i| device(i, &format!("net_af_packet_{i},iface={i}")));
        let mut devices = open(&eal(true, 64), &devices, &FEW).unwrap();
        let [left, right] = &mut devices[..] else { panic!("two devices") };
        let before = (only(left).free_buffers(Pool::Data), only(right).free_buffers(Pool::Data));
        carry(only(left), only(right), &[60, 61, 191, 192, 193, 1513, 1514]);
        carry(only(right), only(left), &[60, 1514]);
        assert_eq!((only(left).free_buffers(Pool::Data), only(right).free_buffers(Pool::Data)), before);
        assert!(left.monitor.stats().link_up);
        assert!(left.monitor.stats().tx_packets >= 7);
    });
}

#[test]
fn af_xdp_on_veth() {
    child("af_xdp_on_veth", true, || {
        veth(1500);
        let mut devices = ["left", "right"].map(|i| device(i, &format!("net_af_xdp_{i},iface={i}")));
        devices.iter_mut().for_each(|d| d.mtu = 1600);
        let mut devices = open(&eal(true, 160), &devices, &MANY).unwrap();
        let [left, right] = &mut devices[..] else { panic!("two devices") };
        let link = Command::new("ip").args(["-o", "link", "show", "left"]).output().unwrap();
        assert!(String::from_utf8_lossy(&link.stdout).contains(" mtu 1600 "), "the interface was told");
        carry(only(left), only(right), &[60, 61, 191, 192, 193, 1514, 1614]);
        carry(only(right), only(left), &[60, 1614]);
        // From another port's pool, the driver copies: a frame that is too long must not get there.
        let port = only(left);
        let mut burst: Burst<Mbuf> =
            [frame(port, &bytes(1, 1700)), frame(port, &bytes(2, 100))].into_iter().collect();
        assert_eq!(only(right).tx(&mut burst), 1);
        assert_eq!(receive(only(left), 1).len(), 1);
        assert_eq!(right.monitor.stats().tx_errors, 1);
        assert!(left.monitor.stats().link_up);
    });
}

#[test]
fn tap() {
    child("tap", true, || {
        let both = [device("near", "net_tap0,iface=tap9"), device("far", "net_af_packet0,iface=tap9")];
        let mut devices = open(&eal(false, 128), &both, &FEW).unwrap();
        let [near, far] = &mut devices[..] else { panic!("two devices") };
        carry(only(near), only(far), &[60, 192, 1514]);
        carry(only(far), only(near), &[60, 192, 1514]);
    });
}

/// The largest MTU that AF_XDP buffers hold.
#[test]
fn af_xdp_with_large_frames() {
    child("af_xdp_with_large_frames", true, || {
        veth(1500);
        let mut devices = ["left", "right"].map(|i| device(i, &format!("net_af_xdp_{i},iface={i}")));
        devices.iter_mut().for_each(|d| d.mtu = 3438);
        let buffers = BufferConfig { bytes: 3712, ..MANY };
        let mut devices = open(&eal(true, 256), &devices, &buffers).unwrap();
        let [left, right] = &mut devices[..] else { panic!("two devices") };
        carry(only(left), only(right), &[60, 1514, 2048, 3452]);
        carry(only(right), only(left), &[60, 1514, 2048, 3452]);
        // What came in at one port leaves by the other, from a pool that isn't its own.
        let port = only(left);
        let sent = frame(port, &bytes(9, 3452));
        assert_eq!(port.tx(&mut [sent].into_iter().collect()), 0);
        let mut forwarded: Burst<Mbuf> = receive(only(right), 1).into_iter().collect();
        assert_eq!(only(left).tx(&mut forwarded), 0);
        assert_eq!(receive(only(right), 1)[0].head(), bytes(9, 3452));
    });
}
