//! A worker's turns as a pipeline of capsule.

use ::capsule::batch::Pipeline;
use crossbeam_channel::Sender;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Turns before the thread's executor gets a look at its other tasks, which costs as much as some packets.
const TURNS: usize = 64;

/// A turn that panicked.
#[derive(Debug)]
pub struct Panicked {
    /// Its name.
    pub name: String,
    /// What it panicked with.
    pub payload: Box<dyn Any + Send>,
}

/// Calls a turn over and over. Never done, but after a panic.
pub(super) struct Turns<T> {
    name: String,
    turn: T,
    panics: Sender<Panicked>,
}

impl<T: FnMut() -> bool> Turns<T> {
    pub fn new(name: &str, turn: T, panics: Sender<Panicked>) -> Self {
        Self { name: name.to_owned(), turn, panics }
    }
}

// Nothing is pinned: a turn is called through a plain reference.
impl<T> Unpin for Turns<T> {}

impl<T: FnMut() -> bool> Future for Turns<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // The turn isn't called again after a panic, so no broken invariant can be seen.
        match catch_unwind(AssertUnwindSafe(|| this.run_once())) {
            Ok(()) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Err(payload) => {
                // Nobody to tell: the host is gone.
                let _ = this.panics.send(Panicked { name: this.name.clone(), payload });
                Poll::Ready(())
            }
        }
    }
}

impl<T: FnMut() -> bool> Pipeline for Turns<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_once(&mut self) {
        for _ in 0..TURNS {
            if !(self.turn)() {
                break;
            }
        }
    }
}
