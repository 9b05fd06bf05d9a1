//! The replicated log with real processes, files and connections: what it acknowledges survives, in one order, whatever
//! happens to a minority of its replicas or, for a while, to all of them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // The helpers are as much part of the tests as the tests.

mod cluster;
mod command;
mod disk;
mod door;
mod faulty;
mod member;
mod process;
mod relay;
mod replica;
mod torture;
mod witness;
