//! How the configuration names a device: `0000:3b:00.0` or `net_af_xdp0,iface=front`.

/// A device's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceName {
    /// What DPDK calls the port: a full PCI address, or the virtual device's name.
    pub name: String,
    /// What follows the first comma.
    pub arguments: String,
    /// Whether it is a PCI address.
    pub pci: bool,
}

impl DeviceName {
    /// Takes `device` apart. A PCI address without its domain gets domain 0, since DPDK names the port that way.
    pub fn parse(device: &str) -> Self {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        match pci_address(name.trim()) {
            Some(address) => Self { name: address, arguments: arguments.to_owned(), pci: true },
            None => Self { name: name.trim().to_owned(), arguments: arguments.to_owned(), pci: false },
        }
    }

    /// The device and its arguments as EAL's `-a` takes them; none for a virtual device.
    pub fn pci_with_arguments(&self) -> Option<String> {
        self.pci.then(|| self.joined())
    }

    /// The device and its arguments with the bus in front, as rte_dev_probe takes them.
    pub fn with_bus(&self) -> String {
        format!("{}:{}", if self.pci { "pci" } else { "vdev" }, self.joined())
    }

    /// The kernel's interface that the device sits on and that has to be there.
    pub fn interface(&self) -> Option<&str> {
        self.kernel_interface().filter(|_| self.is_af_xdp() || self.name.starts_with("net_af_packet"))
    }

    /// The kernel's interface that the arguments of a virtual device name, which the device may have made itself.
    pub fn kernel_interface(&self) -> Option<&str> {
        if self.pci {
            return None;
        }
        self.arguments.split(',').find_map(|a| a.trim().strip_prefix("iface="))
    }

    /// Whether AF_XDP's driver has it, whose buffers are the kernel's as well.
    pub fn is_af_xdp(&self) -> bool {
        self.name.starts_with("net_af_xdp")
    }

    fn joined(&self) -> String {
        if self.arguments.is_empty() {
            self.name.clone()
        } else {
            format!("{},{}", self.name, self.arguments)
        }
    }
}

/// `name` as `DDDD:BB:DD.F`, if it is a PCI address with or without its domain.
fn pci_address(name: &str) -> Option<String> {
    let (rest, function) = name.split_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0000"));
    let hex = |s: &str, least: usize, most: usize| {
        (least..=most).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let right = parts.next().is_none()
        && hex(domain, 4, 8)
        && hex(bus, 2, 2)
        && hex(device, 2, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    right.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for (given, name) in [
            ("0000:3b:00.0", "0000:3b:00.0"),
            ("3B:00.1", "0000:3b:00.1"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            let device = DeviceName::parse(given);
            assert!(device.pci, "{given}");
            assert_eq!(device.name, name);
        }
        for given in [
            "net_null0",
            "3b:00.8",
            "3b:00",
            "3b:0.0",
            "a:0000:3b:00.0",
            "zz:00.0",
            "net_tap0,iface=a.1:b",
            "",
        ] {
            assert!(!DeviceName::parse(given).pci, "{given}");
        }
    }

    #[test]
    fn arguments_reach_the_right_place() {
        let pci = DeviceName::parse("3b:00.0,rx_vec=1,x=2");
        assert_eq!(pci.pci_with_arguments().as_deref(), Some("0000:3b:00.0,rx_vec=1,x=2"));
        let xdp = DeviceName::parse("net_af_xdp0,iface=front,start_queue=0");
        assert_eq!(xdp.with_bus(), "vdev:net_af_xdp0,iface=front,start_queue=0");
        assert_eq!(xdp.interface(), Some("front"));
        assert_eq!(xdp.pci_with_arguments(), None);
        let tap = DeviceName::parse("net_tap0,iface=made");
        assert_eq!(
            (tap.interface(), tap.kernel_interface()),
            (None, Some("made")),
            "a tap makes its interface"
        );
    }
}
