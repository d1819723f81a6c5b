//! What became resident, in pages, counted where a page is touched for the
//! first time (a page fault, beside which the count costs nothing), or where a
//! slice that will be is freed with such pages in it.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicUsize};

/// Growth of a small heap for which a tick is due early: 8 MiB.
pub(crate) const LEAST: usize = 2048;

/// Resident pages of the segments; an estimate.
static RESIDENT: AtomicUsize = AtomicUsize::new(0);
/// Those that became so since the last tick began.
static GROWN: AtomicUsize = AtomicUsize::new(0);
/// So many, and a tick is due.
static ALLOWED: AtomicUsize = AtomicUsize::new(LEAST);

/// The last tick found little to return beside what had come.
static LASTING: AtomicBool = AtomicBool::new(true);

/// The program is about to touch so many pages that were not resident.
#[inline]
pub(crate) fn add(pages: usize) {
    RESIDENT.fetch_add(pages, Relaxed);
    GROWN.fetch_add(pages, Relaxed);
}

/// Pages not resident that count as such from now on, with others of their slice.
pub(crate) fn round_up(pages: usize) {
    RESIDENT.fetch_add(pages, Relaxed);
}

/// So many pages went back to the system.
pub(crate) fn returned(pages: usize) {
    let less = |resident: usize| Some(resident.saturating_sub(pages));
    // Infallible: the closure always gives a value.
    let _ = RESIDENT.fetch_update(Relaxed, Relaxed, less);
}

pub(crate) fn resident() -> usize {
    RESIDENT.load(Relaxed)
}

/// So much growth that a tick is due before its time.
#[inline]
pub(crate) fn is_due() -> bool {
    GROWN.load(Relaxed) >= ALLOWED.load(Relaxed)
}

/// So much that whoever should tick does not keep up.
pub(crate) fn is_overdue() -> bool {
    GROWN.load(Relaxed) / 2 >= ALLOWED.load(Relaxed)
}

/// A tick begins; gives the pages that became resident before.
pub(crate) fn begin() -> usize {
    GROWN.swap(0, Relaxed)
}

/// Sets what growth makes the next tick due.
pub(crate) fn allow(pages: usize) {
    ALLOWED.store(pages, Relaxed);
}

/// By a tick: whether what came in the epoch is in use.
pub(crate) fn set_lasting(lasting: bool) {
    LASTING.store(lasting, Relaxed);
}

pub(crate) fn is_lasting() -> bool {
    LASTING.load(Relaxed)
}
