//! Huge pages: 2 MiB of address space in one page of the system's.
//!
//! Where they are wanted, a heap that grows by more than it frees takes them for
//! its spans: one page fault instead of 512, and fewer misses of the address
//! translation. All else has small pages, whatever the system would do by
//! itself: it would back by a huge page what is hardly used, and fill up again
//! what was returned of one.
//!
//! So the system is advised of one huge page at a time, and of the contrary as
//! soon as it is there. That it is one is all that lasts: what is reserved stays
//! one mapping.
//!
//! A bit to each slice tells that it lies in a huge page that is whole. Returning
//! a part splits it.

use crate::growth;
use crate::limit;
use crate::os;
use crate::segment::Segment;
use crate::settings;
use crate::size_class::{GEOMETRY, PAGE, SLICE, SPAN_CLASSES};
use crate::span::Kind;
use core::sync::atomic::Ordering::Relaxed;

const BYTES: usize = 2 << 20;
pub(crate) const SLICES: usize = BYTES / SLICE;
/// A huge page whose spans have fewer free pages, below a sixteenth, stays whole
/// until a purge.
const SPARE: usize = BYTES / PAGE / 16;
/// The segment's bitmap that is this module's.
const HUGE: usize = 3;
/// The slices of a word's first huge page.
const FIRST: u64 = (1 << SLICES) - 1;
const _: () = assert!(SLICES == 32, "a word holds two");

/// Whether what the heap grows by should be huge.
pub(crate) fn are_wanted() -> bool {
    growth::is_lasting() && limit::left_if_near().is_none() && settings::huge_pages()
}

/// Has the system back slices, which the caller has and which were never
/// touched, by a huge page.
pub(crate) fn open(segment: &Segment, first: usize) {
    segment.bits(HUGE)[first / 64].fetch_or(FIRST << (first % 64), Relaxed);
    let start = (segment.base + first * SLICE) as *mut u8;
    // SAFETY: of a segment, which is never unmapped, and the caller's alone. What
    // is huge by the write stays so; without memory for it, it is a small page.
    unsafe {
        os::set_huge_pages(start, BYTES, true);
        start.write_volatile(0);
        os::set_huge_pages(start, BYTES, false);
    }
}

/// Whether the slice lies in a huge page that is whole.
pub(crate) fn holds(segment: &Segment, slice: usize) -> bool {
    segment.bits(HUGE)[slice / 64].load(Relaxed) >> (slice % 64) & 1 == 1
}

/// Of the huge pages of a group of 64 slices, those of which spans have too
/// little to return: a bit for each slice.
pub(crate) fn worth_keeping(segment: &Segment, group: usize) -> u64 {
    let spare = |slice: usize| match segment.span(slice).kind() {
        Kind::Class(class @ 0..SPAN_CLASSES) => segment.span(slice).spare_pages(&GEOMETRY[class]),
        _ => 0,
    };
    let little = |first: usize| (first..first + SLICES).map(spare).sum::<usize>() < SPARE;
    let word = segment.bits(HUGE)[group].load(Relaxed);
    let pages = [(FIRST, 0), (!FIRST, SLICES)].into_iter();
    pages.filter(|&(page, first)| word & page != 0 && little(group * 64 + first)).map(|(page, _)| page).sum()
}

/// Before slices of one group of 64 are released, or after a part of them was:
/// their huge pages are whole no more. True if they had a part of one, which the
/// system is to split.
pub(crate) fn end(segment: &Segment, first: usize, count: usize) -> bool {
    let word = &segment.bits(HUGE)[first / 64];
    if word.load(Relaxed) == 0 {
        return false;
    }
    let slices = if count < 64 { ((1 << count) - 1) << (first % 64) } else { u64::MAX };
    let mut split = false;
    for page in [FIRST, !FIRST] {
        if page & slices != 0 && word.fetch_and(!page, Relaxed) & page != 0 {
            split |= page & !slices != 0;
        }
    }
    split
}
