//! Every interleaving, and every value that a relaxed load may see, of what workers share: the ring and the snapshot cell.
//!
//! Run by `cargo test --profile quick --no-default-features --features loom --test loom`. Tried are all runs with up to
//! [`PREEMPTIONS`] preemptions; the races known from practice rarely need more than two (Musuvathi and Qadeer, "Iterative
//! context bounding for systematic testing of multithreaded programs", PLDI 2007).
#![cfg(feature = "loom")]

use arrayvec::ArrayVec;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use steerage::table::publish::{Publisher, Subscriber, channel};
use steerage::table::ring::ring;

const PREEMPTIONS: usize = 6;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// A value that loom watches: a read that isn't ordered before the drop, or a drop that isn't ordered after every read,
/// fails the model, as does a value dropped twice or (`living`) never.
struct Probe {
    number: usize,
    watched: AtomicUsize,
    living: Arc<AtomicUsize>,
}

impl Probe {
    fn new(number: usize, living: &Arc<AtomicUsize>) -> Self {
        living.fetch_add(1, Ordering::Relaxed);
        Self { number, watched: AtomicUsize::new(number), living: living.clone() }
    }

    fn read(&self) -> usize {
        assert_eq!(self.watched.load(Ordering::Relaxed), self.number);
        self.number
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.watched.with_mut(|watched| *watched = usize::MAX);
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn ring_passes_every_value_once_and_in_order() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut tx, mut rx) = ring::<Probe>(2);
        let producer = thread::spawn({
            let living = living.clone();
            move || {
                // Three values through two slots: the last needs a slot that was used before.
                let mut burst: ArrayVec<Probe, 3> = (0..3).map(|i| Probe::new(i, &living)).collect();
                let first = tx.push_burst(&mut burst);
                assert!((2..=3).contains(&first));
                let mut sent = first;
                sent += tx.push_burst(&mut burst);
                assert_eq!(burst.len(), 3 - sent);
                sent
            }
        });
        let mut taken = ArrayVec::<Probe, 4>::new();
        for _ in 0..2 {
            rx.pop_burst(&mut taken);
            thread::yield_now();
        }
        let sent = producer.join().unwrap();
        rx.pop_burst(&mut taken);
        assert_eq!(taken.len(), sent);
        for (i, probe) in taken.iter().enumerate() {
            assert_eq!(probe.read(), i);
        }
        drop((taken, rx));
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn ring_reuses_a_slot_only_when_it_was_read() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut tx, mut rx) = ring::<Probe>(1);
        let producer = thread::spawn({
            let living = living.clone();
            move || {
                for i in 0..2 {
                    let mut value = Probe::new(i, &living);
                    while let Err(back) = tx.push(value) {
                        value = back;
                        thread::yield_now();
                    }
                }
            }
        });
        let mut next = 0;
        while next < 2 {
            let mut one = ArrayVec::<Probe, 1>::new();
            if rx.pop_burst(&mut one) == 0 {
                thread::yield_now();
            }
            for probe in one {
                assert_eq!(probe.read(), next);
                next += 1;
            }
        }
        producer.join().unwrap();
        drop(rx);
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn ring_drops_the_rest_whoever_goes_last() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut tx, mut rx) = ring::<Probe>(4);
        let consumer = thread::spawn(move || {
            let mut one = ArrayVec::<Probe, 1>::new();
            rx.pop_burst(&mut one);
            for probe in &one {
                assert_eq!(probe.read(), 0);
            }
        });
        for i in 0..2 {
            assert!(tx.push(Probe::new(i, &living)).is_ok());
        }
        drop(tx);
        consumer.join().unwrap();
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}

fn cell(living: &Arc<AtomicUsize>, readers: usize) -> (Publisher<Probe>, Vec<Subscriber<Probe>>) {
    channel(Probe::new(0, living), readers)
}

/// Reads, takes up what is new, reads again; generations never go back and a snapshot is the one that its number says.
fn poll(reader: &mut Subscriber<Probe>, times: usize) {
    for _ in 0..times {
        let before = reader.get().read();
        let new = reader.refresh();
        let after = reader.get().read();
        assert_eq!(new, after > before);
        assert!(after >= before);
        assert_eq!(reader.generation(), after as u64);
    }
}

#[test]
fn publish_never_drops_what_a_reader_holds() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = cell(&living, 1);
        let mut reader = readers.remove(0);
        let thread = thread::spawn(move || {
            poll(&mut reader, 2);
            reader
        });
        for number in 1..=2 {
            publisher.publish(Probe::new(number, &living));
            publisher.collect();
            // What is left is at least what the reader announced, up to the newest.
            assert!(publisher.retired() <= number);
        }
        let mut reader = thread.join().unwrap();
        poll(&mut reader, 1);
        assert!(publisher.adopted());
        publisher.collect();
        assert_eq!(publisher.retired(), 0);
        assert_eq!(living.load(Ordering::Relaxed), 1);
        drop((publisher, reader));
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn publish_waits_for_the_slowest_of_two_readers() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut publisher, readers) = cell(&living, 2);
        let threads: Vec<_> =
            readers.into_iter().map(|mut reader| thread::spawn(move || poll(&mut reader, 1))).collect();
        publisher.publish(Probe::new(1, &living));
        publisher.collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // Both readers are gone and hold nothing back.
        assert!(publisher.adopted());
        publisher.collect();
        assert_eq!(publisher.retired(), 0);
        assert_eq!(living.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn publish_lets_a_reader_leave_at_any_time() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = cell(&living, 1);
        let mut reader = readers.remove(0);
        let thread = thread::spawn(move || {
            reader.get().read();
            reader.refresh();
            reader.get().read();
        });
        publisher.publish(Probe::new(1, &living));
        publisher.collect();
        publisher.publish(Probe::new(2, &living));
        publisher.collect();
        assert_eq!(publisher.current().read(), 2);
        thread.join().unwrap();
        publisher.collect();
        assert_eq!(living.load(Ordering::Relaxed), 1);
        drop(publisher);
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn publish_outlives_its_publisher() {
    check(|| {
        let living = Arc::new(AtomicUsize::new(0));
        let (mut publisher, readers) = cell(&living, 2);
        let threads: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                thread::spawn(move || {
                    reader.refresh();
                    reader.get().read();
                })
            })
            .collect();
        publisher.publish(Probe::new(1, &living));
        drop(publisher);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(living.load(Ordering::Relaxed), 0);
    });
}
