//! One thread's spike, freed whole or but for survivors.

use super::{MIB, TWO_TICKS, block, blocks, blocks_watched, random, tell_stats};
use crate::proc::anonymous;
use crate::timeline::{Timeline, Watch};
use rand::Rng;
use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

/// All freed; read two ticks and ten seconds later.
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

/// Memory over time: a GiB is allocated, then freed, with its list, but for one block in a
/// hundred if some survive, and ten seconds pass.
pub fn timeline(scale: f64, survive: bool) -> Timeline {
    let mut random = random(41);
    let mut watch = Watch::start();
    let mut all = blocks_watched(1024.0 * MIB * scale, &mut random, || watch.look());
    let mut kept = Vec::with_capacity(if survive { all.len() / 50 } else { 0 });
    for block in black_box(all.drain(..)) {
        watch.look();
        if survive && random.random_ratio(1, 100) {
            kept.push(block);
        }
    }
    drop(all);
    watch.freed();
    watch.wait(Duration::from_secs(10).mul_f64(scale.min(1.0)));
    black_box(&kept);
    tell_stats();
    watch.finish()
}

/// Two ticks later, without the list, every page of which has been in use.
fn kept(start: f64, all: &Vec<Box<[u8]>>) -> Vec<f64> {
    sleep(TWO_TICKS);
    let list = (all.capacity() * size_of::<Box<[u8]>>()) as f64 / MIB;
    let kept = anonymous() - start - list;
    tell_stats();
    black_box(all);
    vec![kept]
}
