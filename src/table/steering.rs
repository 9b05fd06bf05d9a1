//! Steering sessions: flows that another core or node owns, and which (MECHANISMS §4 point 1; US 9,497,281).

use super::flow::FlowTable;
use crate::base::{Incarnation, NodeId, Tick, WorkerId};

/// Where a flow's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// The owner's node.
    pub node: NodeId,
    /// The owner's worker.
    pub worker: WorkerId,
    /// The node's life when this was decided. Once it lives another one this session is void: all sessions towards a dead
    /// node are invalidated at once, without a walk.
    pub incarnation: Incarnation,
    /// When its last packet was seen.
    pub last_seen: Tick,
}

/// The steering sessions of one worker.
pub type SteeringTable = FlowTable<Steering>;
