//! From a flow's owner on: its session or what it would get, the rewriting, the way out.

use super::answer::{NextHop, RealServerSaid, Rewrite, SessionSaid};
use super::tuple::socket;
use super::{Asked, reasons};
use crate::base::time::TICK_SHIFT;
use crate::base::{Addr, FlowHash, FlowKey, Mac, NodeId, RealServerId, SnatId, WorkerId};
use crate::path::select;
use crate::path::track;
use crate::path::verdict::Verdict;
use crate::table::session::{Direction, Session};
use crate::view::{Forward, HopId, Neighbour, Route};
use crate::wire::gue;

impl Asked<'_> {
    pub(super) fn session_of(&self, worker: WorkerId) -> Option<(FlowKey, Direction, Session)> {
        self.known.iter().find(|known| known.worker == worker).and_then(|known| known.session)
    }

    /// A session's choice.
    pub(super) fn by_session(&mut self, client: &FlowKey, direction: Direction, session: &Session) {
        let view = self.view;
        let real = &view.services.real_servers[session.real.index()];
        let server = &view.services.virtual_servers[real.virtual_server.index()];
        let seconds = |ticks: u32| (u64::from(ticks) << TICK_SHIFT) as f64 / 1e9;
        self.said.session = Some(SessionSaid {
            state: reasons::state(session.state),
            direction: if direction == Direction::Forward { "forward" } else { "reply" },
            client: socket(client.src, client.src_port),
            virtual_server: socket(client.dst, client.dst_port),
            idle_s: seconds(self.now.tick().since(session.last_seen)),
            lifetime_s: seconds(track::lifetime(session, &view.timeouts, server)),
        });
        self.real_server(session.real, view.hash_key.flow(client), reasons::SESSION_HAS_IT);
        if track::over(session) && client.protocol == server.protocol.number() {
            self.said.notes.push(reasons::next_connection(session.snat_port != 0));
        }
        let way = match direction {
            Direction::Forward if session.snat_port != 0 => {
                let snat = view.services.snats[session.snat.index()].address;
                self.said.rewrite = Some(Rewrite::Nat {
                    source: socket(snat, session.snat_port),
                    destination: socket(real.address, real.port),
                    why: reasons::NAT_SESSION.to_owned(),
                });
                self.to_server(session.real)
            }
            Direction::Forward => {
                self.said.rewrite = self.without_nat(server.forward, session.real, true);
                self.to_server(session.real)
            }
            Direction::Reply => {
                self.said.rewrite = Some(Rewrite::Nat {
                    source: socket(client.dst, client.dst_port),
                    destination: socket(client.src, client.src_port),
                    why: reasons::NAT_REPLY.to_owned(),
                });
                self.by_routes(client.src)
            }
        };
        self.leave(way);
    }

    /// What a flow without a session gets.
    pub(super) fn fresh(&mut self, owner: NodeId, real: RealServerId, kept: bool) {
        let view = self.view;
        let server = &view.services.real_servers[real.index()];
        let virtual_server = &view.services.virtual_servers[server.virtual_server.index()];
        let hash = view.hash_of(server.virtual_server, &self.meta.key, self.meta.hash);
        let why = match (kept, virtual_server.persistence) {
            (true, _) => reasons::KEPT,
            (false, Some(_)) => reasons::MAGLEV_OF_CLIENT,
            (false, None) => reasons::MAGLEV,
        };
        self.real_server(real, hash, why);
        if virtual_server.forward == Forward::Nat {
            let (sources, own) = self.snats(owner, real);
            if sources.is_empty() {
                return self.drop(Verdict::SnatExhausted);
            }
            let bucket = hash.bucket();
            self.said.rewrite = Some(Rewrite::NatNew {
                sources: sources.iter().map(|id| view.services.snats[id.index()].address.ip()).collect(),
                own,
                port_class: bucket.0,
                ports: select::ports(bucket).collect(),
                destination: socket(server.address, server.port),
                why: reasons::NAT_NEW.to_owned(),
            });
            if self.meta.tcp_flags != 0 {
                self.said.notes.push(reasons::NEEDS_SYN.to_owned());
            }
        } else {
            self.said.rewrite = self.without_nat(virtual_server.forward, real, owner == view.me);
        }
        if owner == view.me {
            let way = self.to_server(real);
            self.leave(way);
        }
    }

    /// SNAT addresses as node `owner` tries them for a real server, and how many are its own.
    fn snats(&self, owner: NodeId, real: RealServerId) -> (Vec<SnatId>, usize) {
        let services = &self.view.services;
        let server = &services.real_servers[real.index()];
        let group = &services.groups[services.virtual_servers[server.virtual_server.index()].group.index()];
        let of_family = |id: &&SnatId| services.snats[id.index()].address.is_v4() == server.address.is_v4();
        let (mut own, others): (Vec<_>, Vec<_>) =
            group.snats.iter().filter(of_family).partition(|id| services.snats[id.index()].node == owner);
        let count = own.len();
        own.extend(others);
        (own, count)
    }

    fn real_server(&mut self, id: RealServerId, hash: FlowHash, why: &str) {
        let services = &self.view.services;
        let real = &services.real_servers[id.index()];
        let maglev = &services.virtual_servers[real.virtual_server.index()].maglev;
        let config = self.config.virtual_servers.get(real.virtual_server.index());
        self.said.real_server = Some(RealServerSaid {
            name: real.name.clone(),
            address: socket(real.address, real.port),
            weight: config.and_then(|v| v.real_servers.iter().find(|r| r.id == id)).map_or(0, |r| r.weight),
            slot: maglev.slot(hash.slot()),
            slots: maglev.slots(),
            own_slots: maglev.iter().filter(|of| *of == id).count(),
            why: why.to_owned(),
        });
    }

    /// The rewriting of methods without NAT. `mine`: this node does it.
    fn without_nat(&self, forward: Forward, real: RealServerId, mine: bool) -> Option<Rewrite> {
        let server = &self.view.services.real_servers[real.index()];
        let outer_source = mine.then(|| server.tunnel_source.ip());
        let outer_destination = server.address.ip();
        let why = reasons::method(forward).to_owned();
        Some(match forward {
            Forward::Nat => return None,
            Forward::DsrL2 => Rewrite::DsrL2 { why },
            Forward::Ipip => Rewrite::Ipip { outer_source, outer_destination, why },
            Forward::Gue => Rewrite::Gue {
                outer_source,
                outer_destination,
                outer_source_port: self.meta.hash.outer_port(),
                outer_destination_port: gue::PORT,
                why,
            },
        })
    }

    fn leave(&mut self, way: Result<NextHop, Verdict>) {
        match way {
            Ok(hop) => {
                if hop.mac.is_none() && !self.known.is_empty() {
                    self.said.notes.push(reasons::unresolved(&hop));
                }
                self.said.next_hop = Some(hop);
            }
            Err(verdict) => self.drop(verdict),
        }
    }

    fn to_server(&self, real: RealServerId) -> Result<NextHop, Verdict> {
        let server = &self.view.services.real_servers[real.index()];
        let hop = server.hop.ok_or(Verdict::NoRoute)?;
        Ok(self.hop(hop, reasons::hop_to(server.address, self.view.hops[hop.0 as usize].address)))
    }

    fn by_routes(&self, address: Addr) -> Result<NextHop, Verdict> {
        match self.view.services.routes.lookup(address).ok_or(Verdict::NoRoute)? {
            Route::Via(hop) => {
                Ok(self.hop(hop, reasons::hop_to(address, self.view.hops[hop.0 as usize].address)))
            }
            Route::OnLink(interface) => {
                let neighbour = Neighbour { interface, address };
                Ok(self.neighbour(neighbour, self.view.mac_of(neighbour), reasons::hop_to(address, address)))
            }
        }
    }

    pub(super) fn hop(&self, id: HopId, why: String) -> NextHop {
        let hop = &self.view.hops[id.0 as usize];
        self.neighbour(Neighbour { interface: hop.interface, address: hop.address }, hop.mac, why)
    }

    fn neighbour(&self, neighbour: Neighbour, mac: Option<Mac>, why: String) -> NextHop {
        let interface = &self.view.services.interfaces[neighbour.interface.index()];
        let port = self.config.ports.get(interface.port.index());
        NextHop {
            address: neighbour.address.ip(),
            mac: mac.map(|mac| mac.to_string()),
            interface: interface.name.clone(),
            vlan: interface.vlan,
            port: port.map_or_else(String::new, |p| p.device.name.clone()),
            why,
        }
    }
}
