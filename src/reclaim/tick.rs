//! The tick: what happens at the end of an epoch, in steps small enough to be
//! done from a slow path.
//!
//! Every cache is aged (its victims are returned to their spans, its local tier becomes the victim
//! tier), then every span gives back the pages that nobody used in the epoch,
//! then as many free runs go as nobody needed in it, then the kept mappings that
//! stayed free are unmapped.
//!
//! An epoch ends by the clock, or earlier by growth: while new pages are touched
//! although freed ones are resident, waiting would only add to the peak. Each
//! such epoch is a share of what is resident, so a program that grows and frees
//! nothing pays a constant for each page; a steady one touches none.

use crate::base::epoch;
use crate::base::residency;
use crate::base::size_class::{PAGE, PAGES_PER_SLICE};
use crate::config::settings;
use crate::config::soft_limit;
use crate::heap::mapped;
use crate::heap::page_heap;
use crate::heap::segment::Segment;
use crate::heap::sweep::Sweep;
use crate::platform::{self, Lock};
use crate::thread_cache::registry::{self, Member};
use crate::thread_cache::thread_local::{NEEDS_BARRIER, this_thread};
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Growth that ends an epoch: a 64th of what is resident while much of what
/// comes is matched by what goes, twice or four times as much while it is not.
const SHARE: usize = 64;
const PATIENCE: usize = 4;
/// Below so many resident pages, 64 MiB, there is too little to gain for the
/// faults of what comes and goes.
const SMALL: usize = 16 << 10;
/// Growth is worth huge pages unless an eighth of what came went back, or of so
/// many pages, 4 MiB, if less came.
const LASTING: usize = 1024;
/// Of growth near the soft limit, in pages.
const LEAST_NEAR: usize = 32;

/// What became of a look whether a tick is due.
pub(super) struct Look {
    pub(super) ticked: bool,
    /// Nothing is left that a further tick would change.
    pub(super) quiet: bool,
    /// Milliseconds until the next one is due.
    pub(super) wait: u64,
}

/// How far a tick has come.
enum Phase {
    Idle,
    Caches(Option<&'static Member>),
    Spans(Option<&'static Segment>, usize),
    /// The groups below the number, from the highest on.
    Runs(Option<&'static Segment>, usize),
    Mapped,
}

struct Tick {
    phase: Phase,
    /// What was in use in this epoch stays; false for a purge.
    age: bool,
    /// Growth ended the epoch.
    early: bool,
    sweep: Sweep,
    /// When the next tick is due, in milliseconds of the clock; 0 before the first.
    due: u64,
    /// Something aged or went back in this tick.
    busy: bool,
    /// Of all threads, as it aged their caches.
    slow_paths: u64,
    /// Pages that became resident in the epoch that this tick ends, and those
    /// that went back since.
    grown: usize,
    returned: usize,
    patience: usize,
}

static TICK: Lock<Tick> = Lock::new(Tick {
    phase: Phase::Idle,
    age: true,
    early: false,
    sweep: Sweep::NONE,
    due: 0,
    busy: false,
    slow_paths: 0,
    grown: 0,
    returned: 0,
    patience: 2,
});
static PAGES_RETURNED: AtomicU64 = AtomicU64::new(0);

/// From slow paths, holding no lock: a step of the tick, if one is due.
pub(super) fn poll() {
    registry::enter();
    if let Some(mut tick) = TICK.try_lock() {
        if matches!(tick.phase, Phase::Idle) && tick.is_due() {
            tick.begin(true);
        }
        tick.step();
    }
}

/// By the background thread: one whole tick if it is due, or the rest of one.
pub(super) fn tick_if_due() -> Look {
    registry::enter();
    let mut tick = TICK.lock();
    let idle = matches!(tick.phase, Phase::Idle);
    let ticked = !idle || tick.is_due();
    if idle && ticked {
        tick.begin(true);
    }
    tick.finish();
    let wait = tick.due.saturating_sub(platform::now_ms()).max(1);
    Look { ticked, quiet: !tick.busy, wait }
}

/// Nothing is pooled, free and resident, or kept, and no slow path has been
/// gone through since the last tick: a further one would change nothing until
/// one is.
pub(super) fn is_out() -> bool {
    let last = TICK.lock().slow_paths;
    registry::slow_paths_if_idle() == Some(last)
        && page_heap::resident_slices() == 0
        && mapped::nothing_kept()
}

/// One whole tick, after the rest of one that is under way.
pub(crate) fn tick() {
    registry::enter();
    let mut tick = TICK.lock();
    tick.finish();
    tick.begin(true);
    tick.finish();
}

/// Everything free goes back now, whenever it was used last.
pub(crate) fn purge() {
    registry::enter();
    let mut tick = TICK.lock();
    tick.finish();
    tick.purge();
}

/// The same for the limit's sake, before `more` bytes come; not if a tick is
/// under way elsewhere.
#[cold]
pub(crate) fn purge_for(more: usize) {
    registry::enter();
    if let Some(mut tick) = TICK.try_lock() {
        tick.finish();
        tick.purge();
        soft_limit::note_purge(more);
    }
}

/// Pages given back to the system so far.
pub(crate) fn pages_returned() -> u64 {
    PAGES_RETURNED.load(Relaxed)
}

/// Holds the lock over a fork.
pub(super) fn lock_for_fork() {
    core::mem::forget(TICK.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(super) unsafe fn unlock_after_fork() {
    // SAFETY: locked by this thread.
    unsafe { TICK.force_unlock() };
}

impl Tick {
    fn is_due(&mut self) -> bool {
        let now = platform::now_ms();
        if self.due == 0 {
            self.due = now.saturating_add(settings::tick_interval_ms());
        }
        residency::is_due() || now >= self.due
    }

    fn begin(&mut self, age: bool) {
        epoch::advance();
        if NEEDS_BARRIER {
            settings::check_barrier();
        }
        self.age = age;
        self.early = residency::is_due();
        self.sweep = Sweep::begin(age, self.early);
        (self.busy, self.slow_paths) = (false, 0);
        (self.grown, self.returned) = (residency::take_growth(), 0);
        let near = soft_limit::left_if_near();
        settings::set_near_limit(near.is_some());
        let interval = settings::tick_interval_ms();
        let interval = if near.is_some() { (interval / 8).max(1) } else { interval };
        self.due = platform::now_ms().saturating_add(interval);
        let share = match residency::resident() {
            little if little < SMALL => residency::MIN_GROWTH,
            resident => resident / SHARE * self.patience,
        };
        residency::set_growth_allowed(near.map_or(share, |left| share.min(left / PAGE / 4).max(LEAST_NEAR)));
        self.phase = Phase::Caches(registry::first());
    }

    fn end(&mut self) {
        self.busy |= self.returned > 0;
        residency::set_growth_lasts(self.returned * 8 < self.grown.max(LASTING));
        // A tick that the clock brought says nothing of growth.
        if self.early {
            self.patience = match self.returned {
                much if much * 2 >= self.grown => 1,
                some if some * 8 >= self.grown => 2,
                _ => PATIENCE.min(self.patience * 2),
            };
        }
    }

    fn purge(&mut self) {
        // Twice, so that the local tiers are returned too.
        for _ in 0..2 {
            self.begin(false);
            while matches!(self.phase, Phase::Caches(_)) {
                self.step();
            }
        }
        self.finish();
        self.age = true;
        // What spans that went would have lacked is not to come.
        residency::take_growth();
    }

    fn returned(&mut self, pages: usize) {
        self.returned += pages;
        residency::returned(pages);
        PAGES_RETURNED.fetch_add(pages as u64, Relaxed);
    }

    fn finish(&mut self) {
        while !matches!(self.phase, Phase::Idle) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.phase = match self.phase {
            Phase::Idle => Phase::Idle,
            Phase::Caches(Some(member)) => {
                let own = ptr::eq(this_thread().cache(), ptr::from_ref(member).cast());
                let mut cache = member.cache.lock();
                self.busy |= cache.age(own);
                self.slow_paths += cache.slow_paths();
                drop(cache);
                Phase::Caches(member.next())
            }
            Phase::Caches(None) => Phase::Spans(Segment::first(), 0),
            Phase::Spans(Some(segment), from) => match self.sweep.step(segment, from) {
                Some(swept) => {
                    self.busy |= swept.busy;
                    self.returned(swept.pages);
                    Phase::Spans(Some(segment), swept.next)
                }
                None => Phase::Spans(segment.next(), 0),
            },
            Phase::Spans(None, _) => runs_of(Segment::first()),
            Phase::Runs(Some(segment), end) => self.release_runs(segment, end),
            Phase::Runs(None, _) => {
                page_heap::end_epoch();
                Phase::Mapped
            }
            Phase::Mapped => {
                let pages = mapped::release(!self.age) / PAGE;
                self.returned += pages;
                PAGES_RETURNED.fetch_add(pages as u64, Relaxed);
                self.end();
                Phase::Idle
            }
        };
    }

    /// Returns free pages of a group of 64 slices, passing by groups without any.
    fn release_runs(&mut self, segment: &'static Segment, end: usize) -> Phase {
        match (0..end).rev().find(|&group| page_heap::may_release(segment, group)) {
            Some(group) => {
                let slices = page_heap::release(segment, group, self.age);
                self.returned(slices * PAGES_PER_SLICE);
                Phase::Runs(Some(segment), group)
            }
            None => runs_of(segment.next()),
        }
    }
}

fn runs_of(segment: Option<&'static Segment>) -> Phase {
    Phase::Runs(segment, segment.map_or(0, Segment::words))
}
