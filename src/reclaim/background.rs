//! The background thread: one that ticks, so that a process gone quiet
//! gives memory back too.
//!
//! It is started from a slow path, once the program's own initialisers run: an
//! earlier allocation may come from the loader. It is created with every
//! signal blocked and without Rust's runtime, so that starting it allocates
//! nothing of ours and runs no code of the program.
//!
//! While it is there, slow paths do no steps of a tick; they wake it early if
//! memory grows. When there is nothing left to age it sleeps for good: every
//! magazine is closed then, so whatever a thread does next with a block comes
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
/// Sleeps until a tick is due.
const WAITING: u32 = 1;
/// Sleeps until a slow path wakes it.
const RESTING: u32 = 2;

/// Counts what slow paths do without a thread cache.
static UNCACHED: AtomicU32 = AtomicU32::new(0);

/// Ticks in a row that found nothing, before it rests.
const QUIET_TICKS: u32 = 2;

/// A tick calls nothing deep, but the destructors of pooled objects are the
/// program's own, and its thread-local storage lies in here too.
const STACK: usize = 512 << 10;

/// From slow paths now and then, holding no lock: sees to it that a tick that
/// is due is done, by the background thread if it is wanted, starting it where need be.
pub(crate) fn poll() {
    if !STARTED.load(Relaxed) {
        tick::poll();
        // Not for a thread that has given its cache back: it is about to end.
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

/// The same from a thread that may be at its very end, and must not start one.
pub(crate) fn poll_without_starting() {
    if !STARTED.load(Relaxed) {
        tick::poll();
    }
}

/// From every slow path, after what it did to its thread's pools, and after
/// its lock: the background thread has something to age again.
#[inline]
pub(crate) fn wake() {
    if STATE.load(Relaxed) == RESTING {
        wake_from(RESTING);
    }
}

/// The same for what is done without a thread cache and its lock; how often it was.
#[inline]
pub(crate) fn wake_for_uncached() -> u32 {
    // Both SeqCst, as what `rest` does in the other order: the count is seen
    // there, or that it rests is seen here.
    let before = UNCACHED.fetch_add(1, SeqCst);
    if STATE.load(SeqCst) == RESTING {
        wake_from(RESTING);
    }
    before
}

#[cold]
fn wake_from(state: u32) {
    if STATE.compare_exchange(state, WORKING, Relaxed, Relaxed).is_ok() {
        platform::wake(&STATE);
    }
}

#[cold]
fn start() {
    if STARTED.swap(true, Relaxed) {
        return;
    }
    if !platform::spawn(STACK, run) {
        // No thread to be had now; the next slow path tries again.
        STARTED.store(false, Relaxed);
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let mut quiet = 0;
    registry::when_nearly_empty(nobody_left);
    loop {
        if is_last() {
            // Whoever comes later starts another. Who came in between saw this one.
            STARTED.store(false, SeqCst);
            if is_last() || STARTED.swap(true, SeqCst) {
                return ptr::null_mut();
            }
        }
        let apart = UNCACHED.load(Relaxed);
        let look = tick::tick_if_due();
        if look.ticked {
            // A destructor of the program's that panics ends nothing here: the
            // panic was reported, and there is no caller to pass it to.
            mem::forget(catch_unwind(epoch::run_hook));
            quiet = if look.quiet { quiet + 1 } else { 0 };
        }
        if quiet < QUIET_TICKS || !rest(apart) {
            // SeqCst, as what the last thread does in the other order: it sees
            // that the background thread waits, or is seen to have left.
            STATE.store(WAITING, SeqCst);
            if !is_last() {
                platform::wait(&STATE, WAITING, Some(look.wait));
            }
            STATE.store(WORKING, Relaxed);
        } else {
            quiet = 0;
        }
    }
}

/// 1 if the background thread has a cache itself: a pooled object's destructor ran on it.
static OWN_HEAP: AtomicUsize = AtomicUsize::new(0);

/// No thread has a cache but perhaps this one. The background thread then ends: a process
/// whose threads have all returned is over for the C library only when no
/// thread of any kind is left, in a fork's child as well.
fn is_last() -> bool {
    // Both SeqCst, as in `nobody_left` in the other order.
    OWN_HEAP.store(!this_thread().cache().is_null() as usize, SeqCst);
    registry::threads() <= OWN_HEAP.load(SeqCst)
}

/// By a thread that leaves none or one behind: the background thread should look, if it is
/// that one.
fn nobody_left() {
    if registry::threads() > OWN_HEAP.load(SeqCst) {
        return;
    }
    STATE.store(WORKING, SeqCst);
    platform::wake(&STATE);
}

/// Sleeps until a slow path has left something to age; false if there is
/// something already. Typed pools are not asked, so they keep it awake.
fn rest(apart: u32) -> bool {
    if epoch::has_hook() {
        return false;
    }
    STATE.store(RESTING, SeqCst);
    fence(SeqCst);
    // Under each cache's lock: who comes through a slow path before is seen
    // here; who comes later sees that the background thread rests.
    if !tick::is_out() || UNCACHED.load(Relaxed) != apart || is_last() {
        STATE.store(WORKING, Relaxed);
        return false;
    }
    while STATE.load(Relaxed) == RESTING {
        platform::wait(&STATE, RESTING, None);
    }
    true
}

/// In a fork's child there is no background thread; the next slow path starts one.
pub(super) fn forget() {
    STARTED.store(false, Relaxed);
    STATE.store(WORKING, Relaxed);
}
