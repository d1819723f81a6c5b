//! Sizes that drift: each phase replaces what the last one left, at random,
//! with blocks of its own range.

use super::{MIB, block, random, tell_stats};
use crate::proc::anonymous;
use rand::Rng;
use std::mem::swap;
use std::thread::sleep;
use std::time::{Duration, Instant};

const UP: [(usize, usize); 6] =
    [(16, 64), (64, 256), (256, 1024), (1024, 4096), (4096, 16 << 10), (8192, 32 << 10)];
/// A phase is long enough for two ticks.
const STEPS: u32 = 20;
const STEP: Duration = Duration::from_millis(75);

pub fn phases(scale: f64) -> Vec<f64> {
    let most = (100.0 * MIB * scale) as usize;
    let step = STEP.mul_f64(scale.min(1.0));
    let mut random = random(51);
    // Both lists are resident in full before the start, so that they don't count.
    let (mut old, mut new) = (list(most / 30), list(most / 30));
    let start = anonymous();
    let ratio = || (anonymous() - start) / (most as f64 / MIB);
    let (mut live, mut worst, mut worst_end) = (0, 0.0f64, 0.0f64);
    for (low, high) in UP.into_iter().chain(UP.into_iter().rev()) {
        let begin = Instant::now();
        let was = old.len();
        for done in 1..=STEPS {
            let target = was - was * done as usize / STEPS as usize;
            while old.len() > target || (was == 0 && live < most * done as usize / STEPS as usize) {
                let size = random.random_range(low..=high);
                while live + size > most && !old.is_empty() {
                    live -= old.swap_remove(random.random_range(0..old.len())).len();
                }
                if live + size > most {
                    break;
                }
                new.push(block(size));
                live += size;
            }
            worst = worst.max(ratio());
            sleep((step * done).saturating_sub(begin.elapsed()));
            worst = worst.max(ratio());
        }
        worst_end = worst_end.max(ratio());
        if std::env::var_os("RACE_STATS").is_some() {
            eprintln!("{low}..{high}: {:.3}, live {:.1} MiB", ratio(), live as f64 / MIB);
            tell_stats();
        }
        swap(&mut old, &mut new);
    }
    vec![worst, worst_end]
}

fn list(count: usize) -> Vec<Box<[u8]>> {
    let mut list = Vec::with_capacity(count);
    list.resize_with(count, Box::default);
    list.clear();
    list
}
