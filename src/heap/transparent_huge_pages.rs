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

use crate::base::residency;
use crate::base::size_class::{GEOMETRY, PAGE, SLICE, SPAN_CLASSES};
use crate::config::settings;
use crate::config::soft_limit;
use crate::heap::segment::{HUGE_PAGE, Segment};
use crate::heap::span::{Kind, bits_between};
use crate::platform;
use core::sync::atomic::Ordering::Relaxed;

const BYTES: usize = 2 << 20;
pub(super) const SLICES: usize = BYTES / SLICE;
/// A huge page whose spans have fewer free pages, below a sixteenth, stays whole
/// while none of its slices is free. (See `Span::spare_pages` for those behind last blocks.)
const SPARE: usize = BYTES / PAGE / 16;
/// The slices of a word's first huge page.
const FIRST: u64 = (1 << SLICES) - 1;
const _: () = assert!(SLICES == 32, "a word holds two");

/// Whether what the heap grows by should be huge.
pub(super) fn are_wanted() -> bool {
    residency::growth_lasts() && soft_limit::is_far_with(BYTES) && settings::huge_pages()
}

/// Has the system back slices, which the caller has and which hold nothing, by a
/// huge page. If it has none, some small pages may be resident.
pub(super) fn open(segment: &Segment, first: usize) -> bool {
    let start = (segment.base + first * SLICE) as *mut u8;
    // SAFETY: of a segment, which is never unmapped, and the caller's alone.
    let huge = unsafe { platform::make_huge_page(start, BYTES) };
    if huge {
        segment.bits(HUGE_PAGE)[first / 64].fetch_or(FIRST << (first % 64), Relaxed);
    }
    huge
}

/// Whether the slice lies in a huge page that is whole.
pub(super) fn holds(segment: &Segment, slice: usize) -> bool {
    segment.bits(HUGE_PAGE)[slice / 64].load(Relaxed) >> (slice % 64) & 1 == 1
}

/// Of the huge pages of a group of 64 slices, those of which spans have too
/// little to return: a bit for each slice.
pub(super) fn worth_keeping(segment: &Segment, group: usize) -> u64 {
    let spare = |slice: usize| match segment.span(slice).kind() {
        Kind::Class(class @ 0..SPAN_CLASSES) => segment.span(slice).spare_pages(&GEOMETRY[class]),
        _ => 0,
    };
    // Only until it is enough: what is not kept will be looked at again.
    let little = |first: usize| {
        let deduct = |left: usize, slice| left.checked_sub(spare(slice)).filter(|&left| left > 0);
        (first..first + SLICES).try_fold(SPARE, deduct).is_some()
    };
    let word = segment.bits(HUGE_PAGE)[group].load(Relaxed);
    let pages = [(FIRST, 0), (!FIRST, SLICES)].into_iter();
    pages.filter(|&(page, first)| word & page != 0 && little(group * 64 + first)).map(|(page, _)| page).sum()
}

/// The bits of slices of one group of 64.
fn bits_of(first: usize, count: usize) -> u64 {
    bits_between(first % 64, first % 64 + count - 1)
}

/// Whether slices of one group are a part, not the whole, of a huge page.
pub(super) fn has_part(segment: &Segment, first: usize, count: usize) -> bool {
    let word = segment.bits(HUGE_PAGE)[first / 64].load(Relaxed);
    let slices = bits_of(first, count);
    [FIRST, !FIRST].into_iter().any(|page| word & page & slices != 0 && page & !slices != 0)
}

/// Slices of one group were released: their huge pages are whole no more.
pub(super) fn end(segment: &Segment, first: usize, count: usize) {
    let (word, slices) = (&segment.bits(HUGE_PAGE)[first / 64], bits_of(first, count));
    for page in [FIRST, !FIRST] {
        if word.load(Relaxed) & page & slices != 0 {
            word.fetch_and(!page, Relaxed);
        }
    }
}
