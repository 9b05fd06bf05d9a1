//! What stands above the packet path: configuration, its compilation into a View, metrics, admin requests.

pub mod config;
