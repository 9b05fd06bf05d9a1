//! What capsule's runtime costs a packet, and what its own packet API does, on DPDK's net_null:
//! `cargo bench --features capsule --bench capsule [-- NAME…]`.
//!
//! Each row is a line of JSON: `name`, `family` (null where it makes no difference), `flows`, `ns_per_packet` (the median of the
//! measurements, in nanoseconds of the thread's CPU time), `spread` (the distance between their quartiles), `least` and their
//! number `runs`. Rows of one kind alternate, each run in a process of its own, since a process can start DPDK once. Needs root
//! and two CPUs.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use capsule::batch::{self, PacketRx};
use capsule::{Mbuf, PortQueue};
use serde_json::json;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use steerage::base::limits::BURST;
use steerage::base::{Addr, Incarnation, Instant, Mac, WorkerId};
use steerage::io::capsule::{Host, HostConfig};
use steerage::io::dpdk::{self, BufferConfig, DpdkPort, EalConfig};
use steerage::io::{DeviceConfig, OpenDevice};
use steerage::manage::config;
use steerage::node::Node;
use steerage::path::port::{Burst, Frame, Pool, Port, PortCaps};
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{ND_LEN, Neighbour};
use steerage::wire::{checksum, ipv4, ipv6, udp};

/// Name, and whether flows and families make a difference.
const ROWS: [(&str, bool); 5] = [
    ("dpdk_dsr_ipip", true),
    ("capsule_dsr_ipip", true),
    ("dpdk_io", false),
    ("capsule_io", false),
    ("capsule_vec_mbuf", false),
];
const RUNS: usize = 5;
/// Packets between two looks at the clock, and how many such parts a run has.
const PACKETS: usize = 1_000_000;
const PARTS: usize = 6;
const FLOWS: u32 = 65_536;
const MAIN_CORE: usize = 0;
const CORE: usize = 1;

/// Memory of hugepages, where enough of them are free.
fn eal() -> EalConfig {
    let (file_prefix, memory_mb) = (format!("steerage-perf-{}", std::process::id()), 256);
    EalConfig { hugepages: free_hugepages() >= memory_mb, memory_mb, file_prefix, args: Vec::new() }
}

/// Megabytes.
fn free_hugepages() -> u32 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let field = |name: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().unwrap_or("0").parse().unwrap()
    };
    field("HugePages_Free:") * (field("Hugepagesize:") / 1024)
}

const BUFFERS: BufferConfig = BufferConfig { buffers: 8191, bytes: 2048 };

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

/// Looks at the thread's CPU time every [`PACKETS`] packets.
#[derive(Default)]
struct Meter {
    packets: usize,
    marks: Vec<u64>,
}

impl Meter {
    /// So many packets more; `false` at the end, when the figures have been printed.
    fn add(&mut self, n: usize) -> bool {
        self.packets += n;
        if self.packets < PACKETS {
            return true;
        }
        self.packets = 0;
        // The first field: nanoseconds on a CPU.
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        self.marks.push(schedstat.split(' ').next().unwrap().parse().unwrap());
        if self.marks.len() <= PARTS {
            return true;
        }
        let parts = self.marks.windows(2).map(|m| (m[1] - m[0]) as f64 / PACKETS as f64);
        println!("figures {}", parts.map(|p| p.to_string()).collect::<Vec<_>>().join(" "));
        false
    }
}

/// Turns in which a node learns its neighbours, and no packet comes.
const LEARNING: usize = 100;

/// A net_null port that receives packets: first `told`, then each flow twice in a row (one packet doesn't establish a UDP
/// session), then one of each, over and over, in an order that jumps.
struct Feed {
    port: DpdkPort,
    told: Vec<Vec<u8>>,
    /// Turns until the first packet.
    quiet: usize,
    template: Vec<u8>,
    /// The sum of the IPv4 header without the source address.
    sum: u16,
    next: u32,
}

impl Feed {
    fn new(port: DpdkPort, v6: bool) -> Self {
        let mac = port.caps().mac;
        let (told, template) = (announcements(mac), packet(v6, mac));
        let sum = if v6 { 0 } else { checksum::sum(&template[14..34]) };
        Self { port, told, quiet: LEARNING, template, sum, next: 0 }
    }

    /// Makes `frame` the next flow's packet.
    fn fill(&mut self, frame: &mut impl Frame) {
        // An odd factor: each flow once before the first comes again.
        let turn = if self.next < 2 * FLOWS { self.next / 2 } else { self.next };
        let flow = turn.wrapping_mul(0x9e37_79b1) % FLOWS;
        self.next = self.next.wrapping_add(1);
        let len = self.template.len();
        frame.truncate(len);
        let bytes = frame.head_mut();
        bytes[..len].copy_from_slice(&self.template);
        let [high, low] = [(flow >> 14) as u8, flow as u8];
        let port = 1024 + (flow >> 8 & 0x3f) as u16;
        if len > 60 {
            (bytes[36], bytes[37]) = (high, low);
            bytes[54..56].copy_from_slice(&port.to_be_bytes());
        } else {
            (bytes[28], bytes[29]) = (high, low);
            bytes[34..36].copy_from_slice(&port.to_be_bytes());
            let sum = !checksum::add(self.sum, u16::from_be_bytes([high, low]));
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

impl Port for Feed {
    type Frame = dpdk::Mbuf;

    fn caps(&self) -> &PortCaps {
        self.port.caps()
    }

    fn rx(&mut self, into: &mut Burst<dpdk::Mbuf>) -> usize {
        if let Some(bytes) = self.told.pop() {
            let mut frame = self.port.alloc(Pool::Data).unwrap();
            assert!(frame.grow_back(bytes.len()));
            frame.head_mut().copy_from_slice(&bytes);
            into.push(frame);
            return 1;
        }
        if self.quiet > 0 {
            self.quiet -= 1;
            return 0;
        }
        let first = into.len();
        let n = self.port.rx(into);
        for frame in &mut into[first..] {
            self.fill(frame);
        }
        n
    }

    fn tx(&mut self, from: &mut Burst<dpdk::Mbuf>) -> usize {
        self.port.tx(from)
    }

    fn alloc(&mut self, pool: Pool) -> Option<dpdk::Mbuf> {
        self.port.alloc(pool)
    }
}

/// A UDP packet in a frame of 60 bytes, or in IPv6 of 64.
fn packet(v6: bool, to: Mac) -> Vec<u8> {
    let from = Mac([2, 0, 0, 0, 9, 254]);
    let mut out = vec![0; if v6 { 64 } else { 60 }];
    if v6 {
        eth::write(&mut out, to, from, None, ethertype::IPV6);
        ipv6::write(&mut out[14..], 0, 0, 10, 17, 64, v6_addr("fd77::"), v6_addr("fd99::3"));
        udp::write_tunnel(&mut out[54..], 0, 80, 2);
        return out;
    }
    eth::write(&mut out, to, from, None, ethertype::IPV4);
    let (src, dst) = (Addr::v4([192, 168, 0, 0]), Addr::v4([10, 99, 0, 3]));
    let header = ipv4::Header {
        tos: 0,
        total_len: 46,
        id: 0,
        flags_and_offset: ipv4::DONT_FRAGMENT,
        ttl: 64,
        protocol: 17,
        src,
        dst,
    };
    header.write(&mut out[14..]);
    udp::write_tunnel(&mut out[34..], 0, 80, 18);
    // Its place is for the sum of each packet.
    out[24..26].fill(0);
    out
}

fn v6_addr(text: &str) -> Addr {
    Addr(text.parse::<std::net::Ipv6Addr>().unwrap().octets())
}

/// The neighbours' addresses, told unasked: nobody answers on net_null.
fn announcements(to: Mac) -> Vec<Vec<u8>> {
    let mut told = Vec::new();
    for host in [21, 22, 23, 24, 254] {
        let mac = Mac([2, 0, 0, 0, 9, host]);
        let mut out = vec![0; 14 + arp::LEN];
        eth::write(&mut out, to, mac, None, ethertype::ARP);
        let [sender, target] = [host, 11].map(|last| Addr::v4([10, 10, 0, last]));
        let operation = Operation::Reply;
        Arp { operation, sender_mac: mac, sender, target_mac: to, target }.write(&mut out[14..]);
        told.push(out);
        let [sender, target] = [host, 0x11].map(|last| v6_addr(&format!("fd10::{last:x}")));
        let mut out = vec![0; 54 + ND_LEN];
        eth::write(&mut out, to, mac, None, ethertype::IPV6);
        ipv6::write(&mut out[14..], 0, 0, ND_LEN as u16, 58, 255, sender, target);
        let answer = Neighbour {
            advertisement: true,
            solicited: true,
            overrides: true,
            target: sender,
            mac: Some(mac),
        };
        answer.write(&mut out[54..], sender, target);
        told.push(out);
    }
    told
}

fn configuration() -> config::Config {
    let node = "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = 1\n\
         [tables]\nsessions = 131072\nsteering_sessions = 1024\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
         [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\", \"fd10::11/64\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.10.0.254\"\n[[route]]\nto = \"::/0\"\nvia = \"fd10::fe\"\n";
    let mut cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n[[node]]\nname = \"n1\"\n\
         backplane = \"10.20.0.11\"\nworkers = 1\n"
        .to_owned();
    for (name, vip, real) in [("ipv4", "10.99.0.3", "10.10.0."), ("ipv6", "fd99::3", "fd10::")] {
        cluster += &format!(
            "[[virtual_server]]\nname = \"{name}\"\naddress = \"{vip}\"\nport = 80\nprotocol = \"udp\"\nforward = \"ipip\"\n"
        );
        for s in 21..=24 {
            let last = if name == "ipv6" { format!("{s:x}") } else { s.to_string() };
            cluster +=
                &format!("[[virtual_server.real_server]]\nname = \"s{s}\"\naddress = \"{real}{last}\"\n");
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("n") => Ok(node.to_owned()),
        Some("c") => Ok(cluster.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("n"), None).unwrap_or_else(|e| panic!("{e}"))
}

/// A node under load: its turns, measured once all flows have been seen twice. `false` at the end.
fn load(devices: Vec<OpenDevice<DpdkPort>>, v6: bool) -> impl FnMut() -> bool + Send + 'static {
    let devices = devices.into_iter().map(|device| {
        let queues = device.queues.into_iter().map(|port| Feed::new(port, v6)).collect();
        OpenDevice { queues, monitor: device.monitor }
    });
    let mut now = Instant::ZERO;
    let mut node = Node::new(&configuration(), Incarnation(1), devices.collect(), now).unwrap();
    let mut warm = LEARNING + 20 + 3 * FLOWS as usize / BURST;
    let mut meter = Meter::default();
    move || {
        if warm > 3 * FLOWS as usize / BURST {
            // The neighbours' addresses reach the path by way of the manager.
            now = now + Duration::from_millis(1);
            node.turn(now);
        } else {
            now = now + Duration::from_nanos(50 * BURST as u64);
            node.worker(WorkerId(0)).turn(now);
        }
        if warm > 0 {
            warm -= 1;
            return true;
        }
        let more = meter.add(BURST);
        if !more {
            let totals = node.manager().stats(now).totals;
            let (rx, tx) = (totals.counters["rx"], totals.counters["tx"]);
            let hits = totals.counters["session_hits"];
            assert!(tx * 100 > rx * 99 && hits * 100 > rx * 95, "{rx} received, {tx} sent, {hits} hits");
        }
        more
    }
}

/// Raw bursts through a port.
fn bursts(mut devices: Vec<OpenDevice<DpdkPort>>) -> impl FnMut() -> bool + Send + 'static {
    let mut port = devices[0].queues.remove(0);
    let mut meter = Meter::default();
    let mut burst = Burst::new();
    move || {
        let n = port.rx(&mut burst);
        port.tx(&mut burst);
        meter.add(n)
    }
}

/// The front port, and a backplane on which nothing comes.
fn devices() -> [DeviceConfig; 2] {
    [device("front", "net_null0"), device("back", "net_null1,no-rx=1")]
}

fn on_own_thread(turn: impl FnOnce(Vec<OpenDevice<DpdkPort>>) -> Box<dyn FnMut() -> bool + Send>) {
    let mut turn = turn(dpdk::open(&eal(), &devices(), &BUFFERS).unwrap());
    let thread = std::thread::spawn(move || {
        assert!(core_affinity::set_for_current(core_affinity::CoreId { id: CORE }));
        let _registered = dpdk::register_thread().unwrap();
        while turn() {}
    });
    thread.join().unwrap();
}

fn on_capsule(turn: impl FnOnce(Vec<OpenDevice<DpdkPort>>) -> Box<dyn FnMut() -> bool + Send>) {
    let config = HostConfig { main_core: MAIN_CORE, cores: vec![CORE], eal: eal(), buffers: BUFFERS };
    let (mut host, devices) = Host::open(&config, &devices()).unwrap();
    let (mut turn, mut over) = (turn(devices), false);
    let until = move || {
        if !over && !turn() {
            over = true;
            terminate();
        }
        !over
    };
    host.add(CORE, "turns", until).unwrap();
    let panics = host.panics();
    std::thread::spawn(move || panics.recv().map(|_| terminate()));
    host.run(|| true).unwrap();
}

/// Capsule's own port, whose bursts are vectors.
struct Counted {
    port: PortQueue,
    meter: Meter,
    over: bool,
}

impl PacketRx for Counted {
    fn receive(&mut self) -> Vec<Mbuf> {
        let packets = PacketRx::receive(&mut self.port);
        if !self.over && !self.meter.add(packets.len()) {
            self.over = true;
            terminate();
        }
        packets
    }
}

/// Capsule's own pipeline from a port to the same port.
fn vectors() {
    let eal = eal();
    let config = json!({
        "app_name": "perf", "app_group": eal.file_prefix, "master_core": MAIN_CORE,
        "mempool": { "capacity": BUFFERS.buffers, "cache_size": 256 },
        "ports": [{ "name": "front", "device": "net_null0", "cores": [CORE], "rxd": 512, "txd": 512 }],
        "dpdk_args": format!("--no-huge --no-shconf -m {} --no-telemetry --no-pci --log-level *:warning", eal.memory_mb),
    });
    let mut runtime = capsule::Runtime::build(serde_json::from_value(config).unwrap()).unwrap();
    let install = |port: PortQueue| {
        batch::splice(Counted { port: port.clone(), meter: Meter::default(), over: false }, port)
    };
    runtime.add_pipeline_to_port("front", install).unwrap();
    runtime.execute().unwrap();
}

fn terminate() {
    signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
}

/// One run, in this process.
fn run(name: &str, v6: bool) {
    match name {
        "dpdk_dsr_ipip" => on_own_thread(|devices| Box::new(load(devices, v6))),
        "capsule_dsr_ipip" => on_capsule(|devices| Box::new(load(devices, v6))),
        "dpdk_io" => on_own_thread(|devices| Box::new(bursts(devices))),
        "capsule_io" => on_capsule(|devices| Box::new(bursts(devices))),
        "capsule_vec_mbuf" => vectors(),
        other => panic!("no row is called {other}"),
    }
}

/// One run in a process of its own: nanoseconds a packet of each part.
fn child(name: &str, v6: bool) -> Vec<f64> {
    let family = if v6 { "ipv6" } else { "ipv4" };
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--child", name, family]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let figures = out.lines().find_map(|line| line.strip_prefix("figures "));
    let figures = figures.unwrap_or_else(|| panic!("{name} {family}: {}\n{out}{err}", output.status));
    figures.split(' ').map(|figure| figure.parse().unwrap()).collect()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [child, name, family] = &words[..]
        && child == "--child"
    {
        return run(name, family == "ipv6");
    }
    if let Some(other) = words.iter().find(|word| ROWS.iter().all(|(name, _)| name != word)) {
        let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
        println!("no row is called {other}; there are {}", names.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let mut rows: Vec<_> = ROWS
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .flat_map(|(name, flows)| {
            let families = if flows { &[false, true][..] } else { &[false] };
            families.iter().map(move |v6| (name, flows, *v6, Vec::new()))
        })
        .collect();
    for _ in 0..RUNS {
        for (name, _, v6, figures) in &mut rows {
            figures.extend(child(name, *v6));
        }
    }
    for (name, flows, v6, mut figures) in rows {
        figures.sort_by(f64::total_cmp);
        let at = |quarters: usize| figures[(figures.len() - 1) * quarters / 4];
        let round = |ns: f64| (ns * 10.0).round() / 10.0;
        let row = json!({
            "name": name,
            "family": flows.then_some(if v6 { "ipv6" } else { "ipv4" }),
            "flows": if flows { FLOWS } else { 1 },
            "ns_per_packet": round(at(2)),
            "spread": round(at(3) - at(1)),
            "least": round(at(0)),
            "runs": figures.len(),
        });
        println!("{row}");
    }
}
