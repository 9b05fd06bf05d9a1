//! `steerage probe` in network namespaces of its own, whose kernels drop, refuse and withhold.

use std::process::{Command, Stdio};

/// Runs a shell script in a new network namespace with its loopback up; `$S` is the command. Namespace and processes end with
/// the script, which `timeout` bounds.
fn within(script: &str) -> (i32, String) {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "20", "unshare", "--net", "sh", "-ec"]);
    command.arg(format!("ip link set lo up\n{script}")).stdin(Stdio::null());
    let output = command.env("S", env!("CARGO_BIN_EXE_steerage")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn assert_says(script: &str, code: i32, word: &str) {
    let (found, said) = within(script);
    assert!(found == code && said.contains(word), "{script}\nended with {found}, saying: {said}");
}

/// A filter in front of the loopback's receiver (`input`) or sender (`output`).
fn filter(hook: &str, rule: &str) -> String {
    format!(
        "nft -f - <<-'end'\ntable inet t {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }}\nend\n"
    )
}

#[test]
fn what_is_dropped_is_bad_after_the_timeout() {
    let drop = filter("input", "drop");
    for (arguments, why) in [
        ("--type tcp --target 127.0.0.1:80", "bad: no connection within 300ms"),
        ("--type tcp --target [::1]:80", "bad: no connection within 300ms"),
        ("--type http --target 127.0.0.1:80", "bad: no connection within 300ms"),
        ("--type https --target 127.0.0.1:80", "bad: no connection within 300ms"),
        ("--type udp --target 127.0.0.1:80 --send x", "bad: no answer within 300ms"),
        ("--type icmp --target 127.0.0.1", "bad: no reply within 300ms"),
        ("--type icmp --target ::1", "bad: no reply within 300ms"),
    ] {
        let probe = format!("\"$S\" probe {arguments} --timeout 300ms");
        assert_says(&format!("{drop}{probe}"), 1, why);
    }
    // The control: without the filter the same is answered or refused.
    assert_says("\"$S\" probe --type icmp --target 127.0.0.1", 0, "good in");
    assert_says("\"$S\" probe --type tcp --target 127.0.0.1:80", 1, "bad: connection refused");
}

#[test]
fn refusals_from_outside_are_bad() {
    // The kernel believes what comes while it is still sending only after it has sent again, a second later.
    for (rule, to, why) in [
        ("reject with icmpx host-unreachable", "127.0.0.1:80", "bad: no route to host"),
        ("reject with icmpx admin-prohibited", "127.0.0.1:80", "bad: no route to host"),
        ("reject with icmpx admin-prohibited", "[::1]:80", "bad: permission denied"),
    ] {
        let reject = filter("input", &format!("tcp dport 80 {rule}"));
        assert_says(&format!("{reject}\"$S\" probe --type tcp --timeout 3s --target {to}"), 1, why);
    }
}

#[test]
fn trouble_of_the_nodes_own_says_nothing_of_the_server() {
    let unable = "no probe can be made here";
    let drop = filter("output", "drop");
    assert_says(&format!("{drop}\"$S\" probe --type udp --target 127.0.0.1:80"), 1, unable);
    assert_says(&format!("{drop}\"$S\" probe --type icmp --target 127.0.0.1"), 1, unable);
    let no_files = "ulimit -n 6; \"$S\" probe --type tcp --target 127.0.0.1:80";
    assert_says(no_files, 1, &format!("{unable}: too many open files"));
}

#[test]
fn echo_needs_a_ping_socket_or_a_raw_one() {
    let bare = "setpriv --bounding-set -net_raw --inh-caps -net_raw --reuid 1 --regid 1 --clear-groups";
    for to in ["127.0.0.1", "::1"] {
        let probe = format!("{bare} \"$S\" probe --type icmp --target {to}");
        let closed = "sysctl -qw net.ipv4.ping_group_range='1 0'\n";
        assert_says(
            &format!("{closed}{probe}"),
            1,
            "no ping socket (permission denied: see net.ipv4.ping_group_range)",
        );
        assert_says(&format!("sysctl -qw net.ipv4.ping_group_range='1 1'\n{probe}"), 0, "good in");
        // With the right, a raw socket serves.
        assert_says(&format!("{closed}\"$S\" probe --type icmp --target {to}"), 0, "good in");
    }
}
