//! What must hold of packets that arrive: each once, with the right addresses, at the server and with the SNAT port of the ones
//! before it.

use super::{Came, ESTABLISHED, HALF_OPEN, Mapping, Oracle, Oracles, Record, TTL, Violation};
use crate::base::{GroupId, Instant};
use crate::sim::load::Flow;
use crate::sim::packet::Packet;
use crate::sim::plan::{Method, NODES, SERVER_PORT, server, snat};
use crate::view::snat_bucket;

impl Oracles {
    /// What holds for every packet that a host takes; gives its record.
    fn arrives(&mut self, packet: &Packet, at_server: bool, now: Instant) -> Result<Record, Violation> {
        let number = packet.words.number;
        let Some(index) = self.index(number) else {
            return Err(self.violation(Oracle::Misdelivered, Some(number), now, "a packet that nobody sent"));
        };
        self.figures.taken += 1;
        let record = &mut self.records[index];
        record.arrivals += 1;
        let record = *record;
        if record.to_server != at_server || record.flow != packet.words.flow {
            let what = format!("a packet of flow {} comes back to whom it is from", record.flow);
            return Err(self.violation(Oracle::Misdelivered, Some(number), now, what));
        }
        if record.arrivals > record.copies {
            let what = format!(
                "a packet of flow {} arrives {} times, and there are {} of it",
                record.flow, record.arrivals, record.copies
            );
            return Err(self.violation(Oracle::Duplicate, Some(number), now, what));
        }
        Ok(record)
    }

    /// A client takes a packet.
    pub fn at_client(&mut self, packet: &Packet, flow: &Flow, now: Instant) -> Result<(), Violation> {
        let record = self.arrives(packet, false, now)?;
        if packet.key != flow.plan.key.reversed() {
            let what = format!("the client of {:?} gets {:?}", flow.plan.key, packet.key);
            return Err(self.violation(Oracle::Rewrite, Some(record.number), now, what));
        }
        self.ttl(packet, &record, flow.plan.method == Method::Nat, now)
    }

    /// Whoever forwards a packet counts its time to live down, once.
    fn ttl(&self, packet: &Packet, record: &Record, forwarded: bool, now: Instant) -> Result<(), Violation> {
        let hop = u8::from(forwarded);
        // Before or behind the node.
        let flipped =
            (TTL ^ (packet.ttl + hop)).is_power_of_two() || ((TTL - hop) ^ packet.ttl).is_power_of_two();
        if packet.ttl == TTL - hop || record.damaged && !packet.key.is_v4() && flipped {
            return Ok(());
        }
        let what = format!("it was sent with a time to live of {TTL} and arrives with {}", packet.ttl);
        Err(self.violation(Oracle::Rewrite, Some(record.number), now, what))
    }

    /// A server takes a packet.
    pub fn at_server(
        &mut self,
        Came { from, server: index, arrival }: Came,
        packet: &Packet,
        flow: &Flow,
        now: Instant,
    ) -> Result<(), Violation> {
        let record = self.arrives(packet, true, now)?;
        self.ttl(packet, &record, true, now)?;
        let nat = flow.plan.method == Method::Nat;
        let rewritten =
            if nat { self.source_is_right(index, packet, flow) } else { packet.key == flow.plan.key };
        if arrival != flow.plan.method.arrival() || !rewritten {
            let what = format!(
                "flow {}, {:?} by {}, comes to server {index} as {:?}, {arrival:?}; its bucket is {:#05x}",
                record.flow,
                flow.plan.key,
                flow.plan.method.forward(),
                packet.key,
                self.watches[record.flow as usize].bucket,
            );
            return Err(self.violation(Oracle::Rewrite, Some(record.number), now, what));
        }
        if flow.plan.serving.local() {
            return self.same_server_everywhere(from, index, &record, now);
        }
        self.keeps_server(index, &record, now)?;
        if nat { self.keeps_mapping(index, packet, &record, flow, now) } else { Ok(()) }
    }

    fn source_is_right(&self, index: usize, packet: &Packet, flow: &Flow) -> bool {
        let (key, v6) = (packet.key, !flow.plan.key.is_v4());
        let bucket = self.watches[packet.words.flow as usize].bucket;
        key.dst == server(v6, index)
            && key.dst_port == SERVER_PORT
            && key.protocol == flow.plan.key.protocol
            && (0..NODES).any(|node| key.src == snat(v6, node))
            && key.src_port >= 4096
            && snat_bucket(key.src_port).0 == bucket
    }

    /// Without state the real server hangs on nothing but the weights in the file of the node that sent the packet on.
    fn same_server_everywhere(
        &mut self,
        from: Option<usize>,
        index: usize,
        record: &Record,
        now: Instant,
    ) -> Result<(), Violation> {
        let outsider = self.watches[record.flow as usize].group != GroupId(0) && from == Some(self.outsider);
        let Some(from) = from.filter(|_| !outsider) else {
            let what =
                format!("flow {} comes to server {index} from a node that doesn't serve it", record.flow);
            return Err(self.violation(Oracle::Local, Some(record.number), now, what));
        };
        // What its last life has sent may be late.
        if self.reweighted[from] && record.sent < self.since[from] {
            return Ok(());
        }
        let file = usize::from(self.reweighted[from]);
        let before = *self.watches[record.flow as usize].local_servers[file].get_or_insert(index);
        if before == index {
            return Ok(());
        }
        let what = format!(
            "flow {}, served without state, comes to server {index} from n{}, and came to server {before}",
            record.flow,
            from + 1
        );
        Err(self.violation(Oracle::Server, Some(record.number), now, what))
    }

    fn keeps_server(&mut self, index: usize, record: &Record, now: Instant) -> Result<(), Violation> {
        let watch = &mut self.watches[record.flow as usize];
        let life = watch.life;
        match watch.server {
            None => watch.server = Some((index, record.owner_life)),
            Some((same, _)) if same == index => {}
            Some((_, before)) if self.reweighted[watch.owner] && before != life => {
                watch.server = Some((index, life));
            }
            Some(_) if watch.disputed && self.reweighted.contains(&true) => {}
            Some((_, before)) if watch.moved() && self.reweighted.contains(&true) => {
                watch.server = Some((index, before));
            }
            // What its owner's last life has sent may be late.
            Some(_) if self.reweighted[watch.owner] && record.owner_life != life => {}
            Some((before, _)) => {
                let what = format!("flow {} goes from server {before} to server {index}", record.flow);
                return Err(self.violation(Oracle::Server, Some(record.number), now, what));
            }
        }
        Ok(())
    }

    fn keeps_mapping(
        &mut self,
        index: usize,
        packet: &Packet,
        record: &Record,
        flow: &Flow,
        now: Instant,
    ) -> Result<(), Violation> {
        let source = (packet.key.src, packet.key.src_port);
        // A flipped bit can close a TCP connection, for a node.
        let closable = !flow.udp() && self.watches[record.flow as usize].damaged;
        let established = flow.established(packet.words.connection) && !closable;
        let lifetime = if established { ESTABLISHED } else { HALF_OPEN };
        let slack = self.slack;
        let doubted = self.doubted.is_some_and(|at| now - at < lifetime + slack);
        let watch = &mut self.watches[record.flow as usize];
        if watch.disputed {
            return Ok(());
        }
        let life = watch.life;
        let watch_moved = watch.moved();
        let (connection, youngest) = (packet.words.connection, flow.connection());
        // Where its bucket was handed over, the next connection is the new owner's; what is late of the last one goes along.
        let next = |mapping: &Mapping| {
            watch_moved && youngest > mapping.connection && flow.closed(mapping.connection)
        };
        match &mut watch.mapping {
            Some(mapping) if mapping.source == source => {
                (mapping.last, mapping.connection) = (now, mapping.connection.max(connection));
            }
            Some(_) if watch.earlier.iter().any(|(old, end)| *old == source && record.sent <= *end) => {
                return Ok(());
            }
            Some(mapping) if next(mapping) => {
                watch.earlier.push((mapping.source, now));
                *mapping = Mapping { source, connection: youngest, life, last: now };
            }
            Some(mapping) if watch_moved && doubted => {
                watch.earlier.push((mapping.source, now));
                *mapping = Mapping { source, connection, life, last: now };
            }
            Some(mapping) if mapping.life != life || now - mapping.last + slack >= lifetime => {
                watch.earlier.push((mapping.source, now));
                *mapping = Mapping { source, connection, life, last: now };
            }
            Some(mapping) => {
                let what = format!(
                    "flow {}, whose owner lives, had the source [{}]:{} {:?} ago and has [{}]:{} now",
                    record.flow,
                    mapping.source.0,
                    mapping.source.1,
                    now - mapping.last,
                    source.0,
                    source.1
                );
                return Err(self.violation(Oracle::Mapping, Some(record.number), now, what));
            }
            None => {
                watch.mapping = Some(Mapping { source, connection, life: record.owner_life, last: now });
            }
        }
        let port = (index, packet.key.protocol, source.0, source.1);
        let Some(other) = self.ports.insert(port, record.flow).filter(|other| *other != record.flow) else {
            return Ok(());
        };
        // The flow that had the port before must be one that no longer has it.
        let other_watch = &self.watches[other as usize];
        let still = other_watch.mapping.is_some_and(|m| {
            m.source == source && m.life == other_watch.life && now - m.last + slack < HALF_OPEN
        });
        if still && !other_watch.disputed {
            let what = format!("flows {other} and {} share [{}]:{}", record.flow, source.0, source.1);
            return Err(self.violation(Oracle::Mapping, Some(record.number), now, what));
        }
        Ok(())
    }
}
