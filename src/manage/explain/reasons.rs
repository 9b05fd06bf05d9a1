//! The words of an explanation.

use super::answer::{By, Dropped, NextHop};
use crate::base::{Addr, FlowKey, WorkerId};
use crate::path::meta::Meta;
use crate::path::steer;
use crate::path::verdict::Verdict;
use crate::table::session::State;
use crate::view::{Forward, Owned, Owner, View};
use crate::wire::backplane::Stage;

pub(super) const LOCAL: &str = "the virtual server's ingress is local: the node and worker that receive a packet handle it, without a session";
pub(super) const SESSION_HAS_IT: &str =
    "the flow's session has it: its choice stays, whatever the Maglev table says now";
pub(super) const MAGLEV: &str =
    "the Maglev table has it in the slot that the tuple's hash, finalised for slots, names";
pub(super) const MAGLEV_OF_CLIENT: &str = "its client has none: the Maglev table has it in the slot that the client's hash, finalised for slots, names";
pub(super) const KEPT: &str = "its client has it since an earlier connection";
pub(super) const NAT_SESSION: &str = "the session's SNAT address and port";
pub(super) const NAT_REPLY: &str = "the way back of the session's NAT: from the virtual server to the client";
pub(super) const NAT_NEW: &str = "the owner takes a free port of the flow's bucket (its low 12 bits), so that replies find the owner; \
     on one of its own SNAT addresses while it has a free one";
pub(super) const NEEDS_SYN: &str =
    "without a session only a SYN is taken: any other packet of the connection is dropped as `no_session`";

impl By {
    /// Which worker's word explains most: the lowest.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::Session => 0,
            Self::SteeringSession => 1,
            Self::Tuple => 2,
        }
    }
}

pub(super) fn receiver(named: bool, live: bool) -> String {
    let why = match (named, live) {
        (true, _) => "as asked",
        (false, true) => "the node that was asked",
        (false, false) => "the node whose file was read",
    };
    why.to_owned()
}

pub(super) fn void(worker: WorkerId) -> String {
    format!(
        "worker {worker} has a steering session towards a node that is down or has begun another life since: it is void, \
         and the next packet is hashed"
    )
}

pub(super) fn reply_bucket(key: &FlowKey) -> String {
    format!("the low 12 bits of the SNAT port {}: that of the flow which this is the reply to", key.dst_port)
}

/// By what the bucket goes where clients keep their real servers.
pub(super) fn client(client: &FlowKey) -> String {
    format!("the hash of the client, {}, and the virtual server", client.src)
}

/// Why `owner` has the packet.
pub(super) fn owner(view: &View, meta: &Meta, owner: Owner, by: By) -> String {
    let node = &view.nodes[owner.node.index()];
    let place = steer::destination(view, meta).ok().map(|destination| destination.place(view, meta));
    let placed = place.map(|(group, bucket)| {
        let name = &view.services.groups[group.index()].name;
        let owned = view.owner(group, bucket);
        (owned, format!("group \"{name}\" places bucket {bucket} at"))
    });
    match (by, placed) {
        (By::Session, Some((Some(placed), text))) if placed != owner => format!(
            "it has the flow's session; {text} {}, worker {}",
            view.nodes[placed.node.index()].name,
            placed.worker
        ),
        (By::Session, _) => "it has the flow's session, as it owns its bucket".to_owned(),
        (By::SteeringSession, Some((Some(placed), text))) if placed != owner => format!(
            "the receiver's steering session says so; {text} {}, worker {}",
            view.nodes[placed.node.index()].name,
            placed.worker
        ),
        (By::SteeringSession, _) => "the receiver's steering session says so, as the bucket does".to_owned(),
        (By::Tuple, Some((None, text))) => {
            format!("{text} no node now; {} may have the flow since before", node.name)
        }
        (By::Tuple, Some((Some(_), text))) => {
            format!("{text} {}; the bucket modulo its {} workers is the worker", node.name, node.workers)
        }
        (By::Tuple, None) => String::new(),
    }
}

pub(super) fn down(node: &str) -> String {
    format!("{node} is not heard and counts as down: nobody takes its flows over")
}

pub(super) fn ask_owner(node: &str) -> String {
    format!(
        "what follows is what {node} decides for a fresh flow, as all nodes decide alike; whether it has a session of this \
         one only it knows: ask there"
    )
}

/// Why a node is asked for the flow at this stage.
pub(super) fn may_have(from: &str, asked: &str, stage: Stage) -> String {
    let why = match stage {
        Stage::FirstOwner | Stage::SecondOwner => {
            "owns the bucket in one of the groups between which the virtual server moves"
        }
        Stage::FirstPrevious | Stage::SecondPrevious => "owned the bucket before in one of those groups",
        _ => "owned the bucket before",
    };
    format!(
        "{asked} {why} and may still have sessions: {from}, unless it has the flow's, sends the packet there; without a session \
         it comes back to the bucket's owner in the end, which takes it"
    )
}

/// Why a packet goes on from a node that was taken for the owner.
pub(super) fn given_back(from: &str, owner: &str) -> String {
    format!(
        "the bucket is no longer {from}'s: without a session there the packet goes on to {owner}, which takes it"
    )
}

pub(super) fn ask_holder(node: &str) -> String {
    format!("what follows is for a flow that {node} does not know either: ask there")
}

pub(super) fn reply_elsewhere(node: &str, other: bool) -> String {
    if other {
        format!("{node} rewrites it as its session says, and drops it as `no_session` without one: ask there")
    } else {
        format!(
            "{node}, if it runs, rewrites it as its session says, and drops it as `no_session` without one"
        )
    }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::HalfOpen => "half open",
        State::Answered => "answered",
        State::Established => "established",
        State::ClientClosing => "closing by the client",
        State::ServerClosing => "closing by the server",
        State::Closed => "closed",
        State::Reset => "reset",
        State::Elsewhere => "another node's",
    }
}

pub(super) fn next_connection(nat: bool) -> String {
    let what = if nat {
        "the connection is over; a SYN from the same port keeps its real server and SNAT port"
    } else {
        "the connection is over; a SYN from the same port is balanced anew"
    };
    what.to_owned()
}

pub(super) fn method(forward: Forward) -> &'static str {
    match forward {
        Forward::Nat => "the virtual server forwards by NAT",
        Forward::DsrL2 => {
            "the virtual server forwards by dsr-l2: the real server's Ethernet address, all else stays"
        }
        Forward::Ipip => "the virtual server forwards by ipip: the packet goes into another one",
        Forward::Gue => {
            "the virtual server forwards by gue: the packet goes into UDP, whose source port is made of the tuple's hash"
        }
    }
}

pub(super) fn hop_to(address: Addr, hop: Addr) -> String {
    if address == hop {
        format!("{address} is on link")
    } else {
        format!("a route leads to {address} through it")
    }
}

pub(super) fn unresolved(hop: &NextHop) -> String {
    format!(
        "{} has not told its Ethernet address: packets wait a second for it, then are dropped",
        hop.address
    )
}

/// Why a packet goes no further.
pub(super) fn dropped(verdict: Verdict, view: &View, key: &FlowKey) -> Dropped {
    let owned = |address| view.services.owned.get(&address);
    let why = match verdict {
        Verdict::BadAddress if owned(key.src).is_some() => {
            format!("the source {} is an address of the cluster's own: somebody else claims it", key.src)
        }
        Verdict::BadAddress => {
            format!("no packet from {} to {} is taken: such addresses can't be", key.src, key.dst)
        }
        Verdict::NoVirtualServer => {
            let what = match owned(key.dst) {
                Some(Owned::Interface) => "is an address of this node's own",
                _ => "is a virtual server's address",
            };
            let ports: Vec<String> = view
                .services
                .virtual_servers
                .iter()
                .filter(|v| v.address == key.dst)
                .map(|v| format!("{} {}", super::protocol_name(v.protocol.number()), v.port))
                .collect();
            let there = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
            let protocol = super::protocol_name(key.protocol);
            format!(
                "{} {what}, but no virtual server has {protocol} port {}; there: {there}",
                key.dst, key.dst_port
            )
        }
        Verdict::NotOurAddress => {
            format!("{} is no virtual server's, no SNAT address, and not this node's", key.dst)
        }
        Verdict::BackplaneOnFront => format!("{} is taken on the backplane only", key.dst),
        Verdict::NoOwner => {
            "no node of the virtual server's group has weight, or the one that owned the bucket is gone and the next one has yet to wait for the end of its lease".to_owned()
        }
        Verdict::NoRealServer => "no real server of the virtual server has weight".to_owned(),
        Verdict::SnatExhausted => "the group has no SNAT address of the real server's family".to_owned(),
        Verdict::NoSession => format!(
            "{}:{} is a SNAT address and port, but no session has it for {}:{}",
            key.dst, key.dst_port, key.src, key.src_port
        ),
        Verdict::NoRoute => "no interface or route leads there".to_owned(),
        Verdict::StageExhausted => {
            "it was steered here already, and is another node's by all that this one knows".to_owned()
        }
        other => format!("the counter `{}` says", other.name()),
    };
    Dropped { reason: verdict.name(), why }
}
