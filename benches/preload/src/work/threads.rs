//! Several threads.

use super::Random;
use super::blocks::{give, size, take};
use libc::c_void;
use std::sync::mpsc;
use std::thread;

/// Blocks on their way to another thread.
struct Load(Vec<*mut c_void>);

// SAFETY: the owner of the load owns its blocks.
unsafe impl Send for Load {}

/// Each thread replaces blocks at random and leaves what it has to a successor, as in
/// Larson and Krishnan's server benchmark.
pub fn larson(units: u64) {
    const GENERATIONS: u64 = 50;
    thread::scope(|scope| {
        for seed in 1..=2 {
            scope.spawn(move || {
                let mut load = Load((0..1000).map(|_| take(64)).collect());
                for generation in 0..GENERATIONS {
                    let worker = thread::spawn(move || {
                        let mut load = load;
                        let mut random = Random(seed + generation);
                        for _ in 0..units / 2 / GENERATIONS {
                            let at = random.below(load.0.len());
                            give(load.0[at]);
                            load.0[at] = take(8 + random.below(993));
                        }
                        load
                    });
                    load = worker.join().expect("no panic");
                }
                load.0.into_iter().for_each(give);
            });
        }
    });
}

/// One thread allocates and another frees, 200 blocks at a time.
pub fn handed_on(units: u64) {
    const LOAD: u64 = 200;
    let (send, receive) = mpsc::sync_channel::<Load>(64);
    let (back, empty) = mpsc::sync_channel::<Load>(64);
    thread::scope(|scope| {
        scope.spawn(move || {
            for mut load in receive {
                load.0.drain(..).for_each(give);
                // The producer may be done already.
                let _ = back.try_send(load);
            }
        });
        let mut random = Random(8);
        for _ in 0..units / LOAD {
            let mut load = empty.try_recv().unwrap_or_else(|_| Load(Vec::with_capacity(LOAD as usize)));
            load.0.extend((0..LOAD).map(|_| take(size(&mut random))));
            send.send(load).expect("the consumer is there");
        }
        drop(send);
    });
}

pub fn apart(units: u64) {
    thread::scope(|scope| {
        for seed in 1..=2 {
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut blocks: Vec<_> = (0..2000).map(|_| take(size(&mut random))).collect();
                for _ in 0..units / 2 {
                    let at = random.below(blocks.len());
                    give(blocks[at]);
                    blocks[at] = take(size(&mut random));
                }
                blocks.drain(..).for_each(give);
            });
        }
    });
}
