//! Files, syntax, keys, values.

use super::{Files, refused};
use crate::base::HashKey;
use crate::manage::config::{Idle, load};
use std::path::Path;
use std::time::Duration;

refused! {
    syntax_of_both: Files::new().node("count = 2", "count = = 2").cluster("data_port = 6600", "data_port 6600")
        => ("node.toml", "count = = 2", ""), ("cluster.toml", "data_port 6600", "");
    // The key that could not be read is not said to be missing, nor is its absence held against anything.
    syntax_several: Files::new().node("name = \"n1\"", "name = \"n1").node("via = \"10.10.0.1\"", "via = 10.10.0.1")
        => ("node.toml", "name = \"n1", ""), ("node.toml", "via = 10.10.0.1", "");
    syntax_and_value: Files::new().node("count = 2", "count = 0").node("[timeouts]", "[timeouts")
        => ("node.toml", "count = 0", "workers.count: 0 is out of range: 1 to 64"), ("node.toml", "[timeouts", "");
    duplicate_key: Files::new().node("queues = 1", "queues = 1\nqueues = 2") => ("node.toml", "queues = 2", "duplicate key");
    typo: Files::new().node("count = 2", "cuont = 2")
        => ("node.toml", "cuont", "unknown key `cuont` in [workers]…hint: did you mean `count`?");
    unknown_everywhere: Files::new().node("queues = 1", "colour = 1").cluster("weight = 0", "wieght = 0")
            .cluster("maglev_slots", "magic_slots")
        => ("node.toml", "colour", "unknown key `colour` in [port]"),
           ("cluster.toml", "magic_slots", "in [cluster]…did you mean `maglev_slots`?"),
           ("cluster.toml", "wieght", "in [virtual_server.real_server]…did you mean `weight`?");
    unknown_table: Files::new().cluster("[[group]]\nname = \"far\"", "[[groups]]\nname = \"far\"")
        => ("cluster.toml", "[[groups]]", "unknown key `groups`…did you mean `group`?");
    unknown_beside_syntax: Files::new().node("count = 2", "count 2").node("queues = 1", "queue = 1").node("via =", "vía =")
        => ("node.toml", "count 2", ""), ("node.toml", "queue = 1", "did you mean `queues`?"), ("node.toml", "vía", "");
    lost_behind_a_header: Files::new().node("count = 2", "count = 0").node("[[port]]\nname = \"back\"", "[[port] # open\nname = \"back\"")
            .node("via = \"10.10.0.1\"", "via = 5")
        => ("node.toml", "count = 0", "out of range"), ("node.toml", "[[port] # open", "");
    wrong_file: Files::new().node_end("[[snat]]\n") => ("node.toml", "[[snat]]", "`snat` belongs in the cluster file");
    wrong_table: Files::new().node("udp = \"7s\"", "udp = \"7s\"\nheartbeat = \"1s\"")
        => ("node.toml", "heartbeat", "`heartbeat` belongs in the cluster file, in [cluster]");
    single_brackets: Files::new().node("[[route]]", "[route]")
        => ("node.toml", "[route]", "route: is a list of tables…[[route]], in double brackets");
    double_brackets: Files::new().node("[workers]", "[[workers]]")
        => ("node.toml", "[[workers]]", "workers: is a table…write [workers], once");
    scalars_in_a_list: Files::new().node("profile = \"lab\"", "profile = \"lab\"\ntables = 5")
        => ("node.toml", "tables = 5", "tables: is a table");
    wrong_types: Files::new()
            .node("count = 2", "count = \"2\"")
            .node("queues = 1", "promiscuous = 1")
            .node("cores = [1, 2]", "cores = 1")
            .node("udp = \"7s\"", "udp = 7")
            .cluster("port = 80\n", "port = 80.0\n")
            .cluster("members = [\"n2\"]", "members = [2]")
            .cluster("forward = \"nat\"", "forward = true")
        => ("node.toml", "count", "workers.count: expected an integer, found a string"),
           ("node.toml", "promiscuous", "port \"front\": promiscuous: expected true or false, found an integer"),
           ("node.toml", "cores", "workers.cores: expected an array…write cores = [ … ]"),
           ("node.toml", "udp = 7", "timeouts.udp: expected a duration, found an integer…\"50ms\""),
           ("cluster.toml", "port = 80.0", "virtual_server \"web\": port: expected an integer, found a floating-point"),
           ("cluster.toml", "members = [2]", "group \"far\": members: expected a string"),
           ("cluster.toml", "forward = true", "expected one of \"nat\", \"dsr-l2\", \"ipip\", \"gue\", found a boolean");
    missing_keys: Files::new()
            .node("name = \"n1\"\n", "")
            .node("[[port]]\nname = \"front\"\nrole = \"front\"\n", "[[port]]\nname = \"front\"\n")
            .node("via = \"10.10.0.1\"\n", "")
            .cluster("key = \"000102030405060708090a0b0c0d0e0f\"\n", "")
            .cluster("[[node]]\nname = \"n2\"\nbackplane = \"10.20.0.12\"\n", "[[node]] # n2\nname = \"n2\"\n")
            .cluster("forward = \"nat\"\n", "")
        => ("node.toml", "[node]", "node: `name` is missing in [node]"),
           ("node.toml", "[[port]]", "port \"front\": `role` is missing"),
           ("node.toml", "[[route]]", "route #1: `via` is missing"),
           ("cluster.toml", "[cluster]", "cluster: `key` is missing"),
           ("cluster.toml", "[[node]] # n2", "node \"n2\": `backplane` is missing"),
           ("cluster.toml", "[[virtual_server]]", "virtual_server \"web\": `forward` is missing");
    missing_tables: Files::new().node("[node]\nname = \"n1\"\n", "").put("cluster.toml", "# nothing\n")
        => ("node.toml", "", "node: `name` is missing in [node]"),
           ("cluster.toml", "# nothing", "cluster: `key` is missing in [cluster]"),
           ("cluster.toml", "# nothing", "cluster: the cluster has no node");
    no_cluster: Files::new().node("cluster = \"cluster.toml\"\n", "") => ("node.toml", "", "`cluster` is missing");
    cluster_unreadable: Files::new().node("cluster.toml", "missing.toml")
        => ("node.toml", "missing.toml", "cluster: can't read missing.toml: ");
    profile_typo: Files::new().node("\"lab\"", "\"lba\"")
        => ("node.toml", "lba", "profile: \"lba\" is none of…did you mean \"lab\"?");
    profile_errors: Files::new().node("\"lab\"", "\"own.toml\"").put("own.toml", "[port]\n[tables]\nsessions = 1\n")
        => ("own.toml", "[port]", "unknown key `port`"), ("own.toml", "sessions", "tables.sessions: 1 is out of range");
    bad_durations: Files::new()
            .node("udp = \"7s\"", "udp = \"7 s\"\nsteering = \"0s\"\nclosed = \"s\"\nhalf_open = \"1.5s\"\nestablished = \"400d\"")
        => ("node.toml", "udp", "timeouts.udp: \"7 s\" is no duration"),
           ("node.toml", "steering =", "timeouts.steering: must be above zero"),
           ("node.toml", "closed", "\"s\" is no duration"),
           ("node.toml", "half_open", "\"1.5s\" is no duration"),
           ("node.toml", "established", "is out of range");
    endless_duration: Files::new().node("\"7s\"", "\"99999999999999999999999d\"") => ("node.toml", "udp", "out of range");
    bad_addresses: Files::new()
            .node("\"10.10.0.11/24\", \"fd10::11/64\"",
                "\"10.10.0.11\",\n\"10.10.0.0/24\",\n\"10.10.0.300/24\",\n\"fd10::1/129\",\n\"10.1.1.1/+8\",\n\"10.2.2.2/0\"")
            .node("10.30.0.0/16", "10.30.1.0/16")
            .cluster("address = \"10.99.0.1\"", "address = \"224.0.0.1\"")
            .cluster("address = \"10.99.0.3\"", "address = \"::ffff:10.99.0.3\"")
            .cluster("address = \"10.10.0.101\"", "address = \"10.10.0.101/32\"")
        => ("node.toml", "\"10.10.0.11\",", "no prefix length…\"10.0.0.1/24\""),
           ("node.toml", "10.10.0.0/24", "is the address of its network"),
           ("node.toml", "300", "\"10.10.0.300\" is no IPv4 or IPv6 address"),
           ("node.toml", "/129", "\"129\" is no prefix length of fd10::1: 0 to 128"),
           ("node.toml", "/+8", "\"+8\" is no prefix length"),
           ("node.toml", "10.2.2.2/0", "puts every address on link"),
           ("node.toml", "to =", "bits set behind its prefix…did you mean 10.30.0.0/16?"),
           ("cluster.toml", "224.0.0.1", "is a multicast address"),
           ("cluster.toml", "::ffff", "IPv4-mapped"),
           ("cluster.toml", "10.10.0.101/32", "no IPv4 or IPv6 address…no prefix length stands here");
    bad_ranges: Files::new()
            .node("mtu = 1500", "mtu = 500\nrx_descriptors = 1000\ntx_descriptors = 32")
            .node("port = \"front\"", "port = \"front\"\nvlan = 4095")
            .cluster("data_port = 6600", "data_port = 65536")
            .cluster("weight = 0", "weight = -1")
            .cluster("port = 81", "port = 99999999999999999999999999999999999999999999")
        => ("node.toml", "mtu = 500", "500 is out of range: 576 to 9600"),
           ("node.toml", "rx_descriptors", "1000 is no power of two…1024"),
           ("node.toml", "tx_descriptors", "out of range"),
           ("node.toml", "vlan", "4095 is out of range: 1 to 4094"),
           ("cluster.toml", "data_port", "65536 is out of range: 1 to 65535"),
           ("cluster.toml", "weight = -1", "-1 is out of range: 0 to 10000"),
           ("cluster.toml", "port = 999", "out of range");
    bad_words: Files::new().node("[workers]", "[workers]\nidle = \"spinn\"").cluster("\"udp\"", "\"sctp\"")
        => ("node.toml", "spinn", "workers.idle: \"spinn\" is none of \"spin\", \"adaptive\"…did you mean \"spin\"?"),
           ("cluster.toml", "sctp", "virtual_server \"dsr\": protocol: \"sctp\" is none of");
    bad_names: Files::new().cluster("name = \"web\"", "name = \"my web\"").cluster("name = \"tunnel\"", "name = \"\"")
        => ("cluster.toml", "my web", "is no name"), ("cluster.toml", "name = \"\"", "is empty");
    long_socket: Files::new().node("[node]", &format!("[node]\nadmin_socket = \"/{}\"", "x".repeat(107)))
        => ("node.toml", "admin_socket", "node.admin_socket: the path has 108 bytes; a socket's has at most 107");
    short_key: Files::new().cluster("000102030405060708090a0b0c0d0e0f", "00112233")
        => ("cluster.toml", "key =", "cluster.key: the key has 8 hexadecimal digits; it needs at least 32…openssl");
    no_hex: Files::new().cluster("000102030405060708090a0b0c0d0e0f", "0x0102030405060708090a0b0c0d0e0f")
        => ("cluster.toml", "key =", "other characters than hexadecimal digits");
    odd_key: Files::new().cluster("0e0f", "0e0f1") => ("cluster.toml", "key =", "odd number");
    two_keys: Files::new().cluster("data_port = 6600", "data_port = 6600\nkey_file = \"k\"").put("k", &"12".repeat(16))
        => ("cluster.toml", "key_file", "stands beside `key`");
    no_key_file: Files::new().cluster("key = \"000102030405060708090a0b0c0d0e0f\"", "key_file = \"nowhere\"")
        => ("cluster.toml", "key_file", "can't read nowhere");
}

#[test]
fn an_unreadable_node_file_has_no_line() {
    let errors = load(Path::new("/nonexistent/node.toml")).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert_eq!(errors.0[0].line, 0);
    assert!(errors.to_string().starts_with("/nonexistent/node.toml: can't be read: "), "{errors}");
}

#[test]
fn files_of_the_file_system() {
    let dir = std::env::temp_dir().join(format!("steerage-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let files = Files::new().node("cores = [1, 2]\nmanagement_core = 0\n", "");
    for (name, text) in &files.0 {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let loaded = load(&dir.join("node.toml"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(loaded.unwrap(), files.good(), "the cluster file is looked for beside the node file");
}

#[test]
fn errors_are_ordered_by_file_and_line() {
    let files = Files::new()
        .node("10.30.0.0/16", "x/16")
        .node("count = 2", "count = 0")
        .cluster("port = 80\n", "port = 0\n");
    let errors = files.load().unwrap_err();
    let shown: Vec<_> = errors.0.iter().map(|e| (e.file.to_str().unwrap(), e.line)).collect();
    assert_eq!(shown, [("node.toml", 7), ("node.toml", 28), ("cluster.toml", 33)]);
    assert_eq!(
        errors.to_string().lines().next().unwrap(),
        "node.toml:7: workers.count: 0 is out of range: 1 to 64"
    );
}

#[test]
fn the_key_is_never_shown() {
    let files =
        Files::new().cluster("000102030405060708090a0b0c0d0e0f", "5ec2e7x02030405060708090a0b0c0d0e0f");
    let errors = files.load().unwrap_err();
    assert!(!errors.to_string().contains("5ec2e7"), "{errors}");
}

#[test]
fn keys_come_from_the_secret() {
    let secret: Vec<u8> = (0..16).collect();
    let config = Files::new().good();
    assert_eq!(config.cluster.hash_key, HashKey::derive(&secret, 1));
    assert_eq!(config.cluster.auth_key, HashKey::derive(&secret, 2));
    let from_file = Files::new()
        .cluster("key = \"000102030405060708090a0b0c0d0e0f\"", "key_file = \"k\"")
        .put("k", "000102030405060708090A0B0C0D0E0F\n");
    assert_eq!(from_file.good(), config);
}

#[test]
fn the_node_file_overrides_its_profile_and_that_the_defaults() {
    let files = Files::new()
        .node("\"lab\"", "\"own.toml\"")
        .put("own.toml", "[workers]\nidle = \"adaptive\"\n[timeouts]\nudp = \"1s\"\nsteering = \"2s\"\n[port_defaults]\nmtu = 1400\n")
        .node("queues = 1\nmtu = 1500\n", "")
        .node("[timeouts]", "[port_defaults]\nrx_descriptors = 64\n[timeouts]");
    let config = files.good();
    assert_eq!(config.workers.idle, Idle::Adaptive);
    assert_eq!(config.tables.udp, Duration::from_secs(7), "the node file's");
    assert_eq!(config.tables.steering, Duration::from_secs(2), "the profile's");
    assert_eq!(config.tables.half_open, Duration::from_secs(5), "the default");
    let front = &config.ports[0].device;
    assert_eq!((front.mtu, front.rx_descriptors, front.tx_descriptors), (1400, 64, 2048));
    assert_eq!(config.ports[1].device.mtu, 1600);
}
