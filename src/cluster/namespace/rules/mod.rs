//! What must hold, whoever asks for a change and wherever it is written down. A change is checked by what it touches; so
//! what it doesn't touch must have been right before.

mod addresses;
mod cluster;
mod fields;
mod servers;

use super::fault::{Finding, Lack};
use super::former;
use super::key::{ALL, Key, Kind};
use super::text::{Reason, nearest};
use super::{Entry, Namespace};
use std::collections::{BTreeMap, BTreeSet};

pub use fields::{MAX_SLOTS, WEIGHTS, WORKERS};
pub use servers::family;

/// What a change has touched, and what was there before.
pub(super) type Touched<'a> = BTreeMap<&'a Key, Option<&'a Entry>>;

/// Names that a hint lists.
const LISTED: usize = 8;

/// All that is wrong with the namespace because of a change, by key.
pub(super) fn check(space: &Namespace, touched: &Touched<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for key in touched.keys() {
        match space.get(key) {
            Some(entry) => {
                fields::check(key, &entry.object, &mut found);
                resolve(space, key, entry, &mut found);
            }
            None => in_use(space, touched, key, &mut found),
        }
    }
    addresses::check(space, touched, &mut found);
    cluster::check(space, touched, &mut found);
    servers::check(space, touched, &mut found);
    former::check(space, touched, &mut found);
    found.sort_by(|a, b| a.fault.key.cmp(&b.fault.key));
    found
}

/// What an object names has to exist.
fn resolve(space: &Namespace, key: &Key, entry: &Entry, found: &mut Vec<Finding>) {
    if let Key::RealServer(server, _) = key
        && space.virtual_server(server).is_none()
    {
        let parent = Key::VirtualServer(server.clone());
        found.push(
            Finding::because(key, "virtual_server", missing(space, &parent)).lacking(Lack::Object(parent)),
        );
    }
    for (field, target) in entry.object.references(key) {
        if space.get(&target).is_none() {
            let finding = Finding::because(key, field, missing(space, &target)).element(&target.called());
            found.push(finding.lacking(Lack::Object(target)));
        }
    }
}

/// That there is no such object, and perhaps which one was meant.
fn missing(space: &Namespace, target: &Key) -> Reason {
    let (kind, called) = (target.kind(), target.called());
    let reason = Reason::new(format!("there is no {} {called:?}", kind.word()));
    let mut names: Vec<String> = space.of(kind).map(|(key, _)| key.called()).collect();
    if kind == Kind::Group {
        names.insert(0, ALL.to_owned());
    }
    match nearest(names.iter().map(String::as_str), &called) {
        Some(near) => reason.hint(format!("did you mean {near:?}?")),
        None if names.is_empty() => reason,
        None => {
            let listed: Vec<String> = names.iter().take(LISTED).map(|name| format!("{name:?}")).collect();
            let rest = if names.len() > LISTED { ", …" } else { "" };
            reason.hint(format!("there is {}{rest}", listed.join(", ")))
        }
    }
}

/// What is still named can't be removed. One that names it and is touched by the change says so itself.
fn in_use(space: &Namespace, touched: &Touched<'_>, key: &Key, found: &mut Vec<Finding>) {
    let mut users: BTreeSet<&Key> =
        space.index.referrers(key).filter(|user| !touched.contains_key(user)).take(LISTED + 1).collect();
    if let Key::VirtualServer(server) = key {
        let below = space.entries.range(Key::first_real_server(server)..).map(|(below, _)| below);
        let below = below.take_while(|below| matches!(below, Key::RealServer(of, _) if of == server));
        users.extend(below.filter(|below| !touched.contains_key(below)).take(LISTED + 1));
    }
    if users.is_empty() {
        return;
    }
    let rest = if users.len() > LISTED { ", …" } else { "" };
    let listed: Vec<String> = users.into_iter().take(LISTED).map(Key::to_string).collect();
    let hint = "change or remove those with it";
    found.push(Finding::new(key, format!("is in use by {}{rest}", listed.join(", "))).hint(hint));
}
