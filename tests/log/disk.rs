//! Disks that are full, and files that are damaged: the one replica says so and stops, the others go on.

use crate::cluster::Cluster;
use crate::replica::run_if_child;
use steerage::run::log::disk::FILE;

#[test]
fn a_full_disk_stops_one_replica_and_not_the_others() {
    run_if_child();
    let mut cluster =
        Cluster::new("disk::a_full_disk_stops_one_replica_and_not_the_others", &[0, 1, 2], &[0, 1, 2]);
    cluster.snapshot_every = 100_000;
    cluster.start(0);
    cluster.start(1);
    cluster.start_on(2, Some(6 << 20));
    cluster.settle(&[0, 1, 2]).unwrap();
    for n in 0.. {
        let tag = cluster.propose(n % 2, 100_000);
        cluster.wait("an outcome", |record| record.ends.contains_key(&tag)).unwrap();
        if cluster.record.known[&2].failed.is_some() {
            break;
        }
        assert!(n < 500, "the disk of 6 MiB is not full: {:?}", cluster.record.known);
    }
    let why = cluster.record.known[&2].failed.clone().unwrap();
    assert!(why.contains("No space left"), "{why}");
    assert!(!cluster.record.known[&2].ended, "the process lives on");
    cluster.settle(&[0, 1]).unwrap();
}

#[test]
fn a_damaged_file_stops_one_replica_and_not_the_others() {
    run_if_child();
    let mut cluster =
        Cluster::new("disk::a_damaged_file_stops_one_replica_and_not_the_others", &[0, 1, 2], &[0, 1, 2]);
    for id in 0..3 {
        cluster.start(id);
    }
    cluster.settle(&[0, 1, 2]).unwrap();
    for _ in 0..5 {
        cluster.commit(2).unwrap();
    }
    cluster.kill(2);
    let file = cluster.data(2).join(FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    // Everywhere: redb leaves old copies behind.
    let places: Vec<usize> = (1..bytes.len()).filter(|at| &bytes[at - 1..=*at] == b"p5").collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place] ^= 1;
    }
    std::fs::write(&file, bytes).unwrap();
    cluster.start(2);
    cluster.wait("a reason", |record| record.known[&2].failed.is_some()).unwrap();
    let why = cluster.record.known[&2].failed.clone().unwrap();
    assert!(why.contains(FILE) && why.contains("damaged"), "{why}");
    cluster.settle(&[0, 1]).unwrap();
}
