//! What must hold of clients that keep their real server: the next connection goes where the last one went, whoever has died
//! meanwhile.

use super::connection::{Came, SETTLED, SHARED_WITHIN, Watch};
use super::oracle::{Oracle, Oracles, Violation};
use super::plan::PERSISTENCE;
use crate::base::{Addr, Bucket, GroupId, HashKey, Instant, NodeId, NodeSet};
use crate::cluster::fleet::Fleet;
use crate::cluster::place::Place;
use crate::sim::load::Flow;
use crate::sim::oracle::time;
use crate::sim::plan::Serving;
use std::collections::BTreeMap;

/// A virtual server's address, port and protocol, and a prefix.
type Name = (Addr, u16, u8, Addr);

/// The clients that have a real server.
#[derive(Debug, Default)]
pub(super) struct Clients {
    keep: bool,
    each: BTreeMap<Name, Client>,
}

impl Clients {
    /// `keep`: whether they keep it.
    pub fn new(keep: bool) -> Self {
        Self { keep, ..Self::default() }
    }
}

/// What a client has.
#[derive(Clone, Copy, Debug)]
struct Client {
    server: usize,
    /// How often that had died then.
    deaths: u32,
    since: Instant,
    place: (GroupId, Bucket),
}

/// The client of a flow, and where what is known of it is; none if it keeps nothing.
fn client(flow: &Flow) -> Option<(Name, (GroupId, Bucket))> {
    let group = match flow.plan.serving {
        Serving::Steered => GroupId(0),
        Serving::LocalGroup => GroupId(1),
        Serving::Local => return None,
    };
    let client = PERSISTENCE.client(&flow.plan.key);
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 1);
    let place = (group, key.flow(&client).bucket());
    Some(((client.dst, client.dst_port, client.protocol, client.src), place))
}

/// The nodes that have all of a bucket's state.
fn complete(place: &Place) -> impl Iterator<Item = NodeId> {
    let copies = place.replicas.iter().filter(|replica| replica.complete).map(|replica| replica.node);
    place.owner.into_iter().chain(copies)
}

impl Oracles {
    /// Whether nothing has happened since that may have given a client another server.
    fn is_kept(&self, known: &Client) -> bool {
        self.deaths[known.server] == known.deaths
            && self.judged.up[known.server]
            && self.judged.down[known.server].is_none_or(|down| down + SETTLED < known.since)
    }

    /// A client has had an answer from its server, through the node that owns what is known of it.
    pub(super) fn served(&mut self, watch: &Watch, flow: &Flow, now: Instant) {
        let Some((client, (group, bucket))) = client(flow).filter(|_| self.clients.keep) else { return };
        let map = self.judged.state.fleet().maps().get(&group);
        let owner = map.and_then(|map| Some(map.get(bucket)).filter(|place| place.previous.is_none())?.owner);
        let has = self.clients.each.get(&client).is_some_and(|known| self.is_kept(known));
        if owner == Some(NodeId(watch.node as u16)) && !has {
            let (server, deaths) = (watch.server, self.deaths[watch.server]);
            let known = Client { server, deaths, since: now, place: (group, bucket) };
            self.clients.each.insert(client, known);
        }
    }

    /// A client's new connection, which began then, has come to a server.
    pub(super) fn connected(
        &self,
        came: &Came,
        flow: &Flow,
        began: Instant,
        now: Instant,
    ) -> Result<(), Violation> {
        let known = client(flow).and_then(|(client, _)| self.clients.each.get(&client));
        let late = |known: &&Client| began > known.since + SHARED_WITHIN;
        let known = known.filter(late).filter(|known| !self.judged.regrouped && self.is_kept(known));
        match known {
            Some(known) if known.server != came.server => {
                let what = format!(
                    "{:?} has had server {} since {}, and its new connection goes to server {} by n{}",
                    flow.plan.key,
                    known.server,
                    time(known.since),
                    came.server,
                    came.node + 1
                );
                Err(self.violation(Oracle::Persistence, now, what))
            }
            _ => Ok(()),
        }
    }

    /// The lives of these nodes are over: what nobody else has of clients is lost. Nobody waits for copies, which may not have come
    /// to others while those didn't hear the owner.
    pub(super) fn forgotten(&mut self, dead: NodeSet, before: &Fleet, now: Instant) {
        let apart = self.judged.apart;
        self.clients.each.retain(|_, known| {
            let (group, bucket) = known.place;
            let Some(place) = before.maps().get(&group).map(|map| map.get(bucket)) else { return false };
            let shared = now - known.since > SHARED_WITHIN && apart.is_none_or(|apart| apart < known.since);
            let hit = complete(place).any(|node| dead.contains(node));
            !hit || shared && complete(place).any(|node| !dead.contains(node))
        });
    }
}
