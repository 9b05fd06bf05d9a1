//! The one door to atomics: the core's in production, loom's where the feature `loom` checks every interleaving.
#![allow(unsafe_code)]

#[cfg(not(feature = "loom"))]
pub use std::sync::{Arc, atomic};

#[cfg(feature = "loom")]
pub use loom::sync::{Arc, atomic};

/// An `UnsafeCell` with loom's closure interface in both worlds.
#[cfg(not(feature = "loom"))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(feature = "loom"))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Hands out a shared pointer; the caller answers for its use.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Hands out an exclusive pointer; the caller answers for its use.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(feature = "loom")]
pub use loom::cell::UnsafeCell;
