//! The soft limit: how close the process is to it, by what Neap keeps resident.
//!
//! The counts are estimates and publish no other data, so every access is Relaxed.

use crate::base::residency;
use crate::base::size_class::PAGE;
use crate::config::settings;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of mapped blocks, kept mappings included.
pub(crate) static MAPPED: AtomicUsize = AtomicUsize::new(0);
/// Resident bytes after the last purge at the limit.
static RESIDENT_AT_PURGE: AtomicUsize = AtomicUsize::new(0);

/// Near means above three quarters of the limit.
const NEAR: (usize, usize) = (3, 4);
/// Above the limit the next purge comes after growth by this fraction of it: a 32nd.
const PURGE_EVERY: usize = 32;

/// Resident bytes of all blocks, free or not; an estimate.
pub(super) fn resident() -> usize {
    residency::resident() * PAGE + MAPPED.load(Relaxed)
}

/// Bytes left below the limit, if it is near.
pub(crate) fn left_if_near() -> Option<usize> {
    (!is_far_with(0)).then(|| settings::limit().saturating_sub(resident()))
}

/// Whether the limit is still far with `more` bytes.
pub(crate) fn is_far_with(more: usize) -> bool {
    let limit = settings::limit();
    limit == usize::MAX || resident().saturating_add(more) <= limit / NEAR.1 * NEAR.0
}

/// Whether everything free should go back: with `more` bytes the limit is reached,
/// and there was growth since the last purge for it.
#[inline]
pub(crate) fn wants_purge(more: usize) -> bool {
    let limit = settings::limit();
    limit != usize::MAX && is_reached(limit, more)
}

#[cold]
fn is_reached(limit: usize, more: usize) -> bool {
    let resident = resident();
    if resident.saturating_add(more) < limit {
        RESIDENT_AT_PURGE.store(0, Relaxed);
        return false;
    }
    resident.saturating_add(more) >= RESIDENT_AT_PURGE.load(Relaxed).saturating_add(limit / PURGE_EVERY)
}

/// Changes the limit, or lifts it if `bytes` is 0. What is free may have to go back at once,
/// whatever the last purge left.
pub(crate) fn set(bytes: usize) {
    settings::set_limit(bytes);
    RESIDENT_AT_PURGE.store(0, Relaxed);
    settings::set_near_limit(left_if_near().is_some());
}

/// Everything free went back, and `more` bytes come next.
pub(crate) fn note_purge(more: usize) {
    RESIDENT_AT_PURGE.store(resident().saturating_add(more), Relaxed);
}
