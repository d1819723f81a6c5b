//! Out of memory is null, and over when memory comes back.

mod common;

use common::{MIB, child_succeeds};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new();

/// Limits the address space to what is in use now and `more`.
fn limit(more: usize) {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    let bytes = (pages * 4096 + more) as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Allocates until null; the blocks, chained through their first word.
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
    }
}

fn free_all(mut head: *mut *mut u8, layout: Layout) {
    while !head.is_null() {
        // SAFETY: a chain that `exhaust` made.
        unsafe {
            let next = head.read();
            HEAP.dealloc(head.cast(), layout);
            head = next.cast();
        }
    }
}

fn exhaust_and_recover(size: usize) {
    // Beyond the first segment new ones are needed, which the limit denies.
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
fn large_blocks_run_out_and_come_back() {
    child_succeeds("large_blocks_run_out_and_come_back", &[], || exhaust_and_recover(8 * MIB));
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

/// The second try of an allocation, after kept mappings went back, is no second
/// pop: a magazine that a tick closed in between has nothing for it.
#[test]
fn a_second_try_finds_no_block_in_use() {
    child_succeeds("a_second_try_finds_no_block_in_use", &[], || {
        let layout = Layout::from_size_align(16_000, 8).expect("valid");
        let mapping = Layout::from_size_align(5 * MIB, 8).expect("valid");
        limit(64 * MIB);
        static GO: AtomicBool = AtomicBool::new(false);
        static STOP: AtomicBool = AtomicBool::new(false);
        let ticker = std::thread::spawn(|| {
            while !STOP.load(Relaxed) {
                if GO.load(Relaxed) { neap::tick() } else { std::thread::yield_now() }
            }
        });
        // SAFETY: the sizes are not zero, and what is freed is ours.
        unsafe {
            let reserve = HEAP.alloc(mapping);
            let (_, mut head) = exhaust(layout);
            // Nothing is left that with the mapping would do for a segment.
            let (access, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            while libc::mmap(std::ptr::null_mut(), 256 << 10, access, flags, -1, 0) != libc::MAP_FAILED {}
            HEAP.dealloc(reserve, mapping);
            GO.store(true, Relaxed);
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                let kept = HEAP.alloc(mapping);
                if !kept.is_null() {
                    HEAP.dealloc(kept, mapping);
                }
                let found = HEAP.alloc(layout).cast::<*mut u8>();
                if !found.is_null() {
                    assert!(found.addr() > 4096, "{found:p} is no block");
                    let mut block = head;
                    while !block.is_null() {
                        assert_ne!(block, found, "handed out twice");
                        block = block.read().cast();
                    }
                    found.write(head.cast());
                    head = found;
                }
            }
            STOP.store(true, Relaxed);
            free_all(head, layout);
        }
        ticker.join().expect("no panic");
    });
}

/// What a tick is just giving back to the system serves whoever needs it.
#[test]
fn what_is_on_its_way_back_to_the_system_is_not_exhausted() {
    child_succeeds("what_is_on_its_way_back_to_the_system_is_not_exhausted", &[], || {
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
            // SAFETY: the first of a chain of at least three, ours.
            unsafe {
                let next = head.read();
                HEAP.dealloc(head.cast(), layout);
                for pause in 0..4000 {
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

/// Threads that start when there is no memory for a heap of theirs use the spans directly,
/// and get heaps when there is.
#[test]
fn threads_without_room_for_a_heap_allocate_all_the_same() {
    child_succeeds("threads_without_room_for_a_heap_allocate_all_the_same", &[], || {
        const THREADS: usize = 400;
        const BLOCKS: usize = 100;
        static TURN: AtomicUsize = AtomicUsize::new(0);
        static DONE: AtomicUsize = AtomicUsize::new(0);
        fn wait_for(turn: usize) {
            while TURN.load(SeqCst) < turn {
                std::thread::yield_now();
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
        // By the C library, since a thread of Rust's allocates before it does anything.
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
        TURN.store(1, SeqCst);
        while DONE.load(SeqCst) < THREADS {
            std::thread::yield_now();
        }
        let with_heaps = neap::stats().threads - before;
        assert!(with_heaps < THREADS, "there was room for all heaps");
        limit(1 << 30);
        TURN.store(2, SeqCst);
        while DONE.load(SeqCst) < 2 * THREADS {
            std::thread::yield_now();
        }
        assert_eq!(neap::stats().threads - before, THREADS);
        TURN.store(3, SeqCst);
        for thread in threads {
            // SAFETY: made above, not yet joined.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
        }
    });
}

/// A process that starts under a tight limit gets smaller segments.
#[test]
fn a_small_address_space_suffices() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("NEAP_TEST_SMALL").is_some() {
        let all: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; 50_000]).collect();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 10_000_000);
        let thread = std::thread::spawn(|| vec![2u8; 1 << 20].len());
        assert_eq!(thread.join().expect("room for a thread"), 1 << 20);
        return;
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "a_small_address_space_suffices", "--test-threads=1"]);
    command.env("NEAP_TEST_SMALL", "1");
    // SAFETY: only a system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 128 << 20, rlim_max: 128 << 20 };
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        });
    }
    let output = command.output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
