//! Tables of the packet path.

pub mod counter;
pub mod maglev;
pub mod placement;
pub mod publish;
pub mod ring;
pub mod route;
pub mod wheel;
