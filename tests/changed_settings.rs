//! Settings that a call changes while the process runs.

mod common;

use common::{MIB, Random, child_succeeds};
use neap::Neap;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(HOUR);

const HOUR: Duration = Duration::from_secs(3600);

/// Allocates for a while, by slow paths, on no more memory than before.
fn churn_for(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
    }
}

/// Waits, without allocating, until the background thread has returned what [`churn_for`] left.
fn wait_until_nothing_is_pooled() {
    let end = Instant::now() + Duration::from_secs(30);
    while neap::stats().pooled_local + neap::stats().pooled_victim > 0 {
        assert!(Instant::now() < end, "nobody ticks: {}", neap::stats());
        rest();
    }
}

fn rest() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Allocates until slow paths have done some ticks.
fn churn_until_it_ticks() {
    let (before, end) = (neap::stats().ticks, Instant::now() + Duration::from_secs(30));
    while neap::stats().ticks < before + 3 {
        assert!(Instant::now() < end, "no tick: {}", neap::stats());
        churn_for(Duration::from_millis(1));
    }
}

#[test]
fn the_interval_is_the_programs_until_a_call_changes_it() {
    child_succeeds("the_interval_is_the_programs_until_a_call_changes_it", &[], || {
        // Longer than an epoch by default.
        churn_for(Duration::from_millis(1200));
        assert_eq!(neap::stats().ticks, 0);
        neap::set_tick_interval(Duration::from_millis(20));
        churn_until_it_ticks();
        neap::set_tick_interval(HOUR);
        // The rest of one that was under way.
        churn_for(Duration::from_millis(20));
        let ticks = neap::stats().ticks;
        churn_for(Duration::from_millis(200));
        assert_eq!(neap::stats().ticks, ticks);
    });
}

#[test]
fn a_shorter_interval_wakes_the_background_thread() {
    child_succeeds("a_shorter_interval_wakes_the_background_thread", &[("NEAP_BACKGROUND", "1")], || {
        churn_for(Duration::from_millis(100));
        assert_eq!(neap::stats().ticks, 0);
        // It has gone to wait for an hour.
        std::thread::sleep(Duration::from_millis(200));
        neap::set_tick_interval(Duration::from_millis(20));
        wait_until_nothing_is_pooled();
    });
}

/// Threads of this process.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("proc").count()
}

#[cfg(target_os = "linux")]
#[test]
fn the_background_thread_comes_and_goes_by_calls() {
    child_succeeds(
        "the_background_thread_comes_and_goes_by_calls",
        &[("NEAP_TICK_INTERVAL_MS", "20")],
        || {
            churn_for(Duration::from_millis(100));
            let without = threads();
            // In some rounds it ends while it waits or ticks, in the others it has parked.
            for round in 0..6 {
                neap::set_background(true);
                churn_for(Duration::from_millis(20));
                wait_until_nothing_is_pooled();
                assert_eq!(threads(), without + 1);
                if round % 2 == 0 {
                    std::thread::sleep(Duration::from_millis(300));
                }
                neap::set_background(false);
                let end = Instant::now() + Duration::from_secs(30);
                while threads() > without {
                    assert!(Instant::now() < end, "round {round}: it stays");
                    rest();
                }
                churn_for(Duration::from_millis(20));
                // There is much to age, and nobody does.
                let ticks = neap::stats().ticks;
                std::thread::sleep(Duration::from_millis(200));
                assert_eq!(neap::stats().ticks, ticks, "round {round}");
                // Slow paths do, again.
                churn_until_it_ticks();
            }
        },
    );
}

/// Calls from several threads, among slow paths and ticks.
#[test]
fn calls_may_come_from_any_thread() {
    child_succeeds("calls_may_come_from_any_thread", &[("NEAP_TICK_INTERVAL_MS", "1")], || {
        let end = Instant::now() + Duration::from_millis(700);
        std::thread::scope(|scope| {
            for seed in 1..=4 {
                scope.spawn(move || {
                    let mut random = Random(seed);
                    while Instant::now() < end {
                        neap::set_background(random.below(2) == 0);
                        neap::set_tick_interval(Duration::from_millis(random.below(5) as u64));
                        neap::set_thread_pool_bytes(random.below(2 * MIB));
                        neap::set_limit(random.below(4 * MIB));
                        drop((0..500).map(|n| vec![1u8; n]).collect::<Vec<_>>());
                    }
                });
            }
        });
        neap::set_background(true);
        neap::set_tick_interval(Duration::from_millis(10));
        neap::set_thread_pool_bytes(MIB);
        neap::set_limit(0);
        churn_for(Duration::from_millis(50));
        wait_until_nothing_is_pooled();
    });
}

#[test]
fn a_thread_pools_more_or_less_as_a_call_says() {
    child_succeeds("a_thread_pools_more_or_less_as_a_call_says", &[], || {
        let pooled = || {
            drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
            neap::stats().pooled_local
        };
        assert!(pooled() > 64 << 10);
        neap::set_thread_pool_bytes(0);
        neap::tick();
        assert_eq!(pooled(), 0);
        neap::set_thread_pool_bytes(MIB);
        assert!(pooled() > 64 << 10);
    });
}

#[test]
fn a_limit_holds_from_the_call_on() {
    child_succeeds("a_limit_holds_from_the_call_on", &[], || {
        let spike = || {
            drop((0..60_000u64).map(|n| Box::new([n; 100])).collect::<Vec<_>>());
            drop(vec![1u8; 300_000]);
            neap::stats().resident
        };
        assert!(spike() > 40 * MIB);
        neap::set_limit(16 * MIB);
        // The next slow path returns what is free.
        drop(vec![1u8; 300_000]);
        assert!(neap::stats().resident < 16 * MIB, "{}", neap::stats());
        neap::set_limit(0);
        assert!(spike() > 40 * MIB);
        // A lower one counts at once, though nothing was free at the last.
        neap::set_limit(16 * MIB);
        let kept = vec![1u8; 30 * MIB];
        neap::set_limit(12 * MIB);
        drop(kept);
        drop(vec![1u8; 300_000]);
        assert!(neap::stats().resident < 12 * MIB, "{}", neap::stats());
    });
}
