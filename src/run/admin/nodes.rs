//! `steerage node` and `steerage group`.

use super::objects::object;
use super::write::{Post, forced, write};
use super::{Admin, How, Node, Terminal};
use crate::cluster::namespace::{Key, Name};
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
        Node::Drain { name, how } => drain(&name, "drain", &how, terminal),
        Node::Undrain { name, how } => drain(&name, "undrain", &how, terminal),
        Node::Remove { name, force, how } => {
            let key = Key::Node(named(&name)?);
            let change = json!({ "key": key, "delete": true });
            if force {
                return forced(&[change], &how, terminal);
            }
            write(&[change], &how, terminal, |_| Ok(()))
        }
    }
}

fn named(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|why| why.to_string())
}

fn drain(name: &str, verb: &str, how: &How, terminal: &mut dyn Terminal) -> Result<(), String> {
    // What is no name must not become another path.
    let name = named(name)?;
    let post = Post { target: format!("/v1/nodes/{name}/{verb}"), force: false, body: String::new() };
    let done = |said: &Value| {
        let phase = said["phase"].as_str().unwrap_or("?");
        let stays = if said["drained"] == true && phase != "draining" { ", and drained" } else { "" };
        format!("node/{name} is {phase}{stays}\n")
    };
    post.make(how, terminal, |_| Ok(()), done)
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
