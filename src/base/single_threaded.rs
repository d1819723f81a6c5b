//! Whether only one thread has entered the allocator so far. Its pools are
//! then filled and emptied without locked instructions, which are most of the
//! cost of a block given back apart from its neighbours.
//!
//! That thread changes spans so only behind the lock of its heap. Whoever else
//! enters takes that lock once, to end the time (`registry::enter`), and from
//! then on every change is atomic.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

static SINGLE_THREADED: AtomicBool = AtomicBool::new(false);

/// True only for the one thread there is, or behind its heap's lock, and then
/// it stays true as long as that is held.
#[inline(always)]
pub(crate) fn is_single_threaded() -> bool {
    SINGLE_THREADED.load(Relaxed)
}

/// By the first thread to join, before it has a heap.
pub(crate) fn begin() {
    SINGLE_THREADED.store(true, Relaxed);
}

/// Behind the lock of that thread's heap; for good.
pub(crate) fn end() {
    SINGLE_THREADED.store(false, Relaxed);
}
