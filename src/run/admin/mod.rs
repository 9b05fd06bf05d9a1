//! The command line for changing a cluster: each command asks one node over its admin socket.

mod apply;
mod nodes;
mod objects;
mod status;
#[cfg(test)]
mod tests;
mod write;

use super::client::{self, Answer, Request};
use crate::cluster::namespace::{Fault, RequestId};
use crate::manage::config;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where nodes have their sockets unless their configuration says otherwise.
const SOCKETS: &str = "/run/steerage";

/// Which node is asked.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The node's admin socket [default: the only one in /run/steerage]
    #[arg(short, long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The node file, which names the socket
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How a change is made.
#[derive(Args, Clone, Debug)]
pub struct How {
    /// Say what would change and move, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The write's id, 32 hexadecimal digits: under the same id it is made once, however often it is asked for
    /// [default: drawn]
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    request: Option<RequestId>,
    #[command(flatten)]
    which: Which,
}

/// The commands.
#[derive(Subcommand)]
#[allow(missing_docs)] // what is flattened says itself what it is
pub enum Command {
    /// Make the cluster what a cluster file says.
    ///
    /// Prints first what is different and what will move. Objects that the file doesn't have are removed; all of it is one
    /// write, made as a whole or not at all. `[cluster]`'s key isn't looked at.
    Apply {
        /// The cluster file
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Don't ask back
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        how: How,
    },
    /// Show what is decided: one object by its key, all of a kind, or all.
    #[command(
        after_help = "Examples:\n  steerage get virtual_server\n  steerage get virtual_server/web/real_server/s1"
    )]
    Get {
        /// A key, such as `node/n1`, or a kind, such as `node`
        #[arg(value_name = "KEY|KIND")]
        what: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Change an object's fields, or make an object.
    ///
    /// A value is JSON if it can be read as such, else text; without a value the field is unset. The fields that aren't named
    /// stay as they are.
    #[command(after_help = "Examples:\n  \
        steerage set virtual_server/web/real_server/s1 weight=0\n  \
        steerage set group/edge 'members=[\"n1\", \"n2\"]'\n  \
        steerage set virtual_server/web health.type=http health.path=/healthy\n  \
        steerage get virtual_server/web --json | … | steerage set virtual_server/web --json -")]
    Set {
        /// The object's key
        key: String,
        /// Fields and their values; a dot between a table and what is in it
        #[arg(value_name = "FIELD=VALUE", required_unless_present = "json", conflicts_with = "json")]
        fields: Vec<String>,
        /// All of the object's fields as JSON, from a file or (`-`) standard input
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// The version that the object must have; 0: there must be none [default: that of the fields that stay]
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Remove an object.
    Delete {
        /// The object's key
        key: String,
        /// The version that the object must have
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Show who changed what, the latest last.
    History {
        /// One object's changes alone
        key: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Add, drain and remove nodes.
    #[command(subcommand)]
    Node(Node),
    /// Move virtual servers between groups.
    #[command(subcommand)]
    Group(Group),
    /// Show how the cluster does: nodes, versions, buckets that move, quorum.
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: Which,
    },
}

/// Commands about nodes.
#[derive(Subcommand)]
#[allow(missing_docs)] // what is flattened says itself what it is
pub enum Node {
    /// Let a node join: it gets its share of buckets once it runs and is ready.
    Add {
        /// Its name, for which its certificate is made out
        name: String,
        /// Its address on the backplane
        #[arg(long, value_name = "ADDRESS")]
        backplane: IpAddr,
        /// Its workers
        #[arg(long, value_name = "NUMBER")]
        workers: u16,
        /// Its share of the buckets, relative to the others'
        #[arg(long, default_value_t = 1)]
        weight: u32,
        /// Where the others reach its log and its heartbeats
        #[arg(long, value_name = "ADDRESS:PORT")]
        management: SocketAddr,
        #[command(flatten)]
        how: How,
    },
    /// Let a node give away all that it owns; connections go on meanwhile.
    Drain {
        /// The node
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Let a node that was drained own buckets again.
    Undrain {
        /// The node
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove a node that is drained and owns nothing, or doesn't serve.
    Remove {
        /// The node
        name: String,
        /// Remove it even if it serves: connections through it break
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
}

/// Commands about groups.
#[derive(Subcommand)]
#[allow(missing_docs)] // what is flattened says itself what it is
pub enum Group {
    /// Let another group serve a virtual server.
    Migrate {
        /// The virtual server's name
        virtual_server: String,
        /// The group's name
        group: String,
        #[command(flatten)]
        how: How,
    },
}

/// The terminal: what is said, and whether a question is answered with yes; none: nobody is there to be asked.
pub trait Terminal {
    /// Prints text.
    fn say(&mut self, text: &str);
    /// Asks.
    fn agreed(&mut self, question: &str) -> Option<bool>;
}

/// Does what a command says.
///
/// # Errors
/// What went wrong, for people: the offending key first.
pub fn run(command: Command, terminal: &mut dyn Terminal) -> Result<(), String> {
    match command {
        Command::Apply { file, yes, how } => apply::apply(&file, yes, &how, terminal),
        Command::Get { what, json, which } => {
            let text = objects::get(&Admin::of(&which)?, what.as_deref(), json)?;
            terminal.say(&text);
            Ok(())
        }
        Command::Set { key, fields, json, expect, how } => {
            objects::set(&key, (&fields, json.as_deref()), expect, &how, terminal)
        }
        Command::Delete { key, expect, how } => objects::delete(&key, expect, &how, terminal),
        Command::History { key, json, which } => {
            let text = objects::history(&Admin::of(&which)?, key.as_deref(), json)?;
            terminal.say(&text);
            Ok(())
        }
        Command::Node(node) => nodes::node(node, terminal),
        Command::Group(Group::Migrate { virtual_server, group, how }) => {
            nodes::migrate(&virtual_server, &group, &how, terminal)
        }
        Command::Status { json, which } => {
            let status = Admin::of(&which)?.get("/v1/cluster")?;
            terminal.say(&if json { status.body + "\n" } else { status::screen(&status.value) });
            Ok(())
        }
    }
}

impl Which {
    /// The socket of the node that is asked.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub fn socket(&self) -> Result<PathBuf, String> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(file)) => Ok(config::load(file).map_err(|errors| errors.to_string())?.admin_socket),
            (None, None) => only_socket(Path::new(SOCKETS)),
        }
    }
}

/// The only socket in `directory`.
fn only_socket(directory: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "sock")).collect();
    sockets.sort();
    match sockets.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!("no node has its socket in {}: name it with --socket or -c", directory.display())),
        several => {
            let several: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
            Err(format!("several nodes run here: choose one with --socket: {}", several.join(", ")))
        }
    }
}

/// A node's admin API.
struct Admin {
    socket: PathBuf,
}

/// What it says.
struct Said {
    status: u16,
    body: String,
    value: Value,
}

impl Admin {
    fn of(which: &Which) -> Result<Self, String> {
        Ok(Self { socket: which.socket()? })
    }

    /// The answer, whatever its status.
    fn ask(&self, request: &Request<'_>) -> Result<Said, String> {
        let Answer { status, body } =
            client::send(&self.socket, request).map_err(|error| error.to_string())?;
        let value = serde_json::from_str(&body)
            .map_err(|error| format!("{}: the answer is no JSON: {error}", self.socket.display()))?;
        Ok(Said { status, body, value })
    }

    /// What there is at `target`.
    fn get(&self, target: &str) -> Result<Said, String> {
        self.ask(&Request { method: "GET", target, ..Request::default() })?.good()
    }
}

impl Said {
    /// An answer that isn't what was asked for is an error.
    fn good(self) -> Result<Self, String> {
        if matches!(self.status, 200 | 201) { Ok(self) } else { Err(self.why()) }
    }

    /// All that is wrong, a line each.
    fn why(&self) -> String {
        let faults: Vec<Fault> = serde_json::from_value(self.value["faults"].clone()).unwrap_or_default();
        let mut lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        match self.value["more"].as_u64() {
            _ if lines.is_empty() => {
                lines.push(self.value["error"].as_str().unwrap_or(&self.body).to_owned())
            }
            Some(more) if more > 0 => lines.push(format!("and {more} more")),
            _ => {}
        }
        if self.status == 504
            && let Some(request) = self.value["request"].as_str()
        {
            lines.push(format!("(the id is {request}: repeat the command with --request {request})"));
        }
        lines.join("\n")
    }
}
