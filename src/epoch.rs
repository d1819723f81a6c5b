//! The clock: the number of the current epoch, and who is told when it ends.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Called at the end of a tick, but only where a program's own code may run:
/// from `neap::tick()` and from the background ticker, never from inside an
/// allocation.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The number of ticks so far.
pub(crate) fn current() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Starts the next epoch.
pub(crate) fn advance() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// Sets the function that ages what lies above the allocator (the typed pools).
pub(crate) fn set_hook(hook: fn()) {
    // Release pairs with the acquire in `run_hook`.
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// Runs the hook; only where the program's own code may run.
pub(crate) fn run_hook() {
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and only a `fn()`.
        let hook = unsafe { core::mem::transmute::<*mut (), fn()>(hook) };
        hook();
    }
}
