//! The clock: the number of the current epoch, and what to call when it ends.

use crate::base::hook::Hook;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Relaxed throughout: the number publishes no other data.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Ages what lies above the allocator (the typed pools). Called only where the
/// program's own code may run, never from inside an allocation.
static HOOK: Hook = Hook::new();

/// The number of ticks so far.
#[inline(always)]
pub(crate) fn current() -> u64 {
    EPOCH.load(Relaxed)
}

/// Starts the next epoch.
pub(crate) fn advance() {
    EPOCH.fetch_add(1, Relaxed);
}

/// Sets what to call at the end of an epoch.
pub(crate) fn set_hook(hook: fn()) {
    HOOK.set(hook);
}

/// Whether something above the allocator needs every tick.
pub(crate) fn has_hook() -> bool {
    HOOK.is_set()
}

/// Runs the hook, if there is one.
pub(crate) fn run_hook() {
    HOOK.run();
}
