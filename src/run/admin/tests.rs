use super::*;
use serde_json::json;

#[test]
fn the_only_socket_is_found_and_several_are_not_guessed_among() {
    let directory = std::env::temp_dir().join(format!("steerage-sockets-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let none = only_socket(&directory);
    std::fs::write(directory.join("n1.sock"), "").unwrap();
    std::fs::write(directory.join("n1.pid"), "").unwrap();
    let one = only_socket(&directory);
    std::fs::write(directory.join("n2.sock"), "").unwrap();
    let two = only_socket(&directory);
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(none.unwrap_err().contains("no node"));
    assert_eq!(one, Ok(directory.join("n1.sock")));
    let two = two.unwrap_err();
    assert!(two.contains("n1.sock") && two.contains("n2.sock"), "{two}");
}

fn said(status: u16, value: Value) -> Said {
    Said { status, body: value.to_string(), value }
}

#[test]
fn refusals_name_the_key_and_what_to_do() {
    let faults = json!([
        { "key": "group/edge", "field": "members", "message": "node/n9 does not exist", "hint": "add it", "other": null },
        { "key": "node/n1", "field": null, "message": "is named by group/edge", "hint": null, "other": null },
    ]);
    let why = said(409, json!({ "error": "x", "faults": faults, "more": 3 })).why();
    let lines =
        "group/edge: members: node/n9 does not exist (add it)\nnode/n1: is named by group/edge\nand 3 more";
    assert_eq!(why, lines);
    assert_eq!(said(503, json!({ "error": "no majority" })).why(), "no majority");
    let why = said(504, json!({ "error": "not known", "request": "0a" })).why();
    assert!(why.contains("--request 0a"), "{why}");
}

#[test]
fn a_preview_says_what_moves() {
    let forecast = json!({
        "differences": [
            { "key": "node/n4", "deed": "add", "fields": [{ "name": "workers", "old": null, "new": 2 }] },
            { "key": "virtual_server/web", "deed": "change", "fields": [
                { "name": "group", "old": "all", "new": "edge" }, { "name": "idle", "old": "5s", "new": null }] },
            { "key": "snat/10.0.0.1", "deed": "remove", "fields": [] },
        ],
        "virtual_servers": 1,
        "buckets": [{ "group": "all", "moving": 1024, "of": 4096 }],
        "migrations": [{ "virtual_server": "web", "from": "all", "to": "edge", "moving": 9, "of": 4096 }],
        "sessions_here": 100, "sessions_here_moving": 25, "real_servers_ending": 2, "sessions_here_ending": 7,
    });
    let text = "+ node/n4: workers 2\n\
        ~ virtual_server/web: group \"all\" → \"edge\", idle \"5s\" → unset\n\
        - snat/10.0.0.1\n\
        virtual servers changed: 1\n\
        buckets that will move in group all: 1024 of 4096\n\
        buckets of virtual server web that will move from group all to edge: 9 of 4096\n\
        real servers with which sessions end: 2; such sessions on this node: 7\n\
        sessions of this node in buckets that will move: about 25 of 100\n";
    assert_eq!(write::told(&forecast), text);
}

#[test]
fn the_status_fits_a_screen_whatever_is_missing() {
    let vips: Vec<Value> =
        (0..30).map(|i| json!({ "address": format!("10.0.0.{i}"), "owner": null })).collect();
    let down = json!({ "virtual_server": "web", "real_server": "s1", "reason": "refused" });
    let moved = json!({ "virtual_server": "web", "from": "all", "nodes": ["n1", "n3"] });
    let screen =
        status::screen(&json!({ "quorum": false, "vips": vips, "migrating": vec![moved; 7], "nodes": [
        { "name": "n1", "phase": "offline", "reason": "it was silent", "buckets": { "all": 3 } }],
        "health": { "up": 4, "down": 6, "which": vec![down; 6] } }));
    assert!(screen.contains("4 up, - rising, 6 down\n  web/s1: refused\n"), "{screen}");
    assert!(screen.ends_with("  and more: `steerage status --json` tells of 6\n"), "{screen}");
    assert!(screen.starts_with("NO QUORUM"), "{screen}");
    assert!(screen.contains("n1 is offline: it was silent") && screen.contains("and 20 more"), "{screen}");
    let migrating = "  web still has sessions in group all, where it was before: at n1 n3\n  and 2 more";
    assert!(screen.contains(migrating), "{screen}");
    assert!(screen.lines().count() < 42, "{screen}");
}

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What is said, to a user who always agrees.
#[derive(Default)]
struct Paper(String);

impl Terminal for Paper {
    fn say(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn agreed(&mut self, _question: &str) -> Option<bool> {
        Some(true)
    }
}

#[test]
fn a_write_that_nobody_knows_of_is_asked_for_again_under_its_id() {
    use crate::cluster::asks::Answer::{Unknown, Written};
    use crate::cluster::namespace::Outcome;
    use crate::cluster::state::Entry;
    use crate::run::api::{Api, Question};
    use crate::run::socket::SocketFile;
    let path = std::env::temp_dir().join(format!("steerage-again-{}.sock", std::process::id()));
    let (_file, listener) = SocketFile::claim(&path).unwrap();
    let (question_in, questions) = crossbeam_channel::bounded(16);
    let _api = Api::start(listener, question_in).unwrap();
    let asked = std::thread::spawn(move || {
        let mut ids = Vec::new();
        while ids.len() < 3 {
            let Ok(Question::Ask(Entry::Write(write), reply)) = questions.recv() else { panic!("no write") };
            ids.push(write.request.to_string());
            let done = Written(Outcome::Applied { index: 9 });
            reply.give(Some(if ids.len() < 3 { Unknown } else { done }));
        }
        ids
    });
    let id = "0000000000000000000000000000000a";
    let words = ["steerage", "delete", "profile/web", "--request", id, "--socket", path.to_str().unwrap()];
    let mut paper = Paper::default();
    run(<Line as clap::Parser>::parse_from(words).command, &mut paper).unwrap();
    assert_eq!((asked.join().unwrap(), paper.0.as_str()), (vec![id.to_owned(); 3], "written at index 9\n"));
}
