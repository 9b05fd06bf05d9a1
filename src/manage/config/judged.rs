//! What the health of real servers makes of their weights.

use super::Config;
use crate::cluster::health::{Health, Standings};
use crate::cluster::namespace::{Name, Namespace, Probe, RealServerSpec, VirtualServerSpec};
use crate::manage::health::weights::{Member, weights};
use std::sync::Arc;

/// Whether a real server is probed.
fn checked(space: &Namespace, server: &VirtualServerSpec, real: &RealServerSpec) -> bool {
    space.health_of(server, real).is_some_and(|spec| spec.probe != Probe::None)
}

impl Config {
    /// The same with the weights that follow from what was committed of the real servers' health. It costs what is checked; what
    /// stays the same is shared.
    pub fn judged(mut self, space: &Namespace, standings: &Standings) -> Self {
        let new: Vec<_> = self
            .virtual_servers
            .iter()
            .filter_map(|(id, server)| {
                let name = Name::new(&server.name).ok()?;
                let spec = space.virtual_server(&name)?;
                let is_checked: std::collections::BTreeMap<_, _> =
                    space.real_servers(&name).map(|(id, _, real)| (id, checked(space, spec, real))).collect();
                if !is_checked.values().any(|checked| *checked)
                    && server.real_servers.iter().all(|r| r.weight == r.set && r.up)
                {
                    return None;
                }
                let member = |real: &super::RealServerConfig| Member {
                    weight: real.set,
                    health: is_checked
                        .get(&real.id)
                        .is_some_and(|checked| *checked)
                        .then(|| standings.health(real.id)),
                };
                let members: Vec<_> = server.real_servers.iter().map(member).collect();
                let ups = members.iter().map(|member| member.health != Some(Health::Down));
                let judged: Vec<_> = weights(&members).into_iter().zip(ups).collect();
                if server.real_servers.iter().map(|real| (real.weight, real.up)).eq(judged.iter().copied()) {
                    return None;
                }
                let mut server = Arc::clone(server);
                for (real, judged) in Arc::make_mut(&mut server).real_servers.iter_mut().zip(judged) {
                    (real.weight, real.up) = judged;
                }
                Some((id, server))
            })
            .collect();
        for (id, server) in new {
            self.virtual_servers[id] = server;
        }
        self
    }
}
