//! Blocks that are runs: above 32 KiB, up to 4 MiB, on slices of their own.

use crate::base::residency;
use crate::base::size_class::{GEOMETRY, PAGE, PAGES_PER_SLICE, POOLED_MAX, SLICE, SPAN_CLASSES, block_size};
use crate::heap::lookup;
use crate::heap::page_heap::{self, Run};
use crate::heap::segment::Segment;
use crate::heap::span::Kind;
use core::ptr;

/// Allocates a run for a block of a pooled class, aligned as blocks of that size
/// are; null without memory. `zeroed` writes zeros where pages were used before.
pub(crate) fn alloc_class(class: usize, zeroed: bool) -> *mut u8 {
    debug_assert!(class >= SPAN_CLASSES);
    let (size, slices) = (block_size(class), GEOMETRY[class].slices as usize);
    let align = 1 << size.trailing_zeros();
    alloc(Kind::Class(class), size, slices, align, zeroed)
}

/// The same for a size above the pooled ones, aligned to `align`.
pub(super) fn alloc_large(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    alloc(Kind::Large, size, size.div_ceil(SLICE), align, zeroed)
}

fn alloc(kind: Kind, size: usize, slices: usize, align: usize, zeroed: bool) -> *mut u8 {
    let align = align.div_ceil(SLICE);
    let Some((run, resident)) = page_heap::alloc(slices, align, false) else { return ptr::null_mut() };
    residency::add((slices - resident.count_ones() as usize) * PAGES_PER_SLICE);
    if zeroed {
        clear(run, resident);
    }
    let head = run.segment.span(run.first);
    head.start_run(kind, run.start(), size.div_ceil(PAGE));
    run.start() as *mut u8
}

/// Frees a block of a pooled class; `recent` if the program used it in this epoch.
/// Aborts the process unless a run of that class starts there.
pub(super) fn free_class(block: usize, class: usize, recent: bool) {
    free(block, Kind::Class(class), recent);
}

/// The same for a block above the pooled sizes.
pub(super) fn free_large(block: usize) {
    free(block, Kind::Large, true);
}

fn free(block: usize, kind: Kind, recent: bool) {
    let segment = lookup::segment_of_freed(block);
    let first = segment.slice_of(block);
    let head = segment.span(first);
    let (_, slices) = head.extent();
    if !block.is_multiple_of(SLICE) || !head.free_run(kind) {
        lookup::abort_on_bad_free(segment, block);
    }
    page_heap::free(Run { segment, first, slices }, u64::MAX, recent);
}

/// Resizes a block above the pooled sizes in place, to another such size. False if
/// that is not possible.
pub(super) fn resize(block: usize, size: usize) -> bool {
    debug_assert!(size > POOLED_MAX);
    let Some(segment) = Segment::of(block) else { return false };
    let first = segment.slice_of(block);
    let head = segment.span(first);
    let (Kind::Large, slices) = head.extent() else { return false };
    let wanted = size.div_ceil(SLICE);
    if wanted > slices {
        let Some(resident) = page_heap::extend(Run { segment, first, slices }, wanted - slices) else {
            return false;
        };
        residency::add((wanted - slices - resident.count_ones() as usize) * PAGES_PER_SLICE);
    }
    head.set_run_pages(size.div_ceil(PAGE));
    if wanted < slices {
        page_heap::free(Run { segment, first: first + wanted, slices: slices - wanted }, u64::MAX, true);
    }
    true
}

/// Bytes of a block above the pooled sizes that is in use.
pub(super) fn usable(block: usize) -> usize {
    Segment::of(block).map_or(0, |segment| segment.span(segment.slice_of(block)).run_pages() * PAGE)
}

/// Clears the resident slices, neighbours in one go: a call of `memset` costs as much
/// as 2 KiB of zeros.
fn clear(run: Run, resident: u64) {
    for (first, count) in page_heap::ranges(resident & page_heap::mask(run.slices)) {
        // SAFETY: the run is ours, and nobody else has its address yet.
        unsafe { ptr::write_bytes((run.start() + first * SLICE) as *mut u8, 0, count * SLICE) };
    }
}
