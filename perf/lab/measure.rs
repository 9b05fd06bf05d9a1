//! Time and its statistics.

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;

/// Nanoseconds of processor time that this thread has had: what other processes take of the core doesn't count.
pub fn thread_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Processor time of `work` in nanoseconds for each of its `items`.
pub fn cpu_ns(items: usize, work: impl FnOnce()) -> f64 {
    let start = thread_ns();
    work();
    (thread_ns() - start) as f64 / items as f64
}

/// The value below which `part` of the sorted `values` lie, between two of them where it falls between.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = part * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Distance between the quartiles.
pub fn spread(values: &[f64]) -> f64 {
    quantile(values, 0.75) - quantile(values, 0.25)
}

/// Wall-clock times of `turns` calls, in nanoseconds: each ends where the next begins, so one reading of the clock (about
/// 20 ns) is in each.
pub fn turn_times(turns: usize, mut turn: impl FnMut()) -> Histogram<u64> {
    let mut times = Histogram::new(3).expect("three digits are allowed");
    let mut start = Instant::now();
    for _ in 0..turns {
        turn();
        let end = Instant::now();
        times.record((end - start).as_nanos() as u64).expect("it grows as needed");
        start = end;
    }
    times
}
