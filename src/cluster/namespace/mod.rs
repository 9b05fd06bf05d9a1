//! What people decide, held alike by all nodes: a tree of versioned objects (MECHANISMS §6).

pub mod health;
pub mod text;

pub use health::{HealthSpec, Probe};
