//! HTTP and HTTPS, by nginx and by servers that err in every way.

use super::servers::{Misbehaving, Nginx};
use super::*;
use std::io::{Read, Write};
use std::process::Command;

fn get(probe: Probe, path: &str) -> HealthSpec {
    HealthSpec { path: Some(path.to_owned()), ..spec(probe) }
}

fn finding(text: &str, spec: HealthSpec) -> HealthSpec {
    HealthSpec { expect_body: Some(text.to_owned()), ..spec }
}

#[test]
fn status_and_body_decide() {
    let nginx = Nginx::start("pages");
    for (kind, to) in [(Probe::Http, nginx.http), (Probe::Https, nginx.https), (Probe::Https, nginx.tls12)] {
        let get = |path: &str| get(kind, path);
        for path in ["/well", "/nothing", "/moved", "/early", "/well?a=b&c"] {
            assert_good(to, &get(path));
        }
        assert_bad(to, &get("/ill"), "status is 503");
        assert_bad(to, &get("/missing"), "status is 404");
        let teapot = |path: &str| HealthSpec { expect_status: vec![404, 503], ..get(path) };
        assert_good(to, &teapot("/ill"));
        assert_good(to, &teapot("/missing"));
        assert_bad(to, &teapot("/well"), "status is 200");
        assert_good(to, &finding("is well", get("/well")));
        assert_bad(to, &finding("is ill", get("/well")), "no \"is ill\" in the body of 11 bytes");
        assert_bad(to, &finding("x", get("/nothing")), "in the body of 0 bytes");
        assert_good(to, &finding("needle", get("/early")));
        assert_bad(to, &finding("needle", get("/late")), "in the first 65536 bytes");
        let host = HealthSpec { host: Some("www.example.com:8080".into()), ..get("/host") };
        assert_good(to, &finding("for www.example.com by steerage", host));
        assert_good(to, &finding("for 127.0.0.1", get("/host")));
        let hasty = HealthSpec { timeout: Duration::from_millis(400), ..finding("needle", get("/slow")) };
        assert_bad(to, &hasty, "no \"needle\" in the body within 400ms");
    }
    assert_bad(nginx.http, &get(Probe::Https, "/well"), "the TLS handshake failed");
    assert_bad(nginx.https, &get(Probe::Http, "/well"), "status is 400");
}

/// Runs `steerage probe` with these certificates for the system's; its exit code and what it said.
fn verified(to: SocketAddr, host: &str, trusted: &std::path::Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steerage"));
    command.args(["probe", "--type", "https", "--verify", "--path", "/well", "--timeout", "2s"]);
    command.args([&format!("--host={host}"), "--target", &to.to_string()]);
    let output = command.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_certificate_is_looked_at_if_asked_for() {
    let nginx = Nginx::start("certificates");
    let other = super::servers::Scratch::new("authority");
    let stranger = other.path().join("stranger.pem");
    std::fs::write(&stranger, super::servers::certificates("www.example.com").authority).unwrap();
    let empty = other.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for to in [nginx.https, nginx.tls12] {
        let check = |host, trusted: &std::path::Path, code, word: &str| {
            let (found, said) = verified(to, host, trusted);
            assert!(found == Some(code) && said.contains(word), "{found:?}: {said}");
        };
        check("www.example.com", &nginx.authority, 0, "good in");
        check("www.example.com:443", &nginx.authority, 0, "good in");
        check(
            "ftp.example.com",
            &nginx.authority,
            1,
            "bad: the TLS handshake failed: invalid peer certificate",
        );
        check("www.example.com", &stranger, 1, "bad: the TLS handshake failed: invalid peer certificate");
        check("www.example.com", &empty, 1, "no probe can be made here: the system has no certificates");
        check("-x-", &nginx.authority, 1, "no probe can be made here");
        // Nobody looks: the control.
        let anyone = HealthSpec { host: Some("ftp.example.com".into()), ..get(Probe::Https, "/well") };
        assert_good(to, &anyone);
        assert_good(to, &HealthSpec { host: Some("-x-".into()), ..get(Probe::Https, "/well") });
    }
}

#[test]
fn what_is_no_answer_is_bad() {
    let page = |bytes: &str| Misbehaving::saying(bytes.as_bytes());
    for (bytes, why) in [
        ("", "connection closed before message completed"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "no whole HTTP answer"),
        ("HTTP/9.9 200 OK\r\n\r\n", "no whole HTTP answer"),
        ("HTTP/1.1 OK\r\n\r\n", "no whole HTTP answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "no whole HTTP answer"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no whole HTTP answer"),
        ("HTTP/1.1 99 OK\r\n\r\n", "no whole HTTP answer"),
        ("HTTP/1.1 404 No\r\n\r\n", "status is 404"),
    ] {
        let server = page(bytes);
        assert_bad(server.address, &get(Probe::Http, "/"), why);
        assert_bad(server.address, &get(Probe::Https, "/"), "the TLS handshake failed");
    }
    for (bytes, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nneed", "no whole HTTP answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nneed\r\nx", "no whole HTTP answer"),
        ("HTTP/1.1 200 OK\r\n\r\nneed", "in the body of 4 bytes"),
    ] {
        let server = page(bytes);
        assert_bad(server.address, &finding("needle", get(Probe::Http, "/")), why);
        // The body is nobody's business unless it is asked for.
        assert_good(server.address, &get(Probe::Http, "/"));
    }
    // Across two chunks, and without a version that is new.
    let chunks =
        page("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nneed\r\n2\r\nle\r\n0\r\n\r\n");
    assert_good(chunks.address, &finding("needle", get(Probe::Http, "/")));
    let old = page("HTTP/1.0 200 OK\r\n\r\na needle");
    assert_good(old.address, &finding("needle", get(Probe::Http, "/")));
}

#[test]
fn nobody_holds_a_probe_beyond_its_timeout() {
    let pause = Duration::from_millis(20);
    let hasty = |spec: HealthSpec| HealthSpec { timeout: Duration::from_millis(500), ..spec };
    for (start, again, why) in [
        ("", "", "no answer within 500ms"),
        // Found out now or at the end.
        ("H", "T", ""),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n", "no answer within 500ms"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n", "no answer within 500ms"),
        ("HTTP/1.1 200 OK\r\n\r\n", "drip", "in the body within 500ms"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "in the body within 500ms"),
    ] {
        let server = Misbehaving::dripping(start, again, pause);
        assert_bad(server.address, &hasty(finding("needle", get(Probe::Http, "/"))), why);
        let silent = Misbehaving::dripping("", "", pause);
        assert_bad(silent.address, &hasty(get(Probe::Https, "/")), "no TLS handshake within 500ms");
    }
}

#[test]
fn no_answer_is_too_long() {
    let flood = |start: &'static str, again: &'static str| {
        Misbehaving::start(move |mut stream| {
            // Who answers before he was asked is another kind of wrong.
            let _ = stream.read(&mut [0; 4096]);
            let block = again.repeat(1000);
            let mut next = stream.write_all(start.as_bytes());
            while next.is_ok() {
                next = stream.write_all(block.as_bytes());
            }
        })
    };
    let needle = finding("needle", get(Probe::Http, "/"));
    let body = flood("HTTP/1.1 200 OK\r\n\r\n", "0123456789");
    assert_bad(body.address, &needle, "in the first 65536 bytes");
    let line = flood("HTTP/1.1 200 OK\r\nX: ", "0123456789");
    assert_bad(line.address, &needle, "no whole HTTP answer");
    let lines = flood("HTTP/1.1 200 OK\r\n", "X: 0123456789\r\n");
    assert_bad(lines.address, &needle, "no whole HTTP answer");
}

#[test]
fn any_bytes_are_an_answer_to_survive() {
    let mut rng = steerage::base::rng::Rng::new(2);
    let server = Misbehaving::start(move |mut stream| {
        let begin: &[u8] = [
            &b""[..],
            b"HTTP/1.1 ",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\x16\x03\x03",
            b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03",
        ][rng.below(6) as usize];
        let length = rng.below(2000);
        let noise: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(begin).and_then(|()| stream.write_all(&noise));
    });
    for _ in 0..150 {
        for kind in [Probe::Http, Probe::Https] {
            assert_bad(server.address, &finding("a text that chance won't make", get(kind, "/")), "");
        }
    }
}
