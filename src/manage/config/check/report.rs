//! From what the namespace's rules find to errors with file and line.

use super::super::cluster_file::{ClusterFile, Placed};
use super::super::error::{Place, Problem, Sink};
use super::super::node_file::NodeFile;
use super::fit::Misfit;
use crate::cluster::namespace::{Fault, Finding, Key, Kind, Lack};
use std::collections::BTreeSet;

/// What is said of a cluster file's objects.
pub struct Report<'a> {
    sink: &'a Sink,
    file: &'a ClusterFile,
    /// Kinds of which an object could not be read.
    broken: BTreeSet<Kind>,
    /// Virtual servers of which a real server could not be read.
    short: BTreeSet<Key>,
}

impl<'a> Report<'a> {
    pub fn new(sink: &'a Sink, file: &'a ClusterFile) -> Self {
        let unread = file.objects.iter().filter(|placed| placed.object.is_none()).map(|placed| &placed.key);
        let (mut broken, mut short) = (file.unsure.clone(), BTreeSet::new());
        for key in unread {
            broken.insert(key.kind());
            if let Key::RealServer(server, _) = key {
                short.insert(Key::VirtualServer(server.clone()));
            }
        }
        Self { sink, file, broken, short }
    }

    /// Reports a finding, unless it rests on something that was merely not understood.
    pub fn finding(&self, finding: &Finding) {
        let unread = match &finding.lacks {
            None => false,
            // One that was read and still isn't there was refused for standing twice.
            Some(Lack::Object(key)) => {
                self.file.unsure.contains(&key.kind()) || self.file.find(key).is_some()
            }
            Some(Lack::Kind(kind)) => self.broken.contains(kind),
            Some(Lack::RealServer(server)) => {
                self.file.unsure.contains(&Kind::RealServer) || self.short.contains(server)
            }
        };
        if !unread {
            self.fault(&finding.fault, finding.element.as_deref(), None, None);
        }
    }

    /// Reports what doesn't fit the node whose file `node` is.
    pub fn misfit(&self, misfit: &Misfit, node: &NodeFile) {
        let interface = misfit.interface.and_then(|(interface, address)| {
            Some(node.interfaces.as_ref()?.get(interface)?.addresses.as_ref()?.get(address)?.place)
        });
        let stands = misfit.stands.as_ref().and_then(|key| Some(self.file.find(key)?.place("address")));
        self.fault(&misfit.fault, None, stands, interface);
    }

    /// `stands` is where the fault is, `owner` where what it collides with, as far as the fault itself doesn't know.
    fn fault(&self, fault: &Fault, element: Option<&str>, stands: Option<Place>, owner: Option<Place>) {
        let Some(placed) = self.file.find(&fault.key) else { return };
        let (path, place) = match &fault.field {
            None => (placed.item.path.clone(), placed.item.place),
            Some(field) => (shown(placed, field), at(placed, field, element)),
        };
        let mut message = fault.message.clone();
        let other = fault.other.as_ref().and_then(|other| Some((other, self.file.find(&other.key)?)));
        if let Some((other, placed)) = other {
            let place = self.sink.show(placed.place(&other.field));
            message += &if other.first { format!(", first at {place}") } else { format!(" ({place})") };
        } else if let Some(owner) = owner {
            message += &format!(" ({})", self.sink.show(owner));
        }
        let problem = Problem { message, hint: fault.hint.clone() };
        self.sink.error(stands.unwrap_or(place), path, problem);
    }
}

/// A field as messages name it.
fn shown(placed: &Placed, field: &str) -> String {
    let path = &placed.item.path;
    match placed.key {
        Key::Cluster => format!("{path}.{field}"),
        _ => format!("{path}: {field}"),
    }
}

/// Where a field stands, or the element of it that is meant.
fn at(placed: &Placed, field: &str, element: Option<&str>) -> Place {
    let element = element.map(|element| format!("{field} {element}"));
    element.and_then(|element| placed.own_place(&element)).unwrap_or_else(|| placed.place(field))
}
