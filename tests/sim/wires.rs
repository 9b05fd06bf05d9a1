//! Wires do to frames what their rates say, and nothing else.

use std::time::Duration;
use steerage::base::Instant;
use steerage::io::fault::{ALL, Fate, Rates, Wire};

const START: Instant = Instant(1_000_000);
const END: Instant = Instant(u64::MAX);
const MS: Duration = Duration::from_millis(1);

/// IPv4 frame number `i`.
fn frame(i: u32) -> Vec<u8> {
    let mut out = vec![0; 60];
    out[12..14].copy_from_slice(&[8, 0]);
    out[14..18].copy_from_slice(&i.to_be_bytes());
    out
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// Sends `n` frames, one a microsecond, and gives what became of them and when what arrived.
fn run(seed: u64, rates: Rates, n: u32) -> (Vec<Fate>, Vec<(Instant, Vec<u8>)>) {
    let mut wire = Wire::new(seed);
    wire.set(rates);
    let at = |i: u32| START + Duration::from_micros(u64::from(i));
    let fates: Vec<_> = (0..n).map(|i| wire.send(frame(i), at(i))).collect();
    assert_eq!(wire.under_way() as u32, fates.iter().map(|f| f.copies).sum::<u32>());
    let mut arrived = Vec::new();
    let mut now = START;
    while wire.under_way() > 0 {
        arrived.extend(std::iter::from_fn(|| wire.receive(now)).map(|frame| (now, frame)));
        now = now + Duration::from_micros(1);
    }
    (fates, arrived)
}

#[test]
fn without_faults_all_arrive_at_once_in_order() {
    let (fates, arrived) = run(1, Rates::default(), 1000);
    assert!(fates.iter().all(|f| *f == Fate { copies: 1, corrupted: false }));
    for (i, (at, bytes)) in arrived.iter().enumerate() {
        assert_eq!((*at, bytes), (START + Duration::from_micros(i as u64), &frame(i as u32)));
    }
    assert_eq!(arrived.len(), 1000);
}

#[test]
fn a_seed_repeats_itself_and_differs_from_others() {
    let rates =
        Rates { loss: 1000, duplicate: 1000, reorder: 1000, corrupt: 1000, delay: MS, jitter: MS, late: MS };
    assert_eq!(run(7, rates, 500), run(7, rates, 500));
    assert_ne!(run(7, rates, 500), run(8, rates, 500));
}

#[test]
fn rates_are_kept() {
    let about = |n: usize| (800..1200).contains(&n);
    let (fates, arrived) = run(2, Rates { loss: 1000, ..Rates::default() }, 10_000);
    assert!(about(fates.iter().filter(|f| f.copies == 0).count()));
    assert!(about(10_000 - arrived.len()));
    let (fates, arrived) = run(3, Rates { duplicate: 1000, late: MS, ..Rates::default() }, 10_000);
    assert!(about(fates.iter().filter(|f| f.copies == 2).count()));
    assert!(about(arrived.len() - 10_000));
    let (fates, arrived) = run(4, Rates { corrupt: 1000, ..Rates::default() }, 10_000);
    assert!(about(fates.iter().filter(|f| f.corrupted).count()));
    for (i, (fate, (_, bytes))) in fates.iter().zip(&arrived).enumerate() {
        let flipped: u32 = bytes.iter().zip(frame(i as u32)).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, u32::from(fate.corrupted), "one bit");
        assert_eq!(bytes[..14], frame(0)[..14], "not in the Ethernet header");
    }
}

#[test]
fn delay_and_jitter_keep_the_order_and_lateness_does_not() {
    let (_, arrived) = run(5, Rates { delay: 2 * MS, jitter: MS, ..Rates::default() }, 1000);
    for (i, (at, bytes)) in arrived.iter().enumerate() {
        assert_eq!(number(bytes), i as u32);
        let took = *at - (START + Duration::from_micros(i as u64));
        assert!((2 * MS..=3 * MS).contains(&took), "{took:?}");
    }
    let (_, arrived) = run(6, Rates { reorder: 1000, late: MS, ..Rates::default() }, 10_000);
    let overtaken = arrived.windows(2).filter(|w| number(&w[0].1) > number(&w[1].1)).count();
    assert!((800..1200).contains(&overtaken), "{overtaken}");
}

#[test]
fn nothing_comes_before_its_time_or_twice() {
    let mut wire = Wire::new(9);
    wire.set(Rates { delay: MS, ..Rates::default() });
    wire.send(frame(1), START);
    assert_eq!(wire.receive(Instant(START.0 + 999_999)), None);
    assert_eq!(wire.receive(START + MS), Some(frame(1)));
    assert_eq!(wire.receive(END), None);
}

#[test]
fn what_has_no_checksum_is_not_damaged() {
    let mut wire = Wire::new(10);
    wire.set(Rates { corrupt: ALL, ..Rates::default() });
    let mut arp = frame(1);
    arp[12..14].copy_from_slice(&[8, 6]);
    for whole in [arp, vec![0; 14], Vec::new()] {
        assert_eq!(wire.send(whole.clone(), START), Fate { copies: 1, corrupted: false });
        assert_eq!(wire.receive(START), Some(whole));
    }
    assert_eq!(wire.send(frame(1), START), Fate { copies: 1, corrupted: true });
}
