//! What stands above the packet path: configuration, its compilation into a View, neighbours, peers, statistics.

pub mod announce;
pub mod census;
pub mod compile;
pub mod config;
pub mod explain;
pub mod health;
pub mod manager;
pub mod metrics;
pub mod neighbour;
pub mod peer;
pub mod preview;
pub mod probe;
pub mod refusals;
pub mod stats;
pub mod status;
