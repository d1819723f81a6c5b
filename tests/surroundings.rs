//! What Neap leaves alone in the process around it: errno, and threads of other priorities.

mod common;

use common::{MIB, child_succeeds};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

#[global_allocator]
static HEAP: neap::Neap = neap::Neap::new();

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().expect("a code")
}

fn set_errno(code: i32) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = code };
}

/// Runs `work`, which must leave errno as it was.
fn keeps_errno(work: impl FnOnce()) {
    const MARK: i32 = 4242;
    set_errno(MARK);
    work();
    assert_eq!(errno(), MARK);
}

/// Pages that are locked cannot be returned, and the address space runs out: the system calls
/// fail, and the program sees nothing of that.
#[test]
fn errno_is_the_programs_own() {
    child_succeeds("errno_is_the_programs_own", &[], || {
        let blocks: Vec<Vec<u8>> = (0..40_000).map(|number| vec![1; 16 + number % 2000]).collect();
        let large: Vec<Vec<u8>> = (0..8).map(|_| vec![1; 9 * MIB]).collect();
        // SAFETY: no pointers. Where it is refused, less fails.
        let locked = unsafe { libc::mlockall(libc::MCL_CURRENT) } == 0;
        keeps_errno(|| drop(blocks));
        keeps_errno(neap::tick);
        keeps_errno(neap::purge);
        keeps_errno(|| drop(large));
        keeps_errno(neap::purge);
        // What else the purge would have returned is still counted as resident.
        assert!(!locked || neap::stats().resident > 0);
        keeps_errno(|| drop(black_box(vec![1u8; 300_000])));
        let limit = libc::rlimit { rlim_cur: 64 << 20, rlim_max: 64 << 20 };
        // SAFETY: the limit lives longer than the call.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
        keeps_errno(|| assert!(Vec::<u8>::new().try_reserve_exact(1 << 30).is_err()));
    });
}

/// Both threads on one processor.
fn pin() {
    // SAFETY: the set lives longer than the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// False if this process may not have a real-time priority.
fn become_real_time() -> bool {
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: the parameters live longer than the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) == 0 }
}

/// A thread that holds a lock of Neap's is interrupted by one of real-time priority that wants it:
/// the latter must let it go on. If it does not, nothing goes on until the system throttles
/// it, for a second or two an operation, and the child's alarm ends it.
#[test]
fn a_real_time_thread_waits_for_an_ordinary_one() {
    const OPERATIONS: usize = 2000;
    child_succeeds("a_real_time_thread_waits_for_an_ordinary_one", &[], || {
        static STOP: AtomicBool = AtomicBool::new(false);
        // A block above the pooled sizes takes the page heap's lock each time.
        let operation = || drop(black_box(Vec::<u8>::with_capacity(300_000)));
        let ordinary = thread::spawn(move || {
            pin();
            while !STOP.load(Relaxed) {
                operation();
            }
        });
        let real_time = thread::spawn(move || {
            pin();
            let may = become_real_time();
            for _ in 0..if may { OPERATIONS } else { 0 } {
                thread::sleep(Duration::from_micros(100));
                operation();
            }
            STOP.store(true, Relaxed);
            may
        });
        if !real_time.join().expect("no panic") {
            println!("no real-time priority to be had: nothing tested");
        }
        ordinary.join().expect("no panic");
    });
}
