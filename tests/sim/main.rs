//! The simulator: that it repeats itself, that its worlds are what they should be, and that it finds what is planted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod council;
mod living;
mod planted;
mod shards;
mod wires;
mod worlds;
