//! Worker threads: pinned, turning until they are told to stop, and watched for panics.

use super::clock::Clock;
use super::idle::Backoff;
use crate::base::Instant;
use crate::manage::config::Idle;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What one thread does.
pub struct Job<T> {
    /// The thread's name.
    pub name: String,
    /// The core that it is pinned to, if any.
    pub core: Option<usize>,
    /// What it does when a turn found nothing.
    pub idle: Idle,
    /// A turn at the given time; `true` if there was something to do.
    pub turn: T,
}

/// A thread that panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{thread} panicked: {message}")]
pub struct Panic {
    /// Its name.
    pub thread: String,
    /// The panic's message.
    pub message: String,
}

/// A thread that did not come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{thread} did not start: {why}")]
pub struct Refused {
    /// Its name.
    pub thread: String,
    /// The reason.
    pub why: String,
}

/// Running threads. Dropping it stops them.
pub struct Crew {
    stop: Arc<AtomicBool>,
    panics: Receiver<Panic>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each job and waits until all of them are ready to turn, or one of them can't be. `prepare` runs
    /// on each thread before its first turn; what it returns lives until after the job is gone.
    ///
    /// # Errors
    /// The first thread that can't be started, pinned or prepared; the others are stopped again.
    pub fn start<G, T>(
        clock: Clock,
        jobs: Vec<Job<T>>,
        prepare: fn() -> Result<G, String>,
    ) -> Result<Self, Refused>
    where
        T: FnMut(Instant) -> bool + Send + 'static,
        G: 'static,
    {
        let count = jobs.len();
        let (panic_in, panics) = unbounded();
        let (ready_in, ready) = unbounded();
        let mut crew = Self { stop: Arc::default(), panics, threads: Vec::with_capacity(count) };
        for job in jobs {
            let (stop, panic_in, ready_in) = (crew.stop.clone(), panic_in.clone(), ready_in.clone());
            let name = job.name.clone();
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
                let Job { name, core, idle, turn } = job;
                let prepare = || catch_unwind(prepare).unwrap_or_else(|payload| Err(message(&*payload)));
                let guard = pin(core).and_then(|()| prepare());
                let answer = guard.as_ref().map(drop).map_err(String::clone);
                let refused = answer.is_err();
                // The other end waits for this; without it, nobody is left to tell.
                let told = ready_in.send(answer.map_err(|why| Refused { thread: name.clone(), why }));
                if !refused && told.is_ok() {
                    watch(name, &panic_in, move || turns(clock, idle, &stop, turn));
                }
                drop(guard);
            });
            let refused = |error: std::io::Error| Refused { thread: name, why: error.to_string() };
            crew.threads.push(thread.map_err(refused)?);
        }
        drop(ready_in);
        for answer in ready.iter().take(count) {
            answer?;
        }
        Ok(crew)
    }

    /// The first thread that panicked, if one did. To be asked for often; each panic is told once.
    pub fn panicked(&self) -> Option<Panic> {
        self.panics.try_recv().ok()
    }

    /// Stops the threads after the turn that they are in, and waits for them. The first panic that was not told yet, if any.
    pub fn stop(mut self) -> Option<Panic> {
        self.join();
        self.panicked()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it said in panic stands in the channel.
            let _ = thread.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.join();
    }
}

/// Pins the calling thread.
///
/// # Errors
/// If the machine refuses.
pub fn pin(core: Option<usize>) -> Result<(), String> {
    match core {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(format!("it can't be pinned to core {id}: no such core, or not ours to use"))
        }
        _ => Ok(()),
    }
}

/// Runs `work` and tells `panics` if it panics. `work` and all it owns are gone when this returns.
fn watch(thread: String, panics: &Sender<Panic>, work: impl FnOnce()) {
    // Nothing is used after a panic but the name, so no broken invariant can be seen.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        // Nobody to tell: the crew is being dropped.
        let _ = panics.send(Panic { thread, message: message(&*payload) });
    }
}

fn turns(clock: Clock, idle: Idle, stop: &AtomicBool, mut turn: impl FnMut(Instant) -> bool) {
    let mut backoff = Backoff::new(idle);
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now();
        let busy = turn(now);
        backoff.after(busy, now).take();
    }
}

/// A panic's message.
pub(super) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    type Turn = Box<dyn FnMut(Instant) -> bool + Send>;

    fn job(name: &str, turn: impl FnMut(Instant) -> bool + Send + 'static) -> Job<Turn> {
        Job { name: name.to_owned(), core: None, idle: Idle::Adaptive, turn: Box::new(turn) }
    }

    fn wait_for<R>(mut what: impl FnMut() -> Option<R>) -> R {
        for _ in 0..2000 {
            if let Some(found) = what() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nothing came within ten seconds");
    }

    fn nothing() -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn turns_until_stopped_and_drops_the_job() {
        let alive = Arc::new(());
        let turned = Arc::new(AtomicUsize::new(0));
        let jobs = (0..2).map(|i| {
            let (alive, turned) = (alive.clone(), turned.clone());
            let mut last = Instant::ZERO;
            job(&format!("worker-{i}"), move |now| {
                let _alive = &alive;
                assert!(now >= last, "time goes on");
                last = now;
                turned.fetch_add(1, Ordering::Relaxed);
                false
            })
        });
        let crew = Crew::start(Clock::start(), jobs.collect(), nothing).unwrap();
        wait_for(|| (turned.load(Ordering::Relaxed) > 100).then_some(()));
        assert_eq!(crew.stop(), None);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_panic_is_told_with_name_and_message_and_the_others_can_be_stopped() {
        let mut turn = 0;
        let fails = job("worker-1", move |_| {
            turn += 1;
            assert!(turn < 10, "turn {turn} failed");
            true
        });
        let crew = Crew::start(Clock::start(), vec![job("worker-0", |_| false), fails], nothing).unwrap();
        let panic = wait_for(|| crew.panicked());
        assert_eq!(panic.to_string(), "worker-1 panicked: turn 10 failed");
        assert_eq!(crew.stop(), None, "told once");
    }

    #[test]
    fn a_panic_is_told_by_stop_too() {
        let crew =
            Crew::start(Clock::start(), vec![job("worker-0", |_| panic!("at once"))], nothing).unwrap();
        wait_for(|| (!crew.panics.is_empty()).then_some(()));
        assert_eq!(crew.stop(), Some(Panic { thread: "worker-0".into(), message: "at once".into() }));
    }

    #[test]
    fn a_thread_that_cannot_be_prepared_stops_the_start() {
        let turned = Arc::new(AtomicUsize::new(0));
        let count = turned.clone();
        let counts = job("worker-0", move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        let refuse = || Err::<(), _>("no identity left".to_owned());
        let refused = Crew::start(Clock::start(), vec![counts], refuse).err().unwrap();
        assert_eq!(refused.to_string(), "worker-0 did not start: no identity left");
        assert_eq!(turned.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        let far = Job { core: Some(1000), ..job("worker-0", |_| true) };
        let refused = Crew::start(Clock::start(), vec![far], nothing).err().unwrap();
        assert!(refused.why.contains("core 1000"), "{refused}");
    }

    #[test]
    fn a_panic_while_preparing_is_no_hang() {
        fn fails() -> Result<(), String> {
            panic!("while preparing")
        }
        let refused = Crew::start(Clock::start(), vec![job("worker-0", |_| true)], fails).err().unwrap();
        assert_eq!(refused.to_string(), "worker-0 did not start: while preparing");
    }
}
