//! The monotonic clock may jump back, in a process that is restored elsewhere or under a
//! fake clock: ticks go on.

use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

#[global_allocator]
static HEAP: neap::Neap = neap::Neap::new().tick_interval(Duration::from_millis(5));

/// Seconds that this process's clock is ahead of the system's.
static AHEAD: AtomicI64 = AtomicI64::new(100_000);

/// The C library's function of that name, as everything in this program calls it.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: by that function's contract `time` can be written.
    unsafe {
        let failed = libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int;
        (*time).tv_sec += AHEAD.load(Relaxed);
        failed
    }
}

/// Waits for more ticks while blocks above the pooled sizes come and go, each with a slow path.
fn ticks_go_on() -> bool {
    let before = neap::stats().ticks;
    (0..2000).any(|_| {
        (0..20).for_each(|_| drop(black_box(Vec::<u8>::with_capacity(300_000))));
        sleep(Duration::from_millis(1));
        neap::stats().ticks > before + 2
    })
}

#[test]
fn ticks_go_on_when_the_clock_goes_back() {
    assert!(ticks_go_on(), "before");
    AHEAD.store(0, Relaxed);
    assert!(ticks_go_on(), "after");
}
