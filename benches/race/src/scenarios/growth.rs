//! What an operation costs as the heap grows, compared with the same memory accesses
//! without an operation.

use super::random;
use rand::Rng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use std::time::Instant;

const OPERATIONS: usize = 5_000_000;

/// Nanoseconds to free one block of 8 to 64 bytes and allocate another in its place, and
/// to only write to one, with so many live blocks.
pub fn growth(scale: f64, live: usize) -> Vec<f64> {
    let mut random = random(81);
    let (live, operations) = (count(live, scale), count(OPERATIONS, scale));
    let mut blocks: Vec<Box<[u8]>> = Vec::with_capacity(live);
    blocks.extend((0..live).map(|_| small(&mut random)));
    let mut each = |work: &mut dyn FnMut(&mut SmallRng, usize)| {
        let start = Instant::now();
        for _ in 0..operations {
            let index = random.random_range(0..live);
            work(&mut random, index);
        }
        start.elapsed().as_nanos() as f64 / operations as f64
    };
    let mut replace = |random: &mut SmallRng, index: usize| blocks[index] = small(random);
    // Once to age the heap, once to measure.
    each(&mut replace);
    let replaced = each(&mut replace);
    let touched = each(&mut |random, index| blocks[index][0] = random.random_range(8..=64));
    black_box(blocks);
    vec![replaced, touched]
}

fn small(random: &mut SmallRng) -> Box<[u8]> {
    let mut block = Vec::with_capacity(random.random_range(1..=8) * 8);
    block.resize(block.capacity(), 1);
    block.into_boxed_slice()
}

fn count(full: usize, scale: f64) -> usize {
    ((full as f64 * scale) as usize).max(100)
}
