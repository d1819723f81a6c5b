//! One thread.

use super::Random;
use libc::{c_void, calloc, free, malloc, realloc};
use std::hint::black_box;

/// A block with its first word written, as every use of a block does.
#[inline(always)]
pub fn take(size: usize) -> *mut c_void {
    // SAFETY: 16 bytes at least, so a word can be written.
    unsafe {
        let block = malloc(black_box(size));
        assert!(!block.is_null());
        block.cast::<usize>().write(size);
        black_box(block)
    }
}

#[inline(always)]
pub fn give(block: *mut c_void) {
    // SAFETY: from `take`, once.
    unsafe { free(black_box(block)) };
}

pub fn pairs(units: u64, size: usize) {
    for _ in 0..units {
        give(take(size));
    }
}

pub fn mixed_pairs(units: u64) {
    let mut random = Random(1);
    for _ in 0..units {
        give(take(16 + random.below(497)));
    }
}

/// Mostly small, as in programs.
#[inline(always)]
pub fn size(random: &mut Random) -> usize {
    let most = 32 << random.below(6);
    8 + random.below(most)
}

fn batch(random: &mut Random, blocks: &mut Vec<*mut c_void>, count: usize) {
    blocks.extend((0..count).map(|_| take(size(random))));
}

pub fn batches_in_order(units: u64) {
    let (mut random, mut blocks) = (Random(2), Vec::with_capacity(1000));
    for _ in 0..units {
        batch(&mut random, &mut blocks, 1000);
        blocks.drain(..).for_each(give);
    }
}

pub fn batches_reversed(units: u64) {
    let (mut random, mut blocks) = (Random(3), Vec::with_capacity(1000));
    for _ in 0..units {
        batch(&mut random, &mut blocks, 1000);
        blocks.drain(..).rev().for_each(give);
    }
}

pub fn batches_shuffled(units: u64) {
    let (mut random, mut blocks) = (Random(4), Vec::with_capacity(100_000));
    for _ in 0..units {
        batch(&mut random, &mut blocks, 100_000);
        for last in (1..blocks.len()).rev() {
            blocks.swap(last, random.below(last + 1));
        }
        blocks.drain(..).for_each(give);
    }
}

pub fn replaced(units: u64) {
    let (mut random, mut blocks) = (Random(5), Vec::new());
    batch(&mut random, &mut blocks, 20_000);
    for _ in 0..units {
        let at = random.below(blocks.len());
        give(blocks[at]);
        blocks[at] = take(size(&mut random));
    }
    blocks.drain(..).for_each(give);
}

pub fn cleared(units: u64) {
    let mut random = Random(6);
    for _ in 0..units {
        // SAFETY: no contract beyond C's.
        give(black_box(unsafe { calloc(black_box(1), black_box(1 + random.below(1024))) }));
    }
}

pub fn grown(units: u64) {
    for _ in 0..units {
        let mut block = take(16);
        let mut size = 16;
        while size < 64 << 10 {
            size += size / 2;
            // SAFETY: the block is from `take` or the last round.
            block = black_box(unsafe { realloc(block, black_box(size)) });
            assert!(!block.is_null());
        }
        give(block);
    }
}

pub fn big(units: u64) {
    let mut random = Random(7);
    let mut blocks: Vec<_> = (0..20).map(|_| take(32 << 10)).collect();
    for _ in 0..units {
        let at = random.below(blocks.len());
        give(blocks[at]);
        let most = (32 << 10) << random.below(6);
        blocks[at] = take(16 + random.below(most));
    }
    blocks.drain(..).for_each(give);
}
