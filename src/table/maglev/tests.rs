use super::*;
use crate::base::hash::mix;
use proptest::prelude::*;

const KEY: HashKey = HashKey([3, 5]);

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(i, &weight)| Member { id: RealServerId(i as u32), name_hash: mix(i as u64 + 1), weight };
    weights.iter().enumerate().map(member).collect()
}

fn counts(maglev: &Maglev, servers: usize) -> Vec<usize> {
    let mut counts = vec![0; servers];
    for id in maglev.iter() {
        counts[id.index()] += 1;
    }
    counts
}

/// The paper's algorithm, word for word, with the weights as turns: permutations written out, rounds counted one by one.
fn reference(key: HashKey, members: &[Member], slots: usize) -> Vec<RealServerId> {
    let mut members: Vec<Member> = members.iter().copied().filter(|m| m.weight > 0).collect();
    members.sort_by_key(|m| (m.name_hash, m.id));
    let max = u64::from(members.iter().map(|m| m.weight).max().unwrap());
    let permutation = |m: &Member| -> Vec<usize> {
        let offset = reduce(siphash13(key, [m.name_hash, 0]), slots as u64) as usize;
        let skip = reduce(siphash13(key, [m.name_hash, 1]), slots as u64 - 1) as usize + 1;
        (0..slots).map(|j| (offset + j * skip) % slots).collect()
    };
    let permutations: Vec<_> = members.iter().map(permutation).collect();
    let mut next = vec![0; members.len()];
    let mut turns = vec![0u64; members.len()];
    // (The round in which the server had its last turn, its place in that round): the order of arrival.
    let mut order: Vec<(u64, usize)> = (0..members.len()).map(|i| (0, i)).collect();
    let mut table = vec![None; slots];
    let mut left = slots;
    for round in 0.. {
        let mut now: Vec<usize> =
            (0..members.len()).filter(|&i| turns[i] * max / u64::from(members[i].weight) == round).collect();
        now.sort_by_key(|&i| (u64::from(members[i].weight) != max, order[i]));
        for (place, i) in now.into_iter().enumerate() {
            while table[permutations[i][next[i]]].is_some() {
                next[i] += 1;
            }
            table[permutations[i][next[i]]] = Some(members[i].id);
            turns[i] += 1;
            order[i] = (round, place);
            left -= 1;
            if left == 0 {
                return table.into_iter().flatten().collect();
            }
        }
    }
    unreachable!()
}

proptest! {
    #[test]
    fn agrees_with_the_paper(
        weights in prop::collection::vec(prop_oneof![Just(0u32), 1..6u32, 1..1000u32, Just(u32::MAX)], 1..30),
        slots in prop::sample::select(vec![3usize, 7, 101, 251, 1009]),
        key in any::<[u64; 2]>(),
    ) {
        prop_assume!(weights.iter().any(|&w| w > 0));
        let members = members(&weights);
        let maglev = Maglev::build(HashKey(key), &members, slots);
        prop_assert_eq!(maglev.slots(), slots);
        prop_assert_eq!(maglev.iter().collect::<Vec<_>>(), reference(HashKey(key), &members, slots));
    }

    #[test]
    fn order_does_not_matter(
        weights in prop::collection::vec(0..5u32, 1..40),
        shuffled in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let members = members(&weights);
        let other: Vec<Member> = shuffled.into_iter().filter_map(|i| members.get(i).copied()).collect();
        prop_assert_eq!(Maglev::build(KEY, &members, 1009), Maglev::build(KEY, &other, 1009));
    }

    #[test]
    fn slots_follow_weights(weights in prop::collection::vec(0..101u32, 1..100)) {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        prop_assume!(total > 0);
        const SLOTS: usize = 65_537;
        let counts = counts(&Maglev::build(KEY, &members(&weights), SLOTS), weights.len());
        let max = u64::from(*weights.iter().max().unwrap());
        for (&weight, &count) in weights.iter().zip(&counts) {
            let share = SLOTS as f64 * f64::from(weight) / total as f64;
            // After whole rounds each is within one slot of its share; the last round may be cut short, and the lighter
            // ones are at most one turn ahead each, at the cost of all.
            let slack = 2.0 + weights.len() as f64 * f64::from(weight) / total as f64 * (1.0 + max as f64 / total as f64);
            prop_assert!((count as f64 - share).abs() <= slack, "{count} slots for a share of {share}");
            prop_assert_eq!(count == 0, weight == 0);
        }
    }

    #[test]
    fn lookups_spread_like_slots(bits in any::<u64>()) {
        let maglev = Maglev::build(KEY, &members(&[1; 10]), 1009);
        let slot = ((u128::from(bits) * 1009) >> 64) as usize;
        prop_assert_eq!(maglev.lookup(bits), maglev.iter().nth(slot));
    }
}

#[test]
fn equal_servers_differ_by_one_slot() {
    let counts = counts(&Maglev::build(KEY, &members(&[7; 1000]), 65_537), 1000);
    assert_eq!(counts.iter().max().unwrap() - counts.iter().min().unwrap(), 1);
}

/// Slots that went from one remaining server to another, of those that needn't have.
fn disruption(before: &Maglev, after: &Maglev, gone: RealServerId) -> f64 {
    let moved = before.iter().zip(after.iter()).filter(|&(b, a)| b != gone && b != a).count();
    moved as f64 / before.slots() as f64
}

#[test]
fn a_leaving_server_disturbs_few_others() {
    for (servers, bound) in [(10, 0.02), (100, 0.03), (1000, 0.03)] {
        let all = members(&vec![1; servers]);
        let before = Maglev::build(KEY, &all, 65_537);
        for gone in [0, servers / 2, servers - 1] {
            let mut rest = all.clone();
            rest.remove(gone);
            let after = Maglev::build(KEY, &rest, 65_537);
            let share = disruption(&before, &after, RealServerId(gone as u32));
            assert!(share < bound, "{share:.4} of the slots changed hands without need, {servers} servers");
        }
    }
}

#[test]
fn nobody_is_an_answer() {
    for set in [members(&[]), members(&[0, 0])] {
        let maglev = Maglev::build(KEY, &set, 101);
        assert_eq!(maglev.slots(), 0);
        assert_eq!(maglev.lookup(u64::MAX), None);
    }
}

#[test]
fn primes() {
    let primes: Vec<usize> = (0..30).filter(|&n| is_prime(n)).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    assert!(is_prime(65_537) && is_prime(65_521) && !is_prime(65_521 * 3) && !is_prime(251 * 251));
}

#[test]
#[should_panic(expected = "no fit prime")]
fn a_composite_number_of_slots_is_a_bug() {
    Maglev::build(KEY, &members(&[1]), 65_536);
}

/// All nodes must compute the same table, also those of another version.
#[test]
fn the_algorithm_has_not_changed() {
    let weights: Vec<u32> = (0..50).map(|i| i % 7).collect();
    let maglev = Maglev::build(KEY, &members(&weights), 1009);
    let digest = maglev.iter().fold(0, |digest, id| mix(digest ^ u64::from(id.0)));
    assert_eq!(digest, 0x0f23_6179_710e_db7c, "{digest:#x}");
}
