//! Resident memory follows need: after two ticks, what was freed is back at the system.

mod common;

use common::{MIB, Random, child_succeeds, resident};
use neap::Neap;
use std::time::Duration;

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_millis(200)).background(true);

/// Blocks of 32 to 512 bytes, `bytes` of them in all.
fn blocks(bytes: usize, random: &mut Random) -> Vec<Box<[u8]>> {
    let mut all = Vec::new();
    let mut sum = 0;
    while sum < bytes {
        let size = 32 + random.below(481);
        all.push(vec![1; size].into_boxed_slice());
        sum += size;
    }
    all
}

/// Waits until the background thread has ticked so many times.
fn ticks(count: u64) {
    let end = neap::stats().ticks + count;
    while neap::stats().ticks < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The last tick may still be at work.
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_spike_is_returned_after_two_ticks() {
    child_succeeds("a_spike_is_returned_after_two_ticks", &[], || {
        let mut random = Random(1);
        drop(blocks(MIB, &mut random));
        let start = resident();
        let all = blocks(256 * MIB, &mut random);
        assert!(resident() > start + 250 * MIB);
        drop(all);
        ticks(3);
        let left = resident().saturating_sub(start);
        println!("{} KiB above the start", left >> 10);
        assert!(left < 4 * MIB, "{left} {}", neap::stats());
    });
}

#[test]
fn sleeping_threads_hold_nothing_back() {
    child_succeeds("sleeping_threads_hold_nothing_back", &[], || {
        let start = resident();
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(17));
        for seed in 1..=16 {
            let barrier = barrier.clone();
            std::thread::spawn(move || {
                drop(blocks(16 * MIB, &mut Random(seed)));
                barrier.wait();
                std::thread::sleep(Duration::from_secs(3600));
            });
        }
        barrier.wait();
        ticks(3);
        let left = resident().saturating_sub(start);
        println!("{} KiB above the start", left >> 10);
        assert!(left < 4 * MIB, "{left} {}", neap::stats());
    });
}

#[test]
fn survivors_hold_back_only_their_pages() {
    child_succeeds("survivors_hold_back_only_their_pages", &[], || {
        let mut random = Random(3);
        let start = resident();
        // 200 of every 2000 neighbours stay.
        let mut all: Vec<Option<Box<[u8]>>> =
            (0..1_000_000).map(|_| Some(vec![1; 64 + random.below(33)].into_boxed_slice())).collect();
        for (index, block) in all.iter_mut().enumerate() {
            if index % 2000 >= 200 {
                *block = None;
            }
        }
        ticks(3);
        let left = resident().saturating_sub(start);
        let list = all.capacity() * size_of::<Option<Box<[u8]>>>();
        println!("{} KiB above the start, {} of them the list", left >> 10, list >> 10);
        // 8 MiB live, and a page at each end of a run of neighbours.
        assert!(left < list + 18 * MIB, "{left} {}", neap::stats());
    });
}

#[test]
fn large_blocks_are_returned_too() {
    child_succeeds("large_blocks_are_returned_too", &[], || {
        let start = resident();
        for size in [100_000, 300_000, 2 * MIB, 6 * MIB, 30 * MIB] {
            let all: Vec<Vec<u8>> = (0..64 * MIB / size).map(|_| vec![1; size]).collect();
            drop(all);
        }
        ticks(3);
        let left = resident().saturating_sub(start);
        println!("{} KiB above the start", left >> 10);
        assert!(left < 8 * MIB, "{left} {}", neap::stats());
    });
}

#[test]
fn untouched_blocks_cost_a_page_each() {
    child_succeeds("untouched_blocks_cost_a_page_each", &[], || {
        drop(Vec::<u8>::with_capacity(4 * MIB));
        let start = resident();
        let all: Vec<Vec<u8>> = (0..200).map(|_| Vec::with_capacity(4 * MIB)).collect();
        let more = resident().saturating_sub(start);
        println!("{} KiB for {} blocks", more >> 10, all.len());
        // The header of the slice that each begins on, and what the test itself needs.
        assert!(more < 2 * MIB, "{more} {}", neap::stats());
    });
}
