//! The background ticker: one thread that ticks, so that a process gone quiet
//! gives memory back too.
//!
//! It is started from a slow path, once the program's own initialisers run: an
//! earlier allocation may come from the loader. It is created with every
//! signal blocked and without Rust's runtime, so that starting it allocates
//! nothing of ours and runs no code of the program.

use crate::{epoch, settings, tide};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

static STARTED: AtomicBool = AtomicBool::new(false);
/// Set once the loader has done its part and runs the program's initialisers.
static LOADED: AtomicBool = AtomicBool::new(false);

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
static ON_LOAD: extern "C" fn() = on_load;

extern "C" fn on_load() {
    LOADED.store(true, Relaxed);
}

/// Enough for a tick, which calls nothing deep; the C library wants the rest.
const STACK: usize = 128 << 10;

/// From slow paths, holding no lock: starts the ticker if it is wanted and not there.
#[inline]
pub(crate) fn start_if_wanted() {
    if settings::background() && !STARTED.load(Relaxed) && LOADED.load(Relaxed) {
        start();
    }
}

#[cold]
fn start() {
    if STARTED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: every pointer is to a live local; the thread needs none of them.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        libc::pthread_attr_setstacksize(&mut attributes, STACK.max(libc::PTHREAD_STACK_MIN));
        libc::pthread_attr_setdetachstate(&mut attributes, libc::PTHREAD_CREATE_DETACHED);
        let mut thread = core::mem::zeroed();
        let failed = libc::pthread_create(&mut thread, &attributes, run, ptr::null_mut());
        libc::pthread_attr_destroy(&mut attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if failed != 0 {
            // No thread to be had now; the next slow path tries again.
            STARTED.store(false, Relaxed);
        }
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    loop {
        sleep_ms(settings::tick_interval_ms());
        tide::tick();
        epoch::run_hook();
    }
}

fn sleep_ms(ms: u64) {
    let time = libc::timespec {
        tv_sec: (ms / 1000) as libc::time_t,
        tv_nsec: (ms % 1000 * 1_000_000) as libc::c_long,
    };
    // SAFETY: the pointer is to a live timespec; signals are blocked here.
    unsafe { libc::nanosleep(&time, ptr::null_mut()) };
}

/// In a fork's child there is no ticker; the next slow path starts one.
pub(crate) fn forget() {
    STARTED.store(false, Relaxed);
}
