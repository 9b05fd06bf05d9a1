//! Tables of the packet path: bounded, allocated once, each with one writing core.

pub mod chunks;
pub mod counter;
pub mod exact;
pub mod flow;
pub mod index;
pub mod large;
pub mod lease;
pub mod maglev;
pub mod placement;
pub mod publish;
pub mod ring;
pub mod route;
pub mod session;
pub mod steering;
pub mod wheel;
