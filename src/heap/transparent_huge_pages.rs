//! Huge pages: 2 MiB of address space on one page of the system.
//!
//! Where they are wanted, a heap that grows by more than it frees takes them for its
//! spans: one page fault instead of 512, and fewer TLB misses. Everything else has
//! small pages, whatever the system's default. By itself the system would back hardly
//! used memory with a huge page, and fill up again what was returned of one.
//!
//! So the system is asked for one huge page at a time, and told "no huge pages" again
//! as soon as it is there. The advice is then the same everywhere again, so that the
//! reserved memory stays one mapping of the kernel's.
//!
//! A bit for each slice tells that it lies in a huge page that is whole. Returning a
//! part splits it.

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
/// A huge page whose spans have fewer free pages than this, a sixteenth, stays whole
/// while none of its slices is free. `Span::spare_pages` tells which pages count.
const SPARE: usize = BYTES / PAGE / 16;
/// The slices of the first of a word's two huge pages.
const FIRST_PAGE: u64 = (1 << SLICES) - 1;
const _: () = assert!(SLICES == 32, "a word holds two");

/// Whether the heap should grow by huge pages.
pub(super) fn are_wanted() -> bool {
    residency::growth_lasts() && soft_limit::is_far_with(BYTES) && settings::huge_pages()
}

/// Backs slices with a huge page; they are the caller's and hold nothing. False if
/// the system has none; then some small pages may be resident.
pub(super) fn make(segment: &Segment, first: usize) -> bool {
    let start = (segment.base + first * SLICE) as *mut u8;
    // SAFETY: part of a segment, which is never unmapped, and the caller's alone.
    let huge = unsafe { platform::make_huge_page(start, BYTES) };
    if huge {
        segment.bits(HUGE_PAGE)[first / 64].fetch_or(FIRST_PAGE << (first % 64), Relaxed);
    }
    huge
}

/// Whether the slice lies in a huge page that is whole.
pub(super) fn holds(segment: &Segment, slice: usize) -> bool {
    segment.bits(HUGE_PAGE)[slice / 64].load(Relaxed) >> (slice % 64) & 1 == 1
}

/// Which huge pages of a group of 64 slices should stay whole, because their spans have
/// too little to return: a bit for each slice.
pub(super) fn worth_keeping(segment: &Segment, group: usize) -> u64 {
    let spare = |slice: usize| match segment.span(slice).kind() {
        Kind::Class(class @ 0..SPAN_CLASSES) => segment.span(slice).spare_pages(&GEOMETRY[class]),
        _ => 0,
    };
    // Stops counting at enough: a page that is not kept is examined again anyway.
    let has_little = |first: usize| {
        let deduct = |left: usize, slice| left.checked_sub(spare(slice)).filter(|&left| left > 0);
        (first..first + SLICES).try_fold(SPARE, deduct).is_some()
    };
    let word = segment.bits(HUGE_PAGE)[group].load(Relaxed);
    let pages = [(FIRST_PAGE, 0), (!FIRST_PAGE, SLICES)].into_iter();
    pages
        .filter(|&(page, first)| word & page != 0 && has_little(group * 64 + first))
        .map(|(page, _)| page)
        .sum()
}

/// The bits of neighbouring slices in their group of 64.
fn bits_of(first: usize, count: usize) -> u64 {
    bits_between(first % 64, first % 64 + count - 1)
}

/// Whether slices of one group are part of a huge page, but not all of it.
pub(super) fn has_part(segment: &Segment, first: usize, count: usize) -> bool {
    let word = segment.bits(HUGE_PAGE)[first / 64].load(Relaxed);
    let slices = bits_of(first, count);
    [FIRST_PAGE, !FIRST_PAGE].into_iter().any(|page| word & page & slices != 0 && page & !slices != 0)
}

/// Notes that slices of one group were returned, so their huge pages are no longer whole.
pub(super) fn note_split(segment: &Segment, first: usize, count: usize) {
    let (word, slices) = (&segment.bits(HUGE_PAGE)[first / 64], bits_of(first, count));
    for page in [FIRST_PAGE, !FIRST_PAGE] {
        if word.load(Relaxed) & page & slices != 0 {
            word.fetch_and(!page, Relaxed);
        }
    }
}
