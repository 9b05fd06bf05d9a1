//! Whole nodes on memory ports, in virtual time: what each mechanism of the path promises, and for each its control.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod explain;
mod flood;
mod forward;
mod handover;
mod hardening;
mod local;
mod packets;
mod persistence;

mod steering;
mod takeover;
mod world;
