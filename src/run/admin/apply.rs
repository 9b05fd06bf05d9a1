//! `steerage apply`: the cluster becomes what a file says.

use super::write::{wanted, write};
use super::{Admin, How, Terminal};
use crate::cluster::namespace::{Entry, Key, Namespace, Object};
use crate::manage::config;
use crate::run::client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn apply(file: &Path, yes: bool, how: &How, terminal: &mut dyn Terminal) -> Result<(), String> {
    let objects = config::objects(file).map_err(|errors| errors.to_string())?;
    let here = here(&Admin::of(&how.which)?)?;
    let changes: Vec<Value> = here.diff(&objects).iter().map(wanted).collect::<Result<_, _>>()?;
    if changes.is_empty() {
        terminal.say(&format!("the cluster is what {} says\n", file.display()));
        return Ok(());
    }
    write(&changes, how, terminal, |terminal| {
        if yes {
            return Ok(());
        }
        match terminal.agreed("Apply?") {
            Some(true) => Ok(()),
            Some(false) => Err("nothing was changed".to_owned()),
            None => Err("nothing was changed: nobody is there to be asked; say --yes".to_owned()),
        }
    })
}

/// The namespace as the node tells it, page by page. What is changed meanwhile has other versions than the write will expect.
fn here(admin: &Admin) -> Result<Namespace, String> {
    let mut entries = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let query =
            after.as_deref().map(|key| format!("?after={}", client::escaped(key))).unwrap_or_default();
        let mut page = admin.get(&format!("/v1/objects{query}"))?.value;
        let objects = page["objects"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for item in objects {
            let (key, entry) = entry(item)?;
            entries.insert(key, entry);
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(Namespace::of_entries(entries)),
        }
    }
}

fn entry(mut item: Value) -> Result<(Key, Entry), String> {
    let text = item["key"].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| item[name].as_u64().ok_or(format!("{text}: the node's answer has no {name}"));
    let (version, revision) = (number("version")?, number("revision")?);
    let id = number("id")? as u32;
    let key: Key = text.parse().map_err(|why| format!("the node's answer: {why}"))?;
    let object = Object::read(key.kind(), item["object"].take())
        .map_err(|why| format!("{key}: the node's answer: {why}"))?;
    Ok((key, Entry { object, version, revision, id }))
}
