//! Settings by environment, valid and not.

mod common;

use common::{MIB, Random, child, resident};
use neap::Neap;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600));

#[test]
fn invalid_values_are_reported_once_and_ignored() {
    let environment = [
        ("NEAP_TICK_INTERVAL_MS", "soon"),
        ("NEAP_BACKGROUND", "2"),
        ("NEAP_THREAD_POOL_BYTES", "-1"),
        ("NEAP_LIMIT_BYTES", "0"),
        ("NEAP_LIMIT_FROM_CGROUP", "yes"),
        ("NEAP_HUGE_PAGES", "always"),
    ];
    let Some(output) = child("invalid_values_are_reported_once_and_ignored", &environment, || {
        drop(vec![1u8; 1000]);
    }) else {
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    for (name, _) in environment {
        let lines = error.lines().filter(|line| line.starts_with("neap: ") && line.contains(name));
        assert_eq!(lines.count(), 1, "{error}");
    }
}

#[test]
fn the_background_thread_can_be_switched_on() {
    let environment = [("NEAP_TICK_INTERVAL_MS", "20"), ("NEAP_BACKGROUND", "1")];
    common::child_succeeds("the_background_thread_can_be_switched_on", &environment, || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        let end = Instant::now() + Duration::from_secs(30);
        // No allocation from here on: only the background thread can tick, until nothing is left.
        while neap::stats().ticks < 3 {
            assert!(Instant::now() < end, "no tick: {}", neap::stats());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn allocations_tick_without_a_background_thread() {
    common::child_succeeds(
        "allocations_tick_without_a_background_thread",
        &[("NEAP_TICK_INTERVAL_MS", "20")],
        || {
            let end = Instant::now() + Duration::from_secs(30);
            while neap::stats().ticks < 5 {
                assert!(Instant::now() < end, "no tick: {}", neap::stats());
                drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
            }
        },
    );
}

#[test]
fn a_thread_cache_can_be_bounded_to_nothing() {
    common::child_succeeds(
        "a_thread_cache_can_be_bounded_to_nothing",
        &[("NEAP_THREAD_POOL_BYTES", "0")],
        || {
            drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
            assert_eq!(neap::stats().pooled_local, 0);
        },
    );
}

#[test]
fn a_thread_cache_stays_within_its_bytes() {
    common::child_succeeds(
        "a_thread_cache_stays_within_its_bytes",
        &[("NEAP_THREAD_POOL_BYTES", "100000")],
        || {
            for size in 1..2000 {
                drop((0..300).map(|_| vec![1u8; size]).collect::<Vec<_>>());
            }
            let stats = neap::stats();
            assert!(stats.pooled_local > 0 && stats.pooled_local <= 100_000 * stats.threads, "{stats}");
        },
    );
}

/// Allocates blocks whose sizes drift, 24 MiB of them live. Returns the most memory that
/// was resident above the start.
fn most_while_sizes_drift() -> usize {
    let mut random = Random(5);
    let mut live: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::with_capacity(100_000);
    let (start, mut bytes, mut most) = (resident(), 0, 0);
    for round in 0..40 {
        let size = 300 * (1 + round % 10);
        for _ in 0..12 * MIB / size {
            live.push_back(vec![1; size - random.below(100)]);
            bytes += live.back().map_or(0, Vec::len);
            while bytes > 24 * MIB {
                bytes -= live.pop_front().map_or(0, |block| block.len());
            }
        }
        most = most.max(resident().saturating_sub(start));
    }
    most
}

#[test]
fn a_soft_limit_is_kept_where_it_can_be() {
    let limit = 48 * MIB;
    common::child_succeeds(
        "a_soft_limit_is_kept_where_it_can_be",
        &[("NEAP_LIMIT_BYTES", &limit.to_string())],
        || {
            let most = most_while_sizes_drift();
            println!("{} KiB above the start", most >> 10);
            assert!(most < limit + 4 * MIB, "{most}");
        },
    );
}

#[test]
fn a_soft_limit_below_what_is_live_fails_nothing() {
    common::child_succeeds(
        "a_soft_limit_below_what_is_live_fails_nothing",
        &[("NEAP_LIMIT_BYTES", "1000000")],
        || {
            let all: Vec<Vec<u8>> = (1..3000).map(|size| vec![1; size]).collect();
            drop(vec![1u8; 40 * MIB]);
            assert!(all.iter().enumerate().all(|(index, block)| block.len() == index + 1));
        },
    );
}

/// Whatever limits the machine's control groups have.
#[test]
fn the_limit_of_a_control_group_can_be_asked_for() {
    common::child_succeeds(
        "the_limit_of_a_control_group_can_be_asked_for",
        &[("NEAP_LIMIT_FROM_CGROUP", "1")],
        || {
            assert_eq!((1..3000).map(|size| vec![1u8; size].len()).sum::<usize>(), 2999 * 1500);
        },
    );
}
