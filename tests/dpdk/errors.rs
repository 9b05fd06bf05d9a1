//! What a person reads if a device or the environment does not come up.

use super::*;

/// What [`open`] says to one device.
fn says(config: DeviceConfig, hugepages: bool, buffers: &BufferConfig) -> String {
    open(&eal(hugepages, 128), &[config], buffers).err().expect("an error").to_string()
}

/// Checks that a message holds all `parts`.
fn holds(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[test]
fn no_interface() {
    child("errors::no_interface", true, || {
        let message = says(device("front", "net_af_xdp0,iface=nowhere"), false, &MANY);
        holds(&message, &["port front", "no network interface `nowhere`", "ip link"]);
    });
}

#[test]
fn no_driver() {
    child("errors::no_driver", true, || {
        holds(
            &says(device("front", "net_nonsense0"), false, &FEW),
            &["port front", "no driver for `net_nonsense0`"],
        );
    });
}

#[test]
fn no_name() {
    child("errors::no_name", true, || {
        holds(&says(device("front", "front"), false, &FEW), &["port front", "no driver for `front`"]);
    });
}

#[test]
fn bad_device_arguments() {
    child("errors::bad_device_arguments", true, || {
        let message = says(device("front", "net_null0,colour=blue"), false, &FEW);
        holds(&message, &["port front", "`net_null0,colour=blue` did not come up", "colour"]);
    });
}

#[test]
fn no_pci_device() {
    child("errors::no_pci_device", true, || {
        let message = says(device("front", "ffff:1f:00.0"), true, &FEW);
        holds(&message, &["port front", "no PCI device ffff:1f:00.0", "dpdk-devbind.py"]);
    });
}

#[test]
fn no_hugepages() {
    child("errors::no_hugepages", true, || {
        let error = open(&eal(true, 10_000_000), &[device("front", "net_null0")], &FEW).err();
        assert!(matches!(error, Some(DpdkError::NoHugepages { wanted_mb: 10_000_000, .. })), "{error:?}");
        holds(&error.unwrap().to_string(), &["10000000 MB", "vm.nr_hugepages=", "hugepages = false"]);
    });
}

#[test]
fn no_permission() {
    child("errors::no_permission", false, || {
        let message = says(device("front", "net_tap0"), false, &FEW);
        holds(&message, &["net_tap0", "no permission", "root", "CAP_NET_ADMIN"]);
    });
}

#[test]
fn no_permission_for_a_packet_socket() {
    child("errors::no_permission_for_a_packet_socket", false, || {
        let message = says(device("front", "net_af_packet0,iface=lo"), false, &FEW);
        holds(
            &message,
            &[
                "port front (net_af_packet0",
                "no permission",
                "root",
                "CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK",
            ],
        );
    });
}

#[test]
fn no_permission_for_af_xdp() {
    child("errors::no_permission_for_af_xdp", false, || {
        let message = says(device("front", "net_af_xdp0,iface=lo"), false, &MANY);
        holds(
            &message,
            &["port front (net_af_xdp0", "no permission", "root", "CAP_NET_RAW", "CAP_SYS_ADMIN"],
        );
    });
}

#[test]
fn a_memif_client_without_a_server_lacks_no_permission() {
    child("errors::a_memif_client_without_a_server_lacks_no_permission", true, || {
        let socket = std::env::temp_dir().join(format!("steerage-memif-{}.sock", std::process::id()));
        let name = format!("net_memif0,role=client,socket-abstract=no,socket={}", socket.display());
        let message = says(device("front", &name), false, &FEW);
        holds(&message, &["port front", "net_memif0", "failed to start"]);
        assert!(!message.contains("permi"), "{message}");
    });
}

#[test]
fn bad_environment_argument() {
    child("errors::bad_environment_argument", true, || {
        let eal = EalConfig { args: vec!["--colour".into()], ..eal(false, 64) };
        let message = open(&eal, &[device("front", "net_null0")], &FEW).err().unwrap().to_string();
        holds(&message, &["DPDK did not start", "eal_args"]);
    });
}

#[test]
fn too_many_queues() {
    child("errors::too_many_queues", true, || {
        let config = DeviceConfig { queues: 1025, ..device("front", "net_null0") };
        let buffers = BufferConfig { buffers: u32::MAX, bytes: 2048 };
        let message = says(config, false, &buffers);
        holds(&message, &["port front", "1025 queues are wanted", "net_null0", "workers"]);
    });
}

#[test]
fn mtu_refused() {
    child("errors::mtu_refused", true, || {
        veth(1500);
        let config = DeviceConfig { mtu: 1600, ..device("front", "net_af_packet0,iface=left") };
        holds(&says(config, false, &FEW), &["port front", "refuses an MTU of 1600", "1500"]);
    });
}

#[test]
fn af_xdp_mtu() {
    child("errors::af_xdp_mtu", true, || {
        veth(1500);
        let config = DeviceConfig { mtu: 3439, ..device("front", "net_af_xdp0,iface=left") };
        holds(&says(config, true, &MANY), &["port front", "MTU of 3439", "known to take is 3438"]);
    });
}

#[test]
fn af_xdp_buffers() {
    child("errors::af_xdp_buffers", true, || {
        veth(1500);
        let buffers = BufferConfig { bytes: 3713, ..MANY };
        let message = says(device("front", "net_af_xdp0,iface=left"), true, &buffers);
        holds(&message, &["port front", "AF_XDP takes buffers of at most 3712 bytes"]);
    });
}

#[test]
fn af_xdp_with_a_peer_of_large_mtu() {
    child("errors::af_xdp_with_a_peer_of_large_mtu", true, || {
        veth(1500);
        run("ip", "link set right mtu 9000");
        let message = says(device("front", "net_af_xdp0,iface=left"), true, &MANY);
        holds(&message, &["port front", "net_af_xdp0", "gets no AF_XDP socket", "on a veth its peer's"]);
    });
}

#[test]
fn buffer_too_small() {
    child("errors::buffer_too_small", true, || {
        let config = DeviceConfig { mtu: 9000, ..device("front", "net_null0") };
        holds(&says(config, false, &FEW), &["port front", "MTU of 9000", "`buffer_bytes` to 9018 or more"]);
    });
}

#[test]
fn too_few_buffers() {
    child("errors::too_few_buffers", true, || {
        let buffers = BufferConfig { buffers: 1000, bytes: 2048 };
        holds(
            &says(device("front", "net_null0"), false, &buffers),
            &["port front", "there are 1000", "set `buffers` to"],
        );
    });
}

#[test]
fn no_memory() {
    child("errors::no_memory", true, || {
        let buffers = BufferConfig { buffers: 100_000, bytes: 2048 };
        holds(
            &says(device("front", "net_null0"), false, &buffers),
            &["port front", "not enough memory for 100000 buffers", "128 MB", "raise `memory_mb`"],
        );
    });
}

#[test]
fn one_device_for_two_ports() {
    child("errors::one_device_for_two_ports", true, || {
        let both = [device("front", "net_null0"), device("back", "net_null0,size=100")];
        let message = open(&eal(false, 64), &both, &FEW).err().unwrap().to_string();
        holds(&message, &["port back", "`net_null0`", "port front already"]);
    });
}
