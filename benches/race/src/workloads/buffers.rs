//! Large buffers, churned and zeroed.

use super::{Work, random, scaled};
use rand::Rng;
use std::hint::black_box;

/// A few buffers of 64 KiB to 8 MiB at a time, with a byte of each page written.
pub fn large(scale: f64) -> Work {
    let count = scaled(40_000, scale);
    let mut random = random(21);
    Box::new(move || {
        let mut live: Vec<Vec<u8>> = (0..8).map(|_| Vec::new()).collect();
        for _ in 0..count {
            let size = (64 << 10) << random.random_range(0..8);
            let mut buffer = Vec::<u8>::with_capacity(size);
            for page in buffer.spare_capacity_mut().chunks_mut(4096).take(64) {
                page[0].write(1);
            }
            live[random.random_range(0..8)] = black_box(buffer);
        }
        count as u64
    })
}

fn zeroed(scale: f64, step: usize) -> Work {
    let count = scaled(6_000, scale);
    let mut random = random(22);
    Box::new(move || {
        for _ in 0..count {
            let size = (16 << 10) << random.random_range(0..9);
            let mut buffer = vec![0u8; size];
            for at in (0..size).step_by(step) {
                buffer[at] += 1;
            }
            black_box(buffer);
        }
        count as u64
    })
}

pub fn zeroed_full(scale: f64) -> Work {
    zeroed(scale, 64)
}

/// Zeroed buffers, one page in sixteen of which is touched.
pub fn zeroed_sparse(scale: f64) -> Work {
    zeroed(scale * 4.0, 64 << 10)
}
