//! A small number for each living thread; it is used again after the thread's end.

use crate::platform::Lock;
use core::mem;
use std::cell::Cell;

/// How many threads can have a number at the same time.
pub(super) const THREADS: usize = 128;
/// Stands for none: not yet, no longer, or because too many threads are alive.
const NONE: usize = usize::MAX;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    /// Frees the number at the thread's end.
    static GUARD: Guard = const { Guard };
}

/// A bit for each number in use.
static USED: Lock<[u64; THREADS / 64]> = Lock::new([0; THREADS / 64]);

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let number = NUMBER.replace(NONE);
        if number < THREADS {
            // The lock orders what this thread did before its number's next owner.
            let mut used = USED.lock();
            used[number / 64] &= !(1 << (number % 64));
        }
    }
}

/// This thread's number; [`NONE`], which is above every number, if it has none.
#[inline(always)]
pub(super) fn current() -> usize {
    NUMBER.get()
}

/// Gives this thread a number, unless none is left or the thread is ending.
#[cold]
pub(super) fn assign() -> Option<usize> {
    if NUMBER.get() != NONE {
        return Some(NUMBER.get());
    }
    GUARD.try_with(|_| ()).ok()?;
    let mut used = USED.lock();
    let word = used.iter().position(|&word| word != u64::MAX)?;
    let bit = used[word].trailing_ones() as usize;
    used[word] |= 1 << bit;
    NUMBER.set(word * 64 + bit);
    Some(word * 64 + bit)
}

/// Holds the lock over a fork.
pub(super) fn lock_for_fork() {
    mem::forget(USED.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(super) unsafe fn unlock_after_fork() {
    // SAFETY: locked by this thread.
    unsafe { USED.force_unlock() };
}

/// In a fork's child: frees the other threads' numbers.
pub(super) fn keep_own() {
    let own = NUMBER.get();
    let bit = |word: usize| if own / 64 == word { 1 << (own % 64) } else { 0 };
    *USED.lock() = core::array::from_fn(bit);
}
