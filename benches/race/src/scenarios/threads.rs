//! Threads that free what they had and then sleep.

use super::{MIB, TWO_TICKS, block, blocks, random, tell_stats};
use crate::proc::anonymous;
use rand::Rng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread::{scope, sleep};

/// The threads share a gibibyte, all of it live at once.
pub fn sleepers(scale: f64, threads: usize) -> Vec<f64> {
    let share = 1024.0 * MIB * scale / threads as f64;
    vec![kept_asleep(threads, |random| blocks(share, random))]
}

/// Many threads with a few blocks of many sizes each: KiB for each thread.
pub fn little(scale: f64) -> Vec<f64> {
    let threads = ((1000.0 * scale) as usize).max(1);
    let some = |random: &mut SmallRng| (0..200).map(|_| block(random.random_range(16..=2048))).collect();
    vec![kept_asleep(threads, some) * 1024.0 / threads as f64]
}

/// What is resident two ticks after all threads dropped what `make` made, minus what was
/// resident before they allocated.
fn kept_asleep(threads: usize, make: impl Fn(&mut SmallRng) -> Vec<Box<[u8]>> + Sync) -> f64 {
    let barrier = Barrier::new(threads + 1);
    let (barrier, make) = (&barrier, &make);
    scope(|scope| {
        for seed in 0..threads as u64 {
            scope.spawn(move || {
                touch_stack();
                barrier.wait(); // All have started.
                barrier.wait(); // The start was read.
                let all = make(&mut random(seed));
                barrier.wait(); // All have their blocks.
                drop(black_box(all));
                barrier.wait(); // All have freed them.
                barrier.wait(); // The end was read.
            });
        }
        barrier.wait();
        let start = anonymous();
        barrier.wait();
        barrier.wait();
        barrier.wait();
        sleep(TWO_TICKS);
        let kept = anonymous() - start;
        tell_stats();
        barrier.wait();
        kept
    })
}

/// Touches the stack that an allocator may use later, so that it counts at the start.
#[inline(never)]
fn touch_stack() {
    black_box([1u8; 48 << 10]);
}
