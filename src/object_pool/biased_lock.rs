//! A lock that belongs to one thread, which pays no locked instruction for it;
//! others may take it too, at the price of a barrier.
//!
//! The owner says that it is in (`busy`), then looks whether another took the
//! lock (`taken`). Another takes the lock, then looks whether the owner is in.
//! Between the two steps each needs a full barrier; the owner leaves its to the
//! other, who has the system run one on every thread of the process.

use super::fences;
use crate::base::atomics::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use core::cell::UnsafeCell;

/// What the lock guards, and the lock.
pub(super) struct Biased<T> {
    busy: AtomicBool,
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time, as argued below.
unsafe impl<T: Send> Sync for Biased<T> {}

impl<T> Biased<T> {
    pub(super) fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` for the owner; none if another has the lock just now.
    ///
    /// # Safety
    /// One thread at a time is the owner, and hands that over with a
    /// happens-before. `work` runs no code that could come back here.
    #[inline(always)]
    pub(super) unsafe fn enter<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.busy.store(true, Relaxed);
        fences::light();
        // Acquire pairs with the release that ends `take`.
        let free = !self.taken.load(Acquire);
        // SAFETY: we are in and nobody had taken the lock after saying so: who
        // takes it now sees `busy`, since a barrier of theirs lies between.
        let result = free.then(|| work(unsafe { &mut *self.value.get() }));
        // Release: what was done is seen by whoever sees the owner out.
        self.busy.store(false, Release);
        result
    }

    /// Runs `work` for any thread, the owner included, waiting for others.
    ///
    /// # Safety
    /// `work` runs no code that could come back here.
    pub(super) unsafe fn take<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        while self.taken.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            fences::wait();
        }
        fences::heavy();
        // Acquire pairs with the release that ends `enter`.
        while self.busy.load(Acquire) {
            fences::wait();
        }
        // SAFETY: the lock is ours, and the owner is out; when it comes in, it
        // sees `taken`. (The owner itself is not in while it is here.)
        let result = work(unsafe { &mut *self.value.get() });
        self.taken.store(false, Release);
        result
    }

    /// In a fork's child: whoever was in, is in no more, and may have left the
    /// value half changed. It is forgotten then, in favour of `fresh`.
    ///
    /// # Safety
    /// There is no other thread, and the caller is not in.
    #[allow(dead_code, reason = "not in the model")]
    pub(super) unsafe fn abandon(&self, fresh: T) {
        if self.busy.load(Relaxed) || self.taken.load(Relaxed) {
            // SAFETY: by contract nobody else reaches the value.
            unsafe { self.value.get().write(fresh) };
            self.busy.store(false, Relaxed);
            self.taken.store(false, Relaxed);
        }
    }
}
