//! Blocks age as specified: from the local tier to the victim tier, from there
//! back to their span. So do those of a thread that sleeps, or has ended.

mod common;

use common::one_class::{alloc, class, free};
use common::{child_succeeds, class_of};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

// No tick but by hand.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600)).huge_pages(false);

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
        let freed = class();
        assert_eq!((freed.live, freed.pooled_local, freed.pooled_victim), (0, 0, 0));
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
        // A loop that needs one block takes few from the victims, so that the others leave.
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
fn a_sleeping_threads_cache_ages_too() {
    child_succeeds("a_sleeping_threads_cache_ages_too", &[], || {
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
fn a_full_span_whose_blocks_all_return_is_free_at_once() {
    child_succeeds("a_full_span_whose_blocks_all_return_is_free_at_once", &[], || {
        let spans = || class_of(32 << 10).spans;
        // Eight blocks to a span: they all return to it in one operation.
        let mut blocks: Vec<_> = (0..400).map(|_| Vec::<u8>::with_capacity(32 << 10)).collect();
        assert!(spans() >= 50, "{}", spans());
        blocks.sort_by_key(|block| block.as_ptr());
        drop(blocks);
        neap::flush_thread();
        assert!(spans() <= 2, "{}", spans());
    });
}

/// Of a class that only the test's own thread allocates.
const OWN: Layout = Layout::new::<[u64; 625]>();

/// Runs a thread that allocates `count` blocks, frees them, and ends. The C library makes
/// it, because its first operation must be to free a block of this thread's: that gives it
/// the thread cache which the last such thread left, whatever other caches are idle.
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
        // The test harness may have used the class.
        neap::purge();
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().live), (8, 0));
        // They serve the next thread, which allocates none from a span.
        let free_blocks = class().free;
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().free), (8, free_blocks));
        // While no thread owns the cache, they go at the next tick.
        neap::tick();
        assert_eq!((class().pooled_local, class().pooled_victim), (0, 0));
        in_a_thread(8);
        assert_eq!((class().pooled_local, class().live), (8, 0));
    });
}

#[test]
fn a_thread_that_ends_returns_what_is_much() {
    child_succeeds("a_thread_that_ends_returns_what_is_much", &[], || {
        neap::purge();
        in_a_thread(100);
        assert_eq!((class().pooled_local, class().live), (0, 0));
    });
}
