//! The class cache, one class of a thread cache: its magazine (the local tier), its
//! victim tier and the span it refills from. Behind the lock of the thread cache.

use crate::base::SINGLE_THREADED;
use crate::base::atomics::{AtomicUsize, Ordering::Relaxed};
use crate::base::size_class::GEOMETRY;
use crate::heap::central;
use crate::heap::free_batch;
use crate::heap::span::Span;
use crate::thread_cache::magazine::{self, Magazine, Operation};
use crate::thread_cache::slot_memory::SlotMemory;
use crate::thread_cache::victims::Victims;

/// Blocks that an epoch's first refill takes from the victim tier; each next one takes
/// twice as many. Few, so that what is not needed stays behind and is returned.
const FIRST_VICTIM_STEP: u16 = 4;

/// The most blocks that a refill after a spill moves, or a spill after a refill; each
/// further one of the same kind moves twice as many. So a magazine whose use varies by
/// less than its capacity settles at a level where it meets neither end.
const FIRST_STEP: u16 = 64;

/// Frees that a thread without a magazine for the class passes on to the spans.
const FOREIGN_FREES: u8 = 4;

/// One class of a thread cache.
pub(super) struct ClassCache {
    pub(super) magazine: Option<Magazine>,
    victims: Victims,
    span: Option<&'static Span>,
    /// The most blocks that the next refill from the victims, refill from spans, or spill
    /// moves.
    victim_step: u16,
    refill_step: u16,
    spill_step: u16,
    /// Blocks in the magazine while the cache has no thread, and so no `top`.
    detached_count: u16,
    /// Slow paths in this epoch since the magazine last grew.
    pub(super) pressure: u8,
}

// SAFETY: slots and pieces are reached under the cache's lock only, except for the
// owner's fast path, which is tied to its thread, and slots are atomic.
unsafe impl Send for ClassCache {}

impl ClassCache {
    /// Ends the epoch: the next one starts with small steps again.
    pub(super) fn end_epoch(&mut self) {
        self.victim_step = FIRST_VICTIM_STEP;
        (self.refill_step, self.spill_step) = (FIRST_STEP, FIRST_STEP);
        self.pressure = 0;
    }

    pub(super) const fn new() -> Self {
        Self {
            magazine: None,
            victims: Victims::new(),
            span: None,
            victim_step: FIRST_VICTIM_STEP,
            refill_step: FIRST_STEP,
            spill_step: FIRST_STEP,
            detached_count: 0,
            pressure: 0,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.magazine.as_ref().map_or(0, Magazine::capacity)
    }

    /// At a thread's end: its magazine stays, with what is in it.
    pub(super) fn detach_thread(&mut self, top: &AtomicUsize) {
        self.detached_count = self.count(top.load(Relaxed)) as u16;
        top.store(magazine::top_of_no_magazine(), Relaxed);
    }

    /// Frees what is in the magazine to the spans. The owner's `top` no longer points to it.
    pub(super) fn free_all(&mut self, class: usize, top: &AtomicUsize) {
        self.free_lowest(class, self.count(top.load(Relaxed)), true);
        top.store(magazine::top_of_no_magazine(), Relaxed);
    }

    /// Gives what the last thread left to the next one: returns its `top`.
    pub(super) fn attach_thread(&mut self) -> usize {
        let count = core::mem::take(&mut self.detached_count) as usize;
        self.magazine.as_ref().map_or(magazine::top_of_no_magazine(), |magazine| magazine.top(count))
    }

    /// Called by a tick that finds the cache without a thread.
    pub(super) fn free_detached(&mut self, class: usize, memory: &mut SlotMemory) {
        let count = core::mem::take(&mut self.detached_count);
        self.free_lowest(class, count as usize, true);
        self.detach_span(class);
        self.discard_magazine(memory);
    }

    /// Blocks in the open magazine.
    pub(super) fn count(&self, top: usize) -> usize {
        self.magazine.as_ref().map_or(0, |magazine| magazine.count(top))
    }

    /// Blocks in the two tiers, as seen by another thread: an estimate.
    pub(super) fn pooled(&self, top: Option<&AtomicUsize>) -> (usize, usize) {
        let closed = self.magazine.as_ref().is_some_and(Magazine::is_closed);
        let count = top.map_or(self.detached_count as usize, |top| self.count(top.load(Relaxed)));
        let local = if closed { 0 } else { count };
        (local.min(self.capacity()), self.victims.count())
    }

    /// Whether there is nothing to age: no victims, no span, and no magazine. A closed one
    /// is fine if there is an owner, whose next operation then comes to its slow path.
    pub(super) fn is_idle(&self, owned: bool) -> bool {
        let closed = self.magazine.as_ref().is_none_or(|magazine| owned && magazine.is_closed());
        closed && self.victims.count() == 0 && self.span.is_none()
    }

    /// See [`Magazine::restore_top`]; without a magazine, undoes a pop.
    pub(super) fn restore_top(&mut self, top: &AtomicUsize, from: Operation) -> bool {
        match &mut self.magazine {
            Some(magazine) => magazine.restore_top(top, from),
            None => {
                top.store(magazine::top_of_no_magazine(), Relaxed);
                false
            }
        }
    }

    /// Called by a tick, after the barrier: makes the content of the magazine that it closed
    /// the victims. False if the owner's commit came after the close and undid it.
    pub(super) fn archive(&mut self, class: usize, top: &AtomicUsize, memory: &mut SlotMemory) -> bool {
        let Some(magazine) = &mut self.magazine else { return false };
        let Some(count) = magazine.content_if_closed(top) else { return false };
        if count > 0 && !self.victims.fill(magazine.blocks(count), memory) {
            self.free_lowest(class, count, false);
        }
        true
    }

    /// Drops the magazine. Only for the owner, or for a cache without a thread.
    pub(super) fn discard_magazine(&mut self, memory: &mut SlotMemory) {
        if let Some(magazine) = self.magazine.take() {
            magazine.discard(memory);
        }
    }

    /// Called by the owner if its magazines were reclaimed: forgets this one. Returns the
    /// block of an interrupted operation, if any.
    pub(super) fn forget_magazine(&mut self, top: &AtomicUsize, from: Operation) -> Option<usize> {
        let left = self.magazine.take()?.interrupted_block(top, from);
        top.store(magazine::top_of_no_magazine(), Relaxed);
        left
    }

    pub(super) fn pop(&mut self, top: &AtomicUsize) -> Option<usize> {
        let magazine = self.magazine.as_ref()?;
        let count = magazine.count(top.load(Relaxed)).checked_sub(1)?;
        top.store(magazine.top(count), Relaxed);
        Some(magazine.slot(count + 1).load(Relaxed))
    }

    /// Whether a block freed now is probably another thread's: it is one of the first few
    /// of a class of which this thread has allocated none. If the thread goes on freeing
    /// such blocks it gets a magazine all the same.
    pub(super) fn is_foreign(&mut self) -> bool {
        let foreign = self.magazine.is_none() && self.pressure < FOREIGN_FREES;
        self.pressure += foreign as u8;
        foreign
    }

    pub(super) fn push(&mut self, top: &AtomicUsize, block: usize) -> bool {
        let Some(magazine) = &self.magazine else { return false };
        let count = magazine.count(top.load(Relaxed));
        let room = count < magazine.capacity();
        if room {
            magazine.slot(count + 1).store(block, Relaxed);
            top.store(magazine.top(count + 1), Relaxed);
        }
        room
    }

    /// Moves some victims back into the empty magazine and pops one.
    pub(super) fn refill_from_victims(&mut self, top: &AtomicUsize) -> Option<usize> {
        let most = self.victim_step as usize;
        self.victim_step = self.victim_step.saturating_mul(2);
        match &mut self.magazine {
            Some(magazine) => {
                let most = most.min(magazine.capacity());
                let count = self.victims.pop_into(magazine.empty_slots(most));
                top.store(magazine.top(count), Relaxed);
                self.pop(top)
            }
            None => self.victims.pop(),
        }
    }

    /// Fills up to three quarters of the empty magazine from spans and pops one; 0 without
    /// memory. `cache` is the number of the thread cache.
    pub(super) fn refill(&mut self, class: usize, top: &AtomicUsize, cache: u16) -> usize {
        let geometry = &GEOMETRY[class];
        let most = self.refill_step as usize;
        self.refill_step = self.refill_step.saturating_mul(2);
        self.spill_step = FIRST_STEP;
        let few = self.capacity() <= magazine::SMALLEST;
        let mut single = [0];
        let out = match &mut self.magazine {
            Some(magazine) => magazine.empty_slots(three_quarters_of(magazine.capacity()).min(most)),
            None => &mut single,
        };
        let mut count = 0;
        // A quarter of that will do: the last blocks of a nearly full span are enough.
        while count * 4 < out.len() {
            let Some(span) = self.span.or_else(|| central::attach(class, cache, few)) else { break };
            self.span = Some(span);
            let allocated = span.alloc(geometry, &mut out[count..], SINGLE_THREADED.is_on());
            count += allocated;
            if allocated == 0 {
                self.span = None;
                central::detach(class, span);
            }
        }
        match &self.magazine {
            Some(magazine) => top.store(magazine.top(count), Relaxed),
            None => return single[0],
        }
        self.pop(top).unwrap_or(0)
    }

    /// Frees the older blocks of a full magazine to their spans.
    pub(super) fn spill(&mut self, class: usize, top: &AtomicUsize) {
        let count = self.count(top.load(Relaxed));
        let most = three_quarters_of(count).min(self.spill_step as usize);
        self.spill_step = self.spill_step.saturating_mul(2);
        self.refill_step = FIRST_STEP;
        self.free_lowest(class, most, true);
        let Some(magazine) = &self.magazine else { return };
        magazine.drop_lowest(most, count);
        top.store(magazine.top(count - most), Relaxed);
    }

    /// Frees the `count` lowest blocks to their spans; the slots stay as they are.
    pub(super) fn free_lowest(&mut self, class: usize, count: usize, by_program: bool) {
        if let Some(magazine) = &self.magazine {
            free_batch::free(class, magazine.blocks(count), by_program);
        }
    }

    pub(super) fn free_victims(&mut self, class: usize, memory: &mut SlotMemory) {
        free_batch::free(class, self.victims.blocks(), false);
        self.victims.discard(memory);
    }

    pub(super) fn detach_span(&mut self, class: usize) {
        if let Some(span) = self.span.take() {
            central::detach(class, span);
        }
    }

    /// Moves to a larger magazine; false without memory. Only for the owner, which is then
    /// in no operation on the old one.
    pub(super) fn grow(&mut self, capacity: usize, top: &AtomicUsize, memory: &mut SlotMemory) -> bool {
        let Some(larger) = Magazine::new(capacity, memory) else { return false };
        let count = self.count(top.load(Relaxed));
        if let Some(old) = self.magazine.take() {
            for index in 1..=count {
                larger.slot(index).store(old.slot(index).load(Relaxed), Relaxed);
            }
            old.discard(memory);
        }
        top.store(larger.top(count), Relaxed);
        self.magazine = Some(larger);
        true
    }
}

/// Three quarters of the blocks, in whole bitmap words where possible. That is far enough
/// from both full and empty to keep varying use off the slow path.
fn three_quarters_of(count: usize) -> usize {
    let most = (count * 3).div_ceil(4);
    if most < 64 { most } else { most.next_multiple_of(64).min(count) }
}
