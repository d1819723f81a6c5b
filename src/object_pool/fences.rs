//! The asymmetric fence between the owner of a biased lock and other threads: light for
//! the owner, heavy for the others.

use crate::platform;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU8, compiler_fence, fence};

/// Whether the system's barrier works; tried before the first shard is made.
static SYSTEM: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
const MISSING: u8 = 2;

/// To be called before the first `light`.
pub(super) fn prepare() {
    // Relaxed: two threads at once find the same, and shards are published with release.
    if SYSTEM.load(Relaxed) == UNKNOWN {
        SYSTEM.store(if platform::barrier() { WORKS } else { MISSING }, SeqCst);
    }
}

/// The owner's half: no instruction, where others have the system run the barrier.
#[inline(always)]
pub(super) fn light() {
    if SYSTEM.load(Relaxed) == WORKS { compiler_fence(SeqCst) } else { fence(SeqCst) }
}

/// The others' half: a barrier on every thread of the process. False if the system ran it once and
/// does not any more, as a filter may be set up late: owners have no fence of their own then.
pub(super) fn heavy() -> bool {
    if SYSTEM.load(Relaxed) == WORKS {
        return platform::barrier();
    }
    fence(SeqCst);
    true
}

/// Waits a little for the lock's holder, which may have been descheduled.
pub(super) fn wait() {
    platform::back_off();
}
