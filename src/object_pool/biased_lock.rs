//! A biased lock: it belongs to one thread, which needs no locked instruction for it.
//! Others may take it too, at the price of a barrier.
//!
//! The owner sets `busy` and then checks whether another thread has `taken` the lock.
//! Another thread sets `taken` and then checks whether the owner is `busy`. Both need a
//! full barrier between the two steps. The owner leaves its barrier to the other thread,
//! which has the system run one on every thread of the process.

use super::fences;
use crate::base::atomics::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use core::cell::UnsafeCell;

/// The lock and what it guards.
pub(super) struct BiasedLock<T> {
    busy: AtomicBool,
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time reaches the value, see `enter`, `take` and `take_as_owner`.
unsafe impl<T: Send> Sync for BiasedLock<T> {}

impl<T> BiasedLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` for the owner; none if another thread has the lock now.
    ///
    /// # Safety
    /// One thread at a time is the owner, and it hands that over with a happens-before.
    /// `work` runs no code that could come back to this lock.
    #[inline(always)]
    pub(super) unsafe fn enter<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.busy.store(true, Relaxed);
        fences::light();
        // Acquire pairs with the release that ends `take`.
        let free = !self.taken.load(Acquire);
        // SAFETY: `busy` is set, and after that nobody had the lock. A thread that takes it
        // now sees `busy`, since it runs a barrier in between, and waits.
        let result = free.then(|| work(unsafe { &mut *self.value.get() }));
        // Release pairs with the acquire of `busy` in `take`.
        self.busy.store(false, Release);
        result
    }

    /// Runs `work` for another thread than the owner; waits for others. None if the system
    /// runs no barrier any more: then nothing tells when the owner is not inside.
    ///
    /// # Safety
    /// `work` runs no code that could come back to this lock.
    pub(super) unsafe fn take<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.wait_and_take();
        let fenced = fences::heavy();
        if fenced {
            // Acquire pairs with the release that ends `enter`.
            while self.busy.load(Acquire) {
                fences::wait();
            }
        }
        // SAFETY: the lock is ours and the owner is not inside. If it comes now, it sees `taken`.
        let result = fenced.then(|| work(unsafe { &mut *self.value.get() }));
        // Release pairs with the acquires of `taken` in `wait_and_take` and `enter`.
        self.taken.store(false, Release);
        result
    }

    /// Runs `work` for the owner, also if another thread has the lock now, for which it waits.
    /// Or for any thread, if the lock never has an owner.
    ///
    /// # Safety
    /// As for [`enter`](Self::enter), or nobody ever enters.
    pub(super) unsafe fn take_as_owner<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.wait_and_take();
        // SAFETY: the lock is ours, and the owner, which is this thread or nobody, is not inside.
        let result = work(unsafe { &mut *self.value.get() });
        // Release pairs as in `take`.
        self.taken.store(false, Release);
        result
    }

    fn wait_and_take(&self) {
        // Acquire pairs with the release of the last thread that took it.
        while self.taken.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            fences::wait();
        }
    }

    /// In a fork's child: a thread that was inside does not exist there, and may have left
    /// the value half changed. Then the value is leaked and replaced by `fresh`.
    ///
    /// # Safety
    /// There is no other thread, and the caller is not inside.
    #[allow(dead_code, reason = "not in the model")]
    pub(super) unsafe fn reset_in_child(&self, fresh: T) {
        if self.busy.load(Relaxed) || self.taken.load(Relaxed) {
            // SAFETY: by contract nobody else reaches the value.
            unsafe { self.value.get().write(fresh) };
            // Relaxed: there is only one thread.
            self.busy.store(false, Relaxed);
            self.taken.store(false, Relaxed);
        }
    }
}
