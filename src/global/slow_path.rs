//! What `alloc` and `dealloc` do when the thread's magazine does not serve.

use crate::base::size_class::{RUN_MAX, block_size};
use crate::config::settings::{self, Settings};
use crate::config::soft_limit;
use crate::heap::free_batch;
use crate::heap::large::{self, Backing};
use crate::heap::lookup;
use crate::heap::mapped;
use crate::heap::uncached;
use crate::platform;
use crate::reclaim::background;
use crate::reclaim::fork;
use crate::reclaim::tick;
use crate::thread_cache::cache::{ThreadCache, cleared};
use crate::thread_cache::registry;
use crate::thread_cache::thread_local::{Phase, pop, this_thread};
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

/// Slow paths between two looks at the clock.
const POLL_EVERY: u64 = 8;

/// 0 before the first slow path, then one of the two.
static STARTED: AtomicU8 = AtomicU8::new(0);
const PROVISIONAL: u8 = 1;
const SETTLED: u8 = 2;

/// A block of a pooled class, after a pop that found none. Null without memory.
#[cold]
#[inline(never)]
pub(crate) fn refill(settings: &Settings, class: usize, zeroed: bool) -> *mut u8 {
    let new = this_thread().phase() == Phase::New;
    if new {
        // The pop met no magazine, and must not count as one on a magazine that
        // the thread takes over when it joins.
        this_thread().reset_top(class);
    }
    start(settings);
    let block = if new { begin_again(class, zeroed) } else { refill_after_pop(class, zeroed) };
    if block.is_null() { refill_again(class, zeroed) } else { block }
}

fn refill_after_pop(class: usize, zeroed: bool) -> *mut u8 {
    debug_assert!(this_thread().phase() != Phase::New);
    with_cache(|cache| cache.refill(class, zeroed)).unwrap_or_else(|| alloc_uncached(class, zeroed))
}

/// With no pop under way: joins, if the thread has not yet, and then pops.
/// `top` must tell that a pop is under way only where one is.
#[cold]
fn begin_again(class: usize, zeroed: bool) -> *mut u8 {
    if registry::current().is_none() {
        return alloc_uncached(class, zeroed);
    }
    // SAFETY: a class; a miss goes to the slow path.
    let block = unsafe { pop(class) };
    if block.is_null() {
        return refill_after_pop(class, zeroed);
    }
    // Many threads may live on what others left: this counts as a slow path, too.
    with_cache(|cache| cache.refills += 1);
    cleared(block, class, zeroed)
}

/// After making room begins again: a tick may have closed the magazine since the pop.
#[cold]
fn refill_again(class: usize, zeroed: bool) -> *mut u8 {
    make_room(block_size(class));
    begin_again(class, zeroed)
}

/// Takes a block of a pooled class that the magazine has no room for.
#[cold]
#[inline(never)]
pub(crate) fn spill(settings: &Settings, class: usize, block: usize) {
    if this_thread().phase() == Phase::New {
        this_thread().set_origin(lookup::origin(class, block));
    }
    start(settings);
    if with_cache(|cache| cache.spill(class, block)).is_none() {
        free_batch::free(class, &[block], true);
        background::wake_for_uncached();
    }
}

/// The same for C's `free`, which the C library also calls at a thread's very
/// end, for other threads' stacks, after the destructors by which a thread
/// leaves: a thread gets its cache by allocating, not by freeing.
#[cold]
#[inline(never)]
pub(crate) fn spill_without_joining(settings: &Settings, class: usize, block: usize) {
    if this_thread().phase() != Phase::New {
        return spill(settings, class, block);
    }
    this_thread().set_origin(lookup::origin(class, block));
    start(settings);
    registry::enter();
    free_batch::free(class, &[block], true);
    if u64::from(background::wake_for_uncached()).is_multiple_of(POLL_EVERY) {
        background::poll_without_starting();
    }
}

/// A block above the pooled sizes; `size` is padded for the alignment. Null without memory.
#[cold]
#[inline(never)]
pub(crate) fn alloc_large(settings: &Settings, size: usize, align: usize, zeroed: bool) -> *mut u8 {
    start(settings);
    background::poll();
    purge_at_limit(size);
    retry(size, || large::alloc(size, align, zeroed))
}

/// The same for a block that grew out of its place.
#[cold]
#[inline(never)]
pub(crate) fn alloc_growing(settings: &Settings, size: usize, align: usize) -> *mut u8 {
    start(settings);
    background::poll();
    purge_at_limit(size);
    let block = large::alloc_growing(size, align);
    if block.is_null() { alloc_large(settings, size, align, false) } else { block }
}

/// Frees a block above the pooled sizes; `size` is padded for the alignment.
#[cold]
#[inline(never)]
pub(crate) fn free_large(settings: &Settings, block: usize, size: usize) {
    free_backed(settings, block, large::backing_of(block, size));
}

/// The same where its backing is known instead of its size.
#[cold]
pub(crate) fn free_backed(settings: &Settings, block: usize, backing: Backing) {
    start(settings);
    large::free(block, backing);
    background::poll();
    background::wake_for_uncached();
}

/// The new address of a block above the pooled sizes, if its size can change to
/// another such size without copying.
pub(crate) fn resize_large(block: usize, size: usize) -> Option<*mut u8> {
    let block = large::resize(block, size);
    // What it no longer needs is for a tick.
    background::wake_for_uncached();
    block
}

/// Gives this thread's pooled blocks back to their spans.
pub(crate) fn flush_thread() {
    with_cache(ThreadCache::flush);
}

/// Runs `work` on the thread's cache, if it has one, and now and then a step of the tick.
fn with_cache<R>(work: impl FnOnce(&mut ThreadCache) -> R) -> Option<R> {
    let member = registry::current()?;
    let mut cache = member.cache.lock();
    let result = work(&mut cache);
    let due = cache.count_slow_path().is_multiple_of(POLL_EVERY);
    drop(cache);
    background::wake();
    if due {
        background::poll();
        purge_at_limit(0);
    }
    Some(result)
}

/// Before so much more memory counts as needed beyond the soft limit, all that
/// is free goes back.
#[inline]
fn purge_at_limit(more: usize) {
    if soft_limit::wants_purge(more) {
        tick::purge_for(more);
    }
}

/// For a thread without a thread cache: straight from a span.
fn alloc_uncached(class: usize, zeroed: bool) -> *mut u8 {
    this_thread().reset_top(class);
    let block = uncached::alloc(class);
    background::wake_for_uncached();
    cleared(block, class, zeroed)
}

/// A second try once everything free is where it can serve, before memory
/// counts as exhausted.
fn retry(size: usize, mut attempt: impl FnMut() -> *mut u8) -> *mut u8 {
    let block = attempt();
    if !block.is_null() {
        return block;
    }
    make_room(size);
    attempt()
}

/// Unmaps kept mappings; for a block of a segment also returns what threads
/// pool to its spans, and waits for what another's tick is just returning.
#[cold]
fn make_room(size: usize) {
    mapped::release(true);
    if size <= RUN_MAX {
        tick::purge();
    }
}

/// At the first slow path of the process, and at the first with settings of
/// the program's own, once there is an environment.
#[inline]
fn start(settings: &Settings) {
    let started = STARTED.load(Relaxed);
    if started < PROVISIONAL || (started < SETTLED && !settings.provisional) {
        start_with(settings);
    }
}

#[cold]
fn start_with(settings: &Settings) {
    let settled = !settings.provisional && platform::has_environment();
    let wanted = if settled { SETTLED } else { PROVISIONAL };
    let before = STARTED.fetch_max(wanted, Relaxed);
    if before < wanted {
        settings::read(settings);
    }
    fork::register();
}
