//! What this process may do (capabilities(7)), so that a failure is blamed on missing rights only where some are missing.

use super::name::DeviceName;

/// Bits of `CapEff` (linux/capability.h) that some device wants.
const NAMES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (14, "CAP_IPC_LOCK"), (21, "CAP_SYS_ADMIN")];
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const SYS_ADMIN: u64 = 1 << 21;

/// The effective capabilities of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights(u64);

impl Rights {
    /// Those of this process; all of them if the kernel doesn't tell.
    pub fn own() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::parse(&status).unwrap_or(Self(u64::MAX))
    }

    /// From the text of `/proc/self/status` (proc_pid_status(5)).
    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether nothing that any device wants is missing.
    pub fn all(self) -> bool {
        self.0 | !(NET_ADMIN | NET_RAW | IPC_LOCK | SYS_ADMIN) == u64::MAX
    }

    /// The names of the capabilities that `device` wants and that are missing, if any are.
    pub fn missing(self, device: &DeviceName) -> Option<String> {
        let missing = wanted(device) & !self.0;
        let names = NAMES.iter().filter(|(bit, _)| missing >> bit & 1 == 1).map(|(_, name)| *name);
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// What a device's driver can't do without.
fn wanted(device: &DeviceName) -> u64 {
    let is = |driver: &str| !device.pci && device.name.starts_with(driver);
    if is("net_af_xdp") {
        NET_ADMIN | NET_RAW | SYS_ADMIN | IPC_LOCK
    } else if is("net_af_packet") {
        NET_ADMIN | NET_RAW | IPC_LOCK
    } else if is("net_tap") {
        NET_ADMIN
    } else if is("net_pcap") && device.kernel_interface().is_some() {
        NET_RAW
    } else {
        0
    }
}

/// Whether DPDK's words mean that rights are missing.
pub(super) fn denied(said: &str) -> bool {
    ["Operation not permitted", "Permission denied", "not permitted"].iter().any(|w| said.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_driver() {
        let status =
            |hex: &str| format!("Name:\tsteerage\nCapPrm:\t0000000000000000\nCapEff:\t{hex}\nSeccomp:\t0\n");
        let nobody = Rights::parse(&status("0000000000000000")).unwrap();
        let partly = Rights::parse(&status("0000000000003000")).unwrap();
        let root = Rights::parse(&status("000001ffffffffff")).unwrap();
        let missing = |rights: Rights, device| rights.missing(&DeviceName::parse(device));
        let all = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_SYS_ADMIN";
        assert_eq!(missing(nobody, "net_af_xdp0,iface=a").as_deref(), Some(all));
        assert_eq!(missing(partly, "net_af_xdp0,iface=a").as_deref(), Some("CAP_IPC_LOCK, CAP_SYS_ADMIN"));
        assert_eq!(missing(partly, "net_af_packet0,iface=a").as_deref(), Some("CAP_IPC_LOCK"));
        assert_eq!(missing(nobody, "net_tap0").as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(missing(nobody, "net_pcap0,iface=a").as_deref(), Some("CAP_NET_RAW"));
        for device in ["net_pcap0,rx_pcap=a", "net_memif0,role=client", "net_null0", "3b:00.0"] {
            assert_eq!(missing(nobody, device), None, "{device}");
        }
        assert_eq!(missing(root, "net_af_xdp0,iface=a"), None);
        assert_eq!((nobody.all(), partly.all(), root.all()), (false, false, true));
        assert_eq!(Rights::parse("Name:\tx\n"), None);
    }
}
