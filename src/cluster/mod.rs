//! What the nodes of a cluster agree upon, and how.

pub mod fleet;
pub mod lease;
pub mod log;
pub mod place;
pub mod plan;
pub mod state;
