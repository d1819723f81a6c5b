//! Settings by environment, valid and not.

mod common;

use common::child;
use neap::Neap;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600));

#[test]
fn invalid_values_are_said_once_and_ignored() {
    let environment =
        [("NEAP_TICK_INTERVAL_MS", "soon"), ("NEAP_BACKGROUND", "2"), ("NEAP_THREAD_POOL_BYTES", "-1")];
    let Some(output) = child("invalid_values_are_said_once_and_ignored", &environment, || {
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
fn the_ticker_can_be_switched_on() {
    let environment = [("NEAP_TICK_INTERVAL_MS", "20"), ("NEAP_BACKGROUND", "1")];
    common::child_succeeds("the_ticker_can_be_switched_on", &environment, || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        let end = Instant::now() + Duration::from_secs(30);
        // Quiet from here on: only the ticker can do it.
        while neap::stats().ticks < 5 {
            assert!(Instant::now() < end, "no tick: {}", neap::stats());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn activity_ticks_without_a_ticker() {
    common::child_succeeds("activity_ticks_without_a_ticker", &[("NEAP_TICK_INTERVAL_MS", "20")], || {
        let end = Instant::now() + Duration::from_secs(30);
        while neap::stats().ticks < 5 {
            assert!(Instant::now() < end, "no tick: {}", neap::stats());
            drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_pool_can_be_bounded_to_nothing() {
    common::child_succeeds("a_pool_can_be_bounded_to_nothing", &[("NEAP_THREAD_POOL_BYTES", "0")], || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        assert_eq!(neap::stats().pooled_local, 0);
    });
}

#[test]
fn a_pool_stays_within_its_bytes() {
    common::child_succeeds("a_pool_stays_within_its_bytes", &[("NEAP_THREAD_POOL_BYTES", "100000")], || {
        for size in 1..2000 {
            drop((0..300).map(|_| vec![1u8; size]).collect::<Vec<_>>());
        }
        let stats = neap::stats();
        assert!(stats.pooled_local > 0 && stats.pooled_local <= 100_000 * stats.threads, "{stats}");
    });
}
