use super::inquiry::{Inquiries, WORKER_PATIENCE};
use super::*;
use crate::base::RealServerId;
use crate::manage::config;
use crate::path::message::Command;
use crate::table::session::{Direction, Session, State};
use crossbeam_channel::bounded;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

const NODE: &str = r#"
profile = "lab"
cluster = "cluster.toml"
[node]
name = "n1"
admin_socket = "/n1.sock"
[workers]
cores = [4, 7]
[tables]
sessions = 1024
steering_sessions = 1024
shared_entries = 1024
[[port]]
name = "front"
role = "front"
device = "memory"
[[port]]
name = "back"
role = "backplane"
device = "memory"
mtu = 1700
[[interface]]
name = "lan"
port = "front"
addresses = ["10.10.0.11/24", "fd10::11/64"]
[[route]]
to = "192.168.0.0/16"
via = "10.10.0.254"
"#;

const CLUSTER: &str = r#"
[cluster]
key = "000102030405060708090a0b0c0d0e0f"
maglev_slots = 509
[[node]]
name = "n1"
backplane = "10.20.0.11"
workers = 2
[[node]]
name = "n2"
backplane = "10.20.0.12"
workers = 3
[[snat]]
address = "10.10.0.101"
node = "n1"
[[snat]]
address = "10.10.0.102"
node = "n2"
[[virtual_server]]
name = "web"
address = "10.99.0.1"
port = 80
forward = "nat"
real_server = [{ name = "s1", address = "10.10.0.21", weight = 3 }, { name = "s2", address = "10.10.0.22" }]
[[virtual_server]]
name = "tunnel"
address = "fd99::1"
port = 53
protocol = "udp"
forward = "gue"
real_server = [{ name = "s1", address = "fd10::21" }]
"#;

fn cluster_config(cluster: &str) -> Config {
    let read = |path: &Path| match path.to_str() {
        Some("node.toml") => Ok(NODE.to_owned()),
        Some("cluster.toml") => Ok(cluster.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    config::load_from(&read, Path::new("node.toml"), None).unwrap_or_else(|e| panic!("{e}"))
}

fn request(protocol: &str, source: &str, destination: &str) -> Request {
    Request { tuple: Tuple::parse(protocol, source, destination).unwrap(), receiver: None }
}

fn told(request: &Request) -> Value {
    serde_json::to_value(offline(&cluster_config(CLUSTER), request).unwrap()).unwrap()
}

fn view() -> View {
    let config = cluster_config(CLUSTER);
    let caps = vec![PortCaps { mac: Mac([2; 6]), mtu: 1700 }; 2];
    compile::compile(&config, Incarnation(1), &caps).unwrap()
}

/// What `of` workers know that know nothing.
fn nothing(of: u16) -> Vec<Known> {
    (0..of)
        .map(|w| Known { ticket: 0, worker: WorkerId(w), session: None, steering: None, kept: None })
        .collect()
}

/// A client of "web" whose flow belongs to `node`.
fn client_of(node: &str) -> Request {
    (1000..)
        .map(|port| request("tcp", &format!("192.168.7.7:{port}"), "10.99.0.1:80"))
        .find(|r| told(r)["owner"]["node"] == node)
        .unwrap()
}

#[test]
fn tuples_are_read_as_they_are_written() {
    let good = Tuple::parse("TCP", "198.51.100.7:40000", "10.0.0.1:80").unwrap();
    assert_eq!(good.to_string(), "tcp 198.51.100.7:40000 10.0.0.1:80");
    let v6 = Tuple::parse("udp", "[2001:db8::1]:5", "[2001:db8::2]:53").unwrap();
    assert_eq!(v6.to_string(), "udp [2001:db8::1]:5 [2001:db8::2]:53");
    for (protocol, source, destination, why) in [
        ("icmp", "10.0.0.1:1", "10.0.0.2:1", "`tcp` or `udp`"),
        ("tcp", "10.0.0.1", "10.0.0.2:1", "source \"10.0.0.1\" is no address and port"),
        ("tcp", "10.0.0.1:1", "10.0.0.2:65536", "destination \"10.0.0.2:65536\""),
        ("tcp", "2001:db8::1:80", "[2001:db8::2]:1", "in brackets"),
        ("tcp", "www.example.org:80", "10.0.0.2:1", "no address and port"),
        ("tcp", "10.0.0.1:1", "[2001:db8::2]:1", "two families"),
        ("tcp", "[::ffff:10.0.0.1]:1", "10.0.0.2:1", "write the IPv4 address"),
        ("tcp", "[fe80::1%2]:1", "[2001:db8::2]:1", "without it"),
        ("tcp", "", "", "source \"\""),
    ] {
        let error = Tuple::parse(protocol, source, destination).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_fresh_flow_is_followed_from_its_receiver_to_its_server() {
    let mine = told(&client_of("n1"));
    assert_eq!((&mine["live"], &mine["virtual_server"]["name"]), (&json!(false), &json!("web")));
    assert_eq!(mine["owner"]["steered"], Value::Null);
    let class = mine["bucket"]["number"].as_u64().unwrap();
    assert_eq!(mine["owner"]["worker"].as_u64().unwrap(), class % 2);
    let rewrite = &mine["rewrite"];
    assert_eq!(
        (&rewrite["kind"], &rewrite["sources"]),
        (&json!("nat-new"), &json!(["10.10.0.101", "10.10.0.102"]))
    );
    let ports: Vec<u64> = rewrite["ports"].as_array().unwrap().iter().map(|p| p.as_u64().unwrap()).collect();
    assert_eq!(ports, (1..16).map(|k| k * 4096 + class).collect::<Vec<_>>());
    assert_eq!(mine["next_hop"]["port"], "front");
    let server = &mine["real_server"];
    assert_eq!(server["weight"], if server["name"] == "s1" { 3 } else { 1 });
    assert_eq!(mine["owner"]["core"], [4, 7][class as usize % 2]);
    let hash = cluster_config(CLUSTER).cluster.hash_key.flow(client_of("n1").tuple.key());
    assert_eq!(server["slot"], ((u128::from(hash.slot()) * 509) >> 64) as u64);

    let theirs = told(&client_of("n2"));
    let class = theirs["bucket"]["number"].as_u64().unwrap();
    let destination = format!("10.20.0.12:{}", 6600 + class % 3);
    assert_eq!(theirs["owner"]["steered"]["destination"], destination);
    assert_eq!(theirs["owner"]["steered"]["next_hop"]["port"], "back");
    assert_eq!(theirs["rewrite"]["sources"], json!(["10.10.0.102", "10.10.0.101"]), "its own first");
    assert_eq!((&theirs["next_hop"], &theirs["owner"]["core"]), (&Value::Null, &Value::Null));
}

#[test]
fn another_receiver_decides_alike_but_steers_itself() {
    let mut request = client_of("n2");
    request.receiver = Some("n2".into());
    let at_owner = told(&request);
    assert_eq!((&at_owner["receiver"]["node"], &at_owner["owner"]["steered"]), (&json!("n2"), &Value::Null));
    let mut back = client_of("n1");
    back.receiver = Some("n2".into());
    let steered = told(&back);
    assert!(steered["owner"]["steered"]["source"].as_str().unwrap().starts_with("10.20.0.12:"));
    assert_eq!(steered["owner"]["steered"]["next_hop"], Value::Null, "n2's neighbours are n2's");
    assert_eq!(steered["next_hop"]["port"], "front", "but from here on it is ours");
    request.receiver = Some("n9".into());
    let error = offline(&cluster_config(CLUSTER), &request).unwrap_err();
    assert!(error.is_wrong_question());
    assert_eq!(error.to_string(), "receiver \"n9\" is no node of the cluster: n1, n2");
}

#[test]
fn what_goes_nowhere_has_its_reason() {
    let reason = |protocol, source, destination| {
        let said = told(&request(protocol, source, destination));
        let dropped = &said["dropped"];
        (dropped["reason"].as_str().unwrap_or_default().to_owned(), dropped["why"].to_string())
    };
    for (source, destination, expected, why) in [
        ("192.168.1.1:1", "10.99.0.1:81", "no_virtual_server", "there: tcp 80"),
        ("192.168.1.1:1", "10.10.0.11:80", "no_virtual_server", "of this node's own"),
        ("192.168.1.1:1", "10.99.0.9:80", "not_our_address", "10.99.0.9"),
        ("10.99.0.1:1", "10.99.0.1:80", "bad_address", "an address of the cluster's own"),
        ("10.10.0.101:1", "10.99.0.1:80", "bad_address", "claims it"),
        ("127.0.0.1:1", "10.99.0.1:80", "bad_address", "can't be"),
        ("224.0.0.1:1", "10.99.0.1:80", "bad_address", "can't be"),
    ] {
        let (found, text) = reason("tcp", source, destination);
        assert_eq!(found, expected, "{source} {destination}");
        assert!(text.contains(why), "{text}");
    }
    assert_eq!(reason("udp", "192.168.1.1:1", "10.20.0.11:6601").0, "backplane_on_front");
    let weightless = CLUSTER.replace("\"10.10.0.21\", weight = 3", "\"10.10.0.21\", weight = 0");
    let said = offline(&cluster_config(&weightless), &client_of("n1")).unwrap();
    assert_eq!(said.real_server.unwrap().name, "s2", "weight zero takes no new flow");
}

#[test]
fn sessions_and_steering_sessions_go_before_the_hash() {
    let (view, config) = (view(), cluster_config(CLUSTER));
    let request = client_of("n2");
    let meta = meta(&view, &request).unwrap();
    let now = Instant::ZERO + std::time::Duration::from_secs(100);
    let tell = |known: &[Known]| {
        serde_json::to_value(explain(&view, &config, &request, Some(known), now).unwrap()).unwrap()
    };
    assert_eq!(
        tell(&nothing(2))["receiver"]["workers"][1],
        json!({"id": 1, "by": "tuple", "node": "n2", "worker": meta.hash.bucket().0 % 3})
    );

    let mut known = nothing(2);
    let steering = crate::table::steering::Steering {
        node: NodeId(0),
        worker: WorkerId(0),
        incarnation: Incarnation(1),
        last_seen: now.tick(),
    };
    known[1].steering = Some(steering);
    let said = tell(&known);
    assert_eq!((&said["receiver"]["worker"], &said["owner"]["node"]), (&json!(1), &json!("n1")));
    let why = said["owner"]["why"].as_str().unwrap();
    assert!(why.contains("steering session") && why.contains("at n2"), "{why}");

    known[1].steering = Some(crate::table::steering::Steering { incarnation: Incarnation(9), ..steering });
    let said = tell(&known);
    assert_eq!(said["owner"]["node"], "n2", "void");
    assert!(said["notes"][0].as_str().unwrap().contains("void"), "{said:#}");

    let mut session = Session::default();
    (session.real, session.snat_port, session.last_seen) = (RealServerId(1), 4097, now.tick());
    session.state = State::Closed;
    known[0].session = Some((meta.key, Direction::Forward, session));
    let said = tell(&known);
    assert_eq!((&said["owner"]["node"], &said["owner"]["worker"]), (&json!("n1"), &json!(0)));
    assert_eq!((&said["session"]["state"], &said["real_server"]["name"]), (&json!("closed"), &json!("s2")));
    assert_eq!(said["rewrite"]["source"], "10.10.0.101:4097");
    assert!(said["notes"].to_string().contains("keeps its real server"), "{said:#}");
}

#[test]
fn a_reply_goes_by_its_port() {
    let said = told(&request("tcp", "10.10.0.21:80", "10.10.0.101:8195"));
    assert_eq!(said["bucket"]["number"], 3);
    assert_eq!((&said["virtual_server"], &said["dropped"]), (&Value::Null, &Value::Null));
    assert!(said["notes"].to_string().contains("no_session"), "{said:#}");
    // A running node that owns it knows that it has none.
    let (view, config) = (view(), cluster_config(CLUSTER));
    let mine = (0..4096u16)
        .map(|bucket| request("tcp", "10.10.0.21:80", &format!("10.10.0.101:{}", 4096 + bucket)))
        .find(|r| told(r)["owner"]["node"] == "n1")
        .unwrap();
    let said = explain(&view, &config, &mine, Some(&nothing(2)), Instant::ZERO).unwrap();
    assert_eq!(said.dropped.unwrap().reason, "no_session");
}

#[test]
fn questions_end_with_all_answers_or_with_the_worker_that_gave_none() {
    let (first, first_asked) = bounded(2);
    let (second, _second_asked) = bounded(1);
    let workers = [first, second];
    let request = client_of("n1");
    let facts = meta(&view(), &request).unwrap();
    let mut inquiries = Inquiries::default();
    let begin = Instant::ZERO;
    let ticket = inquiries.open(request.clone(), Some(facts), workers.iter(), begin);
    assert!(matches!(first_asked.try_recv(), Ok(Command::LookUp { ticket: asked, .. }) if asked == ticket));
    assert!(inquiries.ended(begin).is_none());
    let answer = |worker, ticket| Known {
        ticket,
        worker: WorkerId(worker),
        session: None,
        steering: None,
        kept: None,
    };
    inquiries.answered(answer(0, ticket));
    inquiries.answered(answer(7, ticket));
    assert!(inquiries.ended(begin).is_none());
    // The second one's channel is full by now.
    inquiries.open(request.clone(), Some(facts), workers.iter(), begin);
    assert!(matches!(inquiries.ended(begin), Some((_, _, Err(ExplainError::Busy(WorkerId(1)))))));
    let (ended, _, result) = inquiries.ended(begin + WORKER_PATIENCE).unwrap();
    assert_eq!((ended, result), (ticket, Err(ExplainError::Silent(WorkerId(1)))));
    // Too late.
    inquiries.answered(answer(1, ticket));
    assert!(inquiries.ended(begin + WORKER_PATIENCE).is_none());
    // In time.
    let (third, _third_asked) = bounded(100);
    let ticket = inquiries.open(request.clone(), Some(facts), [third.clone()].iter(), begin);
    inquiries.answered(answer(0, ticket));
    assert_eq!(inquiries.ended(begin).unwrap().2, Ok(vec![answer(0, ticket)]));
    for _ in 0..100 {
        inquiries.open(request.clone(), Some(facts), [third.clone()].iter(), begin);
    }
    assert!(matches!(inquiries.ended(begin), Some((_, _, Err(ExplainError::Crowded)))));
}
