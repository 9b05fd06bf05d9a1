//! Who may speak to a replica: everybody else is refused and counted, and the replica goes on.

use crate::cluster::{Cluster, Folder};
use crate::replica::{config, name};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use steerage::cluster::fences::Fences;
use steerage::cluster::log::{Log, Outcome, Output, ReplicaId};
use steerage::run::authority;
use steerage::run::log::Running;
use steerage::run::log::frame::{self, Hello, MAX_FRAME, VERSION};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection to n0 that trusts `trusted`'s CA and shows the certificate of `shown`, if any.
fn connect(to: SocketAddr, trusted: &Path, shown: Option<(&Path, &str)>) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted.join("ca.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((from, name)) => {
            let chain = vec![CertificateDer::from_pem_file(from.join(format!("{name}.crt"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(from.join(format!("{name}.key"))).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("n0").unwrap()).unwrap();
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    StreamOwned::new(client, tcp)
}

/// Whether the other end answers anything at all to `frames`.
fn answered(mut tls: Tls, frames: &[Vec<u8>]) -> bool {
    for frame in frames {
        if tls.write_all(frame).and_then(|()| tls.flush()).is_err() {
            return false;
        }
    }
    let mut byte = [0];
    tls.read_exact(&mut byte).is_ok()
}

fn hello(version: u16, id: u16, name: &str) -> Vec<u8> {
    frame::encode(&Hello { version, id: ReplicaId(id), name: name.to_owned() }).unwrap()
}

/// Waits until `log` has counted so many refusals of each kind.
fn counted(log: &Running, expected: [u64; 4]) {
    let begin = Instant::now();
    while log.refusals().map(|(_, count)| count) != expected {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}, not {expected:?}", log.refusals());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn only_the_clusters_own_replicas_are_let_in() {
    let cluster = Cluster::new("door", &[0, 1, 2], &[0]);
    let orders = cluster.orders(0);
    let own = orders.certificates.clone();
    let foreign = Folder::new("door-foreign");
    authority::init(&foreign.0.join("ca"), &[name(0), name(1)]).unwrap();
    let foreign = foreign.0.join("ca");
    let mut log = Running::start(config(&orders)).unwrap();
    let to = orders.listen;
    let good = hello(VERSION, 1, "n1");
    let mine = Some((own.as_path(), "n1"));

    assert!(answered(connect(to, &own, mine), std::slice::from_ref(&good)), "the right one");
    counted(&log, [0, 0, 0, 0]);

    let mut plain = TcpStream::connect(to).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = plain.read(&mut [0; 64]);
    counted(&log, [1, 0, 0, 0]);
    assert!(!answered(connect(to, &own, None), std::slice::from_ref(&good)), "no certificate");
    counted(&log, [2, 0, 0, 0]);
    assert!(
        !answered(connect(to, &own, Some((&foreign, "n1"))), std::slice::from_ref(&good)),
        "another CA's"
    );
    counted(&log, [3, 0, 0, 0]);
    assert!(
        !answered(connect(to, &foreign, mine), std::slice::from_ref(&good)),
        "this end trusts another CA"
    );
    counted(&log, [4, 0, 0, 0]);

    assert!(!answered(connect(to, &own, mine), &[hello(VERSION, 2, "n2")]), "another's name");
    counted(&log, [4, 1, 0, 0]);
    assert!(!answered(connect(to, &own, mine), &[hello(VERSION + 1, 1, "n1")]), "another version");
    counted(&log, [4, 2, 0, 0]);
    assert!(!answered(connect(to, &own, mine), &[hello(VERSION, 0, "n1")]), "this replica's own number");
    counted(&log, [4, 3, 0, 0]);

    let long = (MAX_FRAME as u32 + 1).to_le_bytes().to_vec();
    assert!(!answered(connect(to, &own, mine), std::slice::from_ref(&long)), "no hello");
    counted(&log, [4, 3, 1, 0]);
    // Behind the hello, whose answer comes first.
    for bad in [long, vec![3, 0, 0, 0, 1, 200, 200]] {
        let before = log.refusals()[2].1;
        let mut tls = connect(to, &own, mine);
        tls.write_all(&[good.clone(), bad].concat()).unwrap();
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest);
        assert_eq!(rest, hello(VERSION, 0, "n0"));
        counted(&log, [4, 3, before + 1, 0]);
    }

    let ticket = log.propose(b"still here".to_vec(), Fences::NONE);
    let begin = Instant::now();
    loop {
        match log.take() {
            Some(Output::Outcome(of, Outcome::Committed(_))) if of == ticket => break,
            Some(Output::Outcome(of, other)) if of == ticket => panic!("{other:?}"),
            _ => assert!(begin.elapsed() < Duration::from_secs(20)),
        }
    }
}

#[test]
fn a_replica_at_anothers_address_is_not_taken_for_it() {
    // Two clusters of one each; the one is told that the other is its second replica.
    let one = Cluster::new("door-one", &[0, 1], &[0]);
    let two = Cluster::new("door-two", &[0, 1], &[1]);
    let mut first = Running::start(config(&one.orders(0))).unwrap();
    let second = Running::start(config(&two.orders(1))).unwrap();
    let mut other = one.replica(1, false);
    other.address = two.listens(1).to_string();
    first.set_replicas(vec![one.replica(0, true), other]);
    let begin = Instant::now();
    while first.refusals()[0].1 == 0 || second.refusals()[0].1 == 0 {
        let _ = first.take();
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?} {:?}", first.refusals(), second.refusals());
        std::thread::sleep(Duration::from_millis(5));
    }
}
