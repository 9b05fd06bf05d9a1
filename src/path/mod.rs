//! The packet path: one file a stage, driven by the [`worker`].
//!
//! Frames come in bursts. Behind [`parse`] (front) or [`backplane`] (other nodes) a frame starts at its IP header, and what
//! the stages need to know of it stands in its [`meta::Meta`]; behind [`egress`] it has an Ethernet header again.

pub mod backplane;
pub mod census;
pub mod counters;
pub mod egress;
pub mod icmp;
pub mod local;
pub mod message;
pub mod meta;
pub mod parse;
pub mod port;
pub mod post;
pub mod promise;
pub mod rewrite;
pub mod select;
pub mod shared;
pub mod stages;
pub mod steer;
pub mod track;
pub mod verdict;
pub mod worker;
