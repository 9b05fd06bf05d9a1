//! Worlds without a planted fault.

use steerage::sim::{self, Outcome};

fn fine(seed: u64) -> Outcome {
    let outcome = sim::run(seed, None);
    assert!(outcome.violation.is_none(), "{outcome}");
    outcome
}

#[test]
fn a_seed_repeats_itself_frame_by_frame_and_no_other_does() {
    let mut digests = Vec::new();
    for seed in 1..=12 {
        let (first, second) = (fine(seed), fine(seed));
        assert_eq!((first.digest, first.figures), (second.digest, second.figures), "seed {seed}");
        assert_eq!(first.to_string(), second.to_string());
        digests.push(first.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 12);
}

#[test]
fn a_seed_is_the_same_in_another_thread_beside_others() {
    let alone = fine(3).digest;
    let beside: Vec<_> = (0..4).map(|_| std::thread::spawn(|| (fine(5).digest, fine(3).digest).1)).collect();
    for thread in beside {
        assert_eq!(thread.join().unwrap(), alone);
    }
}

/// What makes the oracles worth anything: there are worlds of every kind, and much happens in them.
#[test]
fn worlds_differ_and_are_busy() {
    let all: Vec<Outcome> = (1..=60).map(fine).collect();
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    for kind in [
        "a calm world",
        "of 1 workers",
        "1 front queues",
        "IPv4 backplane",
        "IPv6 backplane",
        "packet by packet",
        "by flow",
        "starts its life 2\n",
        "with three workers",
        "other weights of the nodes",
        "other weights of the servers",
        "of 10000 turns begin",
        "buckets move from",
    ] {
        let count = texts.iter().filter(|text| text.contains(kind)).count();
        assert!((2..=58).contains(&count), "{count} of 60 worlds are of the kind \"{kind}\"");
    }
    let sum = |of: fn(&sim::Figures) -> u64| all.iter().map(|o| of(&o.figures)).sum::<u64>();
    assert!(sum(|f| f.sent) > 60 * 1000, "{} packets", sum(|f| f.sent));
    assert!(sum(|f| f.taken) > sum(|f| f.sent) * 3 / 4);
    assert!(sum(|f| f.backplane) > sum(|f| f.sent) / 4);
    assert!(sum(|f| f.lost) > 1000 && sum(|f| f.doubled) > 1000 && sum(|f| f.damaged) > 200);
    assert!(sum(|f| f.refused) > 50);
    for outcome in all.iter().zip(&texts).filter(|(_, text)| text.contains("calm")).map(|(o, _)| o) {
        let figures = outcome.figures;
        assert_eq!((figures.sent, figures.lost + figures.doubled + figures.damaged), (figures.taken, 0));
    }
}
