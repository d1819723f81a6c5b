//! Frees a batch of blocks: from a thread cache back to the bitmaps of their spans.

use crate::base::SINGLE_THREADED;
use crate::base::size_class::{GEOMETRY, Geometry, PAGE, SPAN_CLASSES};
use crate::heap::central;
use crate::heap::lookup::Lookup;
use crate::heap::run;
use crate::heap::span::{Span, bits_between};
use core::mem::MaybeUninit;
use core::{array, ptr, slice};

/// Blocks looked up before any is freed. The look-ups are independent, so the processor
/// runs them side by side; setting a bit is a barrier to what follows.
const BATCH: usize = 64;

/// Sequences of neighbours are mostly this short, or as long as a word.
const SHORT_SEQUENCE: usize = 4;

/// Blocks of one word of a span's bitmap.
#[derive(Clone, Copy)]
struct WordBlocks {
    span: &'static Span,
    word: usize,
    bits: u64,
    /// The span's pages that they lie on.
    pages: u64,
}

/// Frees blocks of one class. `by_program` is false if a tick frees blocks that nobody
/// has used for an epoch.
///
/// The caller holds a thread cache's lock or has called `registry::enter`. Aborts the
/// process for an address that is no block in use of this class.
pub(crate) fn free(class: usize, blocks: &[usize], by_program: bool) {
    if class >= SPAN_CLASSES {
        for &block in blocks {
            run::free_class(block, class, by_program);
        }
        return;
    }
    let Some(&first) = blocks.first() else { return };
    let mut lookup = Lookup::new(class, first);
    for batch in blocks.chunks(BATCH) {
        let mut found = [const { MaybeUninit::<WordBlocks>::uninit() }; BATCH];
        let start = found.as_mut_ptr().cast::<WordBlocks>();
        let mut next = start;
        let mut rest = batch;
        while let Some((&block, others)) = rest.split_first() {
            let (span, index) = lookup.find(block);
            let word_blocks = match others.first().map(|other| other.wrapping_sub(block)) {
                Some(step) if step == lookup.size || step == lookup.size.wrapping_neg() => {
                    let more = count_sequence(lookup.geometry, index, step, block, others);
                    rest = &others[more..];
                    let lowest = if step == lookup.size { index } else { index - more };
                    blocks_from(&lookup, span, lowest, more)
                }
                _ => {
                    rest = others;
                    blocks_from(&lookup, span, index, 0)
                }
            };
            // SAFETY: all from `start` to `next` was written, at most one entry for each
            // block before this one, so there is room for one more.
            unsafe {
                if next == start || !(*next.sub(1)).merge(&word_blocks, lookup.geometry) {
                    next.write(word_blocks);
                    next = next.add(1);
                }
            }
        }
        // SAFETY: as above.
        let found = unsafe { slice::from_raw_parts(start, next.offset_from_unsigned(start)) };
        set_bits(class, found, by_program);
    }
}

/// Frees the blocks that were found, each word in one operation.
fn set_bits(class: usize, found: &[WordBlocks], by_program: bool) {
    let (geometry, single_threaded) = (&GEOMETRY[class], SINGLE_THREADED.is_on());
    for &WordBlocks { span, word, bits, pages } in found {
        if !span.is_class(class) {
            // An earlier entry freed the span, so these blocks were free already.
            span.abort_on_double_free(geometry, word, bits);
        }
        if by_program {
            span.note_use(pages);
        }
        let word_is_free = span.free(geometry, word, bits, single_threaded);
        central::after_free(class, span, word_is_free);
    }
}

impl WordBlocks {
    /// Adds others if they lie in the same word; aborts the process if a block is in
    /// both.
    #[inline(always)]
    fn merge(&mut self, others: &Self, geometry: &Geometry) -> bool {
        let same_word = self.word == others.word && ptr::eq(self.span, others.span);
        if same_word {
            if self.bits & others.bits != 0 {
                self.span.abort_on_double_free(geometry, self.word, self.bits & others.bits);
            }
            self.bits |= others.bits;
            self.pages |= others.pages;
        }
        same_word
    }
}

/// The block `lowest` of a span and the `more` blocks that follow it in its word.
#[inline(always)]
fn blocks_from(lookup: &Lookup, span: &'static Span, lowest: usize, more: usize) -> WordBlocks {
    let start = lowest * lookup.size;
    let end = start + lookup.size + more * lookup.size;
    WordBlocks {
        span,
        word: lowest / 64,
        bits: u64::MAX >> (63 - more) << (lowest % 64),
        pages: bits_between(start / PAGE, (end - 1) / PAGE),
    }
}

/// How many of `others` follow `block`, the span's block `index`, at distances of `step`
/// and in the same word. Most blocks are freed in the order of their addresses, up or
/// down, and then no division is needed to look up the next. After a few it compares
/// eight at a time, which saves loop instructions.
#[inline(never)]
fn count_sequence(geometry: &Geometry, index: usize, step: usize, block: usize, others: &[usize]) -> usize {
    let (bit, last) = (index % 64, geometry.blocks as usize - 1);
    let room = if step == geometry.size as usize { (last - index).min(63 - bit) } else { bit };
    let others = &others[..others.len().min(room)];
    let mut expected = block;
    let mut next = || {
        expected = expected.wrapping_add(step);
        expected
    };
    let (few, many) = others.split_at(others.len().min(SHORT_SEQUENCE));
    let mut count = few.iter().take_while(|&&other| other == next()).count();
    if count < SHORT_SEQUENCE {
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
