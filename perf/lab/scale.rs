//! What a change of one real server costs in a cluster with a great many: from the decided write to the published View, and
//! what the workers feel of it.

use crate::measure::{quantile, thread_ns};
use crate::port::{Buffers, LabPort, Mode};
use crate::traffic::{Template, Traffic, shuffled};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant as Clock};
use steerage::base::{Addr, FlowKey, Incarnation, Instant, PortId};
use steerage::cluster::fences::Fences;
use steerage::cluster::log::{Log, Outcome as Committed, Output, Replica, ReplicaId, Ticket};
use steerage::cluster::namespace::{
    Change, Key, Name, Namespace, Object, Outcome, RealServerSpec, RequestId, VirtualServerSpec, Write,
};
use steerage::cluster::state::Entry;
use steerage::io::OpenDevice;
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::manage::compile::{compile, recompile};
use steerage::manage::config::{self, Config, LogConfig};
use steerage::manage::manager::Manager;
use steerage::node::Node;
use steerage::table::publish;
use steerage::view::{Forward, Ingress, Protocol, View};

/// How large the cluster is.
#[derive(Clone, Copy, clap::Args)]
pub struct Size {
    /// Virtual servers.
    #[arg(long, default_value_t = 10_000)]
    pub virtual_servers: u32,
    /// Real servers of each.
    #[arg(long, default_value_t = 100)]
    pub real_servers: u32,
    /// Hosts on the link that they are; all others are behind a router.
    #[arg(long, default_value_t = 4000)]
    pub hosts: u32,
    /// Slots of each Maglev table, a prime: few, as 65,537 for each take 2.6 GB and most of the time that compiling all of it does.
    #[arg(long, default_value_t = 509)]
    pub slots: u32,
    /// Changes that are made.
    #[arg(long, default_value_t = 30)]
    pub changes: u32,
    /// What `cargo bench` says to every program.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// The node's own file, and a cluster of this node alone with nothing to serve yet.
fn load(slots: u32) -> Config {
    let node = "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = 1\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/16\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.10.0.254\"\n";
    let cluster = format!(
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = {slots}\n\
         [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n\
         [[snat]]\naddress = \"10.10.0.101\"\nnode = \"n1\"\n"
    );
    let read = |path: &Path| match path.to_str() {
        Some("n") => Ok(node.to_owned()),
        Some("c") => Ok(cluster.clone()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("n"), None).unwrap_or_else(|e| panic!("{e}"))
}

/// Objects of the cluster file that [`load`] reads.
fn founding(slots: u32) -> Vec<(Key, Object)> {
    let text = format!(
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = {slots}\n\
         [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n\
         [[snat]]\naddress = \"10.10.0.101\"\nnode = \"n1\"\n"
    );
    config::objects_from(&|_| Ok(text.clone()), Path::new("c")).unwrap_or_else(|e| panic!("{e}"))
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

/// The address of a virtual server.
pub fn vip(v: u32) -> Addr {
    Addr::v4([10, 99, (v / 250) as u8, (v % 250 + 1) as u8])
}

fn real_server(size: &Size, v: u32, r: u32, weight: u32) -> (Key, Object) {
    let n = v * size.real_servers + r;
    let address = if n.is_multiple_of(2) {
        let host = n / 2 % size.hosts.max(1);
        Addr::v4([10, 10, 10 + (host / 250) as u8, (host % 250 + 1) as u8])
    } else {
        Addr::v4([20, (n >> 16) as u8, (n >> 8) as u8, n as u8])
    };
    let key = Key::RealServer(name(&format!("v{v}")), name(&format!("s{r}")));
    (key, Object::RealServer(RealServerSpec { address, port: None, weight, health: None }))
}

fn objects(size: &Size) -> Vec<(Key, Object)> {
    let mut all = founding(size.slots);
    for v in 0..size.virtual_servers {
        let spec = VirtualServerSpec {
            address: vip(v),
            port: 80,
            protocol: Protocol::Udp,
            group: Name::all(),
            forward: if v % 2 == 0 { Forward::Nat } else { Forward::Ipip },
            ingress: Ingress::Steered,
            profile: None,
            idle: None,
            slow_start: None,
            health: None,
        };
        all.push((Key::VirtualServer(name(&format!("v{v}"))), Object::VirtualServer(Box::new(spec))));
        all.extend((0..size.real_servers).map(|r| real_server(size, v, r, 100)));
    }
    all
}

fn write(request: u128, changes: Vec<Change>) -> Write {
    Write { request: RequestId(request), who: "perf".into(), at: 0, changes }
}

fn change((key, object): (Key, Object)) -> Change {
    Change { key, expected: None, value: Some(object) }
}

fn ms(since: Clock) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// Median and worst.
fn spread(times: &[f64]) -> Value {
    json!({ "median": round(quantile(times, 0.5)), "worst": round(quantile(times, 1.0)) })
}

/// The real server that the `i`-th change gives another weight.
fn weighed(size: &Size, i: u32) -> (Key, Object) {
    real_server(size, i * 7919 % size.virtual_servers, i % size.real_servers, 50 + i)
}

/// Changes one real server's weight after the other, and measures each step on the way to the published View.
fn changes(size: &Size) -> Value {
    let first = load(size.slots);
    let caps = vec![crate::caps(0)];
    let mut space = Namespace::default();
    let all = write(1, objects(size).into_iter().map(change).collect());
    assert_eq!(space.apply(1, &all), Outcome::Applied { index: 1 });
    drop(all);
    let mut config = first.with(&space).expect("it suits the node");
    let start = Clock::now();
    let view = compile(&config, Incarnation(1), &caps).expect("it compiles");
    let full = ms(start);
    let (mut views, mut readers) = publish::channel(view, 1);
    let mut times: [Vec<f64>; 5] = Default::default();
    for i in 0..size.changes {
        let index = u64::from(i) + 2;
        let changed = weighed(size, i);
        let begin = Clock::now();
        let outcome = space.apply(index, &write(index.into(), vec![change(changed)]));
        times[0].push(ms(begin));
        assert_eq!(outcome, Outcome::Applied { index });
        let start = Clock::now();
        let next = config.with(&space).expect("it suits the node");
        times[1].push(ms(start));
        let start = Clock::now();
        let view = recompile(&next, Incarnation(1), &caps, (&config, views.current())).expect("it compiles");
        times[2].push(ms(start));
        let start = Clock::now();
        views.publish(View { version: index, ..view });
        readers.iter_mut().for_each(|reader| assert!(reader.refresh()));
        config = next;
        views.collect();
        times[3].push(ms(start));
        times[4].push(ms(begin));
    }
    let [apply, with, compile, publish, whole] = times.map(|times| spread(&times));
    json!({
        "name": "change",
        "virtual_servers": size.virtual_servers,
        "real_servers": size.real_servers,
        "slots": size.slots,
        "compile_all_ms": round(full),
        "apply_ms": apply,
        "config_ms": with,
        "compile_ms": compile,
        "publish_ms": publish,
        "whole_ms": whole,
    })
}

/// A log of one, which forgets: what is proposed is committed.
#[derive(Default)]
struct Now {
    outputs: VecDeque<Output>,
    index: u64,
    tickets: u64,
}

impl Now {
    fn new() -> Self {
        let id = ReplicaId(0);
        let replicas = vec![Replica { id, name: "n1".into(), address: String::new(), votes: true }];
        let role = Output::Role { leader: Some(id), term: 1, quorum: true };
        Self { outputs: [Output::Replicas(replicas), role].into(), ..Self::default() }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

impl Log for Now {
    fn propose(&mut self, bytes: Vec<u8>, _: Fences) -> Ticket {
        self.index += 1;
        let ticket = self.ticket();
        self.outputs.push_back(Output::Entry { index: self.index, bytes });
        self.outputs.push_back(Output::Outcome(ticket, Committed::Committed(self.index)));
        ticket
    }

    fn set_replicas(&mut self, replicas: Vec<Replica>) -> Ticket {
        let ticket = self.ticket();
        self.outputs.push_back(Output::Replicas(replicas));
        self.outputs.push_back(Output::Outcome(ticket, Committed::Committed(self.index)));
        ticket
    }

    fn take(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn snapshot(&mut self, _: u64, _: Vec<u8>) {}

    fn restore(&mut self, _: ReplicaId) {}

    fn resign(&mut self) {}

    fn renew(&mut self, token: u64, _: Incarnation) {
        self.outputs.push_back(Output::Renewed { token });
    }

    fn fenced(&self) -> Fences {
        Fences::NONE
    }
}

/// What the worker does.
const PREPARES: u8 = 0;
const RUNS: u8 = 1;
const MEASURES_REST: u8 = 2;
const MEASURES_CHANGES: u8 = 3;
const ENDS: u8 = 4;

/// Between two changes.
const PERIOD: Duration = Duration::from_millis(100);

/// Wall-clock and processor time of a worker's turns.
struct Turns(Histogram<u64>, Histogram<u64>);

impl Turns {
    fn new() -> Self {
        let histogram = || Histogram::new(3).expect("three digits are allowed");
        Self(histogram(), histogram())
    }

    fn say(&self) -> Value {
        let of = |times: &Histogram<u64>| {
            let at = |part| times.value_at_quantile(part);
            json!({ "p50": at(0.5), "p99": at(0.99), "p99.99": at(0.9999), "max": times.max() })
        };
        json!({ "turns": self.0.len(), "wall_ns": of(&self.0), "cpu_ns": of(&self.1) })
    }
}

/// Frames to all virtual servers.
fn traffic(size: &Size) -> Traffic {
    let key = |i: u32| {
        let client = Addr::v4([10, 200, (i >> 8) as u8, i as u8]);
        FlowKey::new(client, vip(i * 31 % size.virtual_servers), 5000 + (i >> 16) as u16, 80, 17)
    };
    let template = Template::new(crate::caps(0).mac, &key(0), 0);
    let list: Vec<_> = (0..1 << 16).map(|i| template.patch(&key(i))).collect();
    Traffic::new(template, shuffled(&list), 1, None)
}

/// A worker's turns at rest, and while a change a tenth of a second is decided, compiled and published.
fn turns(size: &Size) -> Value {
    let mut config = load(size.slots);
    config.log = Some(Arc::new(LogConfig {
        stateless_without_quorum: true,
        directory: PathBuf::new(),
        tls: None,
        witnesses: Vec::new(),
        objects: Vec::new(),
    }));
    let port = MemoryPort::generator(crate::caps(0), MemoryPools::new(4096, 2048), Vec::new(), Vec::new());
    let device =
        OpenDevice { queues: vec![LabPort::new(port, Buffers::Pool)], monitor: Box::new(crate::port::Up) };
    let origin = Clock::now();
    let clock = move || Instant::ZERO + Duration::from_secs(1) + origin.elapsed();
    let node = Node::new(&config, Incarnation(1), vec![device], clock()).unwrap_or_else(|e| panic!("{e}"));
    let (mut workers, mut manager) = node.into_parts();
    let mut worker = workers.pop().expect("one worker");
    let phase = AtomicU8::new(PREPARES);
    let (rest, changing, adopting, waits) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            crate::pin();
            let (mut rest, mut changing, mut adopting) = (Turns::new(), Turns::new(), Turns::new());
            let mut version = 0;
            let mut loaded = false;
            let (mut wall, mut cpu) = (Clock::now(), thread_ns());
            loop {
                let phase = phase.load(Ordering::Relaxed);
                if phase == ENDS {
                    return (rest, changing, adopting);
                }
                if phase != PREPARES && !loaded {
                    loaded = true;
                    worker.port_mut(PortId(0)).expect("its queue").mode = Mode::Load(traffic(size));
                }
                worker.turn(clock());
                let (end, cpu_end) = (Clock::now(), thread_ns());
                let new = worker.counters().view.get();
                let turns = match phase {
                    MEASURES_REST => Some(&mut rest),
                    MEASURES_CHANGES if version != new => Some(&mut adopting),
                    MEASURES_CHANGES => Some(&mut changing),
                    _ => None,
                };
                if let Some(Turns(walls, cpus)) = turns {
                    walls.record((end - wall).as_nanos() as u64).expect("it grows");
                    cpus.record(cpu_end - cpu).expect("it grows");
                }
                (wall, cpu, version) = (end, cpu_end, new);
            }
        });
        manager.decide_by(Box::new(Now::new()), Some(&objects(size)), clock());
        let mut run = |until: &mut dyn FnMut(&mut Manager) -> bool| {
            while !until(&mut manager) {
                manager.turn(clock());
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        run(&mut |manager| manager.ready(clock()) && manager.stats(clock()).virtual_servers.len() > 1);
        let mut wait = |time: Duration| {
            let end = Clock::now() + time;
            run(&mut |_| Clock::now() >= end);
        };
        phase.store(RUNS, Ordering::Relaxed);
        wait(Duration::from_secs(2));
        phase.store(MEASURES_REST, Ordering::Relaxed);
        wait(PERIOD * size.changes);
        phase.store(MEASURES_CHANGES, Ordering::Relaxed);
        let mut waits = Vec::new();
        for i in 0..size.changes {
            let begin = Clock::now();
            let write = write(u128::from(i) + 2, vec![change(weighed(size, i))]);
            let mut asked = None;
            let mut done = false;
            run(&mut |manager| {
                let ask = *asked.get_or_insert_with(|| {
                    manager.ask(Entry::Write(write.clone()), clock()).expect("it has a seat")
                });
                done |= manager.answer(ask).is_some();
                let council = manager.council().expect("it has a seat");
                let (state, report) = (council.state(), council.report());
                done && state.version() == state.in_force() && report.adopted == state.in_force()
            });
            waits.push(ms(begin));
            let end = begin + PERIOD;
            run(&mut |_| Clock::now() >= end);
        }
        phase.store(ENDS, Ordering::Relaxed);
        let (rest, changing, adopting) = worker.join().expect("the worker ends well");
        (rest, changing, adopting, waits)
    });
    json!({
        "name": "turns",
        "virtual_servers": size.virtual_servers,
        "real_servers": size.real_servers,
        "slots": size.slots,
        "at_rest": rest.say(),
        "between": changing.say(),
        "adopting": adopting.say(),
        "asked_to_adopted_ms": spread(&waits),
    })
}

/// Both, each said as soon as it is measured.
pub fn report(size: &Size, say: &dyn Fn(Value)) {
    say(changes(size));
    say(turns(size));
}
