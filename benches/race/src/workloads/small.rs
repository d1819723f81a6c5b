//! Small blocks on one thread.

use super::{Work, random, scaled};
use rand::Rng;
use rand::seq::SliceRandom;
use std::hint::black_box;

type Node = [u64; 4];

pub fn pair_constant(scale: f64) -> Work {
    let count = scaled(200_000_000, scale);
    Box::new(move || {
        for value in 0..count as u64 {
            drop(black_box(Box::new(value)));
        }
        count as u64
    })
}

pub fn pair_runtime(scale: f64) -> Work {
    let count = scaled(50_000, scale);
    let mut random = random(1);
    let sizes: Vec<usize> = (0..1024).map(|_| random.random_range(1..=512)).collect();
    Box::new(move || {
        for _ in 0..count {
            for &size in &sizes {
                drop(black_box(Vec::<u8>::with_capacity(size)));
            }
        }
        count as u64
    })
}

/// A million boxes are allocated, and then dropped in some order; several times.
fn bulk(scale: f64, order: impl FnOnce(&mut Vec<u32>)) -> Work {
    let rounds = scaled(40, scale);
    let mut indices: Vec<u32> = (0..1_000_000).collect();
    order(&mut indices);
    Box::new(move || {
        for _ in 0..rounds {
            let mut all: Vec<Option<Box<Node>>> =
                (0..indices.len()).map(|n| Some(Box::new([n as u64; 4]))).collect();
            for &index in &indices {
                all[index as usize] = None;
            }
            black_box(all);
        }
        rounds as u64
    })
}

pub fn bulk_in_order(scale: f64) -> Work {
    bulk(scale, |_| ())
}

pub fn bulk_reversed(scale: f64) -> Work {
    bulk(scale, |indices| indices.reverse())
}

pub fn bulk_random(scale: f64) -> Work {
    bulk(scale * 0.6, |indices| indices.shuffle(&mut random(2)))
}

/// Random slots of a live set are replaced by blocks of 8 to 512 bytes.
fn replace_among(slots: usize, count: usize) -> Work {
    let mut random = random(3);
    Box::new(move || {
        let mut live: Vec<Vec<u8>> =
            (0..slots).map(|_| Vec::with_capacity(random.random_range(8..=512))).collect();
        for _ in 0..count {
            let mut block = Vec::with_capacity(random.random_range(8..=512));
            block.push(1);
            live[random.random_range(0..slots)] = block;
        }
        black_box(live).len() as u64
    })
}

pub fn replace(scale: f64) -> Work {
    replace_among(10_000, scaled(40_000_000, scale))
}

pub fn live_1k(scale: f64) -> Work {
    replace_among(1000, scaled(40_000_000, scale))
}

pub fn live_1m(scale: f64) -> Work {
    replace_among(1_000_000, scaled(10_000_000, scale))
}

pub fn batches(scale: f64) -> Work {
    let count = scaled(200_000, scale);
    let mut random = random(4);
    Box::new(move || {
        let mut batch: Vec<Vec<u8>> = Vec::with_capacity(256);
        for _ in 0..count {
            batch.extend((0..256).map(|_| Vec::with_capacity(random.random_range(8..=512))));
            batch.clear();
        }
        count as u64
    })
}

struct Tree(Option<Box<(Tree, Tree)>>);

fn tree(depth: u32) -> Tree {
    Tree((depth > 0).then(|| Box::new((tree(depth - 1), tree(depth - 1)))))
}

fn size(tree: &Tree) -> u64 {
    1 + tree.0.as_ref().map_or(0, |pair| size(&pair.0) + size(&pair.1))
}

pub fn trees(scale: f64) -> Work {
    let rounds = scaled(20, scale);
    Box::new(move || {
        let long_lived = tree(18);
        let sum: u64 = (0..rounds).map(|_| size(&tree(20))).sum();
        sum + size(&long_lived)
    })
}
