//! Threads that work side by side allocate from spans of their own, so that they do
//! not write to the same cache lines. So do threads that take over the thread cache
//! of one that ended.

mod common;

use common::child_succeeds;
use neap::Neap;
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

// No tick: it would empty the thread caches that ended threads leave.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(std::time::Duration::from_secs(1000));

type Block = Box<[u8; 1000]>;

fn slice_of(block: &Block) -> usize {
    block.as_ptr() as usize >> 16
}

/// Waits for `turn`, without allocating: nothing of another thread's may get into
/// this one's cache.
fn wait_for(turns: &AtomicUsize, turn: usize) {
    while turns.load(SeqCst) != turn {
        thread::yield_now();
    }
}

#[test]
fn a_thread_gets_the_cache_of_its_parents_last_one() {
    child_succeeds("a_thread_gets_the_cache_of_its_parents_last_one", &[], || {
        const ROUNDS: usize = 20;
        const TOGETHER: usize = 3;
        static TURNS: AtomicUsize = AtomicUsize::new(2 * TOGETHER);
        static BOTH: Barrier = Barrier::new(2);
        let parent = |number: usize| {
            let (mut last, mut moved) = (0, 0);
            for round in 0..ROUNDS {
                // The first rounds at the same time, so that there are two thread caches;
                // later ones in turn, each with both caches to choose from.
                let together = round < TOGETHER;
                if !together {
                    wait_for(&TURNS, round * 2 + (number + round) % 2);
                }
                let worker = thread::spawn(move || {
                    let block = black_box(Block::new([0; 1000]));
                    if together {
                        BOTH.wait();
                    }
                    slice_of(&block)
                });
                let slice = worker.join().expect("no panic");
                // A panic in here would leave the other parent waiting.
                moved += usize::from(!together && slice != last);
                last = slice;
                if together {
                    BOTH.wait();
                } else {
                    TURNS.fetch_add(1, SeqCst);
                }
            }
            (last, moved)
        };
        let slices: Vec<_> = thread::scope(|scope| {
            let parents = [0, 1].map(|number| scope.spawn(move || parent(number)));
            parents.map(|parent| parent.join().expect("no panic")).into()
        });
        assert_ne!(slices[0].0, slices[1].0, "one thread cache for both");
        // The last two that ran at the same time may have had each other's.
        assert!(slices.iter().all(|line| line.1 <= 1), "{slices:?}");
    });
}

#[test]
fn a_thread_refills_from_the_spans_it_had() {
    child_succeeds("a_thread_refills_from_the_spans_it_had", &[], || {
        static TURNS: AtomicUsize = AtomicUsize::new(0);
        static BOTH: Barrier = Barrier::new(2);
        let work = |number: usize| {
            let mut blocks: Vec<_> = (0..150).map(|_| Some(Block::new([0; 1000]))).collect();
            let had: HashSet<_> = blocks.iter().flatten().map(slice_of).collect();
            BOTH.wait();
            blocks.iter_mut().step_by(2).for_each(|block| drop(block.take()));
            wait_for(&TURNS, number);
            neap::flush_thread();
            TURNS.fetch_add(1, SeqCst);
            // The thread whose spans were listed first allocates first.
            wait_for(&TURNS, 2 + number);
            let again: Vec<_> = (0..40).map(|_| Block::new([0; 1000])).collect();
            TURNS.fetch_add(1, SeqCst);
            BOTH.wait();
            again.iter().all(|block| had.contains(&slice_of(block)))
        };
        thread::scope(|scope| {
            let threads = [0, 1].map(|number| scope.spawn(move || work(number)));
            assert_eq!(threads.map(|thread| thread.join().expect("no panic")), [true, true]);
        });
    });
}
