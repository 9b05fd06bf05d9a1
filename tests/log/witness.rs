//! Two nodes and a witness, which is the program itself.

use crate::cluster::Cluster;
use crate::replica::run_if_child;
use std::fmt::Write;

const WITNESS: u16 = 1000;

fn file(cluster: &Cluster) -> std::path::PathBuf {
    let mut text = format!(
        "id = {WITNESS}\nname = \"n{WITNESS}\"\nlisten = \"{}\"\ndata = \"witness\"\nca = \"certificates/ca.crt\"\n\
         certificate = \"certificates/n{WITNESS}.crt\"\nkey = \"certificates/n{WITNESS}.key\"\n",
        cluster.listens(WITNESS)
    );
    for id in [0, 1, WITNESS] {
        let address = cluster.replica(id, true).address;
        write!(text, "[[voters]]\nid = {id}\nname = \"n{id}\"\naddress = \"{address}\"\n").unwrap();
    }
    let path = cluster.folder.0.join("witness.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn two_nodes_and_a_witness_outlive_any_one() {
    run_if_child();
    let all = [0, 1, WITNESS];
    let mut cluster = Cluster::new("witness::two_nodes_and_a_witness_outlive_any_one", &all, &all);
    let file = file(&cluster);
    for id in 0..2 {
        cluster.start(id);
    }
    cluster.start_witness(WITNESS, &file);
    cluster.settle(&[0, 1]).unwrap();
    for gone in [0, 1] {
        let left = 1 - gone;
        cluster.kill(gone);
        cluster.settle(&[left]).unwrap();
        cluster.start(gone);
        cluster.settle(&[0, 1]).unwrap();
    }
    // Without the witness the two are still a majority.
    let status = cluster.processes.remove(&WITNESS).unwrap().terminate();
    assert!(status.success(), "{status}");
    cluster.settle(&[0, 1]).unwrap();
    // One node alone is none; with the witness it is one again.
    cluster.kill(1);
    cluster.wait("no quorum", |record| !record.known[&0].quorum).unwrap();
    cluster.start_witness(WITNESS, &file);
    cluster.settle(&[0]).unwrap();
}

#[test]
fn a_witness_leads_until_a_node_has_what_it_has() {
    run_if_child();
    let all = [0, 1, WITNESS];
    let mut cluster = Cluster::new("witness::a_witness_leads_until_a_node_has_what_it_has", &all, &all);
    let file = file(&cluster);
    for id in 0..2 {
        cluster.start(id);
    }
    cluster.start_witness(WITNESS, &file);
    cluster.settle(&[0, 1]).unwrap();
    // Node 0 and the witness commit what node 1 hasn't; then node 0 dies.
    cluster.kill(1);
    for _ in 0..5 {
        cluster.commit(0).unwrap();
    }
    cluster.kill(0);
    cluster.start(1);
    cluster.settle(&[1]).unwrap();
    cluster.wait("a node that leads", |record| record.known[&1].leader == Some(1)).unwrap();
    cluster.start(0);
    cluster.settle(&[0, 1]).unwrap();
}
