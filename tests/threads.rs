//! Threads come and go: their blocks outlive them, their pools do not.

mod common;

use common::{MIB, child_succeeds, resident};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

#[global_allocator]
static HEAP: Neap = Neap::new();

/// Runs `work` in a thread made by the C library, whose first operation is then
/// an allocation; Rust's threads free first.
fn c_thread(work: extern "C" fn(*mut c_void) -> *mut c_void) -> libc::pthread_t {
    let mut thread = 0;
    // SAFETY: valid arguments.
    let failed = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), work, std::ptr::null_mut()) };
    assert_eq!(failed, 0);
    thread
}

fn join(thread: libc::pthread_t) {
    // SAFETY: from `c_thread`, once.
    assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
}

/// Takes some blocks, looks that they are its own, and frees them.
extern "C" fn take_and_give(_: *mut c_void) -> *mut c_void {
    let layout = Layout::from_size_align(64, 8).expect("valid");
    let mut blocks = [std::ptr::null_mut::<usize>(); 9];
    let own = &raw const blocks as usize;
    for block in &mut blocks {
        // SAFETY: the size is not zero, and the block is as large.
        unsafe {
            *block = HEAP.alloc(layout).cast();
            assert!(*block as usize > 4096, "{block:?} is no block");
            block.write(own);
        }
    }
    for (index, &block) in blocks.iter().enumerate() {
        assert!(!blocks[..index].contains(&block), "handed out twice");
        // SAFETY: from `alloc`, once.
        unsafe {
            assert_eq!(block.read(), own, "written to by another");
            HEAP.dealloc(block.cast(), layout);
        }
    }
    std::ptr::null_mut()
}

#[test]
fn threads_that_allocate_first_lose_nothing_of_what_was_left_to_them() {
    child_succeeds("threads_that_allocate_first_lose_nothing_of_what_was_left_to_them", &[], || {
        join(c_thread(take_and_give));
        let live = neap::stats().live;
        (0..2000).for_each(|_| join(c_thread(take_and_give)));
        neap::purge();
        assert!(neap::stats().live < live + 16 * 1024, "{}", neap::stats());
    });
}

#[test]
fn a_tick_between_joining_and_the_first_refill() {
    child_succeeds("a_tick_between_joining_and_the_first_refill", &[], || {
        std::thread::spawn(|| {
            loop {
                neap::tick();
            }
        });
        for _ in 0..20_000 {
            let threads = [c_thread(take_and_give), c_thread(take_and_give)];
            threads.into_iter().for_each(join);
        }
    });
}

#[test]
fn twenty_thousand_threads_leave_nothing() {
    child_succeeds("twenty_thousand_threads_leave_nothing", &[], || {
        let storm = |count: usize| {
            for _ in 0..count / 20 {
                let threads: Vec<_> = (0..20)
                    .map(|seed| {
                        std::thread::spawn(move || {
                            (0..100usize)
                                .map(|n| vec![1u8; n * seed % 700 + 1])
                                .map(|v| v.len())
                                .sum::<usize>()
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|thread| assert!(thread.join().expect("no panic") > 0));
            }
        };
        storm(1000);
        neap::purge();
        let (start, live) = (resident(), neap::stats().live);
        storm(20_000);
        neap::purge();
        let grown = resident().saturating_sub(start);
        assert!(grown < MIB, "{grown}");
        assert!(neap::stats().live < live + 64 * 1024, "{}", neap::stats());
        // The test's own, its harness's, and no other.
        assert!(neap::stats().threads <= 3, "{}", neap::stats());
    });
}

#[test]
fn blocks_freed_elsewhere_are_used_again() {
    child_succeeds("blocks_freed_elsewhere_are_used_again", &[], || {
        let (send, receive) = mpsc::sync_channel::<Vec<Box<[u64; 6]>>>(4);
        let consumer =
            std::thread::spawn(move || receive.into_iter().map(|batch| batch.len()).sum::<usize>());
        for round in 0..2000 {
            let batch = (0..500u64).map(|n| Box::new([n + round; 6])).collect();
            send.send(batch).expect("alive");
        }
        drop(send);
        assert_eq!(consumer.join().expect("no panic"), 1_000_000);
        // 48 MB went through.
        let stats = neap::stats();
        assert!(stats.resident < 8 * MIB, "{stats}");
    });
}

struct AllocatesAtExit(Vec<String>);

impl Drop for AllocatesAtExit {
    fn drop(&mut self) {
        self.0.extend((0..100).map(|n| n.to_string()));
        assert_eq!(self.0[50].len(), 2);
    }
}

thread_local! {
    static AT_EXIT: RefCell<AllocatesAtExit> = const { RefCell::new(AllocatesAtExit(Vec::new())) };
}

/// A key's destructor that runs in every round the C library offers, so also
/// after the thread has given its heap back.
static ROUNDS: AtomicUsize = AtomicUsize::new(0);
static KEY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn round(value: *mut c_void) {
    ROUNDS.fetch_add(1, Relaxed);
    let layout = Layout::new::<[u64; 30]>();
    // SAFETY: allocated and freed with the same layout; the value is a block.
    unsafe {
        let more: Vec<*mut u8> = (0..300).map(|_| HEAP.alloc(layout)).collect();
        more.into_iter().for_each(|block| {
            block.write_bytes(2, layout.size());
            HEAP.dealloc(block, layout);
        });
        HEAP.dealloc(value.cast(), layout);
        let key = KEY.load(Relaxed) as libc::pthread_key_t;
        libc::pthread_setspecific(key, HEAP.alloc(layout).cast());
    }
}

#[test]
fn destructors_may_allocate_before_and_after_the_heap_is_gone() {
    child_succeeds("destructors_may_allocate_before_and_after_the_heap_is_gone", &[], || {
        let mut key = 0;
        // SAFETY: a live key and a destructor of ours.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(round)) }, 0);
        KEY.store(key as usize, Relaxed);
        let spawn = |count: usize| {
            for _ in 0..count {
                let thread = std::thread::spawn(move || {
                    AT_EXIT.with_borrow_mut(|list| list.0.push("first".into()));
                    // SAFETY: the key is valid, the block the destructor's to free.
                    unsafe {
                        libc::pthread_setspecific(key, HEAP.alloc(Layout::new::<[u64; 30]>()).cast());
                    }
                });
                thread.join().expect("no panic");
            }
        };
        spawn(10);
        neap::purge();
        let live = neap::stats().live;
        spawn(500);
        neap::purge();
        assert!(ROUNDS.load(Relaxed) >= 3 * 510, "several rounds each");
        // Each thread's last round leaves one block behind, as the test does not free it.
        let grown = neap::stats().live.saturating_sub(live);
        assert!(grown <= 500 * 256 + 32 * 1024, "{grown} {}", neap::stats());
    });
}

#[test]
fn a_thread_may_flush_its_pool() {
    child_succeeds("a_thread_may_flush_its_pool", &[], || {
        let pooled = || {
            let stats = neap::stats();
            let class = stats.classes().iter().find(|class| class.block_size == 3072);
            class.expect("the class").pooled_local
        };
        drop((0..100u8).map(|n| vec![n; 3000]).collect::<Vec<_>>());
        assert!(pooled() > 0);
        neap::flush_thread();
        assert_eq!(pooled(), 0, "{}", neap::stats());
        assert_eq!(*Box::new(5), 5);
    });
}
