//! What the nodes decide together.

pub mod lease;
pub mod place;
pub mod plan;
