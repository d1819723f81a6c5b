//! Frees a batch of blocks: from a thread cache back to the bitmaps of their spans.

use crate::base::fatal::abort_on_misuse;
use crate::base::single_threaded::is_single_threaded;
use crate::base::size_class::{GEOMETRY, Geometry, PAGE, SPAN_CLASSES, block_size};
use crate::heap::central;
use crate::heap::run;
use crate::heap::segment::Segment;
use crate::heap::span::{NO_CACHE, Span, bits_between};
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Relaxed;
use core::{array, ptr, slice};

/// Blocks looked up before any is given: the look-ups are independent of each
/// other and run side by side, while a bit set is a barrier to what follows.
const BATCH: usize = 64;

/// Rows of blocks are often as short, or as long as a word.
const FEW: usize = 4;

/// Blocks of one word of a span's bitmap.
#[derive(Clone, Copy)]
struct Neighbours {
    span: &'static Span,
    word: usize,
    bits: u64,
    /// The span's pages that they lie on.
    pages: u64,
}

/// The number of the thread cache that a block was taken by, as far as it is known; any
/// address will do.
pub(crate) fn origin(class: usize, block: usize) -> u16 {
    match Segment::of(block) {
        Some(segment) if class < SPAN_CLASSES => {
            let head = segment.slice_of(block) & GEOMETRY[class].head_mask();
            segment.span(head).last_cache.load(Relaxed)
        }
        _ => NO_CACHE,
    }
}

/// Gives blocks of one class back; `by_program` unless a tick does so with
/// blocks that nobody has used for an epoch.
///
/// The caller holds a thread cache's lock or has gone through `registry::enter`. Ends
/// the process for an address that is no block in use of this class.
pub(crate) fn free(class: usize, blocks: &[usize], by_program: bool) {
    if class >= SPAN_CLASSES {
        for &block in blocks {
            run::free(block, block_size(class), by_program);
        }
        return;
    }
    let Some(&first) = blocks.first() else { return };
    let mut finder = Finder::new(class, first);
    for batch in blocks.chunks(BATCH) {
        let mut found = [const { MaybeUninit::<Neighbours>::uninit() }; BATCH];
        let start = found.as_mut_ptr().cast::<Neighbours>();
        let mut next = start;
        let mut rest = batch;
        while let Some((&block, others)) = rest.split_first() {
            let (span, index) = finder.find(block);
            let place = match others.first().map(|other| other.wrapping_sub(block)) {
                Some(step) if step == finder.size || step == finder.size.wrapping_neg() => {
                    let more = in_row(finder.geometry, index, step, block, others);
                    rest = &others[more..];
                    let lowest = if step == finder.size { index } else { index - more };
                    finder.neighbours(span, lowest, more)
                }
                _ => {
                    rest = others;
                    finder.neighbours(span, index, 0)
                }
            };
            // SAFETY: what lies between `start` and `next` was written, at most one for each
            // block before this one, so there is room.
            unsafe {
                if next == start || !(*next.sub(1)).merge(&place, finder.geometry) {
                    next.write(place);
                    next = next.add(1);
                }
            }
        }
        // SAFETY: as above.
        let found = unsafe { slice::from_raw_parts(start, next.offset_from_unsigned(start)) };
        set_bits(class, found, by_program);
    }
}

/// Gives what was found, a word in one operation.
fn set_bits(class: usize, found: &[Neighbours], by_program: bool) {
    let (geometry, single_threaded) = (&GEOMETRY[class], is_single_threaded());
    for &Neighbours { span, word, bits, pages } in found {
        if !span.is_class(class) {
            // An earlier one was its last block, so this one is free already.
            span.abort_on_double_free(geometry, word, bits);
        }
        if by_program {
            span.note_use(pages);
        }
        let filled = span.free(geometry, word, bits, single_threaded);
        central::after_free(class, span, filled);
    }
}

impl Neighbours {
    /// Takes others in that lie in the same word; aborts the process if a block is
    /// among both.
    #[inline(always)]
    fn merge(&mut self, others: &Self, geometry: &Geometry) -> bool {
        let one = self.word == others.word && ptr::eq(self.span, others.span);
        if one {
            if self.bits & others.bits != 0 {
                self.span.abort_on_double_free(geometry, self.word, self.bits & others.bits);
            }
            self.bits |= others.bits;
            self.pages |= others.pages;
        }
        one
    }
}

/// Looks blocks of one class up, in the segment of the last one where it can.
struct Finder {
    class: usize,
    geometry: &'static Geometry,
    size: usize,
    blocks: usize,
    /// Masks, since spans are aligned to their length and segments to more: of an address
    /// where in its span it lies, and of a slice's number which is the span's first.
    within: usize,
    heads: usize,
    segment: &'static Segment,
}

impl Finder {
    fn new(class: usize, block: usize) -> Self {
        let geometry = &GEOMETRY[class];
        let (size, blocks) = (geometry.size as usize, geometry.blocks as usize);
        let (within, heads) = (geometry.bytes() - 1, geometry.head_mask());
        Self { class, geometry, size, blocks, within, heads, segment: Segment::of_freed(block) }
    }

    /// The block's span and number; aborts the process if it is no block of the class.
    #[inline(always)]
    fn find(&mut self, block: usize) -> (&'static Span, usize) {
        let span = self.span(block);
        let offset = block & self.within;
        let index = self.geometry.block_at(offset);
        if index * self.size != offset || index >= self.blocks {
            abort_on_misuse("free of an address inside a block", block);
        }
        (span, index)
    }

    /// A block of a span and so many more that follow it in its word.
    #[inline(always)]
    fn neighbours(&self, span: &'static Span, lowest: usize, more: usize) -> Neighbours {
        let start = lowest * self.size;
        let end = start + self.size + more * self.size;
        Neighbours {
            span,
            word: lowest / 64,
            bits: u64::MAX >> (63 - more) << (lowest % 64),
            pages: bits_between(start / PAGE, (end - 1) / PAGE),
        }
    }

    /// The span of the block's address; aborts the process if there is none of the class.
    #[inline(always)]
    fn span(&mut self, block: usize) -> &'static Span {
        if !self.segment.contains(block) {
            self.segment = Segment::of_freed(block);
        }
        let span = self.segment.span(self.segment.slice_of(block) & self.heads);
        if !span.is_class(self.class) {
            self.segment.abort_on_bad_free(block);
        }
        span
    }
}

/// Most blocks are freed in the order of their addresses, up or down by `step`, and
/// then the next is known without a division: how many of `others` follow so in the word
/// of `block`, the span's block `index`. After a few, eight at a time, which saves the
/// loop's own instructions.
#[inline(never)]
fn in_row(geometry: &Geometry, index: usize, step: usize, block: usize, others: &[usize]) -> usize {
    let (bit, last) = (index % 64, geometry.blocks as usize - 1);
    let room = if step == geometry.size as usize { (last - index).min(63 - bit) } else { bit };
    let others = &others[..others.len().min(room)];
    let mut expected = block;
    let mut next = || {
        expected = expected.wrapping_add(step);
        expected
    };
    let (few, many) = others.split_at(others.len().min(FEW));
    let mut count = few.iter().take_while(|&&other| other == next()).count();
    if count < FEW {
        return count;
    }
    let mut expected: [usize; 8] = array::from_fn(|_| next());
    for eight in many.as_chunks::<8>().0 {
        let differ = |(other, expected): (&usize, &usize)| other ^ expected;
        if eight.iter().zip(&expected).map(differ).fold(0, |any, difference| any | difference) != 0 {
            break;
        }
        expected.iter_mut().for_each(|expected| *expected = expected.wrapping_add(step.wrapping_mul(8)));
        count += 8;
    }
    let rest = others[count..].iter().zip(&expected);
    count + rest.take_while(|(other, expected)| other == expected).count()
}
