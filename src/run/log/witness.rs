//! `steerage witness`: a process that votes and stores the log, for clusters of two nodes. It serves nobody.

use crate::cluster::log::{Log, Output, Replica, ReplicaId};
use crate::run::log::{Config, Running, StartError, Timing, tls};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks at what the log has to tell.
const STEP: Duration = Duration::from_millis(50);
/// Writes between two snapshots.
const SNAPSHOT_EVERY: usize = 4096;

/// Why a witness did not run, or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its file.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// Its log.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals.
    #[error("the process can't be set up: {0}")]
    System(#[from] std::io::Error),
    /// The log has failed.
    #[error("the log has stopped: {0}")]
    Failed(String),
}

/// A voter of a new cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Voter {
    id: u16,
    name: String,
    address: String,
}

/// The witness's file. Paths are relative to where it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: u16,
    name: String,
    listen: SocketAddr,
    data: PathBuf,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    voters: Vec<Voter>,
    heartbeat_ms: Option<u64>,
    election_ms: Option<[u64; 2]>,
}

/// Reads a witness's file.
fn load(path: &Path) -> Result<Config, WitnessError> {
    let wrong = |why: String| WitnessError::File(path.to_owned(), why);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let id = ReplicaId(file.id);
    if id.node().is_some() {
        return Err(wrong(format!("`id` is a node's; a witness's is at least {}", ReplicaId::FIRST_WITNESS)));
    }
    let lab = Timing::LAB;
    let [min, max] =
        file.election_ms.map_or([lab.election_min, lab.election_max], |ms| ms.map(Duration::from_millis));
    let timing = Timing {
        heartbeat: file.heartbeat_ms.map_or(lab.heartbeat, Duration::from_millis),
        election_min: min,
        election_max: max,
    };
    if !(timing.heartbeat < min && min < max && !timing.heartbeat.is_zero()) {
        return Err(wrong("`heartbeat_ms` must be below both of `election_ms`, which must rise".to_owned()));
    }
    let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name);
    let voter = |voter: Voter| Replica {
        id: ReplicaId(voter.id),
        name: voter.name,
        address: voter.address,
        votes: true,
    };
    let first: Vec<Replica> = file.voters.into_iter().map(voter).collect();
    if !first.is_empty() && !first.iter().any(|r| r.id == id && r.name == file.name) {
        return Err(wrong(format!("the witness itself, {id} {:?}, is not among `voters`", file.name)));
    }
    Ok(Config {
        id,
        name: file.name,
        listen: file.listen,
        data: beside(&file.data),
        tls: tls::Files {
            ca: beside(&file.ca),
            certificate: beside(&file.certificate),
            key: beside(&file.key),
        },
        first,
        timing,
        snapshot_every: SNAPSHOT_EVERY,
    })
}

/// Runs the witness of the file at `path` until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// [`WitnessError`].
pub fn run(path: &Path) -> Result<(), WitnessError> {
    let config = load(path)?;
    let asked = crate::run::signals()?;
    let (name, listen) = (config.name.clone(), config.listen);
    let mut log = Running::start(config)?;
    tracing::info!(%name, %listen, "witness started");
    while !asked.load(Ordering::Relaxed) {
        match log.take() {
            Some(Output::Role { leader, term, quorum }) => {
                let leader = leader.map_or("none".to_owned(), |id| id.to_string());
                tracing::info!(%leader, term, quorum, "role");
            }
            Some(Output::Failed(why)) => return Err(WitnessError::Failed(why)),
            // The rest is for those who have a state machine.
            Some(_) => {}
            None => std::thread::sleep(STEP),
        }
    }
    tracing::info!("witness stopping");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "id = 1000\nname = \"w\"\nlisten = \"127.0.0.1:0\"\ndata = \"d\"\nca = \"ca.crt\"\n\
        certificate = \"w.crt\"\nkey = \"/k/w.key\"\n";

    fn read(name: &str, text: &str) -> Result<Config, String> {
        let path = std::env::temp_dir().join(format!("steerage-witness-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let read = load(&path).map_err(|error| error.to_string());
        std::fs::remove_file(&path).unwrap();
        read
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = read("paths", GOOD).unwrap();
        assert_eq!(config.data, std::env::temp_dir().join("d"));
        assert_eq!(config.tls.key, Path::new("/k/w.key"));
        assert_eq!(config.timing, Timing::LAB);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |name: &str, more: &str| read(name, &format!("{GOOD}{more}")).unwrap_err();
        assert!(read("id", &GOOD.replace("1000", "3")).unwrap_err().contains("at least 1000"));
        assert!(with("unknown", "colour = 1").contains("colour"));
        assert!(with("timing", "election_ms = [400, 200]").contains("must rise"));
        let voters = "[[voters]]\nid = 0\nname = \"n0\"\naddress = \"h:1\"\n";
        assert!(with("voters", voters).contains("not among `voters`"));
    }
}
