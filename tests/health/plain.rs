//! TCP connections, datagrams, echo requests.

use super::servers::{Answering, Misbehaving, free_port};
use super::*;
use std::sync::atomic::Ordering;

fn udp(send: Option<&str>, expect: Option<&str>) -> HealthSpec {
    HealthSpec { send: send.map(str::to_owned), expect: expect.map(str::to_owned), ..spec(Probe::Udp) }
}

#[test]
fn a_connection_that_is_taken_is_enough() {
    let server = Misbehaving::start(|_| {});
    assert_good(server.address, &spec(Probe::Tcp));
    assert_good(server.address, &spec(Probe::Tcp));
    // The server takes up the second one when it is done with the first.
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.connections.load(Ordering::Relaxed) < 2 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_bad(([127, 0, 0, 1], free_port()).into(), &spec(Probe::Tcp), "connection refused");
}

#[test]
fn a_datagram_has_to_be_answered_as_expected() {
    for at in ["127.0.0.1", "::1"] {
        let echo = Answering::start(at, |bytes| Some(bytes.to_vec()));
        assert_good(echo.address, &udp(Some("who goes there"), Some("goes")));
        assert_good(echo.address, &udp(Some("who goes there"), None));
        assert_good(echo.address, &udp(None, None));
        assert_bad(echo.address, &udp(Some("who"), Some("goes")), "doesn't hold \"goes\"");
        assert_bad(echo.address, &udp(None, Some("goes")), "of 0 bytes");
    }
}

#[test]
fn a_datagram_that_is_refused_or_ignored_is_bad() {
    let begun = Instant::now();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_bad(([127, 0, 0, 1], port).into(), &udp(Some("x"), None), "connection refused");
    assert!(begun.elapsed() < Duration::from_secs(1), "the ICMP message says so at once");
    let silent = Answering::start("127.0.0.1", |_| None);
    let hasty = HealthSpec { timeout: Duration::from_millis(300), ..udp(Some("x"), None) };
    assert_bad(silent.address, &hasty, "no answer within 300ms");
}

#[test]
fn any_datagram_is_looked_at() {
    let mut rng = steerage::base::rng::Rng::new(1);
    let babble = Answering::start("127.0.0.1", move |_| {
        let length = rng.below(60_000);
        Some((0..length).map(|_| rng.next_u64() as u8).collect())
    });
    for _ in 0..50 {
        assert_bad(babble.address, &udp(Some("x"), Some("a text that chance won't make")), "doesn't hold");
    }
    // As long as a datagram can be, with the text at its end.
    let long = Answering::start("127.0.0.1", |_| Some([vec![b'x'; 65_500], b"end".to_vec()].concat()));
    assert_good(long.address, &udp(Some("x"), Some("end")));
}

#[test]
fn echo_requests_are_answered_by_the_kernel() {
    for to in ["127.0.0.1:0", "127.1.2.3:0", "[::1]:0"] {
        assert_good(to.parse().unwrap(), &spec(Probe::Icmp));
    }
}
