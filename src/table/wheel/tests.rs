use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    /// Nanoseconds from now, signed: the past is allowed.
    Schedule(i64),
    /// By number of the timer, living or not.
    Cancel(usize),
    /// Nanoseconds to go, steps allowed.
    Advance(u64, usize),
}

/// Distances from a nanosecond to years, each magnitude as likely.
fn distance() -> impl Strategy<Value = u64> {
    (0..58u32, any::<u64>()).prop_map(|(bits, x)| x & ((1 << bits) - 1))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (distance(), prop::bool::weighted(0.1)).prop_map(|(d, past)| Op::Schedule(if past { -(d as i64) } else { d as i64 })),
        2 => (0..64usize).prop_map(Op::Cancel),
        4 => (distance(), prop_oneof![0..6usize, Just(usize::MAX)]).prop_map(|(d, budget)| Op::Advance(d, budget)),
    ]
}

fn due_tick(at: Instant) -> u64 {
    at.0.div_ceil(1 << TICK_SHIFT)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn behaves_like_an_ordered_map(capacity in 0..20usize, ops in prop::collection::vec(op(), 0..120)) {
        let mut wheel = Wheel::new(capacity);
        // Living timers: number → instant.
        let mut model = BTreeMap::<usize, Instant>::new();
        let mut ids = Vec::new();
        let mut now = Instant::ZERO;
        for op in ops {
            match op {
                Op::Schedule(distance) => {
                    let at = Instant(now.0.saturating_add_signed(distance));
                    match wheel.schedule(at, ids.len()) {
                        Ok(id) => {
                            model.insert(ids.len(), at);
                            ids.push(id);
                        }
                        Err(Full) => prop_assert_eq!(model.len(), capacity),
                    }
                }
                Op::Cancel(number) => {
                    if let Some(&id) = ids.get(number) {
                        prop_assert_eq!(wheel.cancel(id), model.remove(&number).is_some());
                    }
                }
                Op::Advance(distance, budget) => {
                    now = Instant(now.0.saturating_add(distance));
                    let before = wheel.next_due();
                    let mut fired = Vec::new();
                    let done = wheel.advance(now, budget, |number| fired.push(number));
                    prop_assert!(fired.len() <= budget);
                    prop_assert!(fired.is_empty() || before.is_some_and(|due| due <= now));
                    for number in fired {
                        let at = model.remove(&number);
                        prop_assert!(at.is_some_and(|at| at <= now), "{number} of {at:?} fired at {now:?}");
                    }
                    let late = model.values().any(|&at| due_tick(at) <= now.0 >> TICK_SHIFT);
                    prop_assert!(!(done && late), "something due is left");
                    prop_assert!(done || budget != usize::MAX);
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            let first = model.values().map(|&at| due_tick(at).saturating_mul(1 << TICK_SHIFT)).min();
            match (wheel.next_due(), first) {
                (Some(due), Some(first)) => prop_assert!(due.0 <= first.max(now.0), "{due:?} after {first}"),
                (due, first) => prop_assert_eq!(due.is_some(), first.is_some()),
            }
        }
    }

    /// A caller who only ever sleeps until `next_due` meets every timer at its tick, after few wakes.
    #[test]
    fn sleeping_until_next_due_misses_nothing(start in distance(), distances in prop::collection::vec(distance(), 1..40)) {
        let mut wheel = Wheel::new(distances.len());
        wheel.advance(Instant(start), 0, |_| ());
        for distance in &distances {
            wheel.schedule(Instant(start + distance), Instant(start + distance)).unwrap();
        }
        let mut fired = 0;
        let mut wakes = 0;
        while let Some(now) = wheel.next_due() {
            wakes += 1;
            let late = now.max(Instant(start));
            let done = wheel.advance(late, usize::MAX, |at: Instant| {
                fired += 1;
                assert!(at <= late && late.since(at) < TICK, "{at:?} fired at {late:?}");
            });
            prop_assert!(done);
        }
        prop_assert_eq!(fired, distances.len());
        prop_assert!(wakes <= distances.len() * LEVELS, "{wakes} wakes");
    }

    #[test]
    fn ticks_fire_in_order(distances in prop::collection::vec(distance(), 1..40), now in distance()) {
        let mut wheel = Wheel::new(distances.len());
        for &distance in &distances {
            wheel.schedule(Instant(distance), Instant(distance)).unwrap();
        }
        let mut ticks = Vec::new();
        let mut expected: Vec<u64> = distances.iter().map(|&d| due_tick(Instant(d))).filter(|&t| t <= now >> TICK_SHIFT).collect();
        expected.sort_unstable();
        // One step at a time: stopping anywhere must lose and reorder nothing.
        while !wheel.advance(Instant(now), 1, |at| ticks.push(due_tick(at))) {}
        prop_assert_eq!(ticks, expected);
    }
}

#[test]
fn an_old_id_cancels_nothing() {
    let mut wheel = Wheel::new(1);
    let first = wheel.schedule(Instant(1), 'a').unwrap();
    assert_eq!(wheel.schedule(Instant(1), 'b'), Err(Full));
    let mut fired = None;
    assert!(wheel.advance(Instant(1 << TICK_SHIFT), 1, |x| fired = Some(x)));
    assert_eq!(fired, Some('a'));
    let second = wheel.schedule(Instant(1), 'c').unwrap();
    assert!(!wheel.cancel(first));
    assert!(wheel.cancel(second));
    assert!(!wheel.cancel(second));
    assert!(wheel.is_empty());
}

#[test]
fn never_early_and_late_by_less_than_a_tick() {
    let tick = TICK.as_nanos() as u64;
    for at in [1, tick - 1, tick, tick + 1, 64 * tick - 1, 64 * tick, 4096 * tick + 7, u64::MAX] {
        let mut wheel = Wheel::new(1);
        wheel.schedule(Instant(at), ()).unwrap();
        let mut fired = 0;
        assert!(wheel.advance(Instant(at - 1), usize::MAX, |()| fired += 1));
        assert_eq!(fired, 0, "{at} fired early");
        assert!(wheel.advance(Instant(at.saturating_add(tick - 1)), usize::MAX, |()| fired += 1));
        // The last instants of all have no tick boundary after them.
        assert_eq!(fired, u32::from(at != u64::MAX), "{at} fired late");
    }
}

#[test]
fn a_cascade_is_bounded_by_the_budget() {
    let mut wheel = Wheel::new(1000);
    let far = Instant(TICK.as_nanos() as u64 * 4096);
    for i in 0..1000 {
        wheel.schedule(far, i).unwrap();
    }
    let mut fired = 0;
    let mut calls = 0;
    while !wheel.advance(far, 10, |_| fired += 1) {
        calls += 1;
        assert!(calls < 1000, "no progress");
    }
    assert_eq!(fired, 1000);
    // All stand in the slot of level 2 that `far` opens: 1000 moves and 1000 fired, the last ten by the call that ended.
    assert_eq!(calls, 199);
}
