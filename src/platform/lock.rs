//! The spin lock that guards everything more than one thread changes, and how it waits.

use super::system::nap;
use super::unix::yield_now;
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Held for tens to hundreds of instructions. ARCHITECTURE.md says which locks may
/// be held while a page is returned.
pub(crate) type Lock<T> = spin::mutex::SpinMutex<T, Backoff>;
pub(crate) type Guard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;

/// Spins between two yields: about as long as a lock is held.
const SPINS_PER_YIELD: u32 = 32;
/// Yields between two naps.
const YIELDS_PER_NAP: u32 = 16;

/// Waits a little for a lock, or for what another thread is just doing.
///
/// It spins for a moment, since that thread most likely runs on another processor. Then it
/// yields, since the thread may have been descheduled. Yielding lets only threads of the same
/// priority run, so a thread of real-time priority would keep an ordinary holder from ever
/// going on: now and then it sleeps.
#[cold]
pub(crate) fn back_off() {
    // Shared by all waiting threads; a lost update does no harm.
    static SPINS: AtomicU32 = AtomicU32::new(0);
    let spins = SPINS.load(Relaxed).wrapping_add(1);
    SPINS.store(spins, Relaxed);
    hint::spin_loop();
    if spins.is_multiple_of(SPINS_PER_YIELD * YIELDS_PER_NAP) {
        nap();
    } else if spins.is_multiple_of(SPINS_PER_YIELD) {
        yield_now();
    }
}

/// How a lock waits.
pub(crate) struct Backoff;

impl spin::RelaxStrategy for Backoff {
    fn relax() {
        back_off();
    }
}
