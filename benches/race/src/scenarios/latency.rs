//! Times each operation by itself, with a large heap, while spikes come and go.

use super::{MIB, random};
use hdrhistogram::Histogram;
use quanta::Clock;
use rand::Rng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long blocks of the base load are replaced between two spikes.
const CALM: Duration = Duration::from_millis(700);
const SPIKES: usize = 10;

/// Percentiles of allocating, then of freeing.
pub fn latency(scale: f64) -> Vec<f64> {
    let slots = (500.0 * MIB * scale) as usize / 520;
    let mut timer = Timer::new();
    let mut live: Vec<Vec<u8>> = (0..slots.max(1)).map(|_| timer.random_block()).collect();
    // For a moment, a fifth of the base load on top of it.
    let mut spike = Vec::with_capacity(slots / 5);
    timer.alloc.reset();
    for _ in 0..SPIKES {
        let start = Instant::now();
        while start.elapsed() < CALM.mul_f64(scale.min(1.0)) {
            for _ in 0..256 {
                let block = timer.random_block();
                let slot = timer.random.random_range(0..slots.max(1));
                timer.free(std::mem::replace(&mut live[slot], block));
            }
        }
        spike.extend((0..slots / 5).map(|_| timer.random_block()));
        spike.drain(..).for_each(|block| timer.free(block));
    }
    black_box(&live);
    [&timer.alloc, &timer.free].into_iter().flat_map(percentiles).collect()
}

struct Timer {
    clock: Clock,
    random: SmallRng,
    alloc: Histogram<u64>,
    free: Histogram<u64>,
}

impl Timer {
    fn new() -> Self {
        // Bounded, so that recording never allocates.
        let histogram = || Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds");
        Self { clock: Clock::new(), random: random(71), alloc: histogram(), free: histogram() }
    }

    fn random_block(&mut self) -> Vec<u8> {
        let size = self.random.random_range(16..=1024);
        let start = self.clock.raw();
        let mut block: Vec<u8> = black_box(Vec::with_capacity(black_box(size)));
        let end = self.clock.raw();
        self.alloc.saturating_record(self.clock.delta_as_nanos(start, end).max(1));
        // Written all over, as a program would; those page faults are not the operation's.
        block.resize(size, 1);
        block
    }

    fn free(&mut self, block: Vec<u8>) {
        let block = black_box(block);
        let start = self.clock.raw();
        drop(block);
        let end = self.clock.raw();
        self.free.saturating_record(self.clock.delta_as_nanos(start, end).max(1));
    }
}

fn percentiles(histogram: &Histogram<u64>) -> [f64; 5] {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    [at(0.5), at(0.99), at(0.999), at(0.9999), histogram.max() as f64]
}
