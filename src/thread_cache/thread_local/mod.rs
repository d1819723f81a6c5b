//! The fast path: the `top` of each class's magazine, in thread-local storage, and the
//! two operations on it.
//!
//! On x86_64 a pop or push commits with one instruction that has no `lock` prefix. It
//! cannot be half done when its thread is interrupted, and a tick interrupts every
//! thread before it relies on what it read. Elsewhere an atomic read-modify-write does
//! the same without a barrier.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(neap_portable))))]
mod portable;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(neap_portable)))]
mod x86_64_linux;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(neap_portable))))]
use portable as imp;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(neap_portable)))]
use x86_64_linux as imp;

pub(crate) use imp::{NEEDS_BARRIER, open_slot, pop_slot, push_at, this_thread};

use crate::base::size_class::CLASSES;
use crate::thread_cache::magazine::top_of_no_magazine;
use core::ffi::c_void;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicPtr, AtomicUsize};

/// A thread's own state. Every `top` starts at the magazine that is both empty and full,
/// so the fast path needs no check whether the thread has a cache.
///
/// Only the thread itself uses the other fields, so they are Relaxed.
#[repr(C, align(64))]
pub(crate) struct ThreadLocal {
    pub(crate) tops: [AtomicUsize; CLASSES],
    /// The thread's cache, once it has one.
    cache: AtomicPtr<c_void>,
    phase: AtomicUsize,
    /// The number of the thread cache that the last block came from which this thread
    /// freed before it had a cache, if known.
    origin: AtomicUsize,
}

/// Where a thread is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not allocated yet.
    New,
    /// It has a cache.
    Cached,
    /// It is just getting its cache, or has left for good: it allocates from spans and
    /// frees to them directly.
    Uncached,
}

impl ThreadLocal {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::New,
            1 => Phase::Cached,
            _ => Phase::Uncached,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let phase = match phase {
            Phase::New => 0,
            Phase::Cached => 1,
            Phase::Uncached => 2,
        };
        self.phase.store(phase, Relaxed);
    }

    pub(super) fn origin(&self) -> u16 {
        self.origin.load(Relaxed) as u16
    }

    pub(crate) fn set_origin(&self, cache: u16) {
        self.origin.store(cache as usize, Relaxed);
    }

    pub(crate) fn cache(&self) -> *mut c_void {
        self.cache.load(Relaxed)
    }

    pub(super) fn set_cache(&self, cache: *mut c_void) {
        self.cache.store(cache, Relaxed);
    }

    /// Resets a class's `top` after a pop without a magazine.
    pub(crate) fn reset_top(&self, class: usize) {
        self.tops[class].store(top_of_no_magazine(), Relaxed);
    }
}

/// Pops a block; null if the magazine is empty or closed.
///
/// # Safety
/// As [`pop_slot`].
#[inline(always)]
pub(crate) unsafe fn pop(class: usize) -> *mut u8 {
    // SAFETY: the same contract.
    unsafe { pop_slot(class) }.0
}

/// Pushes a block; false if the magazine is full or closed.
///
/// # Safety
/// `class` is below `CLASSES`, and the block is the caller's to free.
#[inline(always)]
pub(crate) unsafe fn push(class: usize, block: usize) -> bool {
    // SAFETY: the same contract.
    match unsafe { open_slot(class) } {
        // SAFETY: the slot was just returned, with no operation since.
        Some(slot) => unsafe { push_at(slot, class, block) },
        None => return false,
    }
    true
}
