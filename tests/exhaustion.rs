//! Without memory an allocation gives null. When there is memory again, all is as before.

mod common;

use common::{MIB, child_succeeds, limited_child};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new();

/// Limits the address space to what is in use now, and `more` bytes.
fn limit(more: usize) {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    set_limit((pages * 4096 + more) as libc::rlim_t);
}

fn set_limit(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Panics if something is not right, with memory to say so.
fn check(right: bool, what: &str) {
    if !right {
        set_limit(libc::RLIM_INFINITY);
        panic!("{what}");
    }
}

/// Allocates until null. Returns how many blocks, and the blocks, each with the address
/// of the next in its first word.
fn exhaust(layout: Layout) -> (usize, *mut *mut u8) {
    let mut head: *mut *mut u8 = std::ptr::null_mut();
    let mut count = 0;
    loop {
        // SAFETY: the size is that of a pointer or more.
        let block = unsafe { HEAP.alloc(layout) }.cast::<*mut u8>();
        if block.is_null() {
            return (count, head);
        }
        // SAFETY: ours.
        unsafe { block.write(head.cast()) };
        head = block;
        count += 1;
        check(count * layout.size() < 1536 * MIB, "more than there is: a block was allocated twice");
    }
}

fn free_all(mut head: *mut *mut u8, layout: Layout) {
    while !head.is_null() {
        // SAFETY: a list that `exhaust` made.
        unsafe {
            let next = head.read();
            HEAP.dealloc(head.cast(), layout);
            head = next.cast();
        }
    }
}

fn exhaust_and_recover(size: usize) {
    // Beyond the first segment there have to be new ones, which the limit prevents.
    let layout = Layout::from_size_align(size, 8).expect("valid");
    limit(64 * MIB);
    let (count, head) = exhaust(layout);
    assert!(count > 0);
    // SAFETY: the size is not zero.
    assert!(unsafe { HEAP.alloc(layout) }.is_null(), "still exhausted");
    free_all(head, layout);
    let (again, head) = exhaust(layout);
    free_all(head, layout);
    assert!(again * 10 >= count * 9, "{again} of {count} after recovery");
    assert_eq!(vec![1u8; 1000].len(), 1000);
}

#[test]
fn mapped_blocks_run_out_and_come_back() {
    child_succeeds("mapped_blocks_run_out_and_come_back", &[], || exhaust_and_recover(8 * MIB));
}

#[test]
fn runs_run_out_and_come_back() {
    child_succeeds("runs_run_out_and_come_back", &[], || exhaust_and_recover(2 * MIB));
}

#[test]
fn pooled_runs_run_out_and_come_back() {
    child_succeeds("pooled_runs_run_out_and_come_back", &[], || exhaust_and_recover(200_000));
}

#[test]
fn blocks_of_spans_run_out_and_come_back() {
    child_succeeds("blocks_of_spans_run_out_and_come_back", &[], || exhaust_and_recover(16_000));
}

/// An allocation tries again after kept mappings were returned. The second try is no
/// second pop: in a magazine that a tick closed in between it would find a block in use.
#[test]
fn a_second_try_allocates_no_block_in_use() {
    child_succeeds("a_second_try_allocates_no_block_in_use", &[], || {
        let layout = Layout::from_size_align(16_000, 8).expect("valid");
        let mapping = Layout::from_size_align(5 * MIB, 8).expect("valid");
        limit(64 * MIB);
        static GO: AtomicBool = AtomicBool::new(false);
        static STOP: AtomicBool = AtomicBool::new(false);
        let ticking = std::thread::spawn(|| {
            while !STOP.load(Relaxed) {
                if GO.load(Relaxed) { neap::tick() } else { std::thread::yield_now() }
            }
        });
        // SAFETY: the sizes are not zero, and what is freed is ours.
        unsafe {
            let reserve = HEAP.alloc(mapping);
            let (mut count, mut head) = exhaust(layout);
            // What is left would not do for a segment, even with the mapping.
            let (access, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            while libc::mmap(std::ptr::null_mut(), 256 << 10, access, flags, -1, 0) != libc::MAP_FAILED {}
            HEAP.dealloc(reserve, mapping);
            GO.store(true, Relaxed);
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end {
                let kept = HEAP.alloc(mapping);
                if !kept.is_null() {
                    HEAP.dealloc(kept, mapping);
                }
                let found = HEAP.alloc(layout).cast::<*mut u8>();
                if !found.is_null() {
                    check(found.addr() > 4096, "no block");
                    let mut block = head;
                    for _ in 0..count {
                        check(!block.is_null() && block != found, "allocated twice");
                        block = block.read().cast();
                    }
                    found.write(head.cast());
                    (count, head) = (count + 1, found);
                }
            }
            STOP.store(true, Relaxed);
            free_all(head, layout);
        }
        ticking.join().expect("no panic");
    });
}

/// What a tick is just returning to the system serves who needs it.
#[test]
fn pages_on_their_way_to_the_system_still_serve() {
    child_succeeds("pages_on_their_way_to_the_system_still_serve", &[], || {
        let layout = Layout::from_size_align(MIB, 8).expect("valid");
        limit(64 * MIB);
        let (count, head) = exhaust(layout);
        assert!(count > 2);
        let stop = AtomicBool::new(false);
        let mut nulls = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    neap::purge();
                }
            });
            // SAFETY: the first of a list of at least three, ours.
            unsafe {
                let next = head.read();
                HEAP.dealloc(head.cast(), layout);
                // Spinning locks make it slow where many threads want few processors.
                let end = Instant::now() + Duration::from_secs(3);
                for pause in (0..4000).take_while(|_| Instant::now() < end) {
                    (0..pause % 50 * 50).for_each(|_| std::hint::spin_loop());
                    let block = HEAP.alloc(layout);
                    if block.is_null() {
                        nulls += 1;
                        continue;
                    }
                    block.write_bytes(1, MIB);
                    HEAP.dealloc(block, layout);
                }
                stop.store(true, Relaxed);
                free_all(next.cast(), layout);
            }
        });
        assert_eq!(nulls, 0);
    });
}

/// Threads that start when there is no memory for a thread cache use the spans directly.
/// When there is memory, they get caches.
#[test]
fn threads_without_room_for_a_cache_allocate_all_the_same() {
    child_succeeds("threads_without_room_for_a_cache_allocate_all_the_same", &[], || {
        const THREADS: usize = 400;
        const BLOCKS: usize = 100;
        // A lock and a condition of the standard library's allocate nothing on Linux.
        static TURN: Mutex<usize> = Mutex::new(0);
        static NEXT: Condvar = Condvar::new();
        static DONE: AtomicUsize = AtomicUsize::new(0);
        fn wait_for(turn: usize) {
            let guard = TURN.lock().expect("no panic");
            drop(NEXT.wait_while(guard, |now| *now < turn).expect("no panic"));
        }
        fn begin(turn: usize, until_done: usize) {
            *TURN.lock().expect("no panic") = turn;
            NEXT.notify_all();
            while DONE.load(SeqCst) < until_done {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        fn use_blocks(number: usize) {
            let layout = Layout::from_size_align(256, 8).expect("valid");
            let mut blocks = [std::ptr::null_mut::<usize>(); BLOCKS];
            // SAFETY: the size is not zero, and what is freed is ours.
            unsafe {
                for (at, block) in blocks.iter_mut().enumerate() {
                    *block = HEAP.alloc(layout).cast();
                    assert!(!block.is_null());
                    block.write(number << 32 | at);
                }
                std::thread::yield_now();
                for (at, block) in blocks.into_iter().enumerate() {
                    assert_eq!(block.read(), number << 32 | at, "handed out twice");
                    HEAP.dealloc(block.cast(), layout);
                }
            }
        }
        // By the C library: a thread of Rust's allocates before it does anything else.
        extern "C" fn run(number: *mut libc::c_void) -> *mut libc::c_void {
            for turn in 1..=2 {
                wait_for(turn);
                use_blocks(number.addr());
                DONE.fetch_add(1, SeqCst);
            }
            wait_for(3);
            number
        }
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            // SAFETY: plain calls; the attributes live long enough.
            unsafe {
                let (mut thread, mut attributes) = (std::mem::zeroed(), std::mem::zeroed());
                libc::pthread_attr_init(&mut attributes);
                libc::pthread_attr_setstacksize(&mut attributes, 64 << 10);
                assert_eq!(libc::pthread_create(&mut thread, &attributes, run, number as _), 0);
                threads.push(thread);
            }
        }
        let spare: Vec<_> = (0..THREADS * BLOCKS).map(|_| Box::new([0u8; 256])).collect();
        drop(spare);
        neap::flush_thread();
        limit(0);
        let before = neap::stats().threads;
        begin(1, THREADS);
        let with_caches = neap::stats().threads - before;
        assert!(with_caches < THREADS, "there was room for all caches");
        limit(1 << 30);
        begin(2, 2 * THREADS);
        assert_eq!(neap::stats().threads - before, THREADS);
        begin(3, 2 * THREADS);
        for thread in threads {
            // SAFETY: made above, not yet joined.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
        }
    });
}

/// A process that starts under a tight limit gets smaller segments.
#[test]
fn a_small_address_space_is_enough() {
    if std::env::var_os("NEAP_TEST_SMALL").is_some() {
        let all: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; 50_000]).collect();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 10_000_000);
        let thread = std::thread::spawn(|| vec![2u8; 1 << 20].len());
        assert_eq!(thread.join().expect("room for a thread"), 1 << 20);
        return;
    }
    limited_child("a_small_address_space_is_enough", 128 * MIB, ("NEAP_TEST_SMALL", "1"));
}
