//! `fork` while other threads allocate: in the child, allocator and pools work.

mod common;

use common::Random;
use neap::Neap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_millis(5)).background(true);

fn work(random: &mut Random, kept: &mut Vec<Vec<u8>>) {
    let size = match random.below(100) {
        0 => 6 << 20,
        1..5 => random.below(1 << 20),
        _ => random.below(600),
    };
    kept.push(Vec::with_capacity(size));
    if kept.len() > 200 {
        kept.drain(..random.below(200));
    }
}

/// Forks a child that does `work` and exits with its result. If it hangs, an alarm ends
/// it after so many seconds; 0 means no alarm. Returns how it ended.
fn forked(seconds: u32, work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only allocates, ticks, uses pools and starts threads,
    // which the C library and Neap allow, and leaves without exit handlers.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::alarm(seconds);
            libc::_exit(work());
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        status
    }
}

/// What the child does. Returns its exit code.
fn child() -> i32 {
    let mut kept = Vec::new();
    let mut random = Random(9);
    for _ in 0..5000 {
        work(&mut random, &mut kept);
    }
    neap::tick();
    neap::purge();
    let thread = std::thread::spawn(|| vec![String::from("child"); 1000].len());
    let grandchild = thread.join().map_or(0, |count| count);
    let threads = neap::stats().threads;
    if grandchild == 1000 && threads <= 3 { 0 } else { 3 }
}

#[test]
fn a_child_of_busy_threads_allocates() {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (1..=6)
        .map(|seed| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut random, mut kept) = (Random(seed), Vec::new());
                while !stop.load(Relaxed) {
                    work(&mut random, &mut kept);
                }
            })
        })
        .collect();
    for round in 0..60 {
        let status = forked(30, child);
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "round {round}: status {status:#x}"
        );
    }
    stop.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn a_child_of_threads_that_use_a_pool_ticks() {
    static POOL: neap::Pool<Vec<u8>> = neap::Pool::new(Vec::new);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    drop(POOL.get());
                }
            })
        })
        .collect();
    for round in 0..60 {
        let status = forked(10, || {
            neap::tick();
            neap::tick();
            0
        });
        assert_eq!(status, 0, "round {round}");
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// To run in a process of its own: forks a child while another thread uses the
/// process's first pool for the first time. Returns how the child ended.
fn fork_at_first_use(delay: u32) -> i32 {
    static FIRST: neap::Pool<Vec<u8>> = neap::Pool::new(Vec::new);
    static OTHER: neap::Pool<Vec<u8>> = neap::Pool::new(Vec::new);
    static STAGE: AtomicUsize = AtomicUsize::new(0);
    let other = std::thread::spawn(move || {
        drop(vec![1u8; 100]);
        STAGE.store(1, SeqCst);
        while STAGE.load(SeqCst) == 1 {}
        (0..delay).for_each(|_| std::hint::spin_loop());
        FIRST.put(vec![1]);
    });
    while STAGE.load(SeqCst) == 0 {}
    STAGE.store(2, SeqCst);
    let status = forked(10, || {
        FIRST.put(vec![2]);
        OTHER.put(vec![3]);
        0
    });
    other.join().expect("no panic");
    status
}

#[test]
fn a_child_made_at_a_pools_first_use_has_pools() {
    for round in 0..100 {
        let status = forked(0, || (fork_at_first_use(round % 50) != 0) as i32);
        assert_eq!(status, 0, "round {round}");
    }
}
