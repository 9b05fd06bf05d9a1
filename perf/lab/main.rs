//! The performance laboratory's measuring program. `perf/run` and `perf/stages` build and start it; each result is a line of
//! JSON on its standard output.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

mod limit;
mod measure;
mod memory;
mod pair;
mod port;
mod rows;
mod scale;
mod setup;
mod traffic;

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use measure::{cpu_ns, median, quantile, spread, turn_times};
use port::{Buffers, LabPort, Mode};
use rows::{Limit, ROWS, Row};
use serde_json::json;
use setup::Lab;
use std::io::Write;
use std::time::Duration;
use steerage::base::Mac;
use steerage::base::limits::{BURST, MAGLEV_SLOTS};
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::path::port::{Burst, Port, PortCaps};
use steerage::wire::protocol;
use traffic::{Template, Traffic, shuffled};

/// Where packets come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// Ports in memory.
    Memory,
    /// DPDK's net_null.
    Null,
}

/// The measuring program of the performance laboratory. `perf/run` and `perf/stages` start it.
#[derive(Parser)]
enum Command {
    /// Measures rows of one family, number of flows and kind of port, each in turn with the bare loops it is compared with.
    Rows(Arguments),
    /// Bytes of memory a flow.
    Memory,
    /// Two workers against one.
    Pair {
        /// Address family, 4 or 6.
        #[arg(long)]
        family: u8,
        /// Flows, in random order.
        #[arg(long)]
        flows: usize,
        /// Measurements, of which the median counts.
        #[arg(long, default_value_t = 7)]
        runs: usize,
        /// Turns of a measurement.
        #[arg(long, default_value_t = 8192)]
        turns: usize,
    },
    /// What a change of one real server costs among a great many.
    Scale(scale::Size),
    /// Fills the tables for one row, says so, and then makes turns until it has made enough or is killed.
    Stage {
        /// The row, and what it is measured with.
        #[command(flatten)]
        arguments: Arguments,
        /// How many turns; zero: no end.
        #[arg(long)]
        turns: usize,
        /// Virtual time of a turn in nanoseconds: what it takes when no profiler slows it down.
        #[arg(long)]
        turn_ns: u64,
    },
}

#[derive(clap::Args)]
struct Arguments {
    /// Names of rows.
    #[arg(long, value_delimiter = ',', required = true)]
    rows: Vec<String>,
    /// Address family, 4 or 6.
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=6))]
    family: u8,
    /// Flows, in random order.
    #[arg(long)]
    flows: usize,
    /// The ports.
    #[arg(long, value_enum)]
    io: Io,
    /// Measurements, of which the median counts.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Packets of a measurement.
    #[arg(long, default_value_t = 262_144)]
    packets: usize,
}

impl Arguments {
    fn v6(&self) -> bool {
        self.family == 6
    }

    fn wants(&self, name: &str) -> bool {
        self.rows.iter().any(|r| r == name)
    }

    fn turns(&self) -> usize {
        self.packets.div_ceil(BURST)
    }
}

/// Before each measurement this part of it goes by unmeasured, so that what the last loop left in the caches is gone.
const WARM: usize = 8;

/// The rows that aren't the product's.
const LIMITS: [&str; 3] = ["io_only", "limit_stateless", "limit_hit"];

fn main() {
    match Command::parse() {
        Command::Rows(arguments) => rows(&arguments),
        Command::Memory => println!("{}", memory::report(&memory::default_config())),
        Command::Pair { family, flows, runs, turns } => {
            println!("{}", pair::report(flows, family == 6, runs, turns));
        }
        Command::Scale(size) => scale::report(&size, &|line| println!("{line}")),
        Command::Stage { arguments, turns, turn_ns } => stage(&arguments, turns, turn_ns),
    }
}

/// One row on ports in memory, for a profiler.
fn stage(arguments: &Arguments, turns: usize, turn_ns: u64) {
    let row = ROWS.iter().find(|r| arguments.wants(r.name)).expect("a row of the product's");
    pin();
    let [front, back, ..] = memory_ports();
    let mut lab = Lab::new(vec![front], vec![back], Buffers::Pool, row.sessions(arguments.flows));
    row.prepare(&mut lab, arguments.flows, arguments.v6());
    lab.step = Duration::from_nanos(turn_ns);
    println!("{}", json!({ "ready": row.name, "turns": turns, "burst": BURST }));
    std::io::stdout().flush().unwrap();
    if turns > 0 {
        return profiled(&mut lab, turns);
    }
    loop {
        profiled(&mut lab, 1024);
    }
}

/// What a profiler is to look at.
#[inline(never)]
fn profiled(lab: &mut Lab<MemoryPort>, turns: usize) {
    lab.turns(turns);
}

/// Five ports in memory.
fn memory_ports() -> [MemoryPort; 5] {
    // A thread caches the buffers of few pools, so the bare loops, which take turns, share theirs.
    let pools = [(); 3].map(|()| MemoryPools::new(4096, 2048));
    let port = |i: u8| {
        let pools = pools[usize::from(i.min(2))].clone();
        MemoryPort::generator(caps(i), pools, Vec::new(), Vec::new())
    };
    [0, 1, 2, 3, 4].map(port)
}

/// Keeps this thread on the last core: the first has most of the machine's own work.
fn pin() {
    if let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.last().copied()) {
        core_affinity::set_for_current(core);
    }
}

fn rows(arguments: &Arguments) {
    for name in &arguments.rows {
        let known = ROWS.iter().map(|r| r.name).chain(LIMITS).any(|n| n == name);
        assert!(known, "there is no row \"{name}\"");
    }
    match arguments.io {
        Io::Memory => measure(arguments, Buffers::Pool, memory_ports()),
        #[cfg(feature = "dpdk")]
        Io::Null => {
            let ports = null::open();
            measure(arguments, Buffers::Device, ports);
        }
        #[cfg(not(feature = "dpdk"))]
        Io::Null => panic!("built without the feature \"dpdk\""),
    }
}

fn caps(i: u8) -> PortCaps {
    let mtu = if i == 1 { 1700 } else { 1500 };
    PortCaps { mac: Mac([2, 0, 0, 0, i, 1]), mtu }
}

#[cfg(feature = "dpdk")]
mod null {
    //! DPDK's null device.

    use steerage::io::DeviceConfig;
    use steerage::io::dpdk::{BufferConfig, DpdkPort, EalConfig, open as dpdk};

    /// Five ports.
    pub fn open() -> [DpdkPort; 5] {
        let eal = EalConfig {
            hugepages: false,
            memory_mb: 256,
            file_prefix: format!("steerage-perf-{}", std::process::id()),
            args: Vec::new(),
        };
        let device = |i: u16| DeviceConfig {
            name: format!("null{i}"),
            device: format!("net_null{i},size=64"),
            queues: 1,
            mtu: if i == 1 { 1700 } else { 1500 },
            rx_descriptors: 512,
            tx_descriptors: 512,
            promiscuous: true,
        };
        let buffers = BufferConfig { buffers: 4096, bytes: 2048 };
        let devices = dpdk(&eal, &[0, 1, 2, 3, 4].map(device), &buffers).unwrap_or_else(|e| panic!("{e}"));
        // A queue keeps its device open.
        let queues: Vec<_> = devices.into_iter().flat_map(|d| d.queues).collect();
        queues.try_into().unwrap_or_else(|_| panic!("a queue for each device"))
    }
}

/// What was measured of a row.
#[derive(Default)]
struct Figures {
    ns: Vec<f64>,
    ratios: Vec<f64>,
}

fn report(arguments: &Arguments, name: &str, figures: &Figures, times: &Histogram<u64>) {
    let ns = median(&figures.ns);
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let ratio = (!figures.ratios.is_empty()).then(|| round(median(&figures.ratios)));
    let line = json!({
        "name": name,
        "family": if arguments.v6() { "ipv6" } else { "ipv4" },
        "flows": arguments.flows,
        "io": if arguments.io == Io::Memory { "memory" } else { "null" },
        "ns_per_packet": round(ns),
        "spread": round(spread(&figures.ns)),
        "least": round(quantile(&figures.ns, 0.0)),
        "ratio_to_limit": ratio,
        "p50_turn_ns": times.value_at_quantile(0.5),
        "p99_turn_ns": times.value_at_quantile(0.99),
        "max_turn_ns": times.max(),
        "runs": figures.ns.len(),
    });
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// The bare loops, each with a port of its own.
struct Loops<P: Port> {
    ports: [LabPort<P>; 3],
    stateless: limit::Stateless,
    hit: limit::Hit,
    burst: Burst<P::Frame>,
}

impl<P: Port> Loops<P> {
    fn new(arguments: &Arguments, ports: [P; 3], buffers: Buffers) -> Self {
        let (flows, v6) = (arguments.flows, arguments.v6());
        let key = setup::load(1, 1024).cluster.hash_key;
        let mut ports = ports.map(|p| LabPort::new(p, buffers));
        for (port, vip) in ports.iter_mut().zip([setup::vip::NAT, setup::vip::IPIP, setup::vip::NAT]) {
            let template = Template::new(port.caps().mac, &rows::client(0, vip, protocol::UDP, v6), 0);
            let list = rows::list(&template, flows, vip, protocol::UDP, v6);
            port.mode = Mode::Load(Traffic::new(template, shuffled(&list), 1, None));
        }
        let hit = limit::Hit::new(key, (0..flows).map(|i| rows::client(i, setup::vip::NAT, 17, v6)), v6);
        let stateless = limit::Stateless::new(key, MAGLEV_SLOTS, v6);
        let mut loops = Self { ports, stateless, hit, burst: Burst::new() };
        let known: usize = (0..8).map(|_| loops.hit()).sum();
        assert_eq!(known, 8 * BURST, "the table holds all flows");
        let written: usize = (0..8).map(|_| loops.stateless()).sum();
        assert_eq!(written, 8 * BURST, "all packets get an outer header");
        loops
    }

    #[inline(never)]
    fn hit(&mut self) -> usize {
        self.hit.burst(&mut self.ports[2], &mut self.burst)
    }

    #[inline(never)]
    fn stateless(&mut self) -> usize {
        self.stateless.burst(&mut self.ports[1], &mut self.burst)
    }

    /// A burst of one of [`LIMITS`].
    #[inline(always)]
    fn burst(&mut self, which: usize) {
        match which {
            0 => limit::io_only(&mut self.ports[0], &mut self.burst),
            1 => drop(self.stateless()),
            _ => drop(self.hit()),
        }
    }

    fn run(&mut self, which: usize, turns: usize) -> f64 {
        (0..turns / WARM).for_each(|_| self.burst(which));
        cpu_ns(turns * BURST, || (0..turns).for_each(|_| self.burst(which)))
    }
}

fn measure<P: Port>(arguments: &Arguments, buffers: Buffers, ports: [P; 5]) {
    pin();
    let [mut front, mut back, a, b, c] = ports;
    let mut loops = Loops::new(arguments, [a, b, c], buffers);
    let turns = arguments.turns();
    let mut limits: [Figures; 3] = Default::default();
    for which in 0..3 {
        loops.run(which, turns.max(arguments.flows / BURST));
    }
    let chosen = |row: &&Row| arguments.wants(row.name) && row.suits(arguments.flows);
    for row in ROWS.iter().filter(chosen) {
        let mut lab = Lab::new(vec![front], vec![back], buffers, row.sessions(arguments.flows));
        row.prepare(&mut lab, arguments.flows, arguments.v6());
        let mut figures = Figures::default();
        row.verify(&mut lab, arguments.v6(), |lab| {
            lab.turns(turns); // warm
            lab.pace(turns);
            for _ in 0..arguments.runs {
                lab.turns(turns / WARM);
                figures.ns.push(cpu_ns(turns * BURST, || lab.turns(turns)));
                let compared = match row.limit {
                    Limit::Stateless => 1,
                    Limit::Hit => 2,
                    Limit::None => continue,
                };
                let limit = loops.run(compared, turns);
                limits[compared].ns.push(limit);
                figures.ratios.push(figures.ns[figures.ns.len() - 1] / limit);
            }
            (2 * turns + arguments.runs * (turns / WARM + turns)) * BURST
        });
        let times = turn_times(turns, || lab.turns(1));
        report(arguments, row.name, &figures, &times);
        (front, back) = lab.release();
    }
    for (which, name) in LIMITS.iter().enumerate().filter(|(_, name)| arguments.wants(name)) {
        let figures = &mut limits[which];
        while figures.ns.len() < arguments.runs {
            figures.ns.push(loops.run(which, turns));
        }
        let times = turn_times(turns, || loops.burst(which));
        report(arguments, name, figures, &times);
    }
}
