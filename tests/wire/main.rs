//! The wire formats against an independent implementation: what it builds is parsed alike here, what is built here it
//! parses alike, and no bytes whatever make a parser panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backplane;
mod build;
mod checksums;
mod icmp;
mod ipv6;
mod layers;
mod robust;
mod state;
mod tunnels;
