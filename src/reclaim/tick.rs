//! The tick: what happens at the end of an epoch, in steps small enough to be done from
//! a slow path.
//!
//! First every cache is aged: its victims are returned to their spans, and its local
//! tier becomes the victim tier. Then every span returns the pages that nobody used in
//! the epoch. Then as many free slices are returned as nobody needed in it. Last, kept
//! mappings that stayed free are unmapped.
//!
//! An epoch ends by the clock, or earlier by growth: while the program touches new pages
//! although freed ones are resident, waiting would only add to the peak. The growth that
//! ends an epoch is a share of what is resident. So a program that grows and frees
//! nothing pays a constant for each page, and a steady one pays nothing.

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

/// Growth that ends an epoch: a 64th of what is resident while about as many pages are
/// returned as touched, and twice or four times as much while they are not.
const GROWTH_SHARE: usize = 64;
const MAX_GROWTH_FACTOR: usize = 4;
/// Below this many resident pages, 64 MiB, growth alone ends an epoch only after
/// [`residency::MIN_GROWTH`]: there is too little to gain for the page faults.
const SMALL_HEAP: usize = 16 << 10;
/// Growth is worth huge pages unless an eighth of it was returned, or an eighth of this
/// many pages, 4 MiB, if it was less.
const MIN_LASTING_GROWTH: usize = 1024;
/// The least growth, in pages, that ends an epoch near the soft limit.
const MIN_GROWTH_NEAR_LIMIT: usize = 32;

/// What [`tick_if_due`] did and found.
pub(super) struct Outcome {
    pub(super) ticked: bool,
    /// Nothing is left that a further tick would change.
    pub(super) nothing_left: bool,
    /// Milliseconds until the next tick is due.
    pub(super) wait_ms: u64,
}

/// How far a tick has come.
enum Phase {
    Idle,
    Caches(Option<&'static Member>),
    Spans(Option<&'static Segment>, usize),
    /// The groups of slices below the number, the highest first.
    Runs(Option<&'static Segment>, usize),
    Mapped,
}

struct Tick {
    phase: Phase,
    sweep: Sweep,
    /// When the epoch began, in milliseconds of the clock; 0 before the first slow path.
    since: u64,
    /// Whether anything was aged or returned in this tick.
    busy: bool,
    /// The slow paths of all threads when this tick aged their caches.
    slow_paths: u64,
    /// Pages that became resident in the epoch that this tick ends, and pages that went
    /// back since.
    grown: usize,
    returned: usize,
    /// By how much more growth than [`GROWTH_SHARE`] ends an epoch.
    growth_factor: usize,
}

static TICK: Lock<Tick> = Lock::new(Tick {
    phase: Phase::Idle,
    sweep: Sweep::NONE,
    since: 0,
    busy: false,
    slow_paths: 0,
    grown: 0,
    returned: 0,
    growth_factor: 2,
});
static PAGES_RETURNED: AtomicU64 = AtomicU64::new(0);

/// Called from slow paths, without locks: does a step of the tick, if one is due.
pub(super) fn poll() {
    registry::enter();
    if let Some(mut tick) = TICK.try_lock() {
        if matches!(tick.phase, Phase::Idle) && tick.is_due() {
            tick.begin(true);
        }
        tick.step();
    }
}

/// Called by the background thread: does a whole tick if one is due, or the rest of one.
pub(super) fn tick_if_due() -> Outcome {
    registry::enter();
    let mut tick = TICK.lock();
    let idle = matches!(tick.phase, Phase::Idle);
    let ticked = !idle || tick.is_due();
    if idle && ticked {
        tick.begin(true);
    }
    tick.finish();
    let wait_ms = tick.due().saturating_sub(platform::now_ms()).max(1);
    Outcome { ticked, nothing_left: !tick.busy, wait_ms }
}

/// Whether a further tick would change nothing until the next slow path: nothing is
/// pooled, nothing free is resident or kept, and there was no slow path since the last
/// tick.
pub(super) fn nothing_left() -> bool {
    let last = TICK.lock().slow_paths;
    registry::slow_paths_if_idle() == Some(last)
        && page_heap::resident_slices() == 0
        && mapped::nothing_kept()
}

/// Does one whole tick, after the rest of one that is under way.
pub(crate) fn tick() {
    registry::enter();
    let mut tick = TICK.lock();
    tick.finish();
    tick.begin(true);
    tick.finish();
}

/// Returns everything free now, no matter when it was last used.
pub(crate) fn purge() {
    registry::enter();
    let mut tick = TICK.lock();
    tick.finish();
    tick.purge();
}

/// The same at the soft limit, before `more` bytes are allocated. Does nothing if another
/// thread is doing a tick.
#[cold]
pub(crate) fn purge_for(more: usize) {
    registry::enter();
    if let Some(mut tick) = TICK.try_lock() {
        tick.finish();
        tick.purge();
        soft_limit::note_purge(more);
    }
}

/// Pages returned to the system so far.
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
        // The clock may go back: a process restored elsewhere, or a fake one.
        if self.since == 0 || now < self.since {
            self.since = now;
        }
        residency::is_due() || now >= self.due()
    }

    /// When the next tick is due by the clock, as the settings are now.
    fn due(&self) -> u64 {
        let interval = settings::tick_interval_ms();
        let interval = if settings::near_limit() { (interval / 8).max(1) } else { interval };
        self.since.saturating_add(interval)
    }

    fn begin(&mut self, age: bool) {
        epoch::advance();
        if NEEDS_BARRIER {
            settings::check_barrier();
        }
        self.sweep = Sweep::begin(age, residency::is_due());
        (self.busy, self.slow_paths) = (false, 0);
        (self.grown, self.returned) = (residency::take_growth(), 0);
        let near = soft_limit::left_if_near();
        settings::set_near_limit(near.is_some());
        self.since = platform::now_ms();
        let share = match residency::resident() {
            little if little < SMALL_HEAP => residency::MIN_GROWTH,
            resident => resident / GROWTH_SHARE * self.growth_factor,
        };
        residency::set_growth_allowed(
            near.map_or(share, |left| share.min(left / PAGE / 4).max(MIN_GROWTH_NEAR_LIMIT)),
        );
        self.phase = Phase::Caches(registry::first());
    }

    fn end(&mut self) {
        self.busy |= self.returned > 0;
        residency::set_growth_lasts(self.returned * 8 < self.grown.max(MIN_LASTING_GROWTH));
        // A tick that was due by the clock says nothing about growth.
        if self.sweep.by_growth {
            self.growth_factor = match self.returned {
                much if much * 2 >= self.grown => 1,
                some if some * 8 >= self.grown => 2,
                _ => MAX_GROWTH_FACTOR.min(self.growth_factor * 2),
            };
        }
    }

    fn purge(&mut self) {
        // Caches twice, so that the local tiers are returned too.
        for _ in 0..2 {
            self.begin(false);
            while matches!(self.phase, Phase::Caches(_)) {
                self.step();
            }
        }
        self.finish();
        // Pages that were counted as growth when their spans were freed were returned since.
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
            Phase::Spans(None, _) => runs_phase(Segment::first()),
            Phase::Runs(Some(segment), end) => self.release_runs(segment, end),
            Phase::Runs(None, _) => {
                page_heap::end_epoch();
                Phase::Mapped
            }
            Phase::Mapped => {
                let pages = mapped::release(!self.sweep.age) / PAGE;
                self.returned += pages;
                PAGES_RETURNED.fetch_add(pages as u64, Relaxed);
                self.end();
                Phase::Idle
            }
        };
    }

    /// Returns free pages of the next group of 64 slices that has any.
    fn release_runs(&mut self, segment: &'static Segment, end: usize) -> Phase {
        match (0..end).rev().find(|&group| page_heap::may_release(segment, group)) {
            Some(group) => {
                let slices = page_heap::release(segment, group, self.sweep.age);
                self.returned(slices * PAGES_PER_SLICE);
                Phase::Runs(Some(segment), group)
            }
            None => runs_phase(segment.next()),
        }
    }
}

fn runs_phase(segment: Option<&'static Segment>) -> Phase {
    Phase::Runs(segment, segment.map_or(0, Segment::words))
}
