//! How many pages are resident. They are counted where the program touches them
//! for the first time, since next to a page fault the count costs nothing. Pages of
//! a freed slice that were never touched are counted when it is freed, because its
//! next user may touch them uncounted.
//!
//! All counts are estimates and publish no other data, so every access is Relaxed.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicUsize};

/// Growth that makes a tick due early in a small heap: 8 MiB.
pub(crate) const MIN_GROWTH: usize = 2048;

/// Resident pages of the segments; an estimate.
static RESIDENT: AtomicUsize = AtomicUsize::new(0);
/// Pages that became resident since the last tick began.
static GROWTH: AtomicUsize = AtomicUsize::new(0);
/// Growth at which a tick is due.
static GROWTH_ALLOWED: AtomicUsize = AtomicUsize::new(MIN_GROWTH);

/// The last tick returned little compared with the growth before it.
static GROWTH_LASTS: AtomicBool = AtomicBool::new(true);

/// The program is about to touch this many pages that were not resident.
#[inline]
pub(crate) fn add(pages: usize) {
    RESIDENT.fetch_add(pages, Relaxed);
    GROWTH.fetch_add(pages, Relaxed);
}

/// Counts pages as resident that are not, because the rest of their slice is.
pub(crate) fn round_up(pages: usize) {
    RESIDENT.fetch_add(pages, Relaxed);
}

/// This many pages went back to the system.
pub(crate) fn returned(pages: usize) {
    let less = |resident: usize| Some(resident.saturating_sub(pages));
    // Cannot fail: the closure always returns a value.
    let _ = RESIDENT.fetch_update(Relaxed, Relaxed, less);
}

pub(crate) fn resident() -> usize {
    RESIDENT.load(Relaxed)
}

/// Whether growth makes a tick due before its time.
#[inline]
pub(crate) fn is_due() -> bool {
    GROWTH.load(Relaxed) >= GROWTH_ALLOWED.load(Relaxed)
}

/// Whether ticks do not keep up with growth.
pub(crate) fn is_overdue() -> bool {
    GROWTH.load(Relaxed) / 2 >= GROWTH_ALLOWED.load(Relaxed)
}

/// At the beginning of a tick: returns the pages that became resident since the
/// last one, and starts counting again.
pub(crate) fn take_growth() -> usize {
    GROWTH.swap(0, Relaxed)
}

/// Sets the growth that makes the next tick due.
pub(crate) fn set_growth_allowed(pages: usize) {
    GROWTH_ALLOWED.store(pages, Relaxed);
}

/// Called by a tick: whether most of the epoch's growth is still in use.
pub(crate) fn set_growth_lasts(lasting: bool) {
    GROWTH_LASTS.store(lasting, Relaxed);
}

pub(crate) fn growth_lasts() -> bool {
    GROWTH_LASTS.load(Relaxed)
}
