//! What a tick does to the spans: it ends the epoch for each, frees empty spans and
//! returns pages that nobody used.

use crate::base::size_class::{GEOMETRY, SPAN_CLASSES};
use crate::config::settings;
use crate::heap::page_heap::{self, Run};
use crate::heap::segment::Segment;
use crate::heap::span::{Kind, Span, state};
use crate::heap::{central, transparent_huge_pages};

/// How one tick sweeps.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    /// Whether what was in use in this epoch stays; false for a purge.
    pub(crate) age: bool,
    /// Whether growth ended the epoch. Then classes that were not in demand in it do not
    /// need what was freed, and others do.
    pub(crate) by_growth: bool,
    /// A bit for each class that was in demand in the epoch.
    demand: u64,
}

/// What one step found.
pub(crate) struct Swept {
    /// The slice where the next step begins.
    pub(crate) next: usize,
    /// Pages that went back to the system.
    pub(crate) pages: usize,
    /// Whether the next tick has something to do here.
    pub(crate) busy: bool,
}

impl Sweep {
    /// Before the first tick.
    pub(crate) const NONE: Self = Self { age: true, by_growth: false, demand: 0 };

    /// Begins a sweep, and starts noting again which classes are in demand.
    pub(crate) fn begin(age: bool, by_growth: bool) -> Self {
        Self { age, by_growth, demand: central::end_demand() }
    }

    /// Ends the epoch for the spans of the next group of 64 slices in use, from the
    /// slice `from` on. None if there is no such group.
    pub(crate) fn step(&self, segment: &'static Segment, from: usize) -> Option<Swept> {
        let mut slice = page_heap::next_in_use(segment, from)?;
        let end = (slice / 64 + 1) * 64;
        // Huge pages with little to return stay whole.
        let keep = self.age && !settings::near_limit();
        let kept = if keep { transparent_huge_pages::worth_keeping(segment, slice / 64) } else { 0 };
        let mut swept = Swept { next: 0, pages: 0, busy: false };
        while slice < end {
            let span = segment.span(slice);
            let (kind, slices) = span.extent();
            if let Kind::Class(class @ 0..SPAN_CLASSES) = kind {
                // A span that stays because it was used in this epoch is for the next tick.
                let recent = span.is_recent();
                swept.busy |= recent;
                let run = Run { segment, first: slice, slices };
                swept.pages += self.end_epoch(class, span, run, recent, kept >> (slice % 64) & 1 == 1);
            }
            slice += slices.max(1);
        }
        swept.next = slice;
        Some(swept)
    }

    /// Ends the epoch for the span on `run`, which was used in it (`recent`) or not, on a
    /// huge page that is `kept` whole or not. Returns how many pages went back.
    fn end_epoch(&self, class: usize, span: &'static Span, run: Run, recent: bool, kept: bool) -> usize {
        let huge = transparent_huge_pages::holds(run.segment, run.first);
        let listed = match span.state() {
            state::LISTED => true,
            state::ATTACHED => false,
            // It has nothing but its tail to return. Its epoch ends too: blocks that a later
            // tick returns to it were not used since.
            state::FULL => {
                let has_tail = span.has_tail(&GEOMETRY[class], self.age);
                span.end_epoch();
                let release = has_tail && !kept;
                return if release {
                    note_pages(run, huge, central::release_tail(class, span, huge))
                } else {
                    0
                };
            }
            _ => return 0,
        };
        let in_demand = (self.demand | central::demand()) >> class & 1 == 1;
        let age = self.age && (in_demand || !self.by_growth);
        let stays = recent && age;
        let to_free = listed && !stays && span.seems_empty(&GEOMETRY[class]);
        if to_free && central::free_if_empty(class, span, false) {
            return 0;
        }
        let pages = if kept {
            span.end_epoch();
            0
        } else {
            note_pages(run, huge, span.release_pages(class, age, huge))
        };
        // With the class that it has by now: it may have been freed and used again since,
        // and then it was that class's blocks that were claimed meanwhile.
        if let Kind::Class(class @ 0..SPAN_CLASSES) = span.kind() {
            // A span that was used in this epoch is not freed, empty or not.
            central::after_free(class, span, !stays);
            central::relist(class, span);
        }
        pages
    }
}

/// Notes that pages of a span went back, which splits its huge page. Returns how many.
fn note_pages(span: Run, huge: bool, pages: usize) -> usize {
    if huge && pages > 0 {
        transparent_huge_pages::note_split(span.segment, span.first, span.slices);
    }
    pages
}
