//! Pages go back to the system as specified: those that nobody used in an epoch
//! go when it ends, others stay for one more.

mod common;

use common::child_succeeds;
use common::one_class::{BLOCK, SPAN, alloc, class, free, free_a_whole_span, keep_one_of_each_span};
use neap::Neap;
use std::time::Duration;

// No tick but by hand.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600)).huge_pages(false);

#[test]
fn an_empty_span_used_in_an_epoch_stays_for_the_next() {
    child_succeeds("an_empty_span_used_in_an_epoch_stays_for_the_next", &[], || {
        // Three whole spans, and one that is attached.
        let blocks = (0..300).map(|_| alloc()).collect();
        free_a_whole_span(blocks);
        // The empty span is the only one listed; then the attached one is listed too.
        neap::flush_thread();
        let before = neap::stats();
        neap::tick();
        let first = neap::stats();
        assert!(first.pages_returned < before.pages_returned + 32, "{first}");
        neap::tick();
        let second = neap::stats();
        assert!(second.pages_returned >= first.pages_returned + (SPAN / 4096) as u64, "{second}");
    });
}

/// Even of a span without a free block.
#[test]
fn pages_behind_a_spans_last_block_go_too() {
    child_succeeds("pages_behind_a_spans_last_block_go_too", &[], || {
        const COUNT: usize = 1 << 20;
        for one_free_of in [1000, COUNT] {
            let mut small: Vec<Option<Box<u64>>> = Vec::with_capacity(COUNT);
            neap::purge();
            let start = neap::stats().resident;
            drop((0..16).map(|_| vec![1u8; 1 << 20]).collect::<Vec<_>>());
            // On pages that were used before, of which each span needs half.
            small.extend((0..COUNT).map(|n| Some(Box::new(n as u64))));
            small.iter_mut().step_by(one_free_of).for_each(|block| drop(block.take()));
            neap::flush_thread();
            neap::tick();
            neap::tick();
            let more = neap::stats().resident - start;
            assert!(more < 9 << 20, "{more}");
            let right =
                |(n, block): (usize, &Option<Box<u64>>)| block.as_ref().is_none_or(|it| **it == n as u64);
            assert!(small.iter().enumerate().all(right));
        }
    });
}

#[test]
fn pages_used_in_an_epoch_stay_and_others_go() {
    child_succeeds("pages_used_in_an_epoch_stay_and_others_go", &[], || {
        // Below what makes a tick due early.
        let blocks: Vec<_> = (0..1000).map(|_| alloc()).collect();
        blocks.into_iter().for_each(free);
        neap::tick();
        let first = neap::stats();
        assert!(first.resident > 2 << 20, "freed in this epoch, so still here: {first}");
        neap::tick();
        let second = neap::stats();
        assert!(second.pages_returned > first.pages_returned + 500, "{second}");
        assert!(second.resident < 1 << 20, "{second}");
    });
}

/// A free is a use, even of a block that was allocated in an earlier epoch.
#[test]
fn pages_of_blocks_freed_in_an_epoch_stay_as_long() {
    child_succeeds("pages_of_blocks_freed_in_an_epoch_stay_as_long", &[], || {
        let blocks: Vec<_> = (0..1000).map(|_| alloc()).collect();
        neap::tick();
        neap::tick();
        blocks.into_iter().for_each(free);
        neap::flush_thread();
        let before = neap::stats();
        neap::tick();
        let first = neap::stats();
        assert!(first.pages_returned < before.pages_returned + 20, "{first}");
        neap::tick();
        let second = neap::stats();
        assert!(second.pages_returned > first.pages_returned + 500, "{second}");
    });
}

#[test]
fn purge_returns_everything_at_once() {
    child_succeeds("purge_returns_everything_at_once", &[], || {
        let blocks: Vec<_> = (0..4000).map(|_| alloc()).collect();
        blocks.into_iter().for_each(free);
        neap::purge();
        let stats = neap::stats();
        assert_eq!((class().pooled_local, class().pooled_victim), (0, 0));
        assert!(stats.resident < 2 << 20, "{stats}");
    });
}

#[test]
fn a_full_spans_epoch_ends_too() {
    child_succeeds("a_full_spans_epoch_ends_too", &[], || {
        let blocks = (0..1000).map(|_| alloc()).collect();
        // No block of most spans is free, so no tick has anything to return of them.
        neap::tick();
        neap::tick();
        // All of them stay in the magazine.
        free_a_whole_span(blocks);
        neap::tick();
        let victims = neap::stats();
        assert_eq!(class().pooled_victim, SPAN / BLOCK);
        neap::tick();
        let freed = neap::stats();
        assert!(freed.pages_returned >= victims.pages_returned + (SPAN / 4096) as u64, "{freed}");
    });
}

/// Page faults of this thread so far.
fn faults() -> i64 {
    // SAFETY: the system fills it in.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_minflt
    }
}

#[test]
fn a_tick_does_not_touch_what_was_never_used() {
    child_succeeds("a_tick_does_not_touch_what_was_never_used", &[], || {
        free(alloc());
        let before = faults();
        neap::tick();
        let (ticked, _) = (faults(), neap::stats());
        let looked = faults();
        assert!(ticked - before < 100, "{} page faults in the first tick", ticked - before);
        assert!(looked - ticked < 100, "{} page faults in a look at the figures", looked - ticked);
    });
}

#[test]
fn runs_beyond_all_demand_go_although_each_was_used() {
    child_succeeds("runs_beyond_all_demand_go_although_each_was_used", &[], || {
        const RUN: usize = 512 << 10;
        const SPARE: usize = 5;
        let mut runs: Vec<Vec<u8>> = (0..30).map(|_| vec![1; RUN]).collect();
        runs.sort_by_key(|run| run.as_ptr() as usize);
        // Growth may have begun a tick. From here on none is half done.
        neap::tick();
        runs[..SPARE].fill_with(Vec::new);
        neap::tick();
        let before = neap::stats();
        // Frees one above the spare ones, and allocates the lowest of them.
        let mut new = Vec::with_capacity(10);
        for run in &mut runs[SPARE..][..10] {
            drop(std::mem::take(run));
            new.push(vec![1u8; RUN]);
        }
        neap::tick();
        let after = neap::stats();
        // Nearly all: the test itself may need a slice.
        let pages = (SPARE * RUN / 4096) as u64 * 9 / 10;
        assert!(after.pages_returned >= before.pages_returned + pages, "{after}");
        runs.clear();
        neap::tick();
        let kept = neap::stats();
        assert!(kept.pages_returned < after.pages_returned + pages, "freed in this epoch: {kept}");
    });
}

#[test]
fn growth_returns_pages_of_a_class_without_demand() {
    child_succeeds("growth_returns_pages_of_a_class_without_demand", &[], || {
        let mut blocks: Vec<_> = (0..2700).map(|_| alloc()).collect();
        neap::tick();
        neap::tick();
        // No span is empty.
        keep_one_of_each_span(&mut blocks);
        let before = neap::stats();
        // Until one tick is over, and the next has begun.
        let mut others: Vec<Box<[u8; 500]>> = Vec::with_capacity(1 << 20);
        while neap::stats().ticks < before.ticks + 2 {
            others.extend((0..64).map(|_| Box::new([1; 500])));
        }
        let after = neap::stats();
        assert!(after.pages_returned > before.pages_returned + 1000, "{after}");
    });
}

#[test]
fn slices_that_return_unused_are_no_growth() {
    child_succeeds("slices_that_return_unused_are_no_growth", &[], || {
        // Spans of which one page is resident, each with one block.
        let mut blocks: Vec<_> = (0..85 * 160).map(|_| alloc()).collect();
        keep_one_of_each_span(&mut blocks);
        for _ in 0..5 {
            neap::tick();
        }
        // Ticks return them to their spans, and the slices to the page heap.
        blocks.into_iter().for_each(free);
        neap::tick();
        neap::tick();
        let before = neap::stats().ticks;
        for _ in 0..2000 {
            drop((0..400u64).map(Box::new).collect::<Vec<_>>());
        }
        assert_eq!(neap::stats().ticks, before);
    });
}
