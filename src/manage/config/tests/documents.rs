//! The examples and the reference hold every key there is.

use super::super::schema::{CLUSTER, Key, Kind, NODE, PROFILE, find};
use super::*;
use crate::cluster::namespace::{HealthSpec, Probe, health};

const NODE_EXAMPLE: &str = include_str!("../../../../config/node.example.toml");
const CLUSTER_EXAMPLE: &str = include_str!("../../../../config/cluster.example.toml");
const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// The examples as files.
pub(super) fn examples(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("node.example.toml") => Ok(NODE_EXAMPLE.to_owned()),
        Some("cluster.example.toml") => Ok(CLUSTER_EXAMPLE.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Every key with the header of its table, `[x]`, `[[x]]` or, at the top level, nothing.
fn keys(keys: &'static [Key], path: &str, header: &str, out: &mut Vec<(String, &'static str)>) {
    for key in keys {
        let below = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        match key.kind {
            Kind::Value => out.push((header.to_owned(), key.name)),
            Kind::Table(inner) => self::keys(inner, &below, &format!("[{below}]"), out),
            Kind::Array(inner) => self::keys(inner, &below, &format!("[[{below}]]"), out),
        }
    }
}

fn all(file: &'static [Key]) -> Vec<(String, &'static str)> {
    let mut out = Vec::new();
    keys(file, "", "", &mut out);
    assert!(out.len() > 10);
    out
}

/// Whether a line under `header`, commented out or not, sets `key`.
fn sets(example: &str, header: &str, key: &str) -> bool {
    let mut under = "";
    example.lines().any(|line| {
        let line = line.trim();
        if line.starts_with('[') {
            under = line;
        }
        let setting = line.strip_prefix("# ").unwrap_or(line);
        under == header && setting.split_once(" = ").is_some_and(|(name, _)| name == key)
    })
}

#[test]
fn the_examples_load() {
    let config = load_from(&examples, Path::new("node.example.toml"), Some(&CORES));
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.workers.count, 4);
    assert_eq!(config.virtual_servers.len(), 3);
}

#[test]
fn the_examples_hold_every_key() {
    for (example, file) in [(NODE_EXAMPLE, NODE), (CLUSTER_EXAMPLE, CLUSTER)] {
        for (header, key) in all(file) {
            assert!(sets(example, &header, key), "{key} under {header:?}");
        }
    }
    assert!(!sets(NODE_EXAMPLE, "[workers]", "sessions"), "the search tells tables apart");
}

/// What is commented out is really the default: with all of it set, the configuration is the same.
#[test]
fn comments_tell_the_defaults() {
    let set = |text: String| {
        let uncomment = |line: &str| {
            let setting = line.strip_prefix("# ").filter(|s| {
                s.split_once(" = ")
                    .is_some_and(|(k, _)| k.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            });
            // The two that can't stand beside what is set.
            let setting = setting.filter(|s| !s.starts_with("key_file") && !s.starts_with("vlan"));
            format!("{}\n", setting.unwrap_or(line))
        };
        text.lines().map(uncomment).collect::<String>()
    };
    let plain = load_from(&examples, Path::new("node.example.toml"), Some(&CORES)).unwrap();
    let spelled = load_from(&|path| examples(path).map(set), Path::new("node.example.toml"), Some(&CORES));
    // What the log would begin with differs in what was left out; what follows from it is compared.
    let [spelled, plain] = [spelled.unwrap_or_else(|errors| panic!("{errors}")), plain]
        .map(|config| Config { log: None, ..config });
    assert_eq!(spelled, plain);
}

/// The built-in profiles set everything that a profile is for, but for what depends on the machine.
#[test]
fn the_profiles_are_complete() {
    for name in ["throughput", "latency", "lab"] {
        let path = format!("{}/config/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        for (header, key) in all(PROFILE) {
            let machine = matches!(key, "count" | "cores" | "management_core" | "queues");
            assert!(machine || sets(&text, &header, key), "{name}: {key} under {header}");
        }
        let config = load_from(
            &|path| {
                examples(path).map(|text| {
                    text.replace("\"throughput\"", &format!("{name:?}")).replace("[1, 2, 3, 4]", "[]")
                })
            },
            Path::new("node.example.toml"),
            Some(&CORES),
        );
        // Four workers need more buffers than a laboratory's.
        match config {
            Ok(config) => {
                assert_eq!(config.workers.idle, if name == "lab" { Idle::Adaptive } else { Idle::Spin })
            }
            Err(errors) => panic!("{name}: {errors}"),
        }
    }
}

/// What a health check can say is in no schema of the file: the object's own type knows.
#[test]
fn the_reference_names_every_key_of_a_health_check() {
    let spec = serde_json::to_value(HealthSpec::new(Probe::Tcp)).unwrap();
    let section = REFERENCE.split_once("\n### Health checks\n").unwrap().1;
    for key in spec.as_object().unwrap().keys() {
        assert!(section.contains(&format!("\n| `{key}` |")), "{key}");
    }
    for text in [
        format!("\n| `interval` | all | `\"{}s\"` |", health::DEFAULT_INTERVAL.as_secs()),
        format!("\n| `timeout` | all | `\"{}s\"` |", health::DEFAULT_TIMEOUT.as_secs()),
        format!("\n| `rise` | all | {} |", health::DEFAULT_RISE),
        format!("\n| `fall` | all | {} |", health::DEFAULT_FALL),
    ] {
        assert!(section.contains(&text), "{text}");
    }
}

#[test]
fn the_reference_names_every_key() {
    for file in [NODE, CLUSTER] {
        for (header, key) in all(file) {
            let file = if find(file, "cluster").is_some_and(|k| matches!(k.kind, Kind::Value)) {
                "node"
            } else {
                "cluster"
            };
            // Both files have a table called `node`, so a heading names its file.
            let heading = if header.is_empty() {
                format!("### The {file} file's top level")
            } else {
                format!("### `{header}` in the {file} file")
            };
            let section =
                REFERENCE.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("{heading}")).1;
            let section = section.split("\n### ").next().unwrap();
            assert!(section.contains(&format!("\n| `{key}` |")), "{key} under {heading}");
        }
    }
}
