//! The soft limit: how near to it the process is, by what Neap keeps resident.

use crate::base::residency;
use crate::base::size_class::PAGE;
use crate::config::settings;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of blocks that are mappings of their own, kept ones included.
pub(crate) static MAPPED: AtomicUsize = AtomicUsize::new(0);
/// What was resident after the last purge for the limit's sake.
static PURGED_AT: AtomicUsize = AtomicUsize::new(0);

/// Near is above three quarters of the limit.
const NEAR: (usize, usize) = (3, 4);
/// Above the limit it is purged again after so small a part of it has come.
const AGAIN: usize = 32;

/// Resident bytes of all blocks, free or not; an estimate.
pub(crate) fn resident() -> usize {
    residency::resident() * PAGE + MAPPED.load(Relaxed)
}

/// What is still to be had below the limit, if that is near.
pub(crate) fn left_if_near() -> Option<usize> {
    (!is_far_from(0)).then(|| settings::limit().saturating_sub(resident()))
}

/// With `more` bytes it will not be near.
pub(crate) fn is_far_from(more: usize) -> bool {
    let limit = settings::limit();
    limit == usize::MAX || resident().saturating_add(more) <= limit / NEAR.1 * NEAR.0
}

/// With `more` bytes the limit is reached, and something has come since the
/// last time that this was said: everything free should go back.
#[inline]
pub(crate) fn wants_purge(more: usize) -> bool {
    let limit = settings::limit();
    limit != usize::MAX && is_reached(limit, more)
}

#[cold]
fn is_reached(limit: usize, more: usize) -> bool {
    let resident = resident();
    if resident.saturating_add(more) < limit {
        PURGED_AT.store(0, Relaxed);
        return false;
    }
    resident.saturating_add(more) >= PURGED_AT.load(Relaxed).saturating_add(limit / AGAIN)
}

/// Everything free went back, before `more` bytes come.
pub(crate) fn purged(more: usize) {
    PURGED_AT.store(resident().saturating_add(more), Relaxed);
}
