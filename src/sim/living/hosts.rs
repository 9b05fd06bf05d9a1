//! The hosts in front: a router with all clients behind it, which deals their flows to the nodes, and the real servers.

use super::connection::Came;
use super::oracle::{Oracle, Violation};
use super::plan::{SERVERS, gateway, server, vips};
use super::world::{ASKED, World};
use crate::base::Mac;
use crate::base::hash::mix;
use crate::sim::cluster::{front_mac, node_of};
use crate::sim::host::{self, Lookup};
use crate::sim::packet::{Packet, Words};
use crate::sim::plan::Method;
use crate::wire::eth::{self, Eth};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// After this long the router no longer deals to a node that is gone.
const NOTICED: Duration = Duration::from_millis(200);
/// Time to live of what hosts send.
const TTL: u8 = 64;
/// The router among the hosts in front; the real servers stand before it.
const ROUTER: usize = SERVERS;

/// The Ethernet address of a host.
pub fn host_mac(host: usize) -> Mac {
    Mac([2, 0, 0, 0, 9, host as u8])
}

impl World {
    /// The router deals flows anew.
    pub fn deal_anew(&mut self) {
        self.salt = self.rng.next_u64();
    }

    /// A client says something, or a server, in reply to a packet.
    pub(super) fn send_words(&mut self, words: Words, reply: Option<(usize, Packet)>) {
        let words = self.oracles.sends(words, reply.is_none());
        let flow = &self.flows[words.flow as usize];
        let (key, from) = match reply {
            Some((server, question)) => (question.key.reversed(), server),
            None => (flow.plan.key, ROUTER),
        };
        let direct = reply.is_some() && flow.plan.method != Method::Nat;
        let packet = Packet { key, ttl: TTL, words, filler: flow.plan.filler };
        let to = match self.receiver(words.flow) {
            _ if direct => host_mac(ROUTER),
            Some(node) => front_mac(node),
            None => return,
        };
        let frame = packet.frame(to, host_mac(from));
        self.send(self.members.len() + from, frame);
    }

    /// The node to which the router deals a flow's packets.
    fn receiver(&self, flow: u32) -> Option<usize> {
        let weight = |node: &usize| mix(mix(self.salt ^ u64::from(flow)) ^ *node as u64);
        self.dealt.iter().copied().max_by_key(weight)
    }

    /// The router sees who is there.
    pub(super) fn look_around(&mut self) {
        let now = self.now;
        let known = std::mem::take(&mut self.dealt);
        for node in 0..self.members.len() {
            if let Some(member) = &mut self.members[node] {
                let workers = &member.sleeps[..member.sleeps.len() - 1];
                let awake = workers.iter().all(Option::is_none);
                self.oracles.leads(node, member.manager().incarnation(), awake, now);
            }
            let deals = match &mut self.members[node] {
                None => known.contains(&node) && now - self.died[node] < NOTICED,
                // One that is up stays so: a router asks for little.
                Some(_) if known.contains(&node) => true,
                Some(member) => {
                    let local = member.local(now);
                    member.manager().ready(local)
                }
            };
            if deals {
                self.dealt.push(node);
            }
        }
    }

    pub(super) fn give_host(
        &mut self,
        host: usize,
        frame: &[u8],
        group: bool,
        last: bool,
    ) -> Result<(), Violation> {
        let wire = self.members.len() + host;
        let own = if host == ROUTER { gateway() } else { server(host) };
        match host::lookup(frame) {
            Some(Lookup::Question(target, asker, mac)) if target == own => {
                self.send(wire, host::answer(host_mac(host), target, asker, mac));
                return Ok(());
            }
            Some(_) => return Ok(()),
            None if group => return Ok(()),
            None => {}
        }
        let bytes = &frame[eth::HEADER_LEN..];
        let read = match host {
            ROUTER => Packet::read(bytes).map(|packet| (None, packet)),
            _ => {
                host::unwrap(|address| address == own, bytes).map(|(arrival, packet)| (Some(arrival), packet))
            }
        };
        let (arrival, packet) = match read {
            Ok(read) => read,
            Err(bad) => {
                let what = format!("host {host} gets a packet that is {bad:?}");
                return Err(self.oracles.violation(Oracle::Checksum, self.now, what));
            }
        };
        let Some(flow) = self.flows.get_mut(packet.words.flow as usize) else { return Ok(()) };
        let Some(arrival) = arrival else {
            self.oracles.at_client(&packet, flow, self.now)?;
            if let Some(words) = flow.at_client(&packet.words, self.now, last) {
                self.send_words(words, None);
            }
            return Ok(());
        };
        if !self.living[host].load(Ordering::Relaxed) {
            return Ok(());
        }
        let from = Eth::new(frame).ok().and_then(|header| node_of(header.src()));
        let Some(node) = from else {
            let what = format!("flow {} comes to server {host} from no node", packet.words.flow);
            return Err(self.oracles.violation(Oracle::Misdelivered, self.now, what));
        };
        let life = self.oracles.sender(node, self.now);
        let came = Came { node, life, server: host, arrival };
        self.oracles.at_server(came, &packet, flow, self.now)?;
        if let Some(words) = flow.at_server(&packet.words) {
            self.send_words(words, Some((host, packet)));
        }
        Ok(())
    }

    /// Somebody on the front link asks all nodes for a VIP's Ethernet address.
    pub(super) fn ask_for_vip(&mut self) {
        let all = vips();
        let vip = all[(self.steps / ASKED) as usize % all.len()];
        let frame = host::question(host_mac(ROUTER), gateway(), vip);
        for member in self.members.iter().flatten() {
            member.front[0].inject(&frame);
        }
    }
}
