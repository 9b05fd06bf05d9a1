//! What the nodes decide together.

pub mod place;
pub mod plan;
