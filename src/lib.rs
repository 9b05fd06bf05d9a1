//! Steerage: a clustered layer-4 load-balancing appliance.
//!
//! The crate is built in floors; a module may name only those below it (ARCHITECTURE.md lists them and
//! `tests/tidy.rs` checks it): `base`, `wire`, `table`, `view`, `path`, `cluster`, `io`,
//! `manage`, `node`, `run`, and `sim` beside `run`.

pub mod asdr;
pub mod base;
pub mod cluster;
pub mod io;
pub mod manage;
pub mod node;
pub mod path;
#[cfg(feature = "run")]
pub mod run;
#[cfg(feature = "sim")]
pub mod sim;
pub mod table;
pub mod view;
pub mod wire;
