//! What the host promises: where turns run, what ends them, and what becomes of what they own.

use super::{CORE, child, device, host_config, terminate};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use steerage::base::limits::BURST;
use steerage::io::DeviceConfig;
use steerage::io::capsule::{CapsuleError, Host, HostConfig};
use steerage::io::dpdk::{DpdkError, register_thread};
use steerage::path::port::{Burst, Frame, Pool, Port};

/// The CPUs that the calling thread may run on.
fn allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn turns_run_pinned_with_raw_bursts_and_give_all_buffers_back() {
    child("host::turns_run_pinned_with_raw_bursts_and_give_all_buffers_back", true, || {
        let (mut host, mut devices) = Host::open(&host_config(), &[device("front", "net_null0")]).unwrap();
        let mut port = devices[0].queues.remove(0);
        let monitor = &mut devices[0].monitor;
        let (data, control) = (port.free_buffers(Pool::Data), port.free_buffers(Pool::Control));
        assert_eq!((data, control), (4096, 2048));
        let mut left = 1000;
        let (port_out, port_back) = mpsc::channel();
        let turn = move || {
            if left == 0 {
                return false;
            }
            let mut burst = Burst::new();
            assert_eq!(port.rx(&mut burst), BURST);
            assert!(burst.iter().all(|frame| frame.len() == 64));
            assert_eq!(port.tx(&mut burst), 0);
            drop(port.alloc(Pool::Data).unwrap());
            drop(port.alloc(Pool::Control).unwrap());
            left -= 1;
            if left == 0 {
                let here = (allowed(), std::thread::current().name().unwrap().to_owned());
                // Has an identity, so nothing is to be done.
                drop(register_thread().unwrap());
                port_out
                    .send((here, port.free_buffers(Pool::Data), port.free_buffers(Pool::Control)))
                    .unwrap();
                terminate();
            }
            true
        };
        host.add(CORE, "turns", turn).unwrap();
        let panics = host.panics();
        host.run(|| true).unwrap();
        let ((cpus, thread), data_after, control_after) = port_back.recv().unwrap();
        assert_eq!(cpus, CORE.to_string());
        assert!(thread.contains(&format!("core{CORE}")), "{thread}");
        assert_eq!((data_after, control_after), (data, control));
        assert!(panics.try_recv().is_err());
        let stats = monitor.stats();
        assert_eq!((stats.rx_packets, stats.tx_packets), (32_000, 32_000));
    });
}

#[test]
fn a_panic_is_told_and_what_the_turn_owned_is_gone() {
    child("host::a_panic_is_told_and_what_the_turn_owned_is_gone", true, || {
        let (mut host, devices) = Host::open(&host_config(), &[device("front", "net_null0")]).unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let (seen, panics) = (alive.clone(), host.panics());
        let turn = move || {
            let calls = seen.fetch_add(1, Ordering::Relaxed);
            assert!(calls < 100, "a hundred is enough");
            true
        };
        host.add(CORE, "worker-0", turn).unwrap();
        let watcher = std::thread::spawn(move || {
            let panicked = panics.recv().unwrap();
            terminate();
            (panicked.name, *panicked.payload.downcast::<&str>().unwrap())
        });
        host.run(|| true).unwrap();
        assert_eq!(watcher.join().unwrap(), ("worker-0".to_owned(), "a hundred is enough"));
        assert_eq!((alive.load(Ordering::Relaxed), Arc::strong_count(&alive)), (101, 1));
        // Ports and monitors that are still in use: nothing is closed under them.
        drop(host);
        let mut devices = devices;
        assert!(!devices[0].monitor.stats().link_up, "stopped");
        let frame = devices[0].queues[0].alloc(Pool::Data).unwrap();
        drop(devices);
        assert!(frame.is_empty());
    });
}

#[test]
fn frames_may_outlive_the_host() {
    child("host::frames_may_outlive_the_host", true, || {
        let (host, mut devices) = Host::open(&host_config(), &[device("front", "net_null0")]).unwrap();
        let mut frames: Vec<_> = (0..300).map(|_| devices[0].queues[0].alloc(Pool::Data).unwrap()).collect();
        frames.push(devices[0].queues[0].alloc(Pool::Control).unwrap());
        drop(devices);
        drop(host);
        for frame in &mut frames {
            assert!(frame.grow_back(60));
            frame.head_mut().fill(1);
        }
        std::thread::spawn(move || drop(frames)).join().unwrap();
        let again = Host::open(&host_config(), &[]).err().unwrap();
        assert!(matches!(again, CapsuleError::Dpdk(DpdkError::AlreadyStarted)), "{again}");
    });
}

#[test]
fn what_cannot_be_hosted_is_refused() {
    child("host::what_cannot_be_hosted_is_refused", true, || {
        let says = |cores: &[usize]| {
            let config = HostConfig { cores: cores.to_vec(), ..host_config() };
            Host::open(&config, &[device("front", "net_null0")]).err().unwrap().to_string()
        };
        assert!(says(&[0]).contains("core 0 is the main core"), "before DPDK is started");
        assert!(says(&[CORE, CORE]).contains("core 1 has two workers"));
        let jumbo = DeviceConfig { mtu: 9000, ..device("back", "net_null1") };
        let (small, devices) = (host_config(), [device("front", "net_null0"), jumbo]);
        let message = Host::open(&small, &devices).err().unwrap().to_string();
        assert!(message.contains("port back") && message.contains("2048"), "{message}");
    });
}

#[test]
fn a_device_that_is_not_there_is_named() {
    child("host::a_device_that_is_not_there_is_named", true, || {
        let error = Host::open(&host_config(), &[device("front", "net_nonsense0")]).err().unwrap();
        assert!(error.to_string().contains("net_nonsense0"), "{error}");
    });
}

#[test]
fn a_core_without_a_queue_is_refused() {
    child("host::a_core_without_a_queue_is_refused", true, || {
        let (mut host, _devices) = Host::open(&host_config(), &[device("front", "net_null0")]).unwrap();
        let error = host.add(7, "worker-7", || false).err().unwrap();
        assert!(error.to_string().contains("core7"), "{error}");
    });
}
