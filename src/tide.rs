//! The tick: what happens at the end of an epoch, in steps small enough to be
//! done from a slow path.
//!
//! Every heap is aged (its victims go home, its local tier becomes the victim
//! tier), then every span and every free run gives back the pages that nobody
//! used in the epoch, then the kept mappings that stayed free are unmapped.

use crate::central;
use crate::epoch;
use crate::huge;
use crate::local::local;
use crate::os::{self, Lock};
use crate::page_heap;
use crate::registry::{self, Member};
use crate::segment::Segment;
use crate::settings;
use crate::size_class::{GEOMETRY, PAGE, SLICE, SPAN_CLASSES};
use crate::span::{Kind, Span, state};
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Slices looked at in one step.
const STEP: usize = 64;

/// How far a tick has come.
enum Phase {
    Idle,
    Heaps(Option<&'static Member>),
    Spans(Option<&'static Segment>, usize),
    Runs(Option<&'static Segment>, usize),
    Huge,
}

struct Tide {
    phase: Phase,
    /// What was in use in this epoch stays; false for a purge.
    age: bool,
    /// When the next tick is due, in milliseconds of the clock; 0 before the first.
    due: u64,
}

static TIDE: Lock<Tide> = Lock::new(Tide { phase: Phase::Idle, age: true, due: 0 });
static PAGES_RETURNED: AtomicU64 = AtomicU64::new(0);

/// From slow paths, holding no lock: a step of the tick, if one is due.
pub(crate) fn poll() {
    registry::enter();
    if let Some(mut tide) = TIDE.try_lock() {
        if matches!(tide.phase, Phase::Idle) && tide.is_due() {
            tide.begin(true);
        }
        tide.step();
    }
}

/// One whole tick, after the rest of one that is under way.
pub(crate) fn tick() {
    registry::enter();
    let mut tide = TIDE.lock();
    tide.finish();
    tide.begin(true);
    tide.finish();
}

/// Everything free goes back now, whenever it was used last.
pub(crate) fn purge() {
    registry::enter();
    let mut tide = TIDE.lock();
    tide.finish();
    // Twice, so that the local tiers go home too.
    for _ in 0..2 {
        tide.begin(false);
        while matches!(tide.phase, Phase::Heaps(_)) {
            tide.step();
        }
    }
    tide.finish();
    tide.age = true;
}

/// Pages given back to the system so far.
pub(crate) fn pages_returned() -> u64 {
    PAGES_RETURNED.load(Relaxed)
}

/// Holds the lock over a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(TIDE.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: locked by this thread.
    unsafe { TIDE.force_unlock() };
}

impl Tide {
    fn is_due(&mut self) -> bool {
        let now = os::now_ms();
        if self.due == 0 {
            self.due = now + settings::tick_interval_ms();
        }
        now >= self.due
    }

    fn begin(&mut self, age: bool) {
        epoch::advance();
        self.age = age;
        self.due = os::now_ms() + settings::tick_interval_ms();
        self.phase = Phase::Heaps(registry::first());
    }

    fn finish(&mut self) {
        while !matches!(self.phase, Phase::Idle) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.phase = match self.phase {
            Phase::Idle => Phase::Idle,
            Phase::Heaps(Some(member)) => {
                let own = ptr::eq(local().heap(), ptr::from_ref(member).cast());
                member.heap.lock().age(own);
                Phase::Heaps(member.next())
            }
            Phase::Heaps(None) => Phase::Spans(Segment::first(), 0),
            Phase::Spans(Some(segment), from) => self.sweep(segment, from),
            Phase::Spans(None, _) => Phase::Runs(Segment::first(), 0),
            Phase::Runs(Some(segment), word) => self.release_runs(segment, word),
            Phase::Runs(None, _) => Phase::Huge,
            Phase::Huge => {
                returned(huge::release(!self.age) / PAGE);
                Phase::Idle
            }
        };
    }

    /// Ends the epoch for the spans of up to `STEP` slices.
    fn sweep(&self, segment: &'static Segment, from: usize) -> Phase {
        let end = (from + STEP).min(segment.slices);
        let mut slice = from;
        while slice < end {
            let span = segment.span(slice);
            slice += match span.kind() {
                Kind::Class(class) => {
                    if class < SPAN_CLASSES {
                        self.end_epoch(class, span);
                    }
                    GEOMETRY[class].slices as usize
                }
                Kind::Large => (span.run_pages() * PAGE).div_ceil(SLICE).max(1),
                Kind::Free | Kind::Inside => 1,
            };
        }
        if slice < segment.slices {
            Phase::Spans(Some(segment), slice)
        } else {
            Phase::Spans(segment.next(), 0)
        }
    }

    fn end_epoch(&self, class: usize, span: &'static Span) {
        let listed = match span.state.load(Relaxed) {
            state::LISTED => true,
            state::ATTACHED => false,
            _ => return,
        };
        let (_, recent) = span.residue();
        if listed && span.seems_empty(&GEOMETRY[class]) && !(recent && self.age) {
            return central::free_if_empty(class, span, false);
        }
        returned(span.release_pages(class, self.age));
        central::after_give(class, span);
        central::relist(class, span);
    }

    /// Returns free pages of a group of 64 slices, passing by groups without any.
    fn release_runs(&self, segment: &'static Segment, from: usize) -> Phase {
        match (from..segment.words()).find(|&group| page_heap::may_release(segment, group)) {
            Some(group) => {
                returned(page_heap::release(segment, group, self.age) * (SLICE / PAGE));
                Phase::Runs(Some(segment), group + 1)
            }
            None => Phase::Runs(segment.next(), 0),
        }
    }
}

fn returned(pages: usize) {
    PAGES_RETURNED.fetch_add(pages as u64, Relaxed);
}
