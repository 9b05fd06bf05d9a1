//! From files to a checked configuration.

use super::error::{Place, Problem, Sink};
use super::schema;
use super::section::{Doc, Section, Source};
use super::{Config, Errors, check, cluster_file, node_file, value};
use crate::cluster::namespace::text::nearest;
use crate::cluster::namespace::{Key, Object};
use std::io;
use std::path::{Path, PathBuf};

/// The profiles that need no file.
const PROFILES: [(&str, &str); 3] = [
    ("throughput", include_str!("../../../config/profiles/throughput.toml")),
    ("latency", include_str!("../../../config/profiles/latency.toml")),
    ("lab", include_str!("../../../config/profiles/lab.toml")),
];

/// Reads and checks the node file at `path` and what it names, against the cores that this process may run on.
pub fn load(path: &Path) -> Result<Config, Errors> {
    let cores: Option<Vec<usize>> =
        core_affinity::get_core_ids().map(|ids| ids.into_iter().map(|core| core.id).collect());
    load_from(&|path| std::fs::read_to_string(path), path, cores.as_deref())
}

/// [`load`] with a reader of one's own. `cores` are those that this machine offers; `None`: not known, and not checked.
pub fn load_from(
    reader: &dyn Fn(&Path) -> io::Result<String>,
    path: &Path,
    cores: Option<&[usize]>,
) -> Result<Config, Errors> {
    let sink = Sink::default();
    let config = load_into(&sink, reader, path, cores);
    match config {
        Some(config) if sink.is_empty() => Ok(config),
        _ => {
            assert!(!sink.is_empty(), "a configuration was refused without a reason");
            Err(sink.into_errors())
        }
    }
}

fn load_into(
    sink: &Sink,
    reader: &dyn Fn(&Path) -> io::Result<String>,
    path: &Path,
    cores: Option<&[usize]>,
) -> Option<Config> {
    let node_text = match reader(path) {
        Ok(text) => text,
        Err(error) => {
            let place = Place { file: sink.file(path), line: 0 };
            sink.error(place, "", Problem::new(format!("can't be read: {error}")));
            return None;
        }
    };
    let beside = |name: String| path.parent().unwrap_or(Path::new("")).join(PathBuf::from(name));
    let node_source = Source::new(path, node_text, sink);
    let node_doc = Doc::new(&node_source, schema::NODE, sink);
    let node_only = Section::root(sink, schema::NODE, &[&node_doc]);

    // What the profile leaves out has the values of the first built-in one.
    let base_source = Source::new(Path::new("profile throughput"), PROFILES[0].1.to_owned(), sink);
    let base = Doc::new(&base_source, schema::PROFILE, sink);
    let profile = node_only.optional("profile", |v| {
        let name = value::text(v)?;
        match PROFILES.iter().find(|(builtin, _)| *builtin == name) {
            Some((builtin, text)) => Ok((PathBuf::from(format!("profile {builtin}")), (*text).to_owned())),
            None => {
                let file = beside(name.clone());
                match reader(&file) {
                    Ok(text) => Ok((file, text)),
                    Err(error) => Err(no_profile(&name, &file, &error)),
                }
            }
        }
    });
    let profile_source =
        profile.flatten().map(|at| at.value).map(|(file, text)| Source::new(&file, text, sink));
    let profile_doc = profile_source.as_ref().map(|source| Doc::new(source, schema::PROFILE, sink));

    let cluster = node_only.required("cluster", |v| {
        let file = beside(value::text(v)?);
        match reader(&file) {
            Ok(text) => Ok((file, text)),
            Err(error) => Err(Problem::new(format!("can't read {}: {error}", file.display()))),
        }
    });
    let (cluster_path, cluster_source) = match cluster {
        Some(at) => {
            let (file, text) = at.value;
            let source = Source::new(&file, text, sink);
            (Some(file), Some(source))
        }
        None => (None, None),
    };
    let cluster_doc = cluster_source.as_ref().map(|source| Doc::new(source, schema::CLUSTER, sink));

    let layers: Vec<&Doc<'_>> =
        std::iter::once(&node_doc).chain(&profile_doc).chain(std::iter::once(&base)).collect();
    let node = node_file::read(&Section::root(sink, schema::NODE, &layers));
    let (cluster_path, cluster_doc) = (cluster_path.as_ref()?, cluster_doc.as_ref()?);
    let root = Section::root(sink, schema::CLUSTER, &[cluster_doc]);
    let secret = cluster_file::read_secret(&root, cluster_path, reader);
    let cluster = cluster_file::read(&root);
    // A reference into a file that was only half understood may well be right.
    if layers.iter().any(|doc| doc.broken) || cluster_doc.broken {
        return None;
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    check::check(sink, node, &cluster, secret, (node_doc.top(), directory), cores)
}

/// Reads and checks the cluster file at `path` alone, for what it makes of the cluster's namespace: its objects, in its order.
/// The secret isn't among them, and need not be readable.
pub fn objects(path: &Path) -> Result<Vec<(Key, Object)>, Errors> {
    objects_from(&|path| std::fs::read_to_string(path), path)
}

/// [`objects`] with a reader of one's own.
pub fn objects_from(
    reader: &dyn Fn(&Path) -> io::Result<String>,
    path: &Path,
) -> Result<Vec<(Key, Object)>, Errors> {
    let sink = Sink::default();
    let mut objects = Vec::new();
    match reader(path) {
        Ok(text) => {
            let source = Source::new(path, text, &sink);
            let doc = Doc::new(&source, schema::CLUSTER, &sink);
            let file = cluster_file::read(&Section::root(&sink, schema::CLUSTER, &[&doc]));
            if !doc.broken {
                check::space(&sink, &file);
            }
            objects.extend(file.objects.into_iter().filter_map(|placed| Some((placed.key, placed.object?))));
        }
        Err(error) => {
            let place = Place { file: sink.file(path), line: 0 };
            sink.error(place, "", Problem::new(format!("can't be read: {error}")));
        }
    }
    if sink.is_empty() { Ok(objects) } else { Err(sink.into_errors()) }
}

fn no_profile(name: &str, file: &Path, error: &io::Error) -> Problem {
    let builtin = PROFILES.map(|(name, _)| format!("{name:?}")).join(", ");
    let problem =
        Problem::new(format!("{name:?} is none of {builtin}, and can't read {}: {error}", file.display()));
    match nearest(PROFILES.iter().map(|(name, _)| *name), name) {
        Some(near) => problem.hint(format!("did you mean {near:?}?")),
        None => problem,
    }
}
