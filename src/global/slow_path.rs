//! What `alloc` and `dealloc` do when the thread's magazine cannot serve.

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

/// Slow paths between two checks of the clock.
const POLL_EVERY: u64 = 8;

/// 0 before the first slow path, then how the settings were read.
static STARTED: AtomicU8 = AtomicU8::new(0);
/// The C API's, or before there was an environment: they are read again.
const PROVISIONAL: u8 = 1;
/// The program's own.
const CONFIGURED: u8 = 2;

/// A block of a pooled class, after a pop that found none. Null without memory.
#[cold]
#[inline(never)]
pub(crate) fn refill(settings: &Settings, class: usize, zeroed: bool) -> *mut u8 {
    let new = this_thread().phase() == Phase::New;
    if new {
        // The pop met no magazine. It must not count as a pop on the magazine that the
        // thread may inherit when it joins.
        this_thread().reset_top(class);
    }
    start(settings);
    let block = if new { join_and_pop(class, zeroed) } else { refill_after_pop(class, zeroed) };
    if block.is_null() { refill_again(class, zeroed) } else { block }
}

fn refill_after_pop(class: usize, zeroed: bool) -> *mut u8 {
    debug_assert!(this_thread().phase() != Phase::New);
    with_cache(|cache| cache.refill(class, zeroed)).unwrap_or_else(|| alloc_uncached(class, zeroed))
}

/// With no pop under way: joins if the thread has not joined yet, and then pops. A pop is
/// needed because `refill_after_pop` undoes one.
#[cold]
fn join_and_pop(class: usize, zeroed: bool) -> *mut u8 {
    if registry::current().is_none() {
        return alloc_uncached(class, zeroed);
    }
    // SAFETY: a class; a miss goes to the slow path.
    let block = unsafe { pop(class) };
    if block.is_null() {
        return refill_after_pop(class, zeroed);
    }
    // Counts as a slow path too: many threads may live on what others left.
    with_cache(|cache| cache.refills += 1);
    cleared(block, class, zeroed)
}

/// Makes room and tries again, beginning with the pop: a tick may have closed the
/// magazine since the last one.
#[cold]
fn refill_again(class: usize, zeroed: bool) -> *mut u8 {
    make_room(block_size(class));
    join_and_pop(class, zeroed)
}

/// Frees a block of a pooled class for which the magazine has no room.
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

/// The same for C's `free`, which the C library also calls at a thread's very end, for
/// other threads' stacks. That is after the destructors by which a thread leaves, so a
/// thread gets its cache by allocating, not by freeing.
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

/// Allocates a block above the pooled sizes; `size` is padded for the alignment. Null
/// without memory.
#[cold]
#[inline(never)]
pub(crate) fn alloc_large(settings: &Settings, size: usize, align: usize, zeroed: bool) -> *mut u8 {
    start(settings);
    background::poll();
    purge_at_limit(size);
    retry(size, || large::alloc(size, align, zeroed))
}

/// The same for a block that outgrew its place.
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

/// The same if its backing is known instead of its size.
#[cold]
pub(crate) fn free_backed(settings: &Settings, block: usize, backing: Backing) {
    start(settings);
    large::free(block, backing);
    background::poll();
    background::wake_for_uncached();
}

/// Resizes a block above the pooled sizes to another such size and returns its address,
/// if that needs no copying.
pub(crate) fn resize_large(block: usize, size: usize) -> Option<*mut u8> {
    let block = large::resize(block, size);
    // A tick returns what the block no longer needs.
    background::wake_for_uncached();
    block
}

/// Frees this thread's pooled blocks to their spans.
pub(crate) fn flush_thread() {
    with_cache(ThreadCache::flush);
}

/// Runs `work` on the thread's cache, if it has one, and sometimes a step of the tick.
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

/// Returns everything free if `more` bytes would reach the soft limit.
#[inline]
fn purge_at_limit(more: usize) {
    if soft_limit::wants_purge(more) {
        tick::purge_for(more);
    }
}

/// A block for a thread without a thread cache, straight from a span.
fn alloc_uncached(class: usize, zeroed: bool) -> *mut u8 {
    this_thread().reset_top(class);
    let block = uncached::alloc(class);
    background::wake_for_uncached();
    cleared(block, class, zeroed)
}

/// Tries a second time after making room, before memory counts as exhausted.
fn retry(size: usize, mut attempt: impl FnMut() -> *mut u8) -> *mut u8 {
    let block = attempt();
    if !block.is_null() {
        return block;
    }
    make_room(size);
    attempt()
}

/// Unmaps kept mappings. For a block of a segment it also frees what threads pool to the
/// spans, and waits for a tick under way, which may have claimed memory.
#[cold]
fn make_room(size: usize) {
    mapped::release(true);
    if size <= RUN_MAX {
        tick::purge();
    }
}

/// Reads the settings at the process's first slow path, and again at the first one with
/// the program's own settings and an environment.
///
/// Relaxed: see `settings`.
#[inline]
fn start(settings: &Settings) {
    let started = STARTED.load(Relaxed);
    if started < PROVISIONAL || (started < CONFIGURED && !settings.provisional) {
        start_with(settings);
    }
}

#[cold]
fn start_with(settings: &Settings) {
    let configured = !settings.provisional && platform::has_environment();
    let now = if configured { CONFIGURED } else { PROVISIONAL };
    let before = STARTED.fetch_max(now, Relaxed);
    if before < now {
        settings::read(settings);
    }
    fork::register();
}
