//! Holds the documents against the program: what a node can say of itself is explained to those who read it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use steerage::path::counters::Counters;
use steerage::path::verdict::Verdict;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents for users, by their paths.
fn documents() -> BTreeMap<PathBuf, String> {
    let entries = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let found: BTreeMap<_, _> = pages
        .chain([root().join("README.md")])
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(found.len() > 2, "docs/ is empty");
    found
}

/// The names in the first column of the tables of `text`, as code.
fn first_cells(text: &str) -> Vec<&str> {
    let rows =
        text.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|row| row.split(" | ").next());
    rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The names that stand in no first column of any table of `documents`.
fn unexplained<'a>(
    names: impl Iterator<Item = &'a str>,
    documents: &BTreeMap<PathBuf, String>,
) -> Vec<&'a str> {
    let explained: Vec<&str> = documents.values().flat_map(|text| first_cells(text)).collect();
    names.filter(|name| !explained.contains(name)).collect()
}

#[test]
fn every_reason_for_a_drop_is_explained_once() {
    let all = documents();
    let missing = unexplained(Verdict::ALL.iter().map(|v| v.name()), &all);
    assert!(missing.is_empty(), "no row of a table in docs/ explains {missing:?}");
    let deploying = &all[&root().join("docs/deploying.md")];
    let rows = first_cells(deploying);
    for verdict in Verdict::ALL {
        let count = rows.iter().filter(|name| **name == verdict.name()).count();
        assert_eq!(count, 1, "docs/deploying.md has {count} rows for `{}`", verdict.name());
    }
}

#[test]
fn the_table_of_drops_has_no_reason_that_is_gone() {
    let all = documents();
    let (_, section) = all[&root().join("docs/deploying.md")].split_once("## Dropped packets").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let known: Vec<&str> = Verdict::ALL.iter().map(|v| v.name()).collect();
    let gone: Vec<&str> = first_cells(section).into_iter().filter(|name| !known.contains(name)).collect();
    assert!(gone.is_empty(), "docs/deploying.md explains {gone:?}, which no packet is dropped for");
}

#[test]
fn every_counter_is_explained() {
    let counters = Counters::new(0);
    let missing = unexplained(counters.each().map(|(name, _)| name), &documents());
    assert!(missing.is_empty(), "no row of a table in docs/ explains {missing:?}");
}

#[test]
fn every_link_between_files_leads_somewhere() {
    for (path, text) in documents() {
        for target in links(&text).into_iter().filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: nothing is at {target}", path.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                assert!(anchors(&text).any(|a| a == heading), "{}: no heading is {target}", path.display());
            }
        }
    }
}

#[test]
fn the_summary_that_is_shown_has_the_parts_that_the_tests_have() {
    let script = fs::read_to_string(root().join("scripts/test")).unwrap();
    let called = |line: &str| {
        let rest =
            ["check", "tests"].iter().find_map(|kind| line.trim().strip_prefix(kind)?.strip_prefix(" \""))?;
        rest.split_once('"').map(|(name, _)| name.to_owned())
    };
    let mut parts: Vec<String> = script.lines().filter_map(called).collect();
    let readme = &documents()[&root().join("README.md")];
    let rows =
        readme.lines().filter(|line| line.ends_with(" s")).filter_map(|line| line.split_once(" passed "));
    let mut shown: Vec<String> = rows
        .map(|(row, _)| row.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end().to_owned())
        .collect();
    parts.sort();
    shown.sort();
    assert!(parts.len() > 10 && parts == shown, "scripts/test has {parts:?}, README.md shows {shown:?}");
}

#[test]
fn the_files_of_the_quick_start_are_right() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let folder = std::env::temp_dir().join(format!("steerage-docs-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    for name in ["node.toml", "cluster.toml"] {
        let (_, behind) = readme.split_once(&format!("\n`{name}`")).unwrap();
        let (_, block) = behind.split_once("```toml\n").unwrap();
        fs::write(folder.join(name), block.split("```").next().unwrap()).unwrap();
    }
    let loaded = steerage::manage::config::load(&folder.join("node.toml"));
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(loaded.unwrap().virtual_servers.len(), 1);
}

/// Targets of the links of `text`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// The names by which the headings of `text` can be linked to.
fn anchors(text: &str) -> impl Iterator<Item = String> + '_ {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|h| h.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    })
}

#[test]
fn the_checks_can_fail() {
    let page = "| reason | meaning |\n|---|---|\n| `a`, `b` | not `c` |\nand `d`\n| e | |\n";
    assert_eq!(first_cells(page), ["a", "b"]);
    let pages = BTreeMap::from([(PathBuf::from("x.md"), page.to_owned())]);
    assert_eq!(unexplained(["a", "b", "c", "d", "e", "ab"].into_iter(), &pages), ["c", "d", "e", "ab"]);
    assert_eq!(links("see [x](a.md), [y](#z)."), ["a.md", "#z"]);
    assert_eq!(anchors("# A, b\ntext\n## C-d `e`\n").collect::<Vec<_>>(), ["a-b", "c-d-e"]);
}
