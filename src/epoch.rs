//! The clock: the number of the current epoch, and who is told when it ends.

use core::mem;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU64};

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Ages what lies above the allocator (the typed pools). Called where a
/// program's own code may run, never from inside an allocation.
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

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
    // Release pairs with the acquire in `run_hook`.
    HOOK.store(hook as *mut (), Release);
}

/// Something above the allocator wants every tick.
pub(crate) fn has_hook() -> bool {
    !HOOK.load(Relaxed).is_null()
}

/// Runs the hook, if there is one.
pub(crate) fn run_hook() {
    let hook = HOOK.load(Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and only a `fn()`.
        let hook = unsafe { mem::transmute::<*mut (), fn()>(hook) };
        hook();
    }
}
