//! The spin lock that guards everything more than one thread changes.

use super::unix::yield_now;
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Held for tens to hundreds of instructions. ARCHITECTURE.md says which locks may
/// be held while a page is returned.
pub(crate) type Lock<T> = spin::mutex::SpinMutex<T, Yield>;
pub(crate) type Guard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;

/// How a lock waits: it spins for a moment, since the holder most likely runs on
/// another processor. Then it yields, since the holder may have been descheduled.
pub(crate) struct Yield;

/// Spins between two yields: about as long as a lock is held.
const SPINS_PER_YIELD: u32 = 32;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        // Shared by all waiting threads; a lost update does no harm.
        static SPINS: AtomicU32 = AtomicU32::new(0);
        let spins = SPINS.load(Relaxed).wrapping_add(1);
        SPINS.store(spins, Relaxed);
        hint::spin_loop();
        if spins.is_multiple_of(SPINS_PER_YIELD) {
            yield_now();
        }
    }
}
