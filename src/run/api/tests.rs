use super::*;
use crate::manage::stats::Totals;
use crate::run::client::{self, Answer, ClientError};
use crate::run::gate;
use crate::run::socket::SocketFile;
use crossbeam_channel::{Receiver, bounded};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

fn a_node(ready: bool) -> Stats {
    Stats {
        node: "n1".into(),
        incarnation: 7,
        ready,
        stateless_ready: true,
        view: 3,
        view_adopted: 3,
        uptime_s: 1.5,
        workers: Vec::new(),
        totals: Totals { counters: BTreeMap::new(), drops: BTreeMap::new(), drops_total: 0 },
        ports: Vec::new(),
        virtual_servers: Vec::new(),
        peers: Vec::new(),
        neighbours: Vec::new(),
    }
}

/// An API on a socket of its own, both gone at the end of the test.
struct Served {
    _api: Api,
    _file: SocketFile,
    path: PathBuf,
}

/// An API; its questions come out of the receiver.
fn serve(name: &str, capacity: usize) -> (Served, Receiver<Question>) {
    let path = std::env::temp_dir().join(format!("steerage-api-{name}-{}.sock", std::process::id()));
    let (file, listener) = SocketFile::claim(&path).unwrap();
    let (question_in, questions) = bounded(capacity);
    (Served { _api: Api::start(listener, question_in).unwrap(), _file: file, path }, questions)
}

/// A thread that answers all questions, until the API is gone.
fn answer_all(questions: Receiver<Question>, ready: bool) {
    std::thread::spawn(move || {
        questions.iter().for_each(|question| match question {
            Question::Stats(reply) => reply.give(a_node(ready)),
            Question::Look(_) | Question::Preview(..) => {}
            Question::Ask(_, reply) => reply.give(None),
            Question::Explain(request, reply) => reply.give(Err(ExplainError::NoSuchNode {
                name: request.receiver.unwrap_or_default(),
                nodes: vec![request.tuple.to_string()],
            })),
        });
    });
}

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_str(&answer.body).unwrap()
}

fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn statistics_health_and_metrics_of_a_ready_node() {
    let (served, questions) = serve("ready", QUESTIONS);
    answer_all(questions, true);
    let stats = client::get(&served.path, "/v1/stats").unwrap();
    assert_eq!((stats.status, &json(&stats)["node"]), (200, &json!("n1")));
    let health = client::get(&served.path, "/v1/health").unwrap();
    assert_eq!((health.status, json(&health)), (200, json!({ "ready": true })));
    let metrics = raw(&served.path, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\nsteerage_ready 1"), "{metrics}");
}

#[test]
fn a_node_that_cannot_serve_is_unhealthy() {
    let (served, questions) = serve("unready", QUESTIONS);
    answer_all(questions, false);
    let health = client::get(&served.path, "/v1/health").unwrap();
    assert_eq!((health.status, json(&health)), (503, json!({ "ready": false })));
    let stateless = client::get(&served.path, "/v1/health?stateless=true").unwrap();
    assert_eq!((stateless.status, json(&stateless)), (200, json!({ "ready": true })));
    assert_eq!(client::get(&served.path, "/v1/health?stateful=true").unwrap().status, 400);
    assert_eq!(client::get(&served.path, "/v1/stats").unwrap().status, 200);
}

#[test]
fn unknown_paths_and_methods_are_errors_in_json() {
    let (served, _questions) = serve("unknown", QUESTIONS);
    let nothing = client::get(&served.path, "/v2/stats").unwrap();
    assert_eq!(nothing.status, 404);
    assert!(json(&nothing)["error"].as_str().unwrap().contains("/v2/stats"));
    let post = raw(&served.path, "POST /v1/stats HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert!(post.starts_with("HTTP/1.0 405 "), "{post}");
    assert!(post.to_lowercase().contains("allow: get"), "{post}");
    assert!(post.contains("{\"error\":"), "{post}");
}

#[test]
fn questions_that_find_no_room_or_no_one_are_answered() {
    let (served, questions) = serve("full", 0);
    let full = client::get(&served.path, "/v1/stats").unwrap();
    assert_eq!(full.status, 503);
    assert!(json(&full)["error"].as_str().unwrap().contains("too many"));
    drop(questions);
    assert_eq!(client::get(&served.path, "/v1/health").unwrap().status, 503);
}

#[test]
fn a_management_thread_that_is_stuck_is_not_waited_for() {
    let (served, questions) = serve("stuck", QUESTIONS);
    let answer = client::get(&served.path, "/v1/stats").unwrap();
    assert_eq!((answer.status, questions.len()), (503, 1));
    assert!(json(&answer)["error"].as_str().unwrap().contains("in time"));
}

#[test]
fn a_dropped_api_is_gone_in_spite_of_idle_clients() {
    let (served, questions) = serve("drop", QUESTIONS);
    answer_all(questions, true);
    let mut idle = UnixStream::connect(&served.path).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    idle.write_all(b"GET /v1/sta").unwrap();
    let path = served.path.clone();
    drop(served);
    assert_eq!(idle.read(&mut [0; 16]).unwrap_or(0), 0, "cut off");
    assert!(matches!(client::get(&path, "/v1/stats"), Err(ClientError::NoSocket(_))));
}

#[test]
fn a_half_open_request_is_ended_after_a_while() {
    let (served, questions) = serve("half", QUESTIONS);
    answer_all(questions, true);
    let mut half = UnixStream::connect(&served.path).unwrap();
    half.set_read_timeout(Some(gate::STALL * 4)).unwrap();
    half.write_all(b"GET /v1/stats HTT").unwrap();
    let begin = std::time::Instant::now();
    // The end of the connection, by whatever name; not our own time limit.
    let ended =
        half.read(&mut [0; 16]).map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |n| n == 0);
    let after = begin.elapsed();
    assert!(ended && after >= gate::STALL / 2 && after < gate::STALL * 3, "{ended} after {after:?}");
}

#[test]
fn hanging_clients_make_room_for_others() {
    let (served, questions) = serve("crowd", QUESTIONS);
    answer_all(questions, true);
    let hang = |_| {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        stream.write_all(b"GET /v1/sta").unwrap();
        stream
    };
    let mut crowd: Vec<UnixStream> = (0..gate::CONNECTIONS + 10).map(hang).collect();
    assert_eq!(client::get(&served.path, "/v1/stats").unwrap().status, 200);
    let mut alive = 0;
    for stream in &mut crowd {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Only a living connection has nothing to say.
        alive += usize::from(stream.read(&mut [0; 16]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    }
    assert_eq!(alive, gate::CONNECTIONS - 1, "the oldest ones went");
}

#[test]
fn questions_about_no_tuple_are_refused_before_the_node_is_asked() {
    let (served, questions) = serve("tuples", QUESTIONS);
    for (query, why) in [
        ("", "protocol"),
        ("?protocol=tcp&source=10.0.0.1:1", "destination"),
        ("?protocol=tcp&source=10.0.0.1:1&destination=10.0.0.2", "no address and port"),
        ("?protocol=tcp&source=10.0.0.1:1&destination=10.0.0.2:80&sauce=1", "sauce"),
        ("?protocol=tcp&source=10.0.0.1:1&destination=[2001:db8::1]:80", "two families"),
    ] {
        let answer = client::get(&served.path, &format!("/v1/explain{query}")).unwrap();
        assert_eq!(answer.status, 400, "{query}");
        assert!(json(&answer)["error"].as_str().unwrap().contains(why), "{}", answer.body);
    }
    assert!(questions.is_empty());
    // One about a tuple is put; what is wrong with it, the node says.
    answer_all(questions, true);
    let query = "protocol=udp&source=[2001:db8::7]:1&destination=%5B2001:db8::1%5D:53&receiver=n%209";
    let answer = client::get(&served.path, &format!("/v1/explain?{query}")).unwrap();
    let error = "receiver \"n 9\" is no node of the cluster: udp [2001:db8::7]:1 [2001:db8::1]:53";
    assert_eq!((answer.status, &json(&answer)["error"]), (400, &json!(error)));
}

/// A thread that gives this answer to all that is to be decided; what was asked comes out of the receiver.
fn decide_all(
    questions: Receiver<Question>,
    answer: Option<crate::cluster::asks::Answer>,
) -> Receiver<Entry> {
    let (entry_in, entries) = bounded(16);
    std::thread::spawn(move || {
        questions.iter().for_each(|question| {
            if let Question::Ask(entry, reply) = question {
                entry_in.send(entry).unwrap();
                reply.give(answer.clone());
            }
        });
    });
    entries
}

const PUT: client::Request<'_> = client::Request {
    method: "PUT",
    target: "/v1/objects/profile/web",
    headers: &[("idempotency-key", "000000000000000000000000000000ff")],
    body: "{}",
};

#[test]
fn what_the_log_says_of_a_write_is_told() {
    use crate::cluster::asks::Answer::{Decided, Refused, Unknown};
    use crate::cluster::log::Refusal::{Busy, NoLeader, TooLong};
    for (i, (answer, status, why)) in [
        (None, 409, "goes by its files"),
        (Some(Unknown), 504, "under the same id"),
        (Some(Decided(7)), 504, "under the same id"),
        (Some(Refused(NoLeader)), 503, "a majority of the voters is out of reach"),
        (Some(Refused(Busy)), 503, "too many proposals"),
        (Some(Refused(TooLong(5))), 413, "5 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let (served, questions) = serve(&format!("log{i}"), QUESTIONS);
        let entries = decide_all(questions, answer);
        let told = client::send(&served.path, &PUT).unwrap();
        let said = json(&told);
        assert_eq!((told.status, &said["request"]), (status, &json!("000000000000000000000000000000ff")));
        assert!(said["error"].as_str().unwrap().contains(why), "{said}");
        let Entry::Write(write) = entries.recv().unwrap() else { panic!("no write") };
        let uid =
            std::fs::metadata(&served.path).map(|file| std::os::unix::fs::MetadataExt::uid(&file)).unwrap();
        assert_eq!((write.request.0, write.who), (255, format!("uid {uid}")));
        assert_eq!(write.changes[0].key.to_string(), "profile/web");
    }
}

#[test]
fn a_write_that_takes_too_long_may_yet_be_decided() {
    let (served, questions) = serve("slow", QUESTIONS);
    let begin = std::time::Instant::now();
    let told = client::send(&served.path, &PUT).unwrap();
    assert_eq!((told.status, questions.len()), (504, 1), "{}", told.body);
    assert!(begin.elapsed() >= WRITE_PATIENCE, "{:?}", begin.elapsed());
}
