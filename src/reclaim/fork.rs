//! `fork` in a process with many threads. Every lock is held over it, so that the child
//! finds all of them free and all data behind them consistent. A fork from a signal
//! handler that interrupted this allocator is not supported.

use crate::base::hook::Hook;
use crate::heap::central;
use crate::heap::mapped;
use crate::heap::metadata;
use crate::heap::page_heap;
use crate::platform::{self, Lock};
use crate::reclaim::background;
use crate::reclaim::tick;
use crate::thread_cache::registry;
use core::mem;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

static REGISTERED: AtomicBool = AtomicBool::new(false);
/// Held over every fork.
static FORKING: Lock<()> = Lock::new(());

/// What the layers above do at a fork.
static BEFORE: Hook = Hook::new();
static IN_PARENT: Hook = Hook::new();
static IN_CHILD: Hook = Hook::new();

/// Registers the handlers, once, at the first slow path.
pub(crate) fn register() {
    // Relaxed: the flag only picks the one thread that registers.
    if platform::stay_loaded() && !REGISTERED.swap(true, Relaxed) {
        platform::at_fork(on_fork, on_parent, on_child);
    }
}

/// Sets what to call at every fork: before Neap's own locks are taken, and after they are
/// free again. If the layer above registered handlers of its own instead, a fork under
/// way at that moment could run only some of them.
pub(crate) fn set_hooks(before: fn(), in_parent: fn(), in_child: fn()) {
    register();
    let _no_fork_now = FORKING.lock();
    BEFORE.set(before);
    IN_PARENT.set(in_parent);
    IN_CHILD.set(in_child);
}

/// Takes the locks in the order in which slow paths and ticks nest them.
unsafe extern "C" fn on_fork() {
    mem::forget(FORKING.lock());
    BEFORE.run();
    tick::lock_for_fork();
    registry::lock_for_fork();
    central::lock_for_fork();
    page_heap::lock_for_fork();
    mapped::lock_for_fork();
    metadata::lock_for_fork();
}

unsafe extern "C" fn on_parent() {
    // SAFETY: `on_fork` ran on this thread.
    unsafe { unlock() };
    IN_PARENT.run();
    // SAFETY: as above.
    unsafe { FORKING.force_unlock() };
}

unsafe extern "C" fn on_child() {
    // SAFETY: `on_fork` ran on the thread of which this one is the copy.
    unsafe { unlock() };
    registry::detach_orphans();
    background::reset_in_child();
    IN_CHILD.run();
    // SAFETY: as above.
    unsafe { FORKING.force_unlock() };
}

/// # Safety
/// `on_fork` ran on this thread, or on the one of which it is the copy.
unsafe fn unlock() {
    // SAFETY: by contract, this thread holds all of them.
    unsafe {
        metadata::unlock_after_fork();
        mapped::unlock_after_fork();
        page_heap::unlock_after_fork();
        central::unlock_after_fork();
        registry::unlock_after_fork();
        tick::unlock_after_fork();
    }
}
