//! The same in portable Rust, with an atomic read-modify-write as commit.

use super::ThreadLocal;
use crate::base::size_class::CLASSES;
use crate::thread_cache::magazine::{NONE, SLOT};
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicPtr, AtomicUsize};

/// Commits are atomic to other processors: closing needs no barrier.
pub(crate) const NEEDS_BARRIER: bool = false;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
    static LOCAL: ThreadLocal = const {
        ThreadLocal {
            tops: [const { AtomicUsize::new(0) }; CLASSES],
            cache: AtomicPtr::new(ptr::null_mut()),
            phase: AtomicUsize::new(0),
            origin: AtomicUsize::new(0),
        }
    };
}

/// This thread's [`ThreadLocal`].
#[inline]
pub(crate) fn this_thread() -> &'static ThreadLocal {
    // SAFETY: the storage has no destructor and lives as long as the thread.
    let thread: &'static ThreadLocal = LOCAL.with(|thread| unsafe { &*ptr::from_ref(thread) });
    if !STARTED.get() {
        // An address is no constant of Rust's, so `top` is set at first use.
        STARTED.set(true);
        for top in &thread.tops {
            top.store(&raw const NONE[1] as usize, Relaxed);
        }
    }
    thread
}

/// Pops a block, and gives the slot's address; null if the magazine is empty or closed.
///
/// # Safety
/// `class` is below `CLASSES`. On null the caller goes to the slow path.
#[inline]
pub(crate) unsafe fn pop_slot(class: usize) -> (*mut u8, *const usize) {
    // Acquire pairs with the release in the tick's swap.
    let top = this_thread().tops[class].fetch_sub(SLOT, Acquire);
    // SAFETY: every `top` points one above a readable slot.
    let block = unsafe { (*((top - SLOT) as *const AtomicUsize)).load(Relaxed) };
    (block as *mut u8, (top - SLOT) as *const usize)
}

/// The first half of a push: the slot it would write; none if the magazine is
/// full or closed.
///
/// # Safety
/// `class` is below `CLASSES`.
#[inline]
pub(crate) unsafe fn open_slot(class: usize) -> Option<*mut usize> {
    let top = this_thread().tops[class].load(Relaxed) as *mut AtomicUsize;
    // SAFETY: `top` points at a readable slot.
    let sentinel = unsafe { (*top).load(Relaxed) };
    (sentinel != 0).then_some(top.cast())
}

/// The second half.
///
/// # Safety
/// The slot is what [`open_slot`] gave for the class, with no operation of this
/// thread on it since; the block is the caller's to give away.
#[inline]
pub(crate) unsafe fn push_at(slot: *mut usize, class: usize, block: usize) {
    // SAFETY: a slot of this thread's own magazine.
    unsafe { (*slot.cast::<AtomicUsize>()).store(block, Relaxed) };
    // Release: whoever sees the commit sees the entry.
    this_thread().tops[class].fetch_add(SLOT, AcqRel);
}
