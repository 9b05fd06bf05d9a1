//! What the nodes of a cluster agree upon, and how: values without clocks, threads or sockets.
//! What the nodes of a cluster agree upon, and how.

pub mod council;
pub mod fleet;
pub mod lead;
pub mod health;
pub mod lease;
pub mod log;
pub mod namespace;
pub mod place;
pub mod plan;
pub mod state;
