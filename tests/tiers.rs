//! Blocks age exactly as specified: local, victim, span, system.

mod common;

use common::child_succeeds;
use neap::{ClassStats, Neap};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

// No tick but by hand.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600)).huge_pages(false);

/// A class that nothing else here uses.
const SIZE: usize = 3000;
const BLOCK: usize = 3072;
/// Bytes of a span of it.
const SPAN: usize = 256 << 10;

fn class() -> ClassStats {
    *neap::stats().classes().iter().find(|class| class.block_size == BLOCK).expect("the class")
}

fn layout() -> Layout {
    Layout::from_size_align(SIZE, 8).expect("valid")
}

fn alloc() -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { HEAP.alloc(layout()) };
    assert!(!block.is_null());
    // SAFETY: ours.
    unsafe { block.write_bytes(1, SIZE) };
    block
}

fn free(block: *mut u8) {
    // SAFETY: from `alloc`.
    unsafe { HEAP.dealloc(block, layout()) };
}

/// Frees all blocks but the lowest of each span.
fn keep_one_of_each_span(blocks: &mut Vec<*mut u8>) {
    blocks.sort();
    let mut last = 0;
    blocks.retain(|&block| {
        let span = block as usize / SPAN;
        let first = span != std::mem::replace(&mut last, span);
        if !first {
            free(block);
        }
        first
    });
}

/// Frees all blocks of the span that the middle one of these lies in, which has no others.
fn free_a_whole_span(mut blocks: Vec<*mut u8>) {
    blocks.sort();
    let span = blocks[blocks.len() / 2] as usize / SPAN;
    blocks.retain(|&block| block as usize / SPAN == span);
    assert_eq!(blocks.len(), SPAN / BLOCK);
    blocks.into_iter().for_each(free);
}

#[test]
fn a_freed_block_is_local_then_victim_then_free() {
    child_succeeds("a_freed_block_is_local_then_victim_then_free", &[], || {
        neap::flush_thread();
        let blocks: Vec<_> = (0..5).map(|_| alloc()).collect();
        assert_eq!(class().live, 5);
        blocks.into_iter().for_each(free);
        let local = class();
        assert_eq!(local.live, 0);
        assert!(local.pooled_local >= 5 && local.pooled_victim == 0, "{local:?}");
        neap::tick();
        let victim = class();
        assert_eq!((victim.pooled_local, victim.pooled_victim), (0, local.pooled_local));
        neap::tick();
        let home = class();
        assert_eq!((home.live, home.pooled_local, home.pooled_victim), (0, 0, 0));
    });
}

#[test]
fn what_is_used_again_comes_back_from_the_victims_in_part() {
    child_succeeds("what_is_used_again_comes_back_from_the_victims_in_part", &[], || {
        let blocks: Vec<_> = (0..40).map(|_| alloc()).collect();
        blocks.into_iter().for_each(free);
        neap::tick();
        let before = class();
        assert!(before.pooled_victim >= 10, "{before:?}");
        // A loop that needs one block takes few, so that the others leave.
        for _ in 0..1000 {
            free(alloc());
        }
        let during = class();
        assert!(during.pooled_victim >= before.pooled_victim - 8, "{during:?}");
        neap::tick();
        let after = class();
        assert!(after.pooled_local + after.pooled_victim <= 8, "{after:?}");
    });
}

#[test]
fn a_sleeping_threads_pool_is_aged_too() {
    child_succeeds("a_sleeping_threads_pool_is_aged_too", &[], || {
        let (ready, wait) = std::sync::mpsc::channel();
        let (wake, sleep) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let blocks: Vec<_> = (0..30).map(|_| alloc()).collect();
            blocks.into_iter().for_each(free);
            ready.send(()).expect("alive");
            sleep.recv().expect("a call");
            // Its magazines were closed meanwhile.
            let blocks: Vec<_> = (0..30).map(|_| alloc()).collect();
            blocks.into_iter().for_each(free);
        });
        wait.recv().expect("alive");
        assert!(class().pooled_local >= 10, "{:?}", class());
        neap::tick();
        assert_eq!(class().pooled_local, 0);
        assert!(class().pooled_victim >= 10);
        neap::tick();
        assert_eq!((class().pooled_local, class().pooled_victim, class().live), (0, 0, 0));
        wake.send(()).expect("alive");
        thread.join().expect("no panic");
        assert_eq!(class().live, 0);
    });
}

#[test]
fn an_empty_span_used_in_an_epoch_stays_for_the_next() {
    child_succeeds("an_empty_span_used_in_an_epoch_stays_for_the_next", &[], || {
        // Three whole spans, and one that is attached.
        let blocks = (0..300).map(|_| alloc()).collect();
        free_a_whole_span(blocks);
        // It is empty and alone on the list, then the attached one is listed too.
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

#[test]
fn full_spans_given_back_whole_are_free_at_once() {
    child_succeeds("full_spans_given_back_whole_are_free_at_once", &[], || {
        let spans = || {
            neap::stats().classes().iter().find(|class| class.block_size == 32 << 10).expect("a class").spans
        };
        // Eight blocks to a span: all its bits come home in one operation.
        let mut blocks: Vec<_> = (0..400).map(|_| Vec::<u8>::with_capacity(32 << 10)).collect();
        assert!(spans() >= 50, "{}", spans());
        blocks.sort_by_key(|block| block.as_ptr());
        drop(blocks);
        neap::flush_thread();
        assert!(spans() <= 2, "{}", spans());
    });
}

/// Also of a span without a free block.
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

/// Of a class that only the test's own thread allocates.
const OWN: Layout = Layout::new::<[u64; 625]>();

/// A thread that allocates so many blocks, frees them, and ends. One of the C library's, since
/// its first operation is to be a free of a block of this thread's: by that it gets the heap
/// that the last such thread left, whatever other heaps are idle.
fn in_a_thread(count: usize) {
    extern "C" fn run(work: *mut c_void) -> *mut c_void {
        // SAFETY: the creator's, who waits.
        let (first, count) = unsafe { *work.cast::<(*mut u8, usize)>() };
        // SAFETY: allocated below with this layout.
        unsafe { HEAP.dealloc(first, OWN) };
        let blocks: Vec<_> = (0..count).map(|_| alloc()).collect();
        blocks.into_iter().for_each(free);
        ptr::null_mut()
    }
    // SAFETY: the size is not zero.
    let mut work = (unsafe { HEAP.alloc(OWN) }, count);
    let mut thread = 0;
    // SAFETY: valid arguments; `work` outlives the thread.
    unsafe {
        assert_eq!(libc::pthread_create(&mut thread, ptr::null(), run, (&raw mut work).cast()), 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

#[test]
fn a_thread_leaves_little_to_the_next() {
    child_succeeds("a_thread_leaves_little_to_the_next", &[], || {
        // The harness may have used the class.
        neap::purge();
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().live), (8, 0));
        // They serve the next thread, which takes none from a span.
        let free_blocks = class().free;
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().free), (8, free_blocks));
        // Without a thread they go at the next tick.
        neap::tick();
        assert_eq!((class().pooled_local, class().pooled_victim), (0, 0));
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().live), (8, 0));
    });
}

#[test]
fn what_is_much_goes_home_with_its_thread() {
    child_succeeds("what_is_much_goes_home_with_its_thread", &[], || {
        neap::purge();
        in_a_thread(100);
        assert_eq!((class().pooled_local, class().live), (0, 0));
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

/// A free is use, too, also of a block that was taken in an earlier epoch.
#[test]
fn pages_of_blocks_that_came_home_in_an_epoch_stay_as_long() {
    child_succeeds("pages_of_blocks_that_came_home_in_an_epoch_stay_as_long", &[], || {
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

/// A kept mapping serves a smaller block, which may grow into it or lose the tail.
#[test]
fn a_mapping_larger_than_its_block_is_cut_after_an_epoch() {
    child_succeeds("a_mapping_larger_than_its_block_is_cut_after_an_epoch", &[], || {
        let mapped = || neap::stats().mapped;
        let start = mapped();
        drop(vec![1u8; 30 << 20]);
        assert_eq!(mapped() - start, 30 << 20, "kept");
        let mut bytes = Vec::<u8>::with_capacity(6 << 20);
        bytes.push(7);
        assert_eq!(mapped() - start, 30 << 20, "used again");
        let place = bytes.as_ptr();
        bytes.reserve_exact(20 << 20);
        assert_eq!((bytes.as_ptr(), bytes[0]), (place, 7), "grown in place");
        neap::tick();
        assert_eq!(mapped() - start, 30 << 20, "its size is new in this epoch");
        neap::tick();
        assert!(mapped() - start < 21 << 20, "the tail is gone");
        assert_eq!(bytes[0], 7);
        drop(bytes);
        neap::purge();
        assert_eq!(mapped(), start);
    });
}

/// Kept mappings fill up what was in use at once, so they never add to a peak.
#[test]
fn kept_mappings_make_way_for_what_they_do_not_serve() {
    child_succeeds("kept_mappings_make_way_for_what_they_do_not_serve", &[], || {
        let start = neap::stats().mapped;
        let mapped = || (neap::stats().mapped - start) >> 20;
        drop((buffer(17), buffer(7), buffer(6)));
        assert_eq!(mapped(), 30, "all are kept, as many as were in use at once");
        neap::tick();
        let twenty = buffer(20);
        assert_eq!(mapped(), 20 + 6, "those that were free the longest made way");
        let six = buffer(6);
        assert_eq!(mapped(), 20 + 6, "the last one serves");
        drop((twenty, six));
        neap::tick();
        drop(buffer(21));
        assert_eq!(mapped(), 21, "what was in use at once two epochs ago counts no more");
        neap::purge();
        assert_eq!(mapped(), 0);

        let long = (buffer(20), buffer(10));
        (0..3).for_each(|_| neap::tick());
        drop(long);
        let six = buffer(6);
        assert_eq!(mapped(), 30, "what was in use all the time was so in this epoch");
        drop(six);
        neap::purge();
        assert_eq!(mapped(), 0);
    });
}

/// So do the tails of mappings that are larger than their blocks.
#[test]
fn tails_of_mappings_make_way_too() {
    child_succeeds("tails_of_mappings_make_way_too", &[], || {
        let start = neap::stats().mapped;
        let mapped = || (neap::stats().mapped - start) >> 20;
        // Twice, so that what is counted of the first time is seen in the second.
        for _ in 0..2 {
            drop(buffer(30));
            let five = buffer(5);
            assert_eq!(mapped(), 30, "used again");
            drop(buffer(8));
            assert_eq!(mapped(), 30, "of the tail goes what it has to make way for, no more");
            let twenty = buffer(20);
            assert_eq!(mapped(), 30, "12 of the other 17 go, after the 8 kept");
            drop((five, twenty));
            assert_eq!(mapped(), 30, "both are kept, and one's tail");
            neap::purge();
            assert_eq!(mapped(), 0);
        }
    });
}

/// A block of a mapping of its own.
fn buffer(mib: usize) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(mib << 20))
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
        let home = neap::stats();
        assert!(home.pages_returned >= victims.pages_returned + (SPAN / 4096) as u64, "{home}");
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
fn runs_that_no_demand_came_near_go_although_each_was_used() {
    child_succeeds("runs_that_no_demand_came_near_go_although_each_was_used", &[], || {
        const RUN: usize = 512 << 10;
        const SPARE: usize = 5;
        let mut runs: Vec<Vec<u8>> = (0..30).map(|_| vec![1; RUN]).collect();
        runs.sort_by_key(|run| run.as_ptr() as usize);
        // Growth may have begun a tick: none is half done from here on.
        neap::tick();
        runs[..SPARE].fill_with(Vec::new);
        neap::tick();
        let before = neap::stats();
        // One is freed above the spare ones, and the lowest of them taken.
        let mut new = Vec::with_capacity(10);
        for run in &mut runs[SPARE..][..10] {
            drop(std::mem::take(run));
            new.push(vec![1u8; RUN]);
        }
        neap::tick();
        let after = neap::stats();
        // Nearly all: blocks for the test itself may take a slice of it.
        let pages = (SPARE * RUN / 4096) as u64 * 9 / 10;
        assert!(after.pages_returned >= before.pages_returned + pages, "{after}");
        runs.clear();
        neap::tick();
        let kept = neap::stats();
        assert!(kept.pages_returned < after.pages_returned + pages, "freed in this epoch: {kept}");
    });
}

#[test]
fn growth_takes_the_pages_of_a_class_out_of_demand() {
    child_succeeds("growth_takes_the_pages_of_a_class_out_of_demand", &[], || {
        let mut blocks: Vec<_> = (0..2700).map(|_| alloc()).collect();
        neap::tick();
        neap::tick();
        // So that no span is empty.
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
fn what_comes_home_unused_is_no_growth() {
    child_succeeds("what_comes_home_unused_is_no_growth", &[], || {
        // Spans of which one page is resident, each with one block.
        let mut blocks: Vec<_> = (0..85 * 160).map(|_| alloc()).collect();
        keep_one_of_each_span(&mut blocks);
        for _ in 0..5 {
            neap::tick();
        }
        // They come home by ticks, and their slices go back.
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
