//! `fork` in a process with many threads: every lock is held over it, so that
//! the child finds all of them free and everything behind them whole. Not for a
//! fork from a signal handler that interrupted this allocator.

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

/// What the layer above does at a fork.
static BEFORE: Hook = Hook::new();
static IN_PARENT: Hook = Hook::new();
static IN_CHILD: Hook = Hook::new();

/// Registers the handlers; once, at the first slow path.
pub(crate) fn register() {
    if !REGISTERED.swap(true, Relaxed) {
        platform::at_fork(on_fork, on_parent, on_child);
    }
}

/// Has these called at every fork: before Neap's own locks are taken, and after
/// they are free again. Handlers that the layer above registered by itself
/// would be left out by a fork that is under way just then.
pub(crate) fn listen(before: fn(), in_parent: fn(), in_child: fn()) {
    register();
    let _none_under_way = FORKING.lock();
    BEFORE.set(before);
    IN_PARENT.set(in_parent);
    IN_CHILD.set(in_child);
}

/// In the order in which slow paths and ticks nest them.
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
    // SAFETY: `on_fork` ran on the thread that this one is the copy of.
    unsafe { unlock() };
    registry::detach_orphans();
    background::forget();
    IN_CHILD.run();
    // SAFETY: as above.
    unsafe { FORKING.force_unlock() };
}

unsafe fn unlock() {
    // SAFETY: by contract, `on_fork` ran on this thread.
    unsafe {
        metadata::unlock_after_fork();
        mapped::unlock_after_fork();
        page_heap::unlock_after_fork();
        central::unlock_after_fork();
        registry::unlock_after_fork();
        tick::unlock_after_fork();
    }
}
