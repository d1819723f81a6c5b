//! A load that never changes: a tick should have nothing to return.

use super::{MIB, random};
use crate::proc::faults;
use rand::Rng;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Random slots are replaced: faults and replacements per second after a warm-up.
pub fn steady(scale: f64) -> Vec<f64> {
    let mut random = random(61);
    let slots = (200.0 * MIB * scale) as usize / 264;
    let mut live: Vec<Vec<u8>> = (0..slots.max(1)).map(|_| vec![1; random.random_range(16..=512)]).collect();
    let mut run = |time: Duration| {
        let (start, before, mut count) = (Instant::now(), faults(), 0);
        while start.elapsed() < time.mul_f64(scale.min(1.0)) {
            for _ in 0..1024 {
                let mut block = Vec::with_capacity(random.random_range(16..=512));
                block.push(1);
                live[random.random_range(0..slots)] = black_box(block);
            }
            count += 1024;
        }
        let seconds = start.elapsed().as_secs_f64();
        vec![(faults() - before) / seconds, count as f64 / seconds / 1e6]
    };
    run(Duration::from_secs(2));
    run(Duration::from_secs(4))
}
