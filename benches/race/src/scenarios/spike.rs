//! One thread's spike, of which everything is freed, or all but a few survivors.

use super::{MIB, TWO_TICKS, block, blocks, random, tell_stats};
use crate::proc::anonymous;
use rand::Rng;
use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

/// All is freed; memory is read two ticks and ten seconds later.
pub fn spike(scale: f64) -> Vec<f64> {
    let start = anonymous();
    drop(black_box(blocks(1024.0 * MIB * scale, &mut random(41))));
    sleep(TWO_TICKS);
    let soon = anonymous() - start;
    sleep((Duration::from_secs(10) - TWO_TICKS).mul_f64(scale.min(1.0)));
    let later = anonymous() - start;
    tell_stats();
    vec![soon, later]
}

/// One block in a hundred stays.
pub fn survivors(scale: f64) -> Vec<f64> {
    let mut random = random(42);
    let start = anonymous();
    let mut all = blocks(1024.0 * MIB * scale, &mut random);
    all.retain(|_| random.random_ratio(1, 100));
    kept(start, &all)
}

/// Short runs of neighbours stay.
pub fn runs(scale: f64) -> Vec<f64> {
    let mut random = random(43);
    let count = (4e6 * scale) as usize;
    let start = anonymous();
    let mut all = Vec::with_capacity(count);
    all.extend((0..count).map(|_| block(random.random_range(64..=96))));
    let mut index = 0;
    all.retain(|_| {
        index += 1;
        index % 2000 < 200
    });
    kept(start, &all)
}

/// Resident memory two ticks later, without the list, every page of which was in use.
fn kept(start: f64, all: &Vec<Box<[u8]>>) -> Vec<f64> {
    sleep(TWO_TICKS);
    let list = (all.capacity() * size_of::<Box<[u8]>>()) as f64 / MIB;
    let kept = anonymous() - start - list;
    tell_stats();
    black_box(all);
    vec![kept]
}
