//! `steerage node` and `steerage group`.

use super::objects::object;
use super::write::write;
use super::{Admin, How, Node, Terminal};
use crate::cluster::namespace::{Key, Name};
use crate::run::client::Request;
use serde_json::{Value, json};

pub(super) fn node(command: Node, terminal: &mut dyn Terminal) -> Result<(), String> {
    match command {
        Node::Add { name, backplane, workers, weight, management, how } => {
            let object = json!({
                "backplane": backplane, "workers": workers, "weight": weight, "management": management,
            });
            let key = Key::Node(named(&name)?);
            write(&[json!({ "key": key, "expected": 0, "object": object })], &how, terminal, |_| Ok(()))
        }
        Node::Drain { name, which } => drain(&Admin::of(&which)?, &name, "drain", terminal),
        Node::Undrain { name, which } => drain(&Admin::of(&which)?, &name, "undrain", terminal),
        Node::Remove { name, force, how } => {
            let key = Key::Node(named(&name)?);
            if !force {
                may_go(&Admin::of(&how.which)?.get("/v1/cluster")?.value, &name)?;
            }
            write(&[json!({ "key": key, "delete": true })], &how, terminal, |_| Ok(()))
        }
    }
}

fn named(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| why.to_string())
}

fn drain(admin: &Admin, name: &str, verb: &str, terminal: &mut dyn Terminal) -> Result<(), String> {
    // What is no name must not become another path.
    let name = named(name)?;
    let target = format!("/v1/nodes/{name}/{verb}");
    let said = admin.ask(&Request { method: "POST", target: &target, ..Request::default() })?.good()?;
    let phase = said.value["phase"].as_str().unwrap_or("?");
    terminal.say(&format!("node/{name} is {phase}\n"));
    Ok(())
}

/// Whether a node can be removed without harm, by the cluster's status.
pub(super) fn may_go(status: &Value, name: &str) -> Result<(), String> {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let node = nodes.iter().find(|node| node["name"] == name);
    let node = node.ok_or(format!("node/{name}: does not exist"))?;
    let count = |key: &str| -> u64 {
        node[key].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
    };
    match (node["phase"].as_str().unwrap_or_default(), count("buckets"), count("leaving")) {
        ("offline" | "absent", ..) => Ok(()),
        ("draining", 0, 0) => Ok(()),
        ("draining", 0, leaving) => Err(format!(
            "node/{name}: it still has sessions of {leaving} buckets that it gave away: wait until they end, or remove it with \
             --force, which breaks them"
        )),
        ("draining", owned, _) => {
            Err(format!("node/{name}: it still owns {owned} buckets: wait, or see `steerage status`"))
        }
        (phase, ..) => Err(format!(
            "node/{name}: it is {phase}: drain it first (`steerage node drain {name}`), or remove it with --force, which \
             breaks connections through it"
        )),
    }
}

pub(super) fn migrate(
    server: &str,
    group: &str,
    how: &How,
    terminal: &mut dyn Terminal,
) -> Result<(), String> {
    let key = Key::VirtualServer(named(server)?);
    let said = object(&Admin::of(&how.which)?, &key)?.ok_or(format!("{key}: does not exist"))?;
    let mut fields = said.value["object"].clone();
    fields["group"] = Value::from(group);
    let change = json!({ "key": key, "expected": said.value["version"], "object": fields });
    write(&[change], how, terminal, |_| Ok(()))
}
