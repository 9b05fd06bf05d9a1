//! The application-state distributed replication table: one replicated table for every kind of state that nodes share
//! (MECHANISMS §1; US 9,619,542 and 9,621,668).
//!
//! A key's bucket has an owner, which alone answers for it, under its lease, and a chain of nodes that have copies. What the owner
//! writes it acknowledges once every complete copy has it; until then whoever asks for the key waits. So what was acknowledged,
//! or read, is at each node that may be the next owner. An owner that isn't complete, since it has just returned, *hunts*: it
//! asks a complete copy for a key when it is first asked for that itself, while it pulls all the others behind that.
//!
//! Everything here is a value that is told the time and what others said. It sends records ([`crate::wire::state`]) by whatever
//! [`Outbox`] it is given, and none of them needs to arrive, or to arrive once, or in order.
//!
//! What holds, and what the simulator's histories are held against:
//! - A version is (epoch of the owner, its count of writes to the bucket). An entry is only ever replaced by a higher one.
//! - A copy takes an entry only from the bucket's owner in the epoch that it goes by itself; so once the next owner serves, what the
//!   last one writes is acknowledged no more.
//! - What an owner took over, and can't know to be at all other complete copies, it writes again before it answers by it.
//! - A copy that isn't complete becomes so once it has pulled all there was when it became a copy, and everything written since.

mod audit;
mod busy;
mod entry;
mod hunt;
mod learn;
mod look;
mod shard;
mod store;
mod write;

pub use crate::view::chain::{Chain, Copy, MAX_COPIES};
pub use entry::{Key, Kind, Value, Version};
pub use look::Seen;
pub use shard::{Answer, Bounds, Counts, Event, Moment, Operation, Outbox, Refusal, Shard, Ticket, Unknown};

#[cfg(test)]
mod tests;
