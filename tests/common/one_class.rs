//! Blocks of one size class that nothing else in the process uses.

use neap::ClassStats;
use std::alloc::{Layout, dealloc};

pub const SIZE: usize = 3000;
/// What a block of [`SIZE`] holds.
pub const BLOCK: usize = 3072;
/// Bytes of a span of the class.
pub const SPAN: usize = 256 << 10;

/// The class's figures.
pub fn class() -> ClassStats {
    super::class_of(BLOCK)
}

fn layout() -> Layout {
    Layout::from_size_align(SIZE, 8).expect("valid")
}

pub fn alloc() -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { std::alloc::alloc(layout()) };
    assert!(!block.is_null());
    // SAFETY: ours.
    unsafe { block.write_bytes(1, SIZE) };
    block
}

pub fn free(block: *mut u8) {
    // SAFETY: from `alloc`.
    unsafe { dealloc(block, layout()) };
}

/// Frees all blocks but the lowest of each span.
pub fn keep_one_of_each_span(blocks: &mut Vec<*mut u8>) {
    blocks.sort();
    let mut last = 0;
    blocks.retain(|&block| {
        let span = block as usize / SPAN;
        let first = span != std::mem::replace(&mut last, span);
        if !first {
            free(block);
        }
        first
    });
}

/// Frees all blocks of the span that the middle one of these lies in. The span
/// has no others.
pub fn free_a_whole_span(mut blocks: Vec<*mut u8>) {
    blocks.sort();
    let span = blocks[blocks.len() / 2] as usize / SPAN;
    blocks.retain(|&block| block as usize / SPAN == span);
    assert_eq!(blocks.len(), SPAN / BLOCK);
    blocks.into_iter().for_each(free);
}
