//! Sizes that drift: each phase replaces what the last one left with blocks of
//! its own range of sizes, little by little, and then lives with them.

use super::{MIB, block, random, tell_stats};
use crate::proc::anonymous;
use rand::Rng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use std::mem::swap;
use std::thread::sleep;
use std::time::{Duration, Instant};

type Blocks = Vec<Box<[u8]>>;

const UP: [(usize, usize); 6] =
    [(16, 64), (64, 256), (256, 1024), (1024, 4096), (4096, 16 << 10), (8192, 32 << 10)];
/// Each half of a phase is long enough for two ticks.
const STEPS: u32 = 16;
const STEP: Duration = Duration::from_millis(75);

/// What is replaced first.
#[derive(Clone, Copy)]
pub enum Order {
    Oldest,
    Random,
}

/// Resident divided by live memory: the worst at any time, and the worst at a phase's end.
pub fn phases(scale: f64, order: Order) -> Vec<f64> {
    let most = (100.0 * MIB * scale) as usize;
    let step = STEP.mul_f64(scale.min(1.0));
    // Both lists are fully resident before the start, so that they do not count.
    let mut set = Set { old: list(most / 30), new: list(most / 30), live: 0, most, random: random(51) };
    let start = anonymous();
    let ratio = || (anonymous() - start) / (most as f64 / MIB);
    let (mut worst, mut worst_end) = (0.0f64, 0.0f64);
    for sizes in UP.into_iter().chain(UP.into_iter().rev()) {
        let begin = Instant::now();
        swap(&mut set.old, &mut set.new);
        set.old.reverse();
        let was = set.old.len();
        for done in 1..=2 * STEPS {
            if done <= STEPS {
                set.replace(sizes, was - was * done as usize / STEPS as usize, order);
            } else {
                set.churn();
            }
            worst = worst.max(ratio());
            sleep((step * done).saturating_sub(begin.elapsed()));
            worst = worst.max(ratio());
        }
        worst_end = worst_end.max(ratio());
        tell_stats();
    }
    vec![worst, worst_end]
}

struct Set {
    /// The last phase's blocks, the oldest at the end.
    old: Blocks,
    new: Blocks,
    live: usize,
    most: usize,
    random: SmallRng,
}

impl Set {
    /// Replaces old blocks by new ones until `target` old ones are left.
    fn replace(&mut self, (low, high): (usize, usize), target: usize, order: Order) {
        loop {
            let size = self.random.random_range(low..=high);
            while self.live + size > self.most && self.old.len() > target {
                let index = match order {
                    Order::Oldest => self.old.len() - 1,
                    Order::Random => self.random.random_range(0..self.old.len()),
                };
                self.live -= self.old.swap_remove(index).len();
            }
            if self.live + size > self.most {
                return;
            }
            self.new.push(block(size));
            self.live += size;
        }
    }

    /// Allocates and frees a block of the size of one in fifty; the set stays as it is.
    fn churn(&mut self) {
        for _ in 0..self.new.len() / 50 {
            let index = self.random.random_range(0..self.new.len());
            drop(black_box(block(self.new[index].len())));
        }
    }
}

fn list(count: usize) -> Blocks {
    let mut list = Vec::with_capacity(count);
    list.resize_with(count, Box::default);
    list.clear();
    list
}
