//! The fast path in portable Rust, with an atomic read-modify-write as the commit.

use super::ThreadLocal;
use crate::base::size_class::CLASSES;
use crate::thread_cache::magazine::{NO_MAGAZINE, SLOT};
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
        // An address is not a constant in Rust, so every `top` is set at first use.
        STARTED.set(true);
        for top in &thread.tops {
            top.store(&raw const NO_MAGAZINE[1] as usize, Relaxed);
        }
    }
    thread
}

/// Pops a block; null if the magazine is empty or closed. Also returns the slot's address.
///
/// # Safety
/// `class` is below `CLASSES`. On null the caller goes to the slow path, which repairs `top`.
#[inline]
pub(crate) unsafe fn pop_slot(class: usize) -> (*mut u8, *const usize) {
    // Acquire pairs with the release in `Magazine::close`.
    let top = this_thread().tops[class].fetch_sub(SLOT, Acquire);
    // SAFETY: every `top` points one slot above a readable slot.
    let block = unsafe { (*((top - SLOT) as *const AtomicUsize)).load(Relaxed) };
    (block as *mut u8, (top - SLOT) as *const usize)
}

/// The first half of a push: the slot it would write. None if the magazine is full or
/// closed.
///
/// # Safety
/// `class` is below `CLASSES`.
#[inline]
pub(crate) unsafe fn open_slot(class: usize) -> Option<*mut usize> {
    let top = this_thread().tops[class].load(Relaxed) as *mut AtomicUsize;
    // SAFETY: `top` points to a readable slot.
    let sentinel = unsafe { (*top).load(Relaxed) };
    (sentinel != 0).then_some(top.cast())
}

/// The second half of a push: writes the slot and commits.
///
/// # Safety
/// The slot is what [`open_slot`] returned for the class, and this thread has done no
/// operation on the class since. The block is the caller's to free.
#[inline]
pub(crate) unsafe fn push_at(slot: *mut usize, class: usize, block: usize) {
    // SAFETY: a slot of this thread's own magazine.
    unsafe { (*slot.cast::<AtomicUsize>()).store(block, Relaxed) };
    // Release pairs with the acquire in `Magazine::close`: a tick that sees the commit
    // sees the entry. Acquire is as in `pop_slot`.
    this_thread().tops[class].fetch_add(SLOT, AcqRel);
}
