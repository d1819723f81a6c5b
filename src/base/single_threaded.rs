//! Single-threaded mode: as long as only one thread has entered the allocator,
//! its blocks are allocated and freed without locked instructions, which are most
//! of the cost of a block freed apart from its neighbours.
//!
//! In that mode the thread changes bitmaps only behind the lock of its cache.
//! Whoever else enters takes that lock once and ends the mode behind it, for good
//! (`registry::enter`); from then on every change is atomic. So a change that is
//! not is over before the first atomic one begins. `tests/models/single_threaded.rs`
//! has loom check it, and fails without the lock.

use crate::base::atomics::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// The mode of a process, on or not; `base/mod.rs` has this process's.
pub(crate) struct Mode {
    pub(super) on: AtomicBool,
    /// It has ended.
    pub(super) over: AtomicBool,
}

impl Mode {
    /// Whether bitmaps may be changed by plain loads and stores: true only for the
    /// one thread there is behind its cache's lock, and as long as that is held.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// By the first thread to join, before it has a cache.
    pub(crate) fn begin(&self) {
        self.on.store(true, Relaxed);
    }

    /// Whether it has ended. Acquire pairs with the release in `end`: who sees this
    /// sees what the first thread changed in the mode.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }

    /// Ends it; one thread at a time. `behind_locks` calls what it gets behind the lock
    /// of every cache there is, of which one is the first thread's.
    #[cold]
    pub(crate) fn end(&self, behind_locks: impl FnOnce(&dyn Fn())) {
        let off = || self.on.store(false, Relaxed);
        behind_locks(&off);
        // If there is no cache at all.
        off();
        self.over.store(true, Release);
    }
}
