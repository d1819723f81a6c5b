//! Blocks on their way home: from a pool back to the bitmaps of their spans.

use crate::central;
use crate::misuse::die;
use crate::run;
use crate::segment::Segment;
use crate::size_class::{GEOMETRY, Geometry, SLICE, SPAN_CLASSES, block_size};
use crate::span::{Kind, Span};

/// Blocks looked up before any is given: the look-ups are independent of each
/// other and run side by side, while a bit set is a barrier to what follows.
const BATCH: usize = 64;

/// One block's place in the bitmaps.
#[derive(Clone, Copy)]
struct Place {
    span: &'static Span,
    word: usize,
    bit: u64,
}

/// Gives blocks of one class back; `by_program` unless a tick does so with
/// blocks that nobody has used for an epoch.
///
/// Ends the process for an address that is no block in use of this class.
pub(crate) fn give(class: usize, blocks: impl Iterator<Item = usize>, by_program: bool) {
    if class >= SPAN_CLASSES {
        blocks.for_each(|block| run::free(block, block_size(class), by_program));
        return;
    }
    let mut blocks = blocks.peekable();
    let mut segment = None;
    while let Some(&first) = blocks.peek() {
        let mut places = [find(class, first, &mut segment); BATCH];
        let mut count = 0;
        for (place, block) in places.iter_mut().zip(&mut blocks) {
            *place = find(class, block, &mut segment);
            count += 1;
        }
        give_places(class, &places[..count], by_program);
    }
}

/// Sets the bits, those of neighbours in one operation.
fn give_places(class: usize, places: &[Place], by_program: bool) {
    let geometry = &GEOMETRY[class];
    let same_word = |a: &Place, b: &Place| {
        // A second bit at the same place is a double free; let `Span::give` see it.
        core::ptr::eq(a.span, b.span) && a.word == b.word && a.bit != b.bit
    };
    let mut rest = places;
    while let Some((first, mut tail)) = rest.split_first() {
        let mut bits = first.bit;
        while let Some((next, after)) = tail.split_first()
            && same_word(first, next)
            && bits & next.bit == 0
        {
            bits |= next.bit;
            tail = after;
        }
        first.span.give(geometry, first.word, bits, by_program);
        if tail.first().is_none_or(|next| !core::ptr::eq(next.span, first.span)) {
            central::after_give(class, first.span);
        }
        rest = tail;
    }
}

/// Where a block's bit is; the end of the process if there is none.
#[inline]
fn find(class: usize, block: usize, near: &mut Option<&'static Segment>) -> Place {
    let geometry = &GEOMETRY[class];
    let segment = match *near {
        Some(segment) if segment.contains(block) => segment,
        _ => match Segment::of(block) {
            Some(segment) => *near.insert(segment),
            None => die("block was not allocated by Neap", block),
        },
    };
    // Spans of several slices are aligned to them, and segments to more.
    let head = segment.slice_of(block) & !(geometry.slices as usize - 1);
    let span = segment.span(head);
    let offset = block - (segment.base + head * SLICE);
    let index = geometry.block_at(offset);
    if !span.is_class(class) || index * geometry.size as usize != offset || index >= geometry.blocks as usize
    {
        refuse(geometry, segment, block);
    }
    Place { span, word: index / 64, bit: 1 << (index % 64) }
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
