//! Single-threaded mode: as long as only one thread has entered the allocator,
//! its blocks are allocated and freed without locked instructions. Those are most
//! of the cost of a block that is freed without its neighbours.
//!
//! In this mode the thread changes bitmaps only under the lock of its cache. Any
//! other thread that enters takes that lock once and ends the mode under it, for
//! good (`registry::enter`). From then on every change is atomic. So the last
//! non-atomic change is over before the first atomic one begins.
//! `tests/models/single_threaded.rs` checks this with loom, and fails without the lock.

use crate::base::atomics::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Whether a process is in the mode; this process's is in `base/mod.rs`.
pub(crate) struct Mode {
    pub(super) on: AtomicBool,
    /// The mode has ended and will not come back.
    pub(super) over: AtomicBool,
}

impl Mode {
    /// Whether bitmaps may be changed by plain loads and stores. True only for the
    /// one thread there is, and only while it holds its cache's lock.
    ///
    /// Relaxed: that lock orders it with the store in `end`.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Called by the first thread to join, before it has a cache.
    pub(crate) fn begin(&self) {
        // Relaxed: only this thread reads it until another one joins.
        self.on.store(true, Relaxed);
    }

    /// Whether it has ended.
    ///
    /// Acquire pairs with the release in `end`: a thread that sees this also sees
    /// what the first thread changed in the mode.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }

    /// Ends it; one thread at a time. `under_locks` calls its argument under the lock
    /// of every cache in turn, one of which is the first thread's.
    #[cold]
    pub(crate) fn end(&self, under_locks: impl FnOnce(&dyn Fn())) {
        let off = || self.on.store(false, Relaxed);
        under_locks(&off);
        // In case there is no cache at all.
        off();
        self.over.store(true, Release);
    }
}
