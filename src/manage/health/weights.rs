//! What committed health means for new flows.

use crate::cluster::health::{Health, STEPS};

/// A real server of one virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its share as people set it; with zero it is drained.
    pub weight: u32,
    /// Its committed health; none if it has no check.
    pub health: Option<Health>,
}

/// The shares of new flows that the real servers of one virtual server get, in their order, relative to each other.
///
/// One without a check has its weight; one that is down has none; one that has just come up has its weight by steps. One
/// that nobody has judged yet gets nothing while another serves: a server that is added broken harms nobody. Where none
/// does, as when the virtual server, its checks or the whole cluster are new, a guess is better than refusing everybody.
pub fn weights(members: &[Member]) -> Vec<u32> {
    let share = |member: &Member, unknown: u32| {
        let steps = match member.health {
            None => u32::from(STEPS),
            Some(Health::Up(step)) => u32::from(step.min(STEPS)),
            Some(Health::Down) => 0,
            Some(Health::Unknown) => unknown,
        };
        member.weight.saturating_mul(steps)
    };
    let judged: Vec<u32> = members.iter().map(|member| share(member, 0)).collect();
    if judged.iter().any(|share| *share > 0) {
        judged
    } else {
        members.iter().map(|member| share(member, u32::from(STEPS))).collect()
    }
}
