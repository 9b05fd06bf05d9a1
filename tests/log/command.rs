//! `steerage cluster` and `steerage witness` from outside.

use crate::cluster::Folder;
use std::process::{Command, Output};

fn steerage(folder: &Folder, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steerage")).current_dir(&folder.0).args(args).output().unwrap()
}

fn fails(folder: &Folder, args: &[&str], code: i32, why: &str) {
    let output = steerage(folder, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(why), "{args:?}: {said}");
}

#[test]
fn a_cluster_is_made_once_and_extended() {
    let folder = Folder::new("command");
    let output = steerage(&folder, &["cluster", "init", "pki", "--node", "n1", "n2", "--node", "w1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let expected =
        ["ca.crt", "ca.key", "cluster.key", "n1.crt", "n1.key", "n2.crt", "n2.key", "w1.crt", "w1.key"];
    assert_eq!(made, expected.map(|file| format!("pki/{file}")));
    assert!(made.iter().all(|file| folder.0.join(file).exists()));
    fails(&folder, &["cluster", "init", "pki", "--node", "n3"], 1, "pki/ca.crt exists; nothing was written");
    assert!(steerage(&folder, &["cluster", "certificate", "pki", "n3"]).status.success());
    fails(&folder, &["cluster", "certificate", "pki", "n3"], 1, "pki/n3.crt exists");
    fails(&folder, &["cluster", "certificate", "nowhere", "n3"], 1, "nowhere/ca.key");
    fails(&folder, &["cluster", "init", "other"], 2, "--node");
}

#[test]
fn a_witness_says_what_is_wrong() {
    let folder = Folder::new("command-witness");
    fails(&folder, &["witness", "nowhere.toml"], 1, "nowhere.toml");
    let text = "id = 1000\nname = \"w1\"\nlisten = \"127.0.0.1:0\"\ndata = \"data\"\nca = \"ca.crt\"\n\
                certificate = \"w1.crt\"\nkey = \"w1.key\"\n";
    std::fs::write(folder.0.join("w.toml"), text).unwrap();
    fails(&folder, &["witness", "w.toml"], 1, "ca.crt");
}
