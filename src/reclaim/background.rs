//! The background thread, which ticks, so that a process that has become quiet returns
//! memory too.
//!
//! It is started from a slow path, once the program's own initialisers run: an earlier
//! allocation may come from the loader. It is created with every signal blocked and
//! without Rust's runtime, so that starting it allocates nothing from us and runs no
//! code of the program.
//!
//! While it is there, slow paths do no steps of a tick; they wake it early if memory
//! grows. When there is nothing left to age it parks: it sleeps without a time limit.
//! Every magazine is closed then, so the next thing a thread does with a block goes
//! through its slow path, which wakes the background thread.

use crate::base::epoch;
use crate::base::residency;
use crate::config::settings;
use crate::platform;
use crate::reclaim::tick;
use crate::thread_cache::registry;
use crate::thread_cache::thread_local::this_thread;
use core::ffi::c_void;
use core::mem;
use core::ptr;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, fence};
use std::panic::catch_unwind;

static STARTED: AtomicBool = AtomicBool::new(false);
/// What the background thread does; it sleeps on this word.
static STATE: AtomicU32 = AtomicU32::new(WORKING);
const WORKING: u32 = 0;
/// It sleeps until a tick is due.
const WAITING: u32 = 1;
/// It sleeps until a slow path wakes it.
const PARKED: u32 = 2;

/// Counts the calls that changed settings.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// Counts slow paths without a thread cache.
static UNCACHED: AtomicU32 = AtomicU32::new(0);

/// Ticks in a row that find nothing, before it parks.
const IDLE_TICKS: u32 = 2;

/// Bytes of its stack. A tick needs little, but it runs the program's destructors of
/// pooled objects, and the thread-local storage of the program lies in here too.
const STACK: usize = 512 << 10;

/// Called from every few slow paths, without locks: does a step of a tick that is due, or
/// leaves it to the background thread, which it starts or wakes if need be.
pub(crate) fn poll() {
    if !STARTED.load(Relaxed) {
        tick::poll();
        // Not if no thread has a cache: the last one has left and is about to end.
        if settings::background() && platform::program_is_loaded() && registry::threads() > 0 {
            start();
        }
    } else if residency::is_due() {
        wake_from(WAITING);
        if residency::is_overdue() {
            tick::poll();
        }
    }
}

/// The same for a thread that may be at its very end and must not start another.
pub(crate) fn poll_without_starting() {
    if !STARTED.load(Relaxed) {
        tick::poll();
    }
}

/// Called from every slow path, after it changed its thread cache and dropped the lock:
/// the background thread has something to age again.
#[inline]
pub(crate) fn wake() {
    // Relaxed: `park` has taken the cache's lock after it set `PARKED`, so either it saw
    // the change, or the lock lets this load see `PARKED`.
    if STATE.load(Relaxed) == PARKED {
        wake_from(PARKED);
    }
}

/// The same for a slow path without a thread cache. Returns how many came before.
#[inline]
pub(crate) fn wake_for_uncached() -> u32 {
    // Both SeqCst, like the store and the fence in `park`, where the order is the other way
    // round: either `park` sees the count, or this sees `PARKED`.
    let before = UNCACHED.fetch_add(1, SeqCst);
    if STATE.load(SeqCst) == PARKED {
        wake_from(PARKED);
    }
    before
}

#[cold]
fn wake_from(state: u32) {
    // Relaxed: the state only says whether to wake; data is handed over under locks.
    if STATE.compare_exchange(state, WORKING, Relaxed, Relaxed).is_ok() {
        platform::wake(&STATE);
    }
}

/// Called after settings changed: the background thread looks at them again, now, and ends if
/// it is no longer wanted.
pub(crate) fn settings_changed() {
    // Both SeqCst, like the store and the load in `run` and in `park`, where the order is the
    // other way round: either the thread sees the count, or this sees that it sleeps.
    CHANGES.fetch_add(1, SeqCst);
    match STATE.load(SeqCst) {
        WORKING => {}
        asleep => wake_from(asleep),
    }
}

#[cold]
fn start() {
    if STARTED.swap(true, Relaxed) {
        return;
    }
    if !platform::spawn(STACK, run) {
        // The system has no thread to spare now; a later slow path tries again.
        STARTED.store(false, Relaxed);
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let mut idle_ticks = 0;
    registry::when_nearly_empty(on_nearly_empty);
    loop {
        // SeqCst, see `settings_changed`; before any setting is read.
        let changes = CHANGES.load(SeqCst);
        if is_to_end() {
            // A slow path later starts another one, if wanted. One in between saw `STARTED`
            // still set, so check again.
            STARTED.store(false, SeqCst);
            if is_to_end() || STARTED.swap(true, SeqCst) {
                return ptr::null_mut();
            }
        }
        let uncached = UNCACHED.load(Relaxed);
        let outcome = tick::tick_if_due();
        if outcome.ticked {
            // If a destructor of the program panics, this thread goes on: the panic was
            // reported, and there is no caller to pass it to.
            mem::forget(catch_unwind(epoch::run_hook));
            idle_ticks = if outcome.nothing_left { idle_ticks + 1 } else { 0 };
        }
        if idle_ticks < IDLE_TICKS || !park(uncached, changes) {
            // SeqCst, like what the last thread does in the other order: either it sees
            // `WAITING`, or `is_last` sees that it has left.
            STATE.store(WAITING, SeqCst);
            if !is_last() && CHANGES.load(SeqCst) == changes {
                platform::wait(&STATE, WAITING, Some(outcome.wait_ms));
            }
            STATE.store(WORKING, Relaxed);
        } else {
            idle_ticks = 0;
        }
    }
}

fn is_to_end() -> bool {
    is_last() || !settings::background()
}

/// 1 if the background thread has a cache itself: a pooled object's destructor ran on it.
static OWN_CACHE: AtomicUsize = AtomicUsize::new(0);

/// Whether no thread has a cache, except perhaps this one. The background thread then
/// ends: if all others have returned, the C library ends the process only when no thread
/// of any kind is left, in a fork's child as well.
fn is_last() -> bool {
    // Both SeqCst: the leaving thread counts itself out first and then reads `OWN_CACHE`.
    OWN_CACHE.store(!this_thread().cache().is_null() as usize, SeqCst);
    registry::threads() <= OWN_CACHE.load(SeqCst)
}

/// Called by a thread that has left, if at most one other has a cache. If that is the
/// background thread, or there is none, wakes it to end.
fn on_nearly_empty() {
    if registry::threads() > OWN_CACHE.load(SeqCst) {
        return;
    }
    // SeqCst: see `run`.
    STATE.store(WORKING, SeqCst);
    platform::wake(&STATE);
}

/// Parks: sleeps until a slow path has left something to age, or settings change. False if one
/// of these is so already. Typed pools do not come through slow paths, so with any it never
/// parks.
fn park(uncached: u32, changes: u32) -> bool {
    if epoch::has_hook() {
        return false;
    }
    // SeqCst, with the fence: see `wake_for_uncached`.
    STATE.store(PARKED, SeqCst);
    fence(SeqCst);
    // `nothing_left` takes each cache's lock: a slow path before that is seen here, and a
    // later one sees `PARKED`.
    let changed = || UNCACHED.load(Relaxed) != uncached || CHANGES.load(SeqCst) != changes;
    if !tick::nothing_left() || changed() || is_last() {
        STATE.store(WORKING, Relaxed);
        return false;
    }
    while STATE.load(Relaxed) == PARKED {
        platform::wait(&STATE, PARKED, None);
    }
    true
}

/// In a fork's child there is no background thread; a later slow path starts one.
pub(super) fn reset_in_child() {
    STARTED.store(false, Relaxed);
    STATE.store(WORKING, Relaxed);
}
