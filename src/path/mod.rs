//! The packet path: one file a stage, driven by the [`worker`].

pub mod port;
