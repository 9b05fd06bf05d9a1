//! What every floor uses: time as an argument, identifiers, addresses, hashing, bounds, atomics.

pub mod addr;
pub mod flow;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod node_set;
pub mod planted;
pub mod rng;
pub mod sync;
pub mod time;
pub mod version;

pub use addr::{Addr, Mac};
pub use flow::FlowKey;
pub use hash::{FlowHash, HashKey};
pub use ids::*;
pub use node_set::NodeSet;
pub use time::{Instant, Pace, Tick};
