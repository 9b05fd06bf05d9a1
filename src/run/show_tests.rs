use super::*;
use serde_json::json;

#[test]
fn numbers_for_people() {
    let cases = [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (123_456, "123,456"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ];
    for (n, text) in cases {
        assert_eq!(thousands(n), text);
    }
    let cases = [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_234_567_890, "1.23 GB"),
        (u64::MAX, "18.4 EB"),
    ];
    for (n, text) in cases {
        assert_eq!(bytes(n), text, "{n}");
    }
    assert_eq!((bit_rate(10_000), bit_rate(2500)), ("10 Gbit/s".into(), "2500 Mbit/s".into()));
    assert_eq!((share(Some(1), Some(8)), share(Some(0), Some(0))), ("12.5 %".into(), "-".into()));
    assert_eq!((duration(59.9), duration(90_061.0)), ("00:00:59".into(), "1 d 01:01:01".into()));
}

/// A node with two workers, as its API tells it.
fn a_node() -> Value {
    let worker = |id: u64, rx: u64| {
        json!({
            "id": id, "rx": rx, "tx": 999, "steered_out": 12_000, "steered_in": 3, "ring_out": 0, "ring_in": 0,
            "hashed": 1, "steering_hits": 99, "sessions": 7, "steering_sessions": 8, "sessions_evicted": 0,
            "turns": 1000, "busy_turns": 125, "drops": { "no_route": 3, "not_our_mac": 1_500 },
        })
    };
    json!({
        "node": "n1", "ready": true, "view": 12, "view_adopted": 11, "uptime_s": 3_725.5,
        "workers": [worker(0, 1_234_567), worker(1, 5)],
        "totals": {
            "rx": 1_234_572, "drops": { "no_route": 6, "not_our_mac": 3_000 }, "drops_total": 3_006,
            "turns": 2000, "busy_turns": 250,
        },
        "ports": [
            { "name": "front", "link_up": true, "link_mbps": 10_000, "mac": "02:00:00:00:00:01", "mtu": 1500,
              "rx_packets": 1_234_572, "rx_bytes": 98_765_432, "rx_missed": 4, "rx_errors": 0, "rx_no_buffer": 0,
              "tx_packets": 1998, "tx_bytes": 0, "tx_errors": 0 },
        ],
        "virtual_servers": [
            { "name": "web", "address": "fd99::1", "port": 443, "protocol": "tcp", "forward": "nat",
              "ingress": "steered", "group": "all", "member": true, "connections": 42, "sessions": 7,
              "packets_in": 1000, "bytes_in": 123_456, "packets_out": 2000, "bytes_out": 654_321,
              "real_servers": [{ "name": "s1", "address": "10.0.0.21", "port": 8443, "connections": 42,
                "sessions": 7, "packets_in": 1000, "bytes_in": 1, "packets_out": 2000, "bytes_out": 2 }] },
            { "name": "dns", "address": "10.99.0.1", "port": 53, "protocol": "udp", "forward": "dsr-l2",
              "ingress": "local", "group": "edge", "member": false, "connections": 0, "sessions": 0,
              "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0, "real_servers": [] },
        ],
        "peers": [
            { "name": "n2", "up": true, "ready": true, "heard_ms_ago": 12, "view": 4, "buckets": 1365,
              "incarnation": 77, "same_configuration": false },
            { "name": "n3", "up": false, "ready": false, "heard_ms_ago": null, "view": 0, "buckets": 1365,
              "incarnation": 0, "same_configuration": false },
        ],
        "neighbours": [
            { "interface": "lan", "address": "10.0.0.21", "mac": "02:00:00:00:00:21" },
            { "interface": "lan", "address": "10.0.0.22", "mac": null },
        ],
    })
}

#[test]
fn the_tables_of_a_node() {
    let expected = "\
Node n1: ready, up 01:02:05, view 12 (a worker still uses 11)

Workers (packets)
  worker   received  sent  steered out  steered in  ring out  ring in  hashed  cached  sessions  steering  evicted  dropped    busy
  0       1,234,567   999       12,000           3         0        0       1      99         7         8        0    1,503  12.5 %
  1               5   999       12,000           3         0        0       1      99         7         8        0    1,503  12.5 %
  all     1,234,572     -            -           -         -        -       -       -         -         -        -    3,006  12.5 %

Dropped packets
  reason       packets   share
  not our mac    3,000  99.8 %
  no route           6   0.2 %

Ports (frames)
  port   link       MAC                 MTU   received           missed  errors  no buffer   sent       errors
  front  10 Gbit/s  02:00:00:00:00:01  1500  1,234,572  98.8 MB       4       0          0  1,998  0 B       0

Virtual servers and their real servers
  name  address            forward        group            connections  sessions  packets in          packets out
  web   [fd99::1]:443/tcp  nat            all                       42         7       1,000  123 kB        2,000  654 kB
    s1    10.0.0.21:8443                                            42         7       1,000     1 B        2,000     2 B
  dns   10.99.0.1:53/udp   dsr-l2, local  edge (not here)            0         0           0     0 B            0     0 B

Other nodes
  node  state                         heard  view  buckets  life
  n2    up, other configuration!  12 ms ago     4    1,365    77
  n3    DOWN                          never     0    1,365     0

Neighbours
  interface  address    MAC
  lan        10.0.0.21  02:00:00:00:00:21
  lan        10.0.0.22  NOT RESOLVED
";
    let shown = tables(&a_node(), true);
    assert_eq!(shown, expected, "\n{shown}");
}

#[test]
fn what_is_missing_is_shown_as_such() {
    let nothing = tables(&json!({}), false);
    assert_eq!(nothing, "Node -: NOT READY, up -, view -\n");
    let strange = tables(
        &json!({ "workers": [{ "id": "x" }], "ports": 7, "peers": [[]], "neighbours": [null] }),
        false,
    );
    assert!(strange.contains("Workers"), "{strange}");
}

#[test]
fn servers_without_traffic_are_counted_and_not_shown() {
    let mut node = a_node();
    let quiet = json!({ "name": "s2", "address": "10.0.0.22", "port": 8443, "connections": 0, "sessions": 0,
        "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0 });
    for server in node["virtual_servers"].as_array_mut().unwrap() {
        server["real_servers"].as_array_mut().unwrap().push(quiet.clone());
    }
    let (short, long) = (tables(&node, false), tables(&node, true));
    assert!(short.contains("  web ") && short.contains("    s1 "), "{short}");
    assert!(!short.contains("  dns ") && !short.contains("    s2 "), "{short}");
    let note = "\n  (1 virtual and 2 real servers without traffic are not shown: see them with --all)\n";
    assert!(short.contains(note), "{short}");
    assert_eq!((long.matches("    s2 ").count(), long.contains("--all")), (2, false), "{long}");

    // A number that is missing is not zero.
    node["virtual_servers"][1]["real_servers"][0]["sessions"] = Value::Null;
    let short = tables(&node, false);
    assert!(short.contains("  dns ") && short.contains("(0 virtual and 1 real"), "{short}");
}
