//! Changing a running cluster, from outside: the commands and the API of a real process.
#![allow(clippy::unwrap_used)]

mod node;

use node::{CLUSTER, LOG, Node};
use serde_json::{Value, json};

const S1: &str = "virtual_server/web/real_server/s1";
/// At the address of one of the node's own interfaces.
const OWN: &str = r#"[
    {"key": "virtual_server/own", "object": {"address": "10.10.0.11", "port": 81, "forward": "nat"}},
    {"key": "virtual_server/own/real_server/s1", "object": {"address": "10.30.0.29"}}]"#;
/// Where no route leads.
const FAR: &str = r#"{"address": "203.0.113.9"}"#;
const ID: &str = "000102030405060708090a0b0c0d0e0f";

#[test]
fn what_was_written_is_there_after_a_crash() {
    let mut node = Node::started("crash");
    // What is applied is said first, and a dry run changes nothing.
    let wanted = CLUSTER.to_owned()
        + "[[virtual_server.real_server]]\nname = \"s2\"\naddress = \"10.30.0.22\"\n[[profile]]\nname = \"slow\"\nidle = \"2h\"\n";
    node.write("wanted.toml", &wanted);
    let before = node.last_write();
    let said = node.does("apply -f wanted.toml --dry-run");
    assert!(said.contains("+ profile/slow: idle \"2h\"\n"), "{said}");
    assert!(said.contains("+ virtual_server/web/real_server/s2: address \"10.30.0.22\""), "{said}");
    assert!(
        said.contains("virtual servers changed: 1\n") && said.ends_with("nothing was changed\n"),
        "{said}"
    );
    assert_eq!(node.last_write(), before);
    let why = node.fails("apply -f wanted.toml");
    assert!(why.contains("--yes"), "{why}");
    assert_eq!(node.last_write(), before);
    node.does("apply -f wanted.toml --yes");
    assert!(node.last_write() > before);
    assert_eq!(node.does("apply -f wanted.toml --yes"), "the cluster is what wanted.toml says\n");
    // What ends sessions says so.
    let ends = "real servers with which sessions end: 1; such sessions on this node: 0\n";
    for (change, end) in [("weight=3", false), ("port=9", true), ("address=10.30.0.29", true)] {
        assert_eq!(node.does(&format!("set {S1} {change} --dry-run")).contains(ends), end, "{change}");
    }
    assert!(node.does("delete virtual_server/web/real_server/s2 --dry-run").contains(ends));
    // One object, by its fields and as a whole.
    let said = node.does(&format!("set {S1} weight=3"));
    assert!(said.starts_with(&format!("~ {S1}: weight 1 → 3\n")), "{said}");
    assert!(node.does(&format!("get {S1}")).contains("  weight = 3\n"));
    let version = node.last_write();
    let why = node.fails(&format!("set {S1} weight=4 --expect {}", version - 1));
    assert!(why.starts_with(&format!("{S1}: is at version {version}")), "{why}");
    node.does(&format!("set {S1} weight=4 --expect {version}"));
    let whole = r#"{"address": "10.30.0.21", "port": 8081}"#;
    let output = node.command(&["set", S1, "--json", "-"], whole);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.does(&format!("set {S1} port=8081")), "nothing is different\n");
    // What others rest on stays; what nobody needs goes.
    let why = node.fails("delete node/n1");
    assert!(why.contains("node/n1: is in use by snat/10.30.0.101"), "{why}");
    node.does("delete profile/slow");
    assert_eq!(node.fails("delete profile/slow"), "profile/slow: does not exist\n");
    assert_eq!(node.fails("get profile/slow"), "profile/slow: does not exist\n");
    // The same request is made once, and one under another id again.
    let again = format!("set {S1} weight=5 --request {ID}");
    let said = node.does(&again);
    node.does(&format!("set {S1} weight=6"));
    assert_eq!(node.does(&again), said);
    let weight = node.does(&format!("get {S1}"));
    assert!(weight.contains("  weight = 6\n"), "{weight}");

    let (all, history, versions) =
        (node.does("get"), node.does("history"), node.ask("GET", "/v1/objects", &[], "").1);
    let line = history.lines().last().unwrap();
    assert!(line.ends_with(&format!("~ {S1}: weight 5 → 6")) && line.contains("uid "), "{line}");
    assert_eq!(node.does(&format!("history {S1}")).lines().count(), 6, "made, and changed five times");
    node.kill();
    node.start(&[]);
    node.until_it_serves();
    assert_eq!((node.does("get"), node.does("history")), (all, history));
    assert_eq!(node.ask("GET", "/v1/objects", &[], "").1["objects"], versions["objects"]);
    assert_eq!(node.does(&again), said, "requests are remembered, too");
    assert!(node.does(&format!("get {S1}")).contains("  weight = 6\n"));
    // A file that is older than all of this takes it back.
    node.does("apply -f cluster.toml --yes");
    assert!(!node.does("get").contains("real_server/s2"));
}

#[test]
fn versions_and_ids_are_kept_to_by_the_api() {
    let node = Node::started("versions");
    let (target, fields) = ("/v1/objects/profile/web", r#"{"idle": "5m"}"#);
    let new = [("if-none-match", "*")];
    let (status, made) = node.ask("PUT", target, &new, fields);
    assert_eq!(status, 201, "{made}");
    let version = made["version"].as_u64().unwrap();
    assert_eq!(node.ask("PUT", target, &new, fields).0, 412);
    let (status, same) = node.ask("PUT", target, &[], fields);
    assert_eq!(
        (status, &same["version"]),
        (200, &made["version"]),
        "what changes nothing has no new version"
    );
    let item = node.ask("GET", target, &[], "").1;
    assert_eq!((&item["version"], &item["object"]), (&made["version"], &json!({ "idle": "5m" })));

    let tag = format!("\"{version}\"");
    let headers = [("if-match", tag.as_str()), ("idempotency-key", ID), ("x-steerage-user", "alice")];
    let first = node.ask("PUT", target, &headers, r#"{"idle": "6m"}"#);
    assert_eq!((first.0, &first.1["request"]), (200, &json!(ID)));
    // The version has changed since, by this very request: it isn't refused for that.
    assert_eq!(node.ask("PUT", target, &headers, r#"{"idle": "6m"}"#), first);
    assert_eq!(node.ask("PUT", target, &headers[..1], r#"{"idle": "7m"}"#).0, 412);
    let history = node.ask("GET", "/v1/history?key=profile%2Fweb", &[], "").1;
    let records = history["records"].as_array().unwrap();
    assert_eq!(
        (records.len(), &records[0]["who"], &records[0]["before"]),
        (2, &json!("alice (uid 0)"), &json!(version))
    );

    // All of a write or nothing.
    let changes = json!([
        { "key": "profile/more", "object": {} },
        { "key": "group/edge", "object": { "members": ["n7"] } },
        { "key": "limit/l", "object": { "virtual_server": "wep", "connections": 5 } },
    ]);
    let (status, refused) = node.ask("POST", "/v1/writes", &[], &changes.to_string());
    let faults = refused["faults"].as_array().unwrap();
    let keys: Vec<_> = faults.iter().map(|fault| fault["key"].as_str().unwrap()).collect();
    assert_eq!((status, keys), (409, vec!["group/edge", "limit/l"]), "{refused}");
    assert_eq!(faults[0]["field"], "members");
    assert_eq!(node.ask("GET", "/v1/objects/profile/more", &[], "").0, 404);
    let outdated = json!([{ "key": "profile/web", "expected": version, "delete": true }]).to_string();
    assert_eq!(node.ask("POST", "/v1/writes?dry_run=true", &[], &outdated).0, 412);
    assert_eq!(node.ask("POST", "/v1/writes", &[], &outdated).0, 412);
    assert_eq!(node.ask("DELETE", target, &[("if-match", tag.as_str())], "").0, 412);
    assert_eq!(node.ask("DELETE", target, &[], "").0, 200);
    assert_eq!(node.ask("DELETE", target, &[], "").0, 404);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let node = Node::started("nonsense");
    let before = node.last_write();
    let put = "/v1/objects/profile/web";
    for (method, target, body, status, why) in [
        ("PUT", put, "{", 400, "profile/web: the body is no JSON"),
        ("PUT", put, "", 400, "no JSON"),
        ("PUT", put, "[]", 400, "profile/web: fields stand in an object"),
        ("PUT", put, r#"{"idle": 5}"#, 400, "profile/web: "),
        ("PUT", put, r#"{"idel": "5m"}"#, 400, "unknown field `idel`"),
        ("PUT", put, r#"{"idle": "5"}"#, 400, "is no duration"),
        ("PUT", "/v1/objects/profil/web", "{}", 400, "is no key (keys are cluster, "),
        ("PUT", "/v1/objects/profile/..", "{}", 400, "is no name"),
        ("PUT", "/v1/objects/snat/10.0.0", "{}", 400, "is no IPv4 or IPv6 address"),
        ("GET", "/v1/objects/profile", "", 400, "is no key"),
        ("GET", "/v1/objects/profile/web", "", 404, "profile/web: does not exist"),
        ("GET", "/v1/objects?kind=profil", "", 400, "no kind"),
        ("GET", "/v1/objects?sort=up", "", 400, "sort"),
        ("GET", "/v1/history?key=x", "", 400, "is no key"),
        ("POST", "/v1/objects", "", 405, "/v1/objects doesn't take POST"),
        ("PATCH", put, "{}", 405, "doesn't take PATCH"),
        ("GET", "/v1/writes", "", 405, "doesn't take GET"),
        ("GET", "/v1/nodes/n1/drain", "", 405, "doesn't take GET"),
        ("POST", "/v1/writes", "{}", 400, "no list of changes"),
        ("POST", "/v1/writes", "[]", 400, "no change"),
        ("POST", "/v1/writes", r#"[{"key": "profile/web"}]"#, 400, "profile/web: needs either"),
        (
            "POST",
            "/v1/writes",
            r#"[{"key": "profile/web", "object": {}, "delete": true}]"#,
            400,
            "needs either",
        ),
        ("POST", "/v1/writes", r#"[{"key": "profile/web", "value": {}}]"#, 400, "unknown field `value`"),
        ("POST", "/v1/writes?dry=1", "[]", 400, "unknown field `dry`"),
        ("POST", "/v1/groups/all/migrate", "{}", 400, "virtual_server"),
        ("POST", "/v1/groups/all/migrate", r#"{"virtual_server": "wep"}"#, 404, "virtual_server/wep"),
        ("POST", "/v1/groups/edge/migrate", r#"{"virtual_server": "web"}"#, 409, "no group \"edge\""),
        ("POST", "/v1/nodes/n9/drain", "", 404, "node/n9: does not exist"),
        // Right by itself, but this node could not serve it: it would be taken out.
        ("POST", "/v1/writes", OWN, 409, "virtual_server/own"),
        ("POST", "/v1/writes?dry_run=true", OWN, 409, "virtual_server/own"),
        (
            "PUT",
            "/v1/objects/virtual_server/web/real_server/s9",
            FAR,
            409,
            "\"s9\" 203.0.113.9 is not reachable",
        ),
        ("GET", "/v1/object", "", 404, "there is nothing at /v1/object"),
    ] {
        let (code, answer) = node.ask(method, target, &[], body);
        let said = answer["error"].as_str().unwrap_or("no error");
        assert!(code == status && said.contains(why), "{method} {target} {body}: {code} {said}");
    }
    for headers in [[("if-match", "x")], [("idempotency-key", "7")], [("x-steerage-user", "")]] {
        assert_eq!(node.ask("PUT", put, &headers, "{}").0, 400, "{headers:?}");
    }
    let large = format!("\"{}\"", "x".repeat(5 << 20));
    let (status, answer) = node.ask("POST", "/v1/writes", &[], &large);
    assert_eq!(status, 413, "{answer}");
    assert_eq!(node.last_write(), before);
    for (command, why) in [
        ("get virtual_serve", "is no key"),
        ("set virtual_server/web port", "virtual_server/web: \"port\" is no field and value"),
        ("set virtual_server/web prot=81", "virtual_server/web: unknown field `prot`"),
        ("set virtual_server/web port=0", "virtual_server/web: port"),
        ("set virtual_server/web/real_server/s9 weight=1", "missing field `address`"),
        ("apply -f missing.toml", "missing.toml"),
        ("history x", "is no key"),
        ("group migrate wep all", "virtual_server/wep: does not exist"),
        ("group migrate web edge", "virtual_server/web: group: there is no group \"edge\""),
        ("node drain n9", "node/n9: does not exist"),
        ("node drain ../x", "is no name"),
        ("node remove n1", "node/n1: is active (drain it first"),
    ] {
        let said = node.fails(command);
        assert!(said.contains(why), "{command}: {said}");
    }
    assert_eq!(node.last_write(), before);
}

#[test]
fn nodes_come_are_drained_and_go() {
    let mut node = Node::started("nodes");
    let said =
        node.does("node add n2 --backplane 10.20.0.12 --workers 2 --management 192.0.2.2:7600 --dry-run");
    assert!(said.contains("+ node/n2: backplane \"10.20.0.12\""), "{said}");
    assert!(said.contains("buckets that will move in group all: 2048 of 4096\n"), "{said}");
    // Said before, done, and under the same id not done again once it is taken back.
    let said = node.does("node drain n1 --dry-run");
    assert_eq!(said, "~ node/n1: drained false → true\nnothing was changed\n", "nobody could take over");
    let ids = [("idempotency-key", ID)];
    let (status, drained) = node.ask("POST", "/v1/nodes/n1/drain", &ids, "");
    assert_eq!((status, &drained["phase"]), (200, &json!("draining")));
    let said = node.does("node undrain n1");
    assert_eq!(said, "~ node/n1: drained true → false\nnode/n1 is active\n");
    let (status, refused) = node.ask("POST", "/v1/nodes/n1/drain", &ids, "");
    assert_eq!(
        (status, refused["error"].as_str().unwrap().contains("decided otherwise")),
        (409, true),
        "{refused}"
    );
    let said = node.does("node drain n1");
    assert_eq!(said, "~ node/n1: drained false → true\nnode/n1 is draining\n");
    assert_eq!(node.does("node drain n1"), "nothing is different\n");
    node.until("the version is in force", |node| {
        let status = node.ask("GET", "/v1/cluster", &[], "").1;
        status["nodes"][0]["phase"] == "draining" && status["version"] == status["in_force"]
    });
    // There is nobody who could take over.
    let why = node.fails("node remove n1");
    assert!(why.contains("node/n1: still owns 4096 buckets"), "{why}");
    let (status, refused) = node.ask("DELETE", "/v1/objects/node/n1", &[], "");
    assert_eq!((status, refused["error"].as_str().unwrap().contains("still owns")), (409, true), "{refused}");
    let history = node.does("history node/n1");
    assert!(history.contains("drained"), "{history}");
    // It stays so through its next life, too.
    let life = node.ask("GET", "/v1/cluster", &[], "").1["nodes"][0]["life"].clone();
    node.kill();
    node.start(&[]);
    node.until("another life is drained", |node| {
        let status = node.ask("GET", "/v1/cluster", &[], "").1;
        let of = &status["nodes"][0];
        of["life"].as_u64() > life.as_u64()
            && of["phase"] == "draining"
            && status["version"] == status["in_force"]
    });
    node.does("node undrain n1");
    assert_eq!(node.does("history node/n1").lines().filter(|line| line.contains("drained")).count(), 4);
    node.until("it has buckets", |node| {
        node.ask("GET", "/v1/cluster", &[], "").1["nodes"][0]["buckets"]["all"] == 4096
    });
    node.until_it_serves();
    let screen = node.does("status");
    assert!(screen.starts_with("quorum, leader n1, voters n1\n"), "{screen}");
    assert!(screen.contains("all 4096") && screen.contains("10.99.0.1  n1"), "{screen}");
}

/// As if the disk were full: the process may write no longer files.
#[test]
fn a_log_that_can_store_no_more_takes_its_node_out_until_that_is_started_anew() {
    let mut node = Node::files("full", CLUSTER, LOG);
    let bounded = "trap '' XFSZ && ulimit -f 8192 && exec \"$0\" \"$@\"";
    node.start_within(&["sh", "-c", bounded], &["--new-cluster"]);
    node.until_it_serves();
    let mut stored = 0;
    let refused = (1..400).find_map(|n| {
        let one = |i: u32| json!({ "key": format!("profile/p{i}"), "object": { "idle": format!("{n}s") } });
        let changes: Vec<Value> = (0..1000).map(one).collect();
        let (status, answer) = node.ask("POST", "/v1/writes", &[], &Value::from(changes).to_string());
        stored = if status == 200 { n } else { stored };
        (status != 200).then_some((status, answer))
    });
    let (status, answer) = refused.expect("there is no bound");
    assert!(status == 503 || status == 504, "{status} {answer}");
    node.until("it is out", |node| node.ask("GET", "/v1/cluster", &[], "").1["out"].is_string());
    let screen = node.does("status");
    assert!(screen.contains("node n1 IS OUT: ") && screen.contains("the log has stopped: "), "{screen}");
    assert!(screen.starts_with("NO QUORUM"), "{screen}");
    assert_eq!(node.ask("GET", "/v1/health", &[], "").0, 503);
    assert_eq!(node.ask("PUT", "/v1/objects/profile/late", &[], "{}").0, 503);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(node.does("status").contains("node n1 IS OUT: "), "it doesn't come back by itself");
    node.kill();
    node.start(&[]);
    node.until_it_serves();
    let idle = node.ask("GET", "/v1/objects/profile/p999", &[], "").1["object"]["idle"].clone();
    // Of the last write it wasn't known what became of it.
    assert!(idle == format!("{stored}s") || idle == format!("{}s", stored + 1), "{idle}, {stored} stored");
    assert!(!node.does("status").contains("IS OUT"));
}

/// What is damaged isn't used for anything.
#[test]
fn a_damaged_log_is_refused_at_the_start() {
    let mut node = Node::started("damaged");
    node.kill();
    let file = node.directory.join("data").join(steerage::run::log::disk::FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&file, bytes).unwrap();
    let why = node.refuses_to_start();
    assert!(why.contains("log.redb"), "{why}");
}

#[test]
fn more_than_a_page_is_told_and_taken_back() {
    let node = Node::started("pages");
    let changes: Vec<Value> =
        (0..2500).map(|i| json!({ "key": format!("profile/p{i}"), "object": { "idle": "5m" } })).collect();
    let (status, made) = node.ask("POST", "/v1/writes", &[], &Value::from(changes).to_string());
    assert_eq!(status, 200, "{made}");
    let page = node.ask("GET", "/v1/objects?kind=profile", &[], "").1;
    assert_eq!((page["objects"].as_array().unwrap().len(), page["next"].is_string()), (1000, true));
    assert_eq!(node.does("get profile").lines().count(), 2500);
    assert_eq!(node.does("get").lines().count(), 2500 + 5);
    let said = node.does("apply -f cluster.toml --yes");
    assert_eq!(said.lines().filter(|line| line.starts_with("- profile/p")).count(), 2500);
    assert_eq!(node.does("get profile"), "");
}

#[test]
fn a_node_that_goes_by_its_files_takes_no_changes() {
    let mut node = Node::files("files", CLUSTER, "");
    node.start(&[]);
    let web = "/v1/objects/virtual_server/web";
    for (method, target, body) in [
        ("GET", "/v1/objects", ""),
        ("GET", web, ""),
        ("PUT", "/v1/objects/profile/web", "{}"),
        ("DELETE", web, ""),
        ("POST", "/v1/writes", r#"[{"key": "profile/web", "object": {}}]"#),
        ("POST", "/v1/writes?dry_run=true", r#"[{"key": "profile/web", "object": {}}]"#),
        ("GET", "/v1/cluster", ""),
        ("POST", "/v1/nodes/n1/drain", ""),
    ] {
        let (status, answer) = node.ask(method, target, &[], body);
        let said = answer["error"].as_str().unwrap();
        assert!(
            status == 409 && said.starts_with("this node goes by its files"),
            "{method} {target}: {said}"
        );
    }
    assert!(node.fails("apply -f cluster.toml --yes").starts_with("this node goes by its files"));
    assert!(node.does("stats").contains("Node n1"));
}

#[test]
fn without_a_majority_nothing_is_changed() {
    let two = CLUSTER.replace("workers = 1\n", "workers = 1\nmanagement = \"192.0.2.1:7600\"\n")
        + "[[node]]\nname = \"n2\"\nbackplane = \"10.20.0.12\"\nworkers = 1\nmanagement = \"192.0.2.2:7600\"\n";
    let log = format!("{LOG}\nca = \"pki/ca.crt\"\ncertificate = \"pki/n1.crt\"\nkey = \"pki/n1.key\"");
    let mut node = Node::files("minority", &two, &log);
    let mut init = std::process::Command::new(env!("CARGO_BIN_EXE_steerage"));
    init.current_dir(&node.directory).args(["cluster", "init", "pki", "--node", "n1", "n2"]);
    assert!(init.output().unwrap().status.success());
    // In a network namespace of its own, which ends with the process.
    let alone = "ip address add 192.0.2.1/24 dev lo && ip link set lo up && exec \"$0\" \"$@\"";
    node.start_within(&["unshare", "--net", "sh", "-c", alone], &["--new-cluster"]);
    let (status, refused) = node.ask("PUT", "/v1/objects/profile/web", &[("idempotency-key", ID)], "{}");
    assert_eq!((status, &refused["request"]), (503, &json!(ID)), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("a majority of the voters is out of reach"));
    assert!(node.does("status").starts_with("NO QUORUM"));
    assert_eq!(node.ask("GET", "/v1/objects", &[], "").1["objects"], json!([]), "reading goes on");
}

#[test]
fn the_document_tells_of_what_there_is() {
    let node = Node::started("document");
    let (status, document) = node.ask("GET", "/v1/openapi.json", &[], "");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let target = path.replace("{key}", "profile/none").replace("{name}", "none");
            let (status, answer) = node.ask(&method.to_uppercase(), &target, &[], "");
            assert!(!answer["error"].as_str().unwrap_or("").contains("there is nothing at"), "{path}");
            let told = operation["responses"].as_object().unwrap();
            assert!(told.contains_key(&status.to_string()), "{method} {path} answers {status}");
        }
    }
    assert!(operations > 10, "{operations}");
    // Each field of an object is described.
    let objects = node.ask("GET", "/v1/objects", &[], "").1;
    for (kind, spec) in [
        ("cluster", "ClusterSpec"),
        ("node/", "NodeSpec"),
        ("snat/", "SnatSpec"),
        ("virtual_server/web/", "RealServerSpec"),
        ("virtual_server/web", "VirtualServerSpec"),
    ] {
        let mut all = objects["objects"].as_array().unwrap().iter();
        let item = all.find(|item| item["key"].as_str().unwrap().starts_with(kind)).unwrap();
        let told = &document["components"]["schemas"][spec]["properties"];
        for (field, _) in item["object"].as_object().unwrap() {
            assert!(told[field]["description"].is_string(), "{spec}.{field}: {told}");
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// The lines of the blocks of shell commands in a page.
fn commands(page: &str) -> String {
    page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn the_commands_of_the_page_work_as_they_stand_there() {
    let node = Node::started("page");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let commands = commands(&page);
    assert!(commands.lines().count() > 20, "{commands}");
    node.write("page.sh", &commands);
    let mut sh = std::process::Command::new("unshare");
    sh.current_dir(&node.directory).args(["--mount", "--propagation", "private", "sh", "-ec"]);
    // The socket where a node has it by default, in a mount namespace of its own.
    sh.arg("mount -t tmpfs none /run && mkdir /run/steerage && ln -s \"$PWD/n1.sock\" /run/steerage && . ./page.sh");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_steerage")).parent().unwrap();
    sh.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    let output = sh.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    // What curl is told doesn't become its exit code.
    assert!(!said(&output.stdout).contains("\"error\""), "{}", said(&output.stdout));
}
