//! Misuse aborts the process, with one clear line on standard error.

mod common;

use common::child;
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;

#[global_allocator]
static HEAP: Neap = Neap::new();

/// `body` must abort with one line that begins with `neap: ` and contains `what`.
fn aborts(test: &str, what: &str, body: impl FnOnce()) {
    let Some(output) = child(test, &[], body) else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{:?}: {error}", output.status);
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 1, "{error}");
    assert!(lines[0].starts_with("neap: ") && lines[0].contains(what), "{error}");
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("valid")
}

/// Frees `block`, and returns all that the thread cache pools to the spans.
fn free(block: *mut u8, size: usize) {
    // SAFETY: not sound on purpose; the process aborts in here.
    unsafe { HEAP.dealloc(block, layout(size)) };
    neap::flush_thread();
}

fn alloc(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    unsafe { HEAP.alloc(layout(size)) }
}

#[test]
fn a_small_block_freed_twice() {
    aborts("a_small_block_freed_twice", "double free", || {
        let (block, _other) = (alloc(64), alloc(64));
        free(block, 64);
        free(block, 64);
    });
}

#[test]
fn twice_within_the_thread_cache() {
    aborts("twice_within_the_thread_cache", "double free", || {
        let block = alloc(64);
        // SAFETY: not sound on purpose.
        unsafe { HEAP.dealloc(block, layout(64)) };
        free(block, 64);
    });
}

#[test]
fn twice_around_another_when_its_span_is_empty_by_then() {
    aborts("twice_around_another_when_its_span_is_empty_by_then", "double free", || {
        let mut blocks: Vec<_> = (0..400).map(|_| alloc(3072)).collect();
        blocks.sort();
        // One block from each of two spans of 256 KiB.
        let (first, second) = (blocks[100], blocks[200]);
        assert_ne!(first as usize >> 18, second as usize >> 18);
        blocks.retain(|&block| block != first && block != second);
        blocks.into_iter().for_each(|block| free(block, 3072));
        for block in [first, second] {
            // SAFETY: not sound on purpose, together with the next.
            unsafe { HEAP.dealloc(block, layout(3072)) };
        }
        free(first, 3072);
    });
}

#[test]
fn twice_from_two_threads() {
    aborts("twice_from_two_threads", "double free", || {
        let block = alloc(64).addr();
        for _ in 0..2 {
            let _ = std::thread::spawn(move || free(block as *mut u8, 64)).join();
        }
    });
}

#[test]
fn a_run_freed_twice() {
    aborts("a_run_freed_twice", "double free", || {
        let block = alloc(1 << 20);
        free(block, 1 << 20);
        free(block, 1 << 20);
    });
}

#[test]
fn a_pooled_run_freed_twice() {
    aborts("a_pooled_run_freed_twice", "double free", || {
        let block = alloc(100_000);
        free(block, 100_000);
        free(block, 100_000);
    });
}

#[test]
fn a_mapping_freed_twice() {
    aborts("a_mapping_freed_twice", "double free", || {
        let block = alloc(8 << 20);
        free(block, 8 << 20);
        free(block, 8 << 20);
    });
}

#[test]
fn an_address_on_the_stack() {
    aborts("an_address_on_the_stack", "of another allocator or another copy of Neap", || {
        let mut place = [0u64; 16];
        free(place.as_mut_ptr().cast(), 64);
    });
}

#[test]
fn an_address_of_no_mapping() {
    aborts("an_address_of_no_mapping", "of another allocator or another copy of Neap", || {
        free(0xdead_beef_0000 as *mut u8, 1 << 20)
    });
}

#[test]
fn an_address_inside_a_block() {
    aborts("an_address_inside_a_block", "inside a block", || {
        let block = alloc(64);
        free(block.wrapping_add(8), 64);
    });
}

#[test]
fn an_address_after_a_spans_last_block() {
    aborts("an_address_after_a_spans_last_block", "inside a block", || {
        let span = alloc(48).addr() & !0xffff;
        free((span + 0x10000 / 48 * 48) as *mut u8, 48);
    });
}

#[test]
fn the_last_slice_of_a_large_block() {
    aborts("the_last_slice_of_a_large_block", "inside a block", || {
        free(alloc(4 << 20).wrapping_add(63 << 16), 64);
    });
}

#[test]
fn the_last_slice_of_a_large_block_as_a_large_one() {
    aborts("the_last_slice_of_a_large_block_as_a_large_one", "inside a block", || {
        free(alloc(4 << 20).wrapping_add(63 << 16), 1 << 20);
    });
}

/// A block of 32 KiB in a slice of its span that is not the first.
fn in_a_later_slice() -> *mut u8 {
    let blocks = (0..8).map(|_| alloc(32 << 10));
    blocks.into_iter().find(|block| block.addr() & 0x3ffff == 0x20000).expect("one of eight")
}

#[test]
fn a_wrong_size_in_a_later_slice() {
    aborts("a_wrong_size_in_a_later_slice", "size that is not the block's", || free(in_a_later_slice(), 64));
}

#[test]
fn a_large_size_in_a_later_slice() {
    aborts("a_large_size_in_a_later_slice", "size that is not the block's", || {
        free(in_a_later_slice(), 48 << 10)
    });
}

#[test]
fn a_large_blocks_start_as_a_small_one() {
    aborts("a_large_blocks_start_as_a_small_one", "size that is not the block's", || {
        free(alloc(1 << 20), 64)
    });
}

#[test]
fn a_wrong_size() {
    aborts("a_wrong_size", "size that is not the block's", || {
        let block = alloc(64);
        free(block, 500);
    });
}

#[test]
fn a_write_after_free_changes_nothing() {
    common::child_succeeds("a_write_after_free_changes_nothing", &[], || {
        let blocks: Vec<_> = (0..1000).map(|_| alloc(48)).collect();
        for &block in &blocks {
            // SAFETY: allocated above.
            unsafe { HEAP.dealloc(block, layout(48)) };
        }
        for &block in &blocks {
            // SAFETY: not sound on purpose: the block is free, its page mapped.
            unsafe { block.write_bytes(0xff, 48) };
        }
        let mut again: Vec<_> = (0..2000).map(|_| alloc(48)).collect();
        again.sort();
        assert!(again.windows(2).all(|pair| pair[1].addr() - pair[0].addr() >= 48));
    });
}
