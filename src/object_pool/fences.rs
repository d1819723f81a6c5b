//! The two halves of a barrier between an owner and others, and waiting.

use crate::platform;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU8, compiler_fence, fence};

/// Whether the system's barrier works; found out before the first shard is made.
static SYSTEM: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
const MISSING: u8 = 2;

/// To be called before the first `light`.
pub(super) fn prepare() {
    if SYSTEM.load(Relaxed) == UNKNOWN {
        SYSTEM.store(if platform::barrier() { WORKS } else { MISSING }, SeqCst);
    }
}

/// The owner's half: nothing, where others have the system do it.
#[inline(always)]
pub(super) fn light() {
    if SYSTEM.load(Relaxed) == WORKS { compiler_fence(SeqCst) } else { fence(SeqCst) }
}

/// The others' half.
pub(super) fn heavy() {
    if SYSTEM.load(Relaxed) != WORKS || !platform::barrier() {
        fence(SeqCst);
    }
}

/// The lock's holder may have been descheduled: let it run.
pub(super) fn wait() {
    std::thread::yield_now();
}
