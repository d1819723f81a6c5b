//! The clock: the number of the current epoch.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// The number of ticks so far.
pub(crate) fn current() -> u64 {
    EPOCH.load(Relaxed)
}

/// Starts the next epoch.
pub(crate) fn advance() {
    EPOCH.fetch_add(1, Relaxed);
}
