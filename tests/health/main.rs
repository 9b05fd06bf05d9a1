//! Probes against real servers: nginx, sockets that misbehave, kernels that drop.
#![allow(clippy::unwrap_used)]

mod http;
mod load;
mod namespace;
mod plain;
mod servers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use steerage::cluster::namespace::{HealthSpec, Probe};
use steerage::manage::health::Outcome;
use steerage::run::health;

/// What a probe may take beyond its timeout on a machine with other work to do.
const SLACK: Duration = Duration::from_millis(400);

fn spec(probe: Probe) -> HealthSpec {
    HealthSpec { timeout: Duration::from_secs(2), ..HealthSpec::new(probe) }
}

/// Probes once; a probe that takes longer than it may is a failure of the test, whatever it comes to.
fn probe(to: SocketAddr, spec: &HealthSpec) -> Outcome {
    let begun = Instant::now();
    let outcome = health::once(to, spec).unwrap();
    let took = begun.elapsed();
    assert!(took < spec.timeout + SLACK, "{took:?}: {outcome:?}");
    outcome
}

fn assert_good(to: SocketAddr, spec: &HealthSpec) {
    let outcome = probe(to, spec);
    let Outcome::Good(took) = outcome else { panic!("{outcome:?} from {to} by {spec:?}") };
    assert!(took <= spec.timeout + SLACK && took > Duration::ZERO);
}

fn assert_bad(to: SocketAddr, spec: &HealthSpec, why: &str) {
    let outcome = probe(to, spec);
    assert!(matches!(&outcome, Outcome::Bad(reason) if reason.contains(why)), "{outcome:?} is not {why:?}");
}
