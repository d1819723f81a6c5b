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

/// Blocks of one word of a span's bitmap.
#[derive(Clone, Copy)]
struct Neighbours {
    span: &'static Span,
    word: usize,
    bits: u64,
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
        let mut found = [const { MaybeUninit::<Neighbours>::uninit() }; BATCH];
        let mut count = 0;
        let mut last: Option<Neighbours> = None;
        for block in batch {
            let (span, index) = finder.find(block.load(Relaxed));
            let (word, bit) = (index / 64, 1 << (index % 64));
            last = Some(match last {
                // The same block twice is a double free: two operations show it.
                Some(last) if ptr::eq(last.span, span) && last.word == word && last.bits & bit == 0 => {
                    Neighbours { bits: last.bits | bit, ..last }
                }
                other => {
                    if let Some(done) = other {
                        found[count].write(done);
                        count += 1;
                    }
                    Neighbours { span, word, bits: bit }
                }
            });
        }
        if let Some(done) = last {
            found[count].write(done);
            count += 1;
        }
        // SAFETY: so many were written, at most one for each block.
        let found = unsafe { slice::from_raw_parts(found.as_ptr().cast::<Neighbours>(), count) };
        set_bits(class, found, by_program);
    }
}

/// Gives what was found, a word in one operation.
fn set_bits(class: usize, found: &[Neighbours], by_program: bool) {
    let geometry = &GEOMETRY[class];
    for (index, &Neighbours { span, word, bits }) in found.iter().enumerate() {
        span.give(geometry, word, bits, by_program);
        if found.get(index + 1).is_none_or(|next| !ptr::eq(next.span, span)) {
            central::after_give(class, span);
        }
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

    /// The span of a block and its number there; the end of the process if
    /// there is none.
    #[inline(always)]
    fn find(&mut self, block: usize) -> (&'static Span, usize) {
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
        (span, index)
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
