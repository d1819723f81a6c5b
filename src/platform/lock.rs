//! The lock of everything that more than one thread changes.

use super::yield_now;
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Held for tens of instructions, or some hundreds; which ones may be held while
/// a page is returned, ARCHITECTURE.md says.
pub(crate) type Lock<T> = spin::mutex::SpinMutex<T, Yield>;
pub(crate) type Guard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;

/// How a lock waits: for a moment, since its holder is most likely at work on
/// another processor; then it lets others run, since the holder may have been
/// descheduled.
pub(crate) struct Yield;

/// Looks at a lock between two yields: about as long as it is held.
const LOOKS: u32 = 32;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        // Of all that wait, together; a count that is lost does no harm.
        static LOOK: AtomicU32 = AtomicU32::new(0);
        let look = LOOK.load(Relaxed).wrapping_add(1);
        LOOK.store(look, Relaxed);
        hint::spin_loop();
        if look.is_multiple_of(LOOKS) {
            yield_now();
        }
    }
}
