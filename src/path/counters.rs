//! A worker's counters: written by its core, read by the management thread.

use super::verdict::Verdict;
use crate::table::counter::{Counter, FlowTable};

pub use crate::table::counter::FlowCounters;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A worker's counters.
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
            /// Dropped packets, by [`Verdict`].
            pub drops: [Counter; Verdict::ALL.len()],
            /// By real server id: room for all that there may ever be.
            pub real_servers: FlowTable,
        }

        impl Counters {
            /// Zeroes, with room for so many real servers: those that nothing is counted of cost nothing.
            pub fn new(real_servers: usize) -> Self {
                Self {
                    $($name: Counter::default(),)*
                    drops: std::array::from_fn(|_| Counter::default()),
                    real_servers: FlowTable::new(real_servers),
                }
            }

            /// Name and value of each single counter, in the order above.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Frames received on front ports.
    rx,
    /// Frames received on the backplane.
    backplane_rx,
    /// Frames given to front devices.
    tx,
    /// Frames given to the backplane device, control frames included.
    backplane_tx,
    /// Packets steered to other nodes.
    steered_out,
    /// Steered packets from other nodes.
    steered_in,
    /// Packets of flows unknown here, sent to their bucket's previous owner.
    handover_out,
    /// Packets from a bucket's new owner, which asks whether they are known here.
    handover_in,
    /// Packets of flows unknown here, sent to their bucket's owner to be taken there.
    handover_returned,
    /// Packets handed to other workers of this node.
    ring_out,
    /// Packets from other workers of this node.
    ring_in,
    /// Steering decisions made by hashing the tuple to a bucket.
    hashed,
    /// Steering decisions found in a steering session.
    steering_hits,
    /// Packets that found their session here.
    session_hits,
    /// Sessions made.
    sessions_opened,
    /// Sessions that timed out, or were replaced by their client's next connection from the same port.
    sessions_closed,
    /// Sessions not established, or no more, that had to make room.
    sessions_evicted,
    /// Sessions made of what another node had shared of them before it died.
    sessions_inherited,
    /// NATed sessions that end with their node, as there was no room for their state.
    sessions_unshared,
    /// New flows to the real server that their client had.
    clients_kept,
    /// Clients whose real server can't be remembered, as there was no room.
    clients_unshared,
    /// New flows balanced without a session because there was no room (never NATed ones).
    sessions_refused,
    /// Steering decisions that could not be kept because there was no room.
    steering_full,
    /// Sessions now.
    sessions,
    /// Steering sessions now.
    steering_sessions,
    /// Echo requests answered.
    echo_replies,
    /// "Packet too big" and "fragmentation needed" sent.
    too_big_sent,
    /// Control frames received and accepted.
    control_rx,
    /// Control frames sent.
    control_tx,
    /// Of those received, messages of shared state.
    state_rx,
    /// Entries of shared state that copies lacked or had otherwise, written to them again.
    state_mended,
    /// Messages to the management thread that found its channel full.
    events_lost,
    /// Turns.
    turns,
    /// Turns that found something to do.
    busy_turns,
    /// Version of the View in use.
    view,
}

impl Counters {
    /// Counts a dropped packet.
    #[inline]
    pub fn count_drop(&self, verdict: Verdict) {
        self.drops[verdict as usize].inc();
    }

    /// Dropped packets of all kinds.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }
}
