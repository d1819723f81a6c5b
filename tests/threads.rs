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
            let class = neap::stats().classes.into_iter().find(|class| class.block_size == 3072);
            class.expect("the class").pooled_local
        };
        drop((0..100u8).map(|n| vec![n; 3000]).collect::<Vec<_>>());
        assert!(pooled() > 0);
        neap::flush_thread();
        assert_eq!(pooled(), 0, "{}", neap::stats());
        assert_eq!(*Box::new(5), 5);
    });
}
