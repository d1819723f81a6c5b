//! `fork` in a process with many threads: every lock is held over it, so that
//! the child finds all of them free and everything behind them whole.

use crate::{central, huge, metadata, page_heap, registry, ticker, tide};

/// Registers the handlers; once, when the first thread joins.
pub(crate) fn register() {
    // SAFETY: the handlers are functions of ours, for the process's whole life.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// In the order in which slow paths and ticks nest them.
unsafe extern "C" fn before() {
    tide::lock_for_fork();
    registry::lock_for_fork();
    central::lock_for_fork();
    page_heap::lock_for_fork();
    huge::lock_for_fork();
    metadata::lock_for_fork();
}

unsafe extern "C" fn in_parent() {
    // SAFETY: `before` ran on this thread.
    unsafe { unlock() };
}

unsafe extern "C" fn in_child() {
    // SAFETY: `before` ran on the thread that this one is the copy of.
    unsafe { unlock() };
    registry::abandon_orphans();
    ticker::forget();
}

unsafe fn unlock() {
    // SAFETY: by contract, `before` ran on this thread.
    unsafe {
        metadata::unlock_after_fork();
        huge::unlock_after_fork();
        page_heap::unlock_after_fork();
        central::unlock_after_fork();
        registry::unlock_after_fork();
        tide::unlock_after_fork();
    }
}
