//! Blocks on their way home: from a pool back to the bitmaps of their spans.

use crate::central;
use crate::misuse::die;
use crate::run;
use crate::segment::Segment;
use crate::size_class::{GEOMETRY, Geometry, SLICE, SPAN_CLASSES, block_size};
use crate::span::{Kind, Span};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::{ptr, slice};

/// Blocks looked up before any is given: the look-ups are independent of each
/// other and run side by side, while a bit set is a barrier to what follows.
const BATCH: usize = 64;

/// One block's place in the bitmaps.
#[derive(Clone, Copy)]
struct Place {
    span: &'static Span,
    block: usize,
}

/// Gives blocks of one class back; `by_program` unless a tick does so with
/// blocks that nobody has used for an epoch.
///
/// Ends the process for an address that is no block in use of this class.
pub(crate) fn give(class: usize, blocks: &[AtomicUsize], by_program: bool) {
    if class >= SPAN_CLASSES {
        for block in blocks {
            run::free(block.load(Relaxed), block_size(class), by_program);
        }
        return;
    }
    let mut finder = Finder::new(class);
    for batch in blocks.chunks(BATCH) {
        let mut places = [const { MaybeUninit::<Place>::uninit() }; BATCH];
        for (place, block) in places.iter_mut().zip(batch) {
            place.write(finder.find(block.load(Relaxed)));
        }
        // SAFETY: just written, as many as the batch has blocks.
        let places = unsafe { slice::from_raw_parts(places.as_ptr().cast::<Place>(), batch.len()) };
        give_places(class, places, by_program);
    }
}

/// Sets the bits, those of neighbours in one operation.
fn give_places(class: usize, places: &[Place], by_program: bool) {
    let geometry = &GEOMETRY[class];
    let mut rest = places;
    while let Some((first, mut tail)) = rest.split_first() {
        let word = first.block / 64;
        let mut bits = 1u64 << (first.block % 64);
        while let Some((next, after)) = tail.split_first()
            && ptr::eq(next.span, first.span)
            && next.block / 64 == word
            // The same block twice is a double free: two operations show it.
            && bits >> (next.block % 64) & 1 == 0
        {
            bits |= 1 << (next.block % 64);
            tail = after;
        }
        first.span.give(geometry, word, bits, by_program);
        if tail.first().is_none_or(|next| !ptr::eq(next.span, first.span)) {
            central::after_give(class, first.span);
        }
        rest = tail;
    }
}

/// Looks blocks of one class up, from the span of the last one where it can.
struct Finder {
    class: usize,
    geometry: Geometry,
    segment: Option<&'static Segment>,
    span: Option<&'static Span>,
    base: usize,
}

impl Finder {
    fn new(class: usize) -> Self {
        Self { class, geometry: GEOMETRY[class], segment: None, span: None, base: 0 }
    }

    /// Where a block's bit is; the end of the process if there is none.
    #[inline(always)]
    fn find(&mut self, block: usize) -> Place {
        let mut offset = block.wrapping_sub(self.base);
        let span = match self.span {
            Some(span) if offset < self.geometry.slices as usize * SLICE => span,
            _ => {
                let span = self.locate(block);
                offset = block - self.base;
                span
            }
        };
        let index = self.geometry.block_at(offset);
        if index * self.geometry.size as usize != offset || index >= self.geometry.blocks as usize {
            die("free of an address inside a block", block);
        }
        Place { span, block: index }
    }

    /// The span of the block's address.
    #[inline]
    fn locate(&mut self, block: usize) -> &'static Span {
        let segment = match self.segment {
            Some(segment) if segment.contains(block) => segment,
            _ => match Segment::of(block) {
                Some(segment) => *self.segment.insert(segment),
                None => die("free of a block that was not allocated by Neap", block),
            },
        };
        // Spans of several slices are aligned to them, and segments to more.
        let head = segment.slice_of(block) & !(self.geometry.slices as usize - 1);
        let span = segment.span(head);
        if !span.is_class(self.class) {
            refuse(&self.geometry, segment, block);
        }
        self.base = segment.base + head * SLICE;
        self.span.insert(span)
    }
}

/// Says what is wrong with a block that its class's span does not know.
#[cold]
fn refuse(geometry: &Geometry, segment: &Segment, block: usize) -> ! {
    let slice = segment.slice_of(block);
    let head = slice & !(geometry.slices as usize - 1);
    match segment.span(slice).kind() {
        Kind::Free => die("double free", block),
        Kind::Class(class) if GEOMETRY[class].size != geometry.size => {
            die("free with a size that is not the block's", block)
        }
        _ if head != slice && segment.span(head).kind() == Kind::Free => die("double free", block),
        _ => die("free of an address inside a block", block),
    }
}
