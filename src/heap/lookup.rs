//! From an address to what lies there. One look-up finds the span and the block's
//! number in it, or aborts the process with a line that says what is wrong.

use crate::base::fatal::abort_on_misuse;
use crate::base::size_class::{GEOMETRY, Geometry, RUN_MAX, SLICE, SPAN_CLASSES};
use crate::heap::segment::Segment;
use crate::heap::span::{Kind, NO_CACHE, Span};

/// Looks up blocks of one class. It keeps the last block's segment, since most
/// blocks lie in the same one.
pub(super) struct Lookup {
    class: usize,
    pub(super) geometry: &'static Geometry,
    /// Bytes of a block.
    pub(super) size: usize,
    blocks: usize,
    /// Of an address, its offset in its span. A mask will do: spans are aligned to
    /// their length.
    offset_mask: usize,
    /// Of a slice's number, the number of its span's first slice.
    head_mask: usize,
    segment: &'static Segment,
}

impl Lookup {
    pub(super) fn new(class: usize, block: usize) -> Self {
        let geometry = &GEOMETRY[class];
        let (size, blocks) = (geometry.size as usize, geometry.blocks as usize);
        let (offset_mask, head_mask) = (geometry.bytes() - 1, geometry.head_mask());
        Self { class, geometry, size, blocks, offset_mask, head_mask, segment: segment_of_freed(block) }
    }

    /// The block's span and its number there. Aborts the process if it is no block of
    /// the class.
    #[inline(always)]
    pub(super) fn find(&mut self, block: usize) -> (&'static Span, usize) {
        if !self.segment.contains(block) {
            self.segment = segment_of_freed(block);
        }
        let span = self.segment.span(self.segment.slice_of(block) & self.head_mask);
        if !span.is_class(self.class) {
            abort_on_bad_free(self.segment, block);
        }
        let offset = block & self.offset_mask;
        let index = self.geometry.block_at(offset);
        if index * self.size != offset || index >= self.blocks {
            abort_on_misuse(INSIDE, block);
        }
        (span, index)
    }
}

const INSIDE: &str = "free of an address inside a block";

/// The segment of a block that is freed; aborts the process if there is none.
#[inline(never)]
pub(super) fn segment_of_freed(block: usize) -> &'static Segment {
    match Segment::of(block) {
        Some(segment) => segment,
        None => abort_on_misuse("free of a block of another allocator or another copy of Neap", block),
    }
}

/// Aborts the process: what was freed is no block in use of the stated size.
#[cold]
pub(super) fn abort_on_bad_free(segment: &Segment, block: usize) -> ! {
    let what = match place_in(segment, block) {
        Place::Free => "double free",
        Place::Start => "free with a size that is not the block's",
        Place::Inside => INSIDE,
    };
    abort_on_misuse(what, block)
}

/// What lies at an address of a segment.
pub(crate) enum Place {
    /// No span or run.
    Free,
    /// The start of a block, free or not.
    Start,
    /// The inside of a block, or what is behind a span's last one.
    Inside,
}

/// What lies at an address, if it is in a segment. This searches, so it is only for
/// a process that will abort.
#[cold]
pub(crate) fn place_of(address: usize) -> Option<Place> {
    Segment::of(address).map(|segment| place_in(segment, address))
}

fn place_in(segment: &Segment, address: usize) -> Place {
    let slice = segment.slice_of(address);
    let furthest = slice.saturating_sub(RUN_MAX / SLICE - 1);
    // Only the header of a span's or run's first slice says what it is: find the nearest
    // one below that says anything.
    let mut extents = (furthest..=slice).rev().map(|head| (head, segment.span(head).extent()));
    let (head, kind) = match extents.find(|&(_, (kind, _))| kind != Kind::Nothing) {
        Some((head, (kind, slices))) if head + slices > slice => (head, kind),
        _ => return Place::Free,
    };
    let offset = address - (segment.base + head * SLICE);
    let (size, blocks) = match kind {
        Kind::Class(class) => (GEOMETRY[class].size as usize, GEOMETRY[class].blocks as usize),
        _ => (RUN_MAX, 1),
    };
    if offset.is_multiple_of(size) && offset / size < blocks { Place::Start } else { Place::Inside }
}

/// The number of the thread cache that last refilled from a block's span, if known.
/// Any address is allowed.
pub(crate) fn origin(class: usize, block: usize) -> u16 {
    match Segment::of(block) {
        Some(segment) if class < SPAN_CLASSES => {
            let head = segment.slice_of(block) & GEOMETRY[class].head_mask();
            segment.span(head).last_cache()
        }
        _ => NO_CACHE,
    }
}
