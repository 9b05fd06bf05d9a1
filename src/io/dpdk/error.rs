//! What can go wrong between the configuration and a running device, each with what to do about it.

/// Why DPDK or one of its devices is not up. `port` is the port's name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpdkError {
    /// The environment of this process was used before.
    #[error("DPDK was already started in this process, and can't be started again: restart Steerage")]
    AlreadyStarted,
    /// A worker wants its buffer caches before there is anything to cache.
    #[error("DPDK is not started: open the ports before the workers start")]
    NotStarted,
    /// Too few free hugepages.
    #[error(
        "{wanted_mb} MB of hugepages are wanted and {free_mb} MB are free: reserve more with \
         `sysctl vm.nr_hugepages={pages}`, or set `hugepages = false`"
    )]
    NoHugepages {
        /// Megabytes that the configuration asks for.
        wanted_mb: u64,
        /// Megabytes that the kernel has left.
        free_mb: u64,
        /// What `vm.nr_hugepages` has to be, in pages of the default size.
        pages: u64,
    },
    /// A string that C can't take.
    #[error("`{argument}` holds a NUL byte: take it out of the configuration")]
    BadArgument {
        /// The string.
        argument: String,
    },
    /// The environment did not start.
    #[error("DPDK did not start: {why}: check `eal_args` and `memory_mb`")]
    Eal {
        /// DPDK's own words.
        why: String,
    },
    /// Not the rights that a device or the environment wants.
    #[error("{what}: no permission: run Steerage {needs} ({why})")]
    NoPermission {
        /// What was tried: `port front (net_tap0)`.
        what: String,
        /// How it has to run: `as root, or with CAP_NET_ADMIN, which it lacks`.
        needs: String,
        /// DPDK's own words.
        why: String,
    },
    /// No driver feels responsible.
    #[error(
        "port {port}: DPDK has no driver for `{driver}`: the name is a PCI address or a driver and a number, such as \
         `net_af_xdp0`; `ls /usr/lib/*/dpdk/pmds-*` shows the drivers installed"
    )]
    UnknownDriver {
        /// The port.
        port: String,
        /// The name asked for.
        driver: String,
    },
    /// The kernel has no such interface.
    #[error("port {port}: there is no network interface `{interface}` here: `ip link` lists them")]
    NoInterface {
        /// The port.
        port: String,
        /// The interface asked for.
        interface: String,
    },
    /// The machine has no such PCI device.
    #[error("port {port}: there is no PCI device {address}: `dpdk-devbind.py --status-dev net` lists them")]
    NoPciDevice {
        /// The port.
        port: String,
        /// The address asked for.
        address: String,
    },
    /// The PCI device is there, and DPDK can't have it.
    #[error(
        "port {port}: PCI device {address} is with the kernel's driver `{driver}`: give it to DPDK with \
         `dpdk-devbind.py -b vfio-pci {address}`"
    )]
    PciDriver {
        /// The port.
        port: String,
        /// Its address.
        address: String,
        /// The kernel's driver, or `none`.
        driver: String,
    },
    /// The driver refused the device.
    #[error(
        "port {port}: device `{device}` did not come up: {why}: check its arguments and that nobody else uses it"
    )]
    Probe {
        /// The port.
        port: String,
        /// The device as configured.
        device: String,
        /// DPDK's own words.
        why: String,
    },
    /// Two ports, one device.
    #[error("port {port}: device `{device}` belongs to port {other} already: give each port its own")]
    Twice {
        /// The port.
        port: String,
        /// The device's name.
        device: String,
        /// The port that has it.
        other: String,
    },
    /// The device has fewer queues than there are workers.
    #[error(
        "port {port}: {wanted} queues are wanted and `{device}` has {offered}: use at most {offered} workers on this \
         port"
    )]
    TooManyQueues {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// Queue pairs asked for.
        wanted: u16,
        /// Queue pairs there are.
        offered: u16,
    },
    /// The device can't carry packets of that size.
    #[error(
        "port {port}: `{device}` refuses an MTU of {wanted} ({why}): the largest it is known to take is {largest}"
    )]
    MtuRefused {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The MTU asked for.
        wanted: u16,
        /// The device's own limit, or what it stayed at.
        largest: u16,
        /// DPDK's own words.
        why: String,
    },
    /// A frame of that MTU fits no buffer, and the device can't chain them.
    #[error(
        "port {port}: frames of an MTU of {mtu} don't fit a buffer of {bytes} bytes, and `{device}` can't chain buffers: \
         set `buffer_bytes` to {wanted} or more"
    )]
    BufferTooSmall {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The MTU asked for.
        mtu: u16,
        /// What a buffer holds.
        bytes: u16,
        /// What it would have to hold.
        wanted: u32,
    },
    /// A buffer that the arithmetic of 16-bit lengths can't hold, or that holds less than a stage relies on.
    #[error("`buffer_bytes` is {bytes}: it must be between {least} and {most}")]
    BufferBytes {
        /// What the configuration says.
        bytes: u16,
        /// The least.
        least: u16,
        /// The most.
        most: u16,
    },
    /// AF_XDP takes no buffer beyond a page.
    #[error(
        "port {port}: AF_XDP takes buffers of at most {most} bytes: set `buffer_bytes` to {most} or less"
    )]
    BufferTooLarge {
        /// The port.
        port: String,
        /// The largest `buffer_bytes` that works.
        most: u16,
    },
    /// The queues alone would eat the pool.
    #[error(
        "port {port}: its queues hold up to {wanted} buffers and there are {buffers}: set `buffers` to {wanted} or more"
    )]
    TooFewBuffers {
        /// The port.
        port: String,
        /// Buffers asked for.
        buffers: u32,
        /// Buffers that its queues and the workers' caches can hold.
        wanted: u32,
    },
    /// No room for the buffers.
    #[error(
        "port {port}: not enough memory for {buffers} buffers ({wanted_mb} MB; {memory_mb} MB are reserved for all \
         ports together): raise `memory_mb` or lower `buffers`"
    )]
    NoMemory {
        /// The port.
        port: String,
        /// Buffers asked for.
        buffers: u32,
        /// What they take, in megabytes.
        wanted_mb: u64,
        /// What was reserved.
        memory_mb: u32,
    },
    /// The kernel does not give the interface to AF_XDP.
    #[error(
        "port {port}: `{device}` gets no AF_XDP socket: {why}: check that nobody else uses the interface, and that its \
         MTU, or on a veth its peer's, is at most {largest}"
    )]
    AfXdp {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The largest MTU that AF_XDP carries.
        largest: u16,
        /// DPDK's own words.
        why: String,
    },
    /// A step of bringing up a device failed.
    #[error("port {port}: `{device}` failed to {step}: {why}: check the device's arguments")]
    Device {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// DPDK's own words.
        why: String,
    },
    /// No lcore id left.
    #[error("DPDK refuses another thread: {why}")]
    Thread {
        /// DPDK's own words.
        why: String,
    },
}
