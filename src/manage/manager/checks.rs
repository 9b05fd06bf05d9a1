//! Health checks as a node that decides with others makes them: it probes its share of the real servers, tells the leader what it
//! finds, and weighs what all have found when it leads.

use super::Manager;
use crate::base::{GroupId, Incarnation, Instant, NodeId, NodeSet, RealServerId};
use crate::cluster::namespace::{Namespace, Probe};
use crate::cluster::state::Entry;
use crate::manage::health::{Attempt, Judge, Outcome, PROBERS, Prober, Report, Target, Watch, probers};
use crate::manage::peer::News;
use crate::wire::control::Letter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reports that a turn sends, and changes that it proposes.
const SLICE: usize = 64;

/// Makes probes. No call waits.
pub trait Probing: Send {
    /// Has one probe made; false if too many are waiting.
    fn begin(&mut self, attempt: Attempt, target: &Target) -> bool;

    /// What the next probe that has ended came to.
    fn answer(&mut self) -> Option<(Attempt, Outcome)>;
}

/// A real server that is checked.
struct Checked {
    target: Target,
    group: GroupId,
    watch: Watch,
}

/// See the module's text.
pub(super) struct Checks {
    probing: Box<dyn Probing>,
    prober: Prober,
    judge: Option<Judge>,
    /// What the below follow from: version in force.
    version: u64,
    checked: BTreeMap<RealServerId, Checked>,
    letters: u64,
    /// The leader, in its life, to whom reports go; none: it isn't known, or is this node.
    to: Option<(NodeId, Incarnation)>,
    /// What the assignment follows from: digest of the namespace, and who serves; none: it is to be made anew.
    assigned: Option<(u64, NodeSet)>,
}

impl Checks {
    pub(super) fn new(probing: Box<dyn Probing>, seed: u64) -> Self {
        Self {
            probing,
            prober: Prober::new(seed),
            judge: None,
            version: 0,
            checked: BTreeMap::new(),
            letters: 0,
            to: None,
            assigned: None,
        }
    }
}

impl Manager {
    /// From now on this node takes part in health checks.
    pub fn probe_by(&mut self, probing: Box<dyn Probing>) {
        self.checks = Some(Checks::new(probing, u64::from(self.config.me.0)));
    }

    /// A turn of the checks.
    pub(super) fn check(&mut self, now: Instant) {
        let Some(mut checks) = self.checks.take() else { return };
        self.check_by(&mut checks, now);
        self.checks = Some(checks);
    }

    fn check_by(&mut self, checks: &mut Checks, now: Instant) {
        let Some(council) = self.council() else { return };
        let (leads, leader) = (council.leads(), council.leader().and_then(|replica| replica.node()));
        let version = council.state().in_force();
        let fresh = checks.version != version;
        if leads != checks.judge.is_some() {
            checks.judge = leads.then(Judge::new);
            // What the last leader was told, this one wasn't.
            checks.prober.report_all();
            checks.assigned = None;
        }
        let others = leader.filter(|node| *node != self.config.me);
        let to = others.map(|node| (node, self.peers.get(node).incarnation));
        let to = to.filter(|(_, life)| *life != Incarnation(0));
        if checks.to != to {
            checks.to = to;
            checks.prober.report_all();
        }
        if fresh || checks.assigned.is_none() {
            checks.version = version;
            self.assign(checks, now);
        }
        let wire = self.wire();
        let Checks { probing, prober, .. } = checks;
        while let Some((attempt, outcome)) = probing.answer() {
            prober.outcome(now, attempt, outcome);
        }
        prober.turn(now, |attempt, target| probing.begin(attempt, target));
        for report in prober.reports(now, SLICE) {
            match &mut checks.judge {
                Some(judge) => judge.hear(now, self.config.me, report),
                None => {
                    // It will be told again when it is known.
                    let Some(receiver) = to else { continue };
                    checks.letters += 1;
                    let address =
                        self.config.cluster.nodes.get(receiver.0.index()).and_then(|node| node.management);
                    let content = report.encode().unwrap_or_default();
                    if let (Some(address), Some(courier)) = (address, &mut self.courier) {
                        let letter = Letter {
                            wire,
                            sender: self.config.me,
                            incarnation: self.incarnation,
                            receiver,
                            counter: checks.letters,
                            content: content.into_iter().collect(),
                        };
                        let mut bytes = [0; crate::wire::control::MAX_LEN];
                        let len = letter.write(&mut bytes, self.config.cluster.auth_key);
                        courier.send(address, &bytes[..len]);
                    }
                }
            }
        }
        let changes = checks.judge.as_mut().map(|judge| judge.turn(now, SLICE)).unwrap_or_default();
        if !changes.is_empty() {
            self.want(Entry::Health(changes), now);
        }
    }

    /// A peer has begun another life.
    pub(super) fn forget_votes(&mut self, node: NodeId) {
        if let Some(judge) = self.checks.as_mut().and_then(|checks| checks.judge.as_mut()) {
            judge.forget(node);
        }
    }

    /// Takes a letter of a peer: what it has found.
    pub(super) fn read(&mut self, letter: &Letter, now: Instant) {
        match self.peers.read(letter, self.incarnation) {
            Ok(()) => {}
            Err(News::Replay) => return self.refuse_replay(letter.sender, now),
            Err(_) => return,
        }
        let judge = self.checks.as_mut().and_then(|checks| checks.judge.as_mut());
        if let (Some(judge), Ok(report)) = (judge, Report::decode(&letter.content)) {
            judge.hear(now, letter.sender, report);
        }
    }

    /// Who checks what, by the version in force.
    fn assign(&self, checks: &mut Checks, now: Instant) {
        let Some(council) = self.council() else { return };
        let (state, me) = (council.state(), self.config.me);
        let follows = (state.namespace().digest(), state.fleet().serving());
        if checks.assigned == Some(follows) {
            // All that is new is how real servers are.
            for (server, standing) in state.standings().iter() {
                if let Some(judge) = &mut checks.judge {
                    judge.committed(now, server, standing.health);
                }
            }
            return;
        }
        checks.assigned = Some(follows);
        let checked = checked(state.namespace());
        let gone = checks.checked.keys().filter(|server| !checked.contains_key(server));
        for server in gone {
            checks.prober.remove(*server);
            if let Some(judge) = &mut checks.judge {
                judge.remove(*server);
            }
        }
        checks.checked = checked;
        for (server, Checked { target, group, watch }) in &checks.checked {
            let candidates: NodeSet =
                state.fleet().shares(*group).into_iter().map(|share| share.node).collect();
            let probers = probers(*server, candidates, PROBERS);
            if probers.contains(me) {
                checks.prober.put(now, target.clone());
            } else {
                checks.prober.remove(*server);
            }
            if let Some(judge) = &mut checks.judge {
                judge.put(now, *server, *watch, probers, state.standings().health(*server));
            }
        }
    }
}

/// The real servers that the namespace wants checked, those among them that no version in force has yet.
fn checked(space: &Namespace) -> BTreeMap<RealServerId, Checked> {
    let mut all = BTreeMap::new();
    for (of, name, server) in space.virtual_servers() {
        let Some(group) = space.group_id(&server.group) else { continue };
        for (id, _, real) in space.real_servers(name) {
            let Some(spec) = space.health_of(server, real).filter(|spec| spec.probe != Probe::None) else {
                continue;
            };
            let watch = Watch::new(of, spec, space.slow_start_of(server));
            let port = real.port.unwrap_or(server.port);
            let target = Target { server: id, address: real.address, port, spec: Arc::new(spec.clone()) };
            all.insert(id, Checked { target, group, watch });
        }
    }
    all
}
