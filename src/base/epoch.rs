//! The clock: the number of the current epoch, and who is told when it ends.

use crate::base::hook::Hook;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Ages what lies above the allocator (the typed pools). Called where a
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

/// Sets the hook.
pub(crate) fn set_hook(hook: fn()) {
    HOOK.set(hook);
}

/// Something above the allocator wants every tick.
pub(crate) fn has_hook() -> bool {
    HOOK.is_set()
}

/// Runs the hook, if there is one.
pub(crate) fn run_hook() {
    HOOK.run();
}
