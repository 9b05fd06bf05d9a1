//! What a node explains against where packets really go: 1000 random tuples, in three nodes of two workers.

use crate::packets::{Packet, SYN, open, read, tcp, udp};
use crate::world::{Spec, World, addr, load, standard, virtual_server};
use serde_json::Value;
use std::collections::BTreeMap;
use steerage::base::rng::Rng;
use steerage::base::{Addr, HashKey, WorkerId};
use steerage::manage::config::Config;
use steerage::manage::explain::{self, ExplainError, Request, Tuple};
use steerage::path::message::CHANNEL;

const WORKERS: usize = 2;

/// The standard virtual servers, one of a group of two nodes, one that nobody is steered for, and one of unequal weights.
fn cluster() -> String {
    let mut out = standard(Some(3));
    out += "[[group]]\nname = \"pair\"\nmembers = [\"n1\", \"n2\"]\n";
    for (address, node) in [("10.10.0.111", "n2"), ("10.10.0.112", "n1")] {
        out += &format!("[[snat]]\naddress = \"{address}\"\ngroup = \"pair\"\nnode = \"{node}\"\n");
    }
    out += &virtual_server("pair", "10.99.0.11", "tcp", "nat", "pair");
    out += &virtual_server("anywhere", "10.99.0.20", "udp", "ipip", "all")
        .replace("group = \"all\"\n", "group = \"all\"\ningress = \"local\"\n");
    out += &virtual_server("few", "10.99.0.21", "udp", "gue", "pair")
        .replace("group = \"pair\"\n", "group = \"pair\"\ningress = \"local\"\n");
    out
}

fn world() -> World {
    World::new(Spec { workers: WORKERS, cluster: cluster(), ..Spec::default() })
}

/// The configuration of a node, and the same with another hash key.
fn configs(number: usize) -> [Config; 2] {
    let right = load(&Spec { workers: WORKERS, cluster: cluster(), ..Spec::default() }, number);
    let mut wrong = right.clone();
    wrong.cluster.hash_key = HashKey([1, 2]);
    [right, wrong]
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

/// A packet that opens a flow: mostly to a virtual server, sometimes to what is none; from clients behind the router and on
/// link, and from what can't be a client.
fn random_packet(rng: &mut Rng) -> Packet {
    let v4 = rng.below(2) == 0;
    let net = 1 + rng.below(250);
    let src = match (v4, rng.below(40)) {
        (true, 0) => pick(rng, &["10.99.0.1", "10.10.0.101", "127.0.0.1", "224.0.0.5"]).to_owned(),
        (false, 0) => pick(rng, &["fd99::2", "fd10::101", "::1"]).to_owned(),
        (true, 1..4) => pick(rng, &["10.10.0.1", "10.10.0.2"]).to_owned(),
        (false, 1..4) => pick(rng, &["fd10::1", "fd10::2"]).to_owned(),
        (true, 4) => "172.16.0.9".to_owned(), // to whom there is no route: replies have none
        (true, _) => format!("192.168.{}.{net}", rng.below(256)),
        (false, _) => format!("fd77::{:x}:{net:x}", rng.below(65536)),
    };
    let dst = match (v4, rng.below(12)) {
        (true, 0) => pick(rng, &["10.99.0.9", "10.10.0.11", "203.0.113.5", "10.20.0.11"]).to_owned(),
        (false, 0) => pick(rng, &["fd99::9", "fd10::12"]).to_owned(),
        (true, 1) => "10.99.0.11".to_owned(),
        (true, 2) => "10.99.0.20".to_owned(),
        (true, 3) => "10.99.0.21".to_owned(),
        (true, _) => format!("10.99.0.{}", 1 + rng.below(4)),
        (false, _) => format!("fd99::{}", 1 + rng.below(4)),
    };
    let src_port = rng.below(65536) as u16;
    let dst_port = if rng.below(20) == 0 { rng.below(65536) as u16 } else { 80 };
    let is_tcp = match dst.as_str() {
        "10.99.0.11" => true,
        "10.99.0.20" | "10.99.0.21" => false,
        _ => rng.below(2) == 0,
    };
    if is_tcp { tcp(&src, src_port, &dst, dst_port, SYN) } else { udp(&src, src_port, &dst, dst_port) }
}

pub fn request(packet: &Packet) -> Request {
    let protocol = if packet.flags.is_some() { "tcp" } else { "udp" };
    let end = |address: Addr, port| std::net::SocketAddr::new(address.ip(), port).to_string();
    let (source, destination) = (end(packet.src, packet.src_port), end(packet.dst, packet.dst_port));
    Request { tuple: Tuple::parse(protocol, &source, &destination).unwrap(), receiver: None }
}

/// What node `number` says, as the admin API would give it.
pub fn ask(world: &mut World, number: usize, request: Request) -> Result<Value, ExplainError> {
    let now = world.now;
    let ticket = world.nodes[number - 1].node.manager().explain(request, now);
    for _ in 0..2000 {
        let now = world.now;
        if let Some((ended, said)) = world.nodes[number - 1].node.manager().explained(now) {
            assert_eq!(ended, ticket);
            return said.map(|said| serde_json::to_value(said).unwrap());
        }
        world.step();
    }
    panic!("no answer within two seconds");
}

fn offline(config: &Config, packet: &Packet) -> Value {
    serde_json::to_value(explain::offline(config, &request(packet)).unwrap()).unwrap()
}

/// Where a packet went.
#[derive(Debug)]
struct Went {
    node: String,
    /// The worker that sent it.
    worker: usize,
    frame: Vec<u8>,
}

/// Lets node `number` receive a packet on its first worker's queue; what came out, and which drops it caused.
fn send(world: &mut World, number: usize, packet: &Packet) -> (Option<Went>, Vec<String>) {
    // By worker, packets to and from real servers: not what else it sends, such as questions for neighbours.
    let sent = |world: &mut World| -> Vec<u64> {
        let mut all = Vec::new();
        for appliance in &mut world.nodes {
            for worker in 0..WORKERS {
                let counters = appliance.node.worker(WorkerId(worker as u16)).counters();
                all.push(
                    counters.real_servers.iter().map(|r| r.packets_in.get() + r.packets_out.get()).sum(),
                );
            }
        }
        all
    };
    let dropped = |world: &mut World| -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for number in 1..=3 {
            for (reason, n) in world.stats(number).totals.drops {
                *all.entry(reason).or_default() += n;
            }
        }
        all
    };
    world.run(2);
    world.take();
    let (before, drops) = (sent(world), dropped(world));
    let mut out = world.exchange(number, &packet.frame_to(number));
    assert!(out.len() <= 1, "{packet:?}: {out:x?}");
    let workers: Vec<usize> =
        sent(world).iter().zip(&before).enumerate().filter(|(_, (a, b))| a > b).map(|(i, _)| i).collect();
    let reasons = dropped(world).into_iter().filter(|(reason, n)| drops.get(reason) != Some(n));
    let reasons = reasons.map(|(reason, _)| reason.to_owned()).collect();
    let went = out.pop().map(|(node, frame)| {
        let sender = workers.iter().find(|i| *i / WORKERS == node - 1).expect("its counter");
        Went { node: format!("n{node}"), worker: sender % WORKERS, frame }
    });
    (went, reasons)
}

fn text<'a>(said: &'a Value, key: &str) -> &'a str {
    said[key].as_str().unwrap_or_default()
}

fn socket(address: Addr, port: u16) -> String {
    std::net::SocketAddr::new(address.ip(), port).to_string()
}

/// An outer IP header: source, destination and what is behind it.
fn outer(packet: &[u8]) -> (Addr, Addr, &[u8]) {
    if packet[0] >> 4 == 4 {
        let [src, dst] = [12, 16].map(|at| Addr::v4(packet[at..at + 4].try_into().unwrap()));
        (src, dst, &packet[20..])
    } else {
        let [src, dst] = [8, 24].map(|at| Addr(packet[at..at + 16].try_into().unwrap()));
        (src, dst, &packet[40..])
    }
}

/// Where `said` and what happened differ. `whole`: the owner was asked, which knows its next hop.
fn differences(
    said: &Value,
    packet: &Packet,
    went: Option<&Went>,
    reasons: &[String],
    whole: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, said: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        if said.to_string() != is.to_string() {
            found.push(format!("{what}: said {said}, is {is}"));
        }
    };
    let Some(went) = went else {
        same("verdict", &text(&said["dropped"], "reason"), &reasons.join(" "));
        return found;
    };
    same("verdict", &said["dropped"], &Value::Null);
    let owner = &said["owner"];
    same("owner", &text(owner, "node"), &went.node);
    // Who receives a packet of a local virtual server handles it; here that is the first worker.
    same("worker", &owner["worker"].as_u64().unwrap_or(0), &went.worker);
    let (dst_mac, _, ip) = open(&went.frame);
    if whole {
        match said["next_hop"]["mac"].as_str() {
            Some(mac) => same("MAC", &mac, &dst_mac),
            // A client on link that this node had to ask for: that it would was said.
            None => {
                let told = said["notes"].to_string().contains("has not told its Ethernet address");
                same("that the neighbour is to be asked", &told, &true);
            }
        }
        same("port", &text(&said["next_hop"], "port"), &"front");
    }
    let server = &said["real_server"];
    let rewrite = &said["rewrite"];
    let to_server = if rewrite["kind"] == "nat" && said["session"]["direction"] == "reply" {
        same("new source", &text(rewrite, "source"), &socket(read(ip).src, read(ip).src_port));
        text(rewrite, "destination")
    } else {
        text(server, "address")
    };
    match text(rewrite, "kind") {
        "nat" => {
            let inner = read(ip);
            same("source", &text(rewrite, "source"), &socket(inner.src, inner.src_port));
            same("destination", &text(rewrite, "destination"), &socket(inner.dst, inner.dst_port));
            same("to", &to_server, &socket(inner.dst, inner.dst_port));
        }
        "nat-new" => {
            let inner = read(ip);
            same("destination", &text(rewrite, "destination"), &socket(inner.dst, inner.dst_port));
            same("server", &to_server, &socket(inner.dst, inner.dst_port));
            let own = rewrite["own"].as_u64().unwrap() as usize;
            let sources = rewrite["sources"].as_array().unwrap();
            let first = &sources[..if own > 0 { own } else { sources.len() }];
            let among = first.iter().any(|s| s.as_str() == Some(&inner.src.ip().to_string()));
            same("SNAT address is among the preferred", &among, &true);
            same("port class", &rewrite["port_class"], &(inner.src_port % 4096));
            let ports = rewrite["ports"].as_array().unwrap();
            same("port", &ports.contains(&inner.src_port.into()), &true);
        }
        "dsr-l2" => {
            same("packet", &socket(read(ip).dst, read(ip).dst_port), &socket(packet.dst, packet.dst_port));
            let mac = crate::world::host_mac(addr(
                &text(server, "address").parse::<std::net::SocketAddr>().unwrap().ip().to_string(),
            ));
            same("server's MAC", &mac, &dst_mac);
        }
        kind => {
            let (src, dst, behind) = outer(ip);
            same("outer destination", &text(rewrite, "outer_destination"), &dst);
            same("server", &text(server, "address").parse::<std::net::SocketAddr>().unwrap().ip(), &dst);
            if whole {
                same("outer source", &text(rewrite, "outer_source"), &src);
            }
            let inner = if kind == "gue" {
                let port = |at| u16::from_be_bytes([behind[at], behind[at + 1]]);
                same("outer source port", &rewrite["outer_source_port"], &port(0));
                same("outer destination port", &rewrite["outer_destination_port"], &port(2));
                &behind[8..]
            } else {
                same("kind", &kind, &"ipip");
                behind
            };
            same(
                "inside",
                &socket(read(inner).dst, read(inner).dst_port),
                &socket(packet.dst, packet.dst_port),
            );
        }
    }
    found
}

/// What went wrong with a thousand tuples, and what they were.
#[derive(Default)]
struct Tally {
    /// Disagreements of the explanations before and after the first packet, at receiver and owner, and of the replies'.
    wrong: Vec<String>,
    /// Disagreements of the file's explanation under another hash key.
    under_another_key: usize,
    kinds: BTreeMap<String, usize>,
}

fn thousand(seed: u64) -> Tally {
    let mut world = world();
    let configs: Vec<_> = (1..=3).map(configs).collect();
    let mut rng = Rng::new(seed);
    let mut tally = Tally::default();
    for i in 0..1000 {
        let number = 1 + i % 3;
        let packet = random_packet(&mut rng);
        let fresh = ask(&mut world, number, request(&packet)).unwrap();
        let [right, wrong] = &configs[number - 1];
        let (went, reasons) = send(&mut world, number, &packet);
        let (by_file, by_wrong) = (offline(right, &packet), offline(wrong, &packet));
        let at_home = |said: &Value| said["owner"]["node"] == format!("n{number}");
        let mut check = |what: &str,
                         said: &Value,
                         packet: &Packet,
                         went: Option<&Went>,
                         reasons: &[String],
                         whole: bool| {
            for difference in differences(said, packet, went, reasons, whole) {
                tally.wrong.push(format!("{what}: {packet:?} at n{number}: {difference}"));
            }
        };
        check("fresh", &fresh, &packet, went.as_ref(), &reasons, at_home(&fresh));
        check("file", &by_file, &packet, went.as_ref(), &reasons, false);
        tally.under_another_key +=
            usize::from(!differences(&by_wrong, &packet, went.as_ref(), &reasons, false).is_empty());
        let mut kind = text(&fresh["rewrite"], "kind").to_owned();
        if went.is_none() {
            kind = reasons.join(" ");
        }
        *tally.kinds.entry(kind).or_default() += 1;
        let Some(first) = went else { continue };
        *tally.kinds.entry(if at_home(&fresh) { "at home" } else { "steered" }.into()).or_default() += 1;

        // Again, now that the receiver remembers and the owner has a session.
        let again = ask(&mut world, number, request(&packet)).unwrap();
        let owner: usize = first.node[1..].parse().unwrap();
        let at_owner = ask(&mut world, owner, request(&packet)).unwrap();
        let stateful = fresh["virtual_server"]["ingress"] == "steered";
        let by = text(&again["receiver"]["workers"][0], "by");
        let expected = match (stateful, owner == number, first.worker) {
            (false, true, _) => "tuple",
            (_, true, 0) => "session",
            _ => "steering_session",
        };
        if by != expected || stateful == at_owner["session"].is_null() {
            tally
                .wrong
                .push(format!("again: {packet:?} at n{number}: by {by}, not {expected}: {at_owner:#}"));
        }
        let (went, reasons) = send(&mut world, number, &packet);
        let mut check = |what: &str,
                         said: &Value,
                         packet: &Packet,
                         went: Option<&Went>,
                         reasons: &[String],
                         whole: bool| {
            for difference in differences(said, packet, went, reasons, whole) {
                tally.wrong.push(format!("{what}: {packet:?} at n{number}: {difference}"));
            }
        };
        check("again", &again, &packet, went.as_ref(), &reasons, owner == number);
        if stateful {
            check("owner", &at_owner, &packet, went.as_ref(), &reasons, true);
        }
        if !text(&at_owner["rewrite"], "kind").starts_with("nat") {
            continue;
        }
        // The server's reply, at another node.
        let reply = read(open(&first.frame).2).answer(SYN);
        let to = 1 + rng.below(3) as usize;
        let at_receiver = ask(&mut world, to, request(&reply)).unwrap();
        let at_owner = ask(&mut world, owner, request(&reply)).unwrap();
        let (went, reasons) = send(&mut world, to, &reply);
        check("reply at owner", &at_owner, &reply, went.as_ref(), &reasons, true);
        *tally
            .kinds
            .entry(if went.is_some() { "reply" } else { "reply without a route" }.into())
            .or_default() += 1;
        if let Some(went) = &went
            && (text(&at_receiver["owner"], "node"), at_receiver["owner"]["worker"].as_u64())
                != (went.node.as_str(), Some(went.worker as u64))
        {
            tally.wrong.push(format!("reply at n{to}: {reply:?}: {at_receiver:#}"));
        }
    }
    tally
}

/// For mixed families, protocols, ways and receivers, fresh flows and known ones, and what goes nowhere: the explanation says
/// where each packet goes. Control: what a View with another hash key says is mostly wrong.
#[test]
fn explanations_say_where_packets_go() {
    let tally = thousand(1);
    println!("{:?}, under another key {} wrong", tally.kinds, tally.under_another_key);
    assert!(tally.wrong.is_empty(), "{} wrong, first: {}", tally.wrong.len(), tally.wrong[0]);
    for (kind, least) in [
        ("nat-new", 150),
        ("dsr-l2", 80),
        ("ipip", 80),
        ("gue", 80),
        ("steered", 300),
        ("at home", 150),
        ("reply", 150),
        ("bad_address", 5),
        ("no_virtual_server", 20),
        ("not_our_address", 10),
    ] {
        assert!(tally.kinds.get(kind).is_some_and(|n| *n >= least), "{kind}: {:?}", tally.kinds);
    }
    // One in six flows would have the same node and worker, and what is dropped or handled by its receiver isn't hashed.
    assert!(tally.under_another_key > 700, "{} of 1000 tuples", tally.under_another_key);
}

/// Asking changes nothing: neither sessions nor steering sessions, nor what the next packet does.
#[test]
fn asking_leaves_no_trace() {
    let mut world = world();
    let packet = tcp("192.168.1.5", 3000, "10.99.0.1", 80, SYN);
    let names = [
        "sessions",
        "steering_sessions",
        "hashed",
        "steering_hits",
        "session_hits",
        "sessions_opened",
        "events_lost",
    ];
    send(&mut world, 1, &packet);
    world.run(200);
    let before: Vec<_> = names.map(|name| world.sum(name)).into();
    for number in 1..=3 {
        for _ in 0..50 {
            ask(&mut world, number, request(&packet)).unwrap();
            ask(&mut world, number, request(&Packet { src_port: 3001, ..packet.clone() })).unwrap();
        }
    }
    world.run(200);
    assert_eq!(before, names.map(|name| world.sum(name)), "{names:?}");
}

/// A worker that takes no turns is named, within the time limit; one whose channel is full, at once.
#[test]
fn a_worker_that_does_not_answer_is_named() {
    let mut world = world();
    let packet = tcp("192.168.1.5", 3000, "10.99.0.1", 80, SYN);
    let manager = world.nodes[0].node.manager();
    let begin = world.now;
    let ticket = manager.explain(request(&packet), begin);
    let mut now = begin;
    let ended = loop {
        now = now + std::time::Duration::from_millis(10);
        manager.turn(now);
        if let Some(ended) = manager.explained(now) {
            break ended;
        }
    };
    assert_eq!((ended.0, now.since(begin).as_millis()), (ticket, 1000));
    assert_eq!(
        ended.1.unwrap_err().to_string(),
        "worker 0 did not answer within 1 s: it is stuck, or overloaded"
    );
    // Sixteen times as many questions as may be open at a time fill the channels of workers that stand still.
    let mut busy = 0;
    for _ in 0..2 * CHANNEL {
        now = now + std::time::Duration::from_millis(1010);
        let ticket = manager.explain(request(&packet), now);
        while let Some((ended, said)) = manager.explained(now) {
            busy +=
                usize::from(ended == ticket && said.unwrap_err().to_string().contains("too many commands"));
        }
    }
    assert!(busy > 0);
    // And they wake up.
    world.run(2 * CHANNEL);
    assert!(ask(&mut world, 1, request(&packet)).is_ok());
}
