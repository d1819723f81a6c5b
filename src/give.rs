//! Blocks on their way home: from a pool back to the bitmaps of their spans.

use crate::alone::alone;
use crate::central;
use crate::misuse::die;
use crate::run;
use crate::segment::Segment;
use crate::size_class::{GEOMETRY, Geometry, PAGE, SLICE, SPAN_CLASSES, block_size};
use crate::span::{Kind, NO_HEAP, Span, bits_between};
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Relaxed;
use core::{ptr, slice};

/// Blocks looked up before any is given: the look-ups are independent of each
/// other and run side by side, while a bit set is a barrier to what follows.
const BATCH: usize = 64;

/// Blocks of one word of a span's bitmap.
#[derive(Clone, Copy)]
struct Neighbours {
    span: &'static Span,
    word: usize,
    bits: u64,
    /// The span's pages that they lie on.
    pages: u64,
}

/// The first slice of a block's span: spans of several slices are aligned to
/// them, and segments to more.
#[inline(always)]
fn head_of(segment: &Segment, geometry: &Geometry, block: usize) -> usize {
    segment.slice_of(block) & !(geometry.slices as usize - 1)
}

/// The number of the heap that a block was taken by, as far as it is known; any
/// address will do.
pub(crate) fn origin(class: usize, block: usize) -> u16 {
    match Segment::of(block) {
        Some(segment) if class < SPAN_CLASSES => {
            let head = head_of(segment, &GEOMETRY[class], block);
            segment.span(head).heap.load(Relaxed)
        }
        _ => NO_HEAP,
    }
}

/// Gives blocks of one class back; `by_program` unless a tick does so with
/// blocks that nobody has used for an epoch.
///
/// The caller holds a heap's lock or has gone through `registry::enter`. Ends
/// the process for an address that is no block in use of this class.
pub(crate) fn give(class: usize, blocks: &[usize], by_program: bool) {
    if class >= SPAN_CLASSES {
        for &block in blocks {
            run::free(block, block_size(class), by_program);
        }
        return;
    }
    let mut finder = Finder::new(class);
    for batch in blocks.chunks(BATCH) {
        let mut found = [const { MaybeUninit::<Neighbours>::uninit() }; BATCH];
        let mut count = 0usize;
        let mut rest = batch;
        while let Some((&block, others)) = rest.split_first() {
            let (next, more) = finder.neighbours(block, others);
            rest = &others[more..];
            if let Some(last) = count.checked_sub(1) {
                // SAFETY: so many were written.
                let last = unsafe { found[last].assume_init_mut() };
                if last.merge(&next) {
                    continue;
                }
            }
            found[count].write(next);
            count += 1;
        }
        // SAFETY: so many were written, at most one for each block.
        let found = unsafe { slice::from_raw_parts(found.as_ptr().cast::<Neighbours>(), count) };
        set_bits(class, found, by_program);
    }
}

/// Gives what was found, a word in one operation.
fn set_bits(class: usize, found: &[Neighbours], by_program: bool) {
    let (geometry, alone) = (&GEOMETRY[class], alone());
    let mut last: *const Span = ptr::null();
    for (index, &Neighbours { span, word, bits, pages }) in found.iter().enumerate() {
        if !ptr::eq(span, last) && !span.is_class(class) {
            // An earlier one was its last block, so this one is free already.
            span.refuse_twice(geometry, word, bits);
        }
        last = span;
        span.give(geometry, word, bits, if by_program { pages } else { 0 }, alone);
        if found.get(index + 1).is_none_or(|next| !ptr::eq(next.span, span)) {
            central::after_give(class, span);
        }
    }
}

impl Neighbours {
    /// Takes others in that lie in the same word. The same block twice is a
    /// double free, which two operations on the word will show.
    #[inline(always)]
    fn merge(&mut self, others: &Self) -> bool {
        let one = self.word == others.word && ptr::eq(self.span, others.span) && self.bits & others.bits == 0;
        if one {
            self.bits |= others.bits;
            self.pages |= others.pages;
        }
        one
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

    /// Block `block` and those of `others` that follow it in a row, up or down,
    /// within its word; and how many these are. The end of the process if it is
    /// no block of the class.
    #[inline(always)]
    fn neighbours(&mut self, block: usize, others: &[usize]) -> (Neighbours, usize) {
        let Geometry { size, blocks, .. } = self.geometry;
        let (size, blocks) = (size as usize, blocks as usize);
        let (span, offset) = self.find(block);
        let index = self.geometry.block_at(offset);
        if index * size != offset || index >= blocks {
            die("free of an address inside a block", block);
        }
        let (word, bit) = (index / 64, index % 64);
        let next = others.first().map_or(0, |next| next.wrapping_sub(block));
        let (bits, lowest, highest, more) = if next == size {
            let room = (blocks - word * 64).min(64) - 1 - bit;
            let up = follow(block, size, &others[..others.len().min(room)]);
            (u64::MAX >> (63 - up) << bit, offset, offset + up * size, up)
        } else if next == size.wrapping_neg() {
            let down = follow(block, next, &others[..others.len().min(bit)]);
            (u64::MAX >> (63 - down) << (bit - down), offset - down * size, offset, down)
        } else {
            (1 << bit, offset, offset, 0)
        };
        let pages = bits_between(lowest / PAGE, (highest + size - 1) / PAGE);
        (Neighbours { span, word, bits, pages }, more)
    }

    /// The span of a block's address, and the offset there.
    #[inline(always)]
    fn find(&mut self, block: usize) -> (&'static Span, usize) {
        let offset = block.wrapping_sub(self.base);
        match self.span {
            Some(span) if offset < self.geometry.slices as usize * SLICE => (span, offset),
            _ => {
                let span = self.locate(block);
                (span, block - self.base)
            }
        }
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
        let head = head_of(segment, &self.geometry, block);
        let span = segment.span(head);
        if !span.is_class(self.class) {
            refuse(&self.geometry, segment, block);
        }
        self.base = segment.base + head * SLICE;
        self.span.insert(span)
    }
}

/// Most blocks are freed in the order of their addresses, up or down, and then
/// the next is known without a division: how many follow `block` by `step` each.
/// Eight at a time at first, without a branch for each.
#[inline(always)]
fn follow(block: usize, step: usize, others: &[usize]) -> usize {
    let mut expected = block;
    let mut next = || {
        expected = expected.wrapping_add(step);
        expected
    };
    let eights = others.as_chunks::<8>().0;
    let eights =
        eights.iter().take_while(|eight| eight.iter().fold(0, |sum, other| sum | (other ^ next())) == 0);
    let count = eights.count() * 8;
    let mut expected = block.wrapping_add(step.wrapping_mul(count));
    let rest = others[count..].iter().take_while(|&&other| {
        expected = expected.wrapping_add(step);
        other == expected
    });
    count + rest.count()
}

/// Says what is wrong with a block that its class's span does not know.
#[cold]
fn refuse(geometry: &Geometry, segment: &Segment, block: usize) -> ! {
    let (slice, head) = (segment.slice_of(block), head_of(segment, geometry, block));
    match segment.span(slice).kind() {
        Kind::Free => die("double free", block),
        Kind::Class(class) if GEOMETRY[class].size != geometry.size => {
            die("free with a size that is not the block's", block)
        }
        _ if head != slice && segment.span(head).kind() == Kind::Free => die("double free", block),
        _ => die("free of an address inside a block", block),
    }
}
