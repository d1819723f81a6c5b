//! What the segments hold, for statistics.

use crate::base::size_class::{GEOMETRY, PAGE, SLICE, SPAN_CLASSES, block_size};
use crate::heap::page_heap;
use crate::heap::segment::Segment;
use crate::heap::span::Kind;

/// What starts on a slice. Sizes are in bytes.
pub(crate) enum Item {
    /// A span of the class, with how many of its blocks are free and in use.
    Span { class: usize, free: usize, used: usize, resident: usize },
    /// A block of a pooled class that is a run.
    Run { class: usize, resident: usize },
    /// A block above the pooled sizes.
    Large { bytes: usize },
}

/// Bytes of address space reserved for slices.
pub(crate) fn reserved() -> usize {
    Segment::all().map(|segment| segment.slices * SLICE).sum()
}

/// Bytes of free slices that are resident.
pub(crate) fn free_runs() -> usize {
    page_heap::resident_slices() * SLICE
}

/// Calls `visit` for every span and run; what changes meanwhile may be missed.
pub(crate) fn each(mut visit: impl FnMut(Item)) {
    for segment in Segment::all() {
        let mut from = 0;
        while let Some(slice) = page_heap::next_in_use(segment, from) {
            let span = segment.span(slice);
            let (kind, slices) = span.extent();
            match kind {
                Kind::Class(class @ 0..SPAN_CLASSES) => {
                    let geometry = &GEOMETRY[class];
                    let free = span.free_blocks(geometry);
                    // Saturating, since the span may belong to another class by now.
                    let used = (geometry.blocks as usize).saturating_sub(free);
                    visit(Item::Span { class, free, used, resident: span.resident_pages(geometry) * PAGE });
                }
                Kind::Class(class) => visit(Item::Run { class, resident: block_size(class) }),
                Kind::Large => visit(Item::Large { bytes: span.run_pages() * PAGE }),
                Kind::Nothing => {}
            }
            from = slice + slices.max(1);
        }
    }
}
