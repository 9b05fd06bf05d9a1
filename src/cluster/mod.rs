//! What the nodes of a cluster agree upon, and how: values without clocks, threads or sockets.

pub mod asks;
pub mod council;
pub mod digests;
pub mod fences;
pub mod fleet;
pub mod forecast;
pub mod health;
pub mod keeper;
pub mod lead;
pub mod lease;
pub mod log;
pub mod namespace;
pub mod place;
pub mod plan;
pub mod state;
pub mod voters;
