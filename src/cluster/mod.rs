//! What the nodes of a cluster agree upon, and how.

pub mod log;
