//! The background thread ticks, rests when nothing is left to age, and wakes again.

mod common;

use common::{MIB, child_succeeds, resident};
use neap::Neap;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(20);

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(INTERVAL).background(true);

/// Waits, without allocating, until no tick came for ten intervals.
fn wait_until_it_rests() -> u64 {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let ticks = neap::stats().ticks;
        std::thread::sleep(INTERVAL * 10);
        if neap::stats().ticks == ticks {
            return ticks;
        }
        assert!(Instant::now() < end, "it does not rest: {}", neap::stats());
    }
}

/// How often the other threads of this process went to sleep.
fn switches_of_others() -> u64 {
    let own = own_thread();
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc").map(|task| task.expect("a task").path());
    let others = tasks.filter(|task| task.file_name().is_some_and(|name| name != own.as_str()));
    let count = |task: std::path::PathBuf| {
        let text = std::fs::read_to_string(task.join("status")).expect("a status");
        let lines = text.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        lines.map(|count| count.trim().parse::<u64>().expect("a number")).sum::<u64>()
    };
    others.map(count).sum()
}

fn own_thread() -> String {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }.to_string()
}

#[test]
fn it_rests_when_nothing_is_left_and_wakes_again() {
    child_succeeds("it_rests_when_nothing_is_left_and_wakes_again", &[], || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        for round in 0..5 {
            let ticks = wait_until_it_rests();
            std::thread::sleep(INTERVAL * 20);
            assert_eq!(neap::stats().ticks, ticks, "round {round}");
            // One allocation and free wake it, by way of the slow path they must take.
            drop(std::hint::black_box(Box::new([round; 20])));
            let end = Instant::now() + Duration::from_secs(20);
            while neap::stats().ticks == ticks {
                assert!(Instant::now() < end, "round {round}: it does not wake");
                std::thread::sleep(INTERVAL);
            }
        }
        println!("{}", neap::stats());
    });
}

#[test]
fn while_it_rests_no_thread_is_switched_to() {
    child_succeeds("while_it_rests_no_thread_is_switched_to", &[], || {
        let sleepers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| {
                    drop((0..1000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
                    std::thread::park();
                })
            })
            .collect();
        // Reading the counts allocates, so it is done before and after the rest.
        wait_until_it_rests();
        let before = switches_of_others();
        wait_until_it_rests();
        std::thread::sleep(INTERVAL * 100);
        let after = switches_of_others();
        // In more than a hundred intervals. It takes some switches until it rests.
        assert!(after - before < 60, "{} switches", after - before);
        sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
        sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("no panic"));
    });
}

#[test]
fn what_is_freed_just_before_it_rests_goes_too() {
    child_succeeds("what_is_freed_just_before_it_rests_goes_too", &[], || {
        let start = resident();
        for pause in 0..60 {
            drop((0..2000).map(|_| vec![1u8; 3000]).collect::<Vec<_>>());
            drop(vec![1u8; MIB]);
            drop(vec![1u8; 6 * MIB]);
            // Some of these fall into the moment in which it goes to rest.
            std::thread::sleep(INTERVAL * 2 + Duration::from_millis(pause * 3));
        }
        wait_until_it_rests();
        let left = resident().saturating_sub(start);
        assert!(left < 2 * MIB, "{left} {}", neap::stats());
    });
}

#[test]
fn it_survives_a_destructor_that_panics() {
    child_succeeds("it_survives_a_destructor_that_panics", &[], || {
        struct Fails;
        impl Drop for Fails {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let pool: neap::Pool<Fails> = neap::Pool::new(|| Fails);
        for _ in 0..3 {
            pool.put(Fails);
            let end = Instant::now() + Duration::from_secs(20);
            while !pool.is_empty() {
                assert!(Instant::now() < end, "{pool:?}");
                std::thread::sleep(INTERVAL);
                // Starts the background thread, if it is not there yet.
                drop((0..1000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
            }
        }
        let ticks = neap::stats().ticks;
        std::thread::sleep(INTERVAL * 10);
        assert!(neap::stats().ticks > ticks, "the background thread is gone");
    });
}

#[test]
fn a_large_block_of_an_unusual_alignment_lets_it_rest() {
    child_succeeds("a_large_block_of_an_unusual_alignment_lets_it_rest", &[], || {
        let layout = std::alloc::Layout::from_size_align(6 * MIB, 64 << 10).expect("valid");
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        // SAFETY: the size is not zero.
        let blocks: [_; 8] = std::array::from_fn(|_| unsafe { std::alloc::alloc(layout) });
        wait_until_it_rests();
        // SAFETY: ours, with this layout.
        blocks.into_iter().for_each(|block| unsafe { std::alloc::dealloc(block, layout) });
    });
}

/// For the C library a process is over when its last thread has returned. The
/// background thread must not be the one that stays.
#[test]
fn a_forks_child_ends_when_its_last_thread_returns() {
    child_succeeds("a_forks_child_ends_when_its_last_thread_returns", &[], || {
        std::thread::spawn(|| {
            // SAFETY: the child only allocates, sleeps and returns.
            let child = unsafe { libc::fork() };
            if child == 0 {
                for _ in 0..20 {
                    drop((0..10_000).map(Box::new).collect::<Vec<_>>());
                    std::thread::sleep(Duration::from_millis(10));
                }
                return;
            }
            for _ in 0..1000 {
                // SAFETY: our own child, whose status nobody wants.
                if unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) } == child {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // SAFETY: our own child, still there.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child did not end");
        })
        .join()
        .expect("the child ends");
    });
}
