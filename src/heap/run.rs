//! Blocks that are page runs: above 32 KiB, up to 4 MiB, on slices of their own.

use crate::base::residency;
use crate::base::size_class::{PAGE, PAGES_PER_SLICE, POOLED_MAX, SLICE, class_of};
use crate::heap::page_heap::{self, Run};
use crate::heap::segment::Segment;
use crate::heap::span::Kind;
use core::ptr;

/// Takes a run for `size` bytes aligned to `align`; null without memory.
/// `zeroed` writes zeros where pages were used before.
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let slices = size.div_ceil(SLICE).max(1);
    let align = align.div_ceil(SLICE).max(1);
    let Some((run, resident)) = page_heap::alloc(slices, align, false) else { return ptr::null_mut() };
    residency::add((slices - resident.count_ones() as usize) * PAGES_PER_SLICE);
    if zeroed {
        clear(run, resident);
    }
    let head = run.segment.span(run.first);
    head.start_run(kind_of(size), run.start(), size.div_ceil(PAGE));
    run.start() as *mut u8
}

/// Gives a run back; `recent` if the program let it go in this epoch.
///
/// Aborts the process unless `block` starts a run of the kind that holds `size`.
pub(crate) fn free(block: usize, size: usize, recent: bool) {
    let segment = Segment::of_freed(block);
    let first = segment.slice_of(block);
    let head = segment.span(first);
    let (_, slices) = head.extent();
    if !block.is_multiple_of(SLICE) || !head.retire(kind_of(size)) {
        segment.abort_on_bad_free(block);
    }
    page_heap::free(Run { segment, first, slices }, u64::MAX, recent);
}

/// Changes the size of a run too large to be pooled where it lies, if it can.
pub(crate) fn resize(block: usize, size: usize) -> bool {
    let Some(segment) = Segment::of(block) else { return false };
    let first = segment.slice_of(block);
    let head = segment.span(first);
    let (Kind::Large, slices) = head.extent() else { return false };
    if size <= POOLED_MAX {
        return false;
    }
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

fn kind_of(size: usize) -> Kind {
    if size <= POOLED_MAX { Kind::Class(class_of(size)) } else { Kind::Large }
}

/// Neighbours in one go: each call of `memset` costs as much as 2 KiB of zeros.
fn clear(run: Run, resident: u64) {
    for (first, count) in page_heap::stretches(resident & page_heap::mask(run.slices)) {
        // SAFETY: the run is ours, and nobody else has its address yet.
        unsafe { ptr::write_bytes((run.start() + first * SLICE) as *mut u8, 0, count * SLICE) };
    }
}
