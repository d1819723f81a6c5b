//! Where blocks lie: a few blocks of many sizes in different sets of a processor's
//! cache, many blocks of one size side by side.

mod common;

use common::child_succeeds;
use neap::Neap;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::{HashMap, HashSet};
use std::thread;

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(std::time::Duration::from_secs(1000));

const LINE: usize = 64;
const PAGE: usize = 4096;
const SLICE: usize = 64 << 10;

/// Addresses of `count` blocks of a size that were in use at the same time.
fn blocks(size: usize, count: usize) -> Vec<usize> {
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    // SAFETY: the size is not zero.
    let blocks: Vec<_> = (0..count).map(|_| unsafe { alloc(layout) }).collect();
    let addresses = blocks.iter().map(|block| block.addr()).collect();
    // SAFETY: allocated above, with the same layout.
    blocks.into_iter().for_each(|block| unsafe { dealloc(block, layout) });
    addresses
}

#[test]
fn first_blocks_of_many_sizes_lie_in_different_lines() {
    child_succeeds("first_blocks_of_many_sizes_lie_in_different_lines", &[], || {
        // A new thread has spans of its own, with no block allocated yet.
        // One block of each class from 128 bytes to 1 KiB.
        let sizes =
            [128, 256, 512].into_iter().flat_map(|double| (0..8).map(move |part| double + part * double / 8));
        let firsts = thread::spawn(|| sizes.map(|size| blocks(size, 1)[0]).collect::<Vec<_>>());
        let lines: HashSet<_> =
            firsts.join().expect("no panic").iter().map(|first| first % PAGE / LINE).collect();
        // Some share one by chance. At the start of their spans, all 24 would share one or two.
        assert!(lines.len() > 8, "{} lines for 24 sizes", lines.len());
    });
}

#[test]
fn many_blocks_are_allocated_from_the_start_of_their_spans() {
    child_succeeds("many_blocks_are_allocated_from_the_start_of_their_spans", &[], || {
        let all = blocks(96, 20_000);
        let ascending = all.windows(2).filter(|pair| pair[1] == pair[0] + 96).count();
        assert!(ascending > all.len() * 98 / 100, "{ascending} of {} follow their neighbour", all.len());
        let mut firsts = HashMap::new();
        for address in all {
            firsts.entry(address / SLICE).or_insert(address % SLICE);
        }
        let at_start = firsts.values().filter(|&&first| first == 0).count();
        // Without the spans of which the first blocks were allocated while few were wanted.
        assert!(at_start + 3 >= firsts.len(), "{at_start} of {} spans", firsts.len());
    });
}
