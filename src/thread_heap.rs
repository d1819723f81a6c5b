//! A thread's heap: for each class its magazine (the local tier), its victim
//! tier and the span it refills from; and the slow paths of its thread.
//!
//! Everything here is behind the heap's lock, which the owner takes in its slow
//! path and a ticker while it ages the heap. The fast path does not: it touches
//! only `top` and slots of the open magazine.

use crate::central;
use crate::epoch;
use crate::give::give;
use crate::local::{Local, NEEDS_BARRIER};
use crate::magazine::{self, Magazine, Operation, SLOT};
use crate::metadata;
use crate::os;
use crate::run;
use crate::settings;
use crate::size_class::{CLASSES, GEOMETRY, SPAN_CLASSES, block_size};
use crate::span::Span;
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ptr::{self, NonNull};
use core::slice;

/// Bytes that one class's magazine may hold.
const MAGAZINE_BYTES: usize = 512 << 10;
/// Slow paths in one epoch before a magazine grows.
const GROW_AFTER: u8 = 2;
/// Blocks that the first refill of an epoch takes from the victim tier; each
/// next takes twice as many. Few, so that what is not needed stays and goes.
const FIRST_RESCUE: u16 = 4;

/// A thread's heap, behind its lock.
pub(crate) struct Heap {
    /// The thread's storage; none while the heap has no thread.
    pub(crate) local: Option<&'static Local>,
    pub(crate) pools: [Pool; CLASSES],
    /// Bytes that the magazines can hold.
    capacity: usize,
    /// The epoch it was last aged in.
    epoch: u64,
    pub(crate) refills: u64,
    pub(crate) spills: u64,
}

/// One class of one thread.
pub(crate) struct Pool {
    magazine: Option<Magazine>,
    victims: Victims,
    span: Option<&'static Span>,
    rescue: u16,
    pressure: u8,
}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self {
            local: None,
            pools: [const { Pool::new() }; CLASSES],
            capacity: 0,
            epoch: 0,
            refills: 0,
            spills: 0,
        }
    }

    /// Makes the heap the thread's. Magazines left by its last thread serve on.
    pub(crate) fn adopt(&mut self, local: &'static Local) {
        self.local = Some(local);
        self.epoch = epoch::current();
        self.capacity = 0;
        for (class, (pool, top)) in self.pools.iter().zip(&local.tops).enumerate() {
            self.capacity += pool.capacity() * block_size(class);
            top.store(pool.top(0), Relaxed);
        }
    }

    /// Gives everything back and leaves the thread without a heap.
    pub(crate) fn abandon(&mut self) {
        let Some(local) = self.local.take() else { return };
        for (class, top) in local.tops.iter().enumerate() {
            let pool = &mut self.pools[class];
            pool.settle(top, Operation::Push);
            let count = pool.count(top.load(Relaxed));
            pool.give_lowest(class, count, true);
            top.store(magazine::top_of_none(), Relaxed);
            pool.drop_victims(class);
            pool.detach(class);
        }
    }

    /// Gives the thread's pooled blocks back, but keeps its heap.
    pub(crate) fn flush(&mut self) {
        if let Some(local) = self.local {
            self.abandon();
            self.adopt(local);
        }
    }

    /// A block for the owner, whose pop found none, zeroed on request. Null
    /// without memory.
    pub(crate) fn refill(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        self.refills += 1;
        self.age_if_unaged();
        let block = match self.pooled(class) {
            // A fresh run need not be cleared, so it is not in here.
            None if class >= SPAN_CLASSES => return self.take_run(class, zeroed),
            None => self.take_from_spans(class),
            Some(block) => block as *mut u8,
        };
        if zeroed && !block.is_null() {
            // SAFETY: a free block of this class, now the caller's.
            unsafe { block.write_bytes(0, block_size(class)) };
        }
        block
    }

    /// A block of either tier, if the owner's pop missed one there.
    fn pooled(&mut self, class: usize) -> Option<usize> {
        let top = &self.local?.tops[class];
        self.reopen(class, top, Operation::Pop);
        let pool = &mut self.pools[class];
        pool.pop(top).or_else(|| pool.rescue(top))
    }

    fn take_run(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        if let Some(local) = self.local {
            self.grow_if_pressed(class, &local.tops[class]);
        }
        alloc_run(class, zeroed)
    }

    fn take_from_spans(&mut self, class: usize) -> *mut u8 {
        let Some(local) = self.local else { return ptr::null_mut() };
        let top = &local.tops[class];
        self.grow_if_pressed(class, top);
        self.pools[class].refill_from_spans(class, top) as *mut u8
    }

    /// Takes a block from the owner, whose push found the magazine full or closed.
    pub(crate) fn spill(&mut self, class: usize, block: usize) {
        self.spills += 1;
        self.age_if_unaged();
        let Some(local) = self.local else { return give(class, &[AtomicUsize::new(block)], true) };
        let top = &local.tops[class];
        self.reopen(class, top, Operation::Push);
        if self.pools[class].push(top, block) {
            return;
        }
        self.grow_if_pressed(class, top);
        let pool = &mut self.pools[class];
        if pool.push(top, block) {
            return;
        }
        pool.spill_half(class, top);
        if !pool.push(top, block) {
            give(class, &[AtomicUsize::new(block)], true);
        }
    }

    /// Makes the magazine usable again. What reopens counts towards the
    /// thread's bytes again; beyond them it starts anew, small.
    fn reopen(&mut self, class: usize, top: &AtomicUsize, from: Operation) {
        let pool = &mut self.pools[class];
        if !pool.settle(top, from) {
            return;
        }
        self.capacity += pool.capacity() * block_size(class);
        if self.capacity > settings::thread_pool_bytes() {
            self.capacity -= pool.capacity() * block_size(class);
            let count = pool.count(top.load(Relaxed));
            pool.give_lowest(class, count, true);
            pool.discard_magazine(top);
        }
    }

    fn grow_if_pressed(&mut self, class: usize, top: &AtomicUsize) {
        let size = block_size(class);
        let budget = settings::thread_pool_bytes().saturating_sub(self.capacity) / size;
        let pool = &mut self.pools[class];
        pool.pressure = pool.pressure.saturating_add(1);
        let capacity = pool.capacity();
        if capacity > 0 && pool.pressure < GROW_AFTER {
            return;
        }
        let most = (MAGAZINE_BYTES / size).min(capacity + budget);
        if let Some(larger) = magazine::larger(capacity, most)
            && pool.grow(larger, top)
        {
            pool.pressure = 0;
            self.capacity += (larger - capacity) * size;
        }
    }

    /// Where closing another thread's magazine is impossible, its owner ages it.
    fn age_if_unaged(&mut self) {
        if !can_close() && self.epoch != epoch::current() {
            self.age(true);
        }
    }

    /// Ends an epoch for this heap: its victims go home, the content of its
    /// magazines becomes the victims. `own` if the caller is the owner.
    pub(crate) fn age(&mut self, own: bool) {
        let Some(local) = self.local else { return self.discard_magazines() };
        if !own && !can_close() {
            return;
        }
        self.epoch = epoch::current();
        let mut closed = 0u64;
        for (class, (pool, top)) in self.pools.iter_mut().zip(&local.tops).enumerate() {
            let just = pool.magazine.as_mut().is_some_and(|magazine| magazine.close(top));
            closed |= (just as u64) << class;
        }
        if closed != 0 && NEEDS_BARRIER && !own {
            os::barrier();
        }
        for (class, (pool, top)) in self.pools.iter_mut().zip(&local.tops).enumerate() {
            pool.drop_victims(class);
            pool.detach(class);
            if closed >> class & 1 == 1 && pool.archive(class, top) {
                self.capacity -= pool.capacity() * block_size(class);
            }
            pool.rescue = FIRST_RESCUE;
            pool.pressure = 0;
        }
    }

    /// A heap without a thread keeps no magazines beyond a tick.
    fn discard_magazines(&mut self) {
        for pool in &mut self.pools {
            if let Some(magazine) = pool.magazine.take() {
                magazine.discard();
            }
        }
        self.capacity = 0;
    }
}

impl Pool {
    const fn new() -> Self {
        Self { magazine: None, victims: Victims::new(), span: None, rescue: FIRST_RESCUE, pressure: 0 }
    }

    fn capacity(&self) -> usize {
        self.magazine.as_ref().map_or(0, Magazine::capacity)
    }

    fn top(&self, count: usize) -> usize {
        self.magazine.as_ref().map_or(magazine::top_of_none(), |magazine| magazine.top(count))
    }

    /// Blocks in the open magazine.
    fn count(&self, top: usize) -> usize {
        self.magazine.as_ref().map_or(0, |magazine| magazine.count(top))
    }

    /// Blocks in the two tiers, as a look from outside sees them.
    pub(crate) fn pooled(&self, top: &AtomicUsize) -> (usize, usize) {
        let closed = self.magazine.as_ref().is_some_and(Magazine::is_closed);
        let local = if closed { 0 } else { self.count(top.load(Relaxed)) };
        (local.min(self.capacity()), self.victims.count)
    }

    /// See [`Magazine::settle`]; without a magazine, undoes a pop.
    fn settle(&mut self, top: &AtomicUsize, from: Operation) -> bool {
        match &mut self.magazine {
            Some(magazine) => magazine.settle(top, from),
            None => {
                top.store(magazine::top_of_none(), Relaxed);
                false
            }
        }
    }

    /// By the ticker, after the barrier: makes the content of the magazine it
    /// closed the victims. False if the owner's commit overtook the close.
    fn archive(&mut self, class: usize, top: &AtomicUsize) -> bool {
        let Some(magazine) = &mut self.magazine else { return false };
        let Some(count) = magazine.content_if_closed(top) else { return false };
        if count > 0 && !self.victims.fill(magazine.blocks(count)) {
            self.give_lowest(class, count, false);
        }
        true
    }

    /// Only the owner may, and a heap without a thread.
    fn discard_magazine(&mut self, top: &AtomicUsize) {
        top.store(magazine::top_of_none(), Relaxed);
        if let Some(magazine) = self.magazine.take() {
            magazine.discard();
        }
    }

    fn pop(&mut self, top: &AtomicUsize) -> Option<usize> {
        let magazine = self.magazine.as_ref()?;
        let count = magazine.count(top.load(Relaxed)).checked_sub(1)?;
        top.store(magazine.top(count), Relaxed);
        Some(magazine.slot(count + 1).load(Relaxed))
    }

    fn push(&mut self, top: &AtomicUsize, block: usize) -> bool {
        let Some(magazine) = &self.magazine else { return false };
        let count = magazine.count(top.load(Relaxed));
        let room = count < magazine.capacity();
        if room {
            magazine.slot(count + 1).store(block, Relaxed);
            top.store(magazine.top(count + 1), Relaxed);
        }
        room
    }

    /// Moves some victims back to the empty magazine and pops one.
    fn rescue(&mut self, top: &AtomicUsize) -> Option<usize> {
        let most = self.rescue as usize;
        self.rescue = self.rescue.saturating_mul(2);
        match &self.magazine {
            Some(magazine) => {
                let count = self.victims.take(magazine.blocks(most.min(magazine.capacity())));
                top.store(magazine.top(count), Relaxed);
                self.pop(top)
            }
            None => self.victims.take_one(),
        }
    }

    /// Fills half the empty magazine from spans and pops one; 0 without memory.
    fn refill_from_spans(&mut self, class: usize, top: &AtomicUsize) -> usize {
        let geometry = &GEOMETRY[class];
        let single = [AtomicUsize::new(0)];
        let out = match &self.magazine {
            Some(magazine) => magazine.blocks(magazine.capacity().div_ceil(2)),
            None => &single,
        };
        let mut count = 0;
        // Not all the way: a few blocks of a nearly full span will do.
        while count * 4 < out.len() {
            let Some(span) = self.span.or_else(|| central::attach(class)) else { break };
            self.span = Some(span);
            let taken = span.take(geometry, &out[count..]);
            count += taken;
            if taken == 0 {
                self.span = None;
                central::detach(class, span);
            }
        }
        match &self.magazine {
            Some(magazine) => top.store(magazine.top(count), Relaxed),
            None => return single[0].load(Relaxed),
        }
        self.pop(top).unwrap_or(0)
    }

    /// Gives the older half of a full magazine back to its spans.
    fn spill_half(&mut self, class: usize, top: &AtomicUsize) {
        let count = self.count(top.load(Relaxed));
        let half = count.div_ceil(2);
        self.give_lowest(class, half, true);
        let Some(magazine) = &self.magazine else { return };
        for index in half..count {
            magazine.slot(index + 1 - half).store(magazine.slot(index + 1).load(Relaxed), Relaxed);
        }
        top.store(magazine.top(count - half), Relaxed);
    }

    /// Gives the `count` lowest blocks to their spans; the slots stay as they are.
    fn give_lowest(&mut self, class: usize, count: usize, by_program: bool) {
        if let Some(magazine) = &self.magazine {
            give(class, magazine.blocks(count), by_program);
        }
    }

    fn drop_victims(&mut self, class: usize) {
        give(class, self.victims.blocks(), false);
        self.victims.discard();
    }

    fn detach(&mut self, class: usize) {
        if let Some(span) = self.span.take() {
            central::detach(class, span);
        }
    }

    /// Moves to a larger magazine; false without memory. Only the owner may,
    /// since it is then in no operation on the old one.
    fn grow(&mut self, capacity: usize, top: &AtomicUsize) -> bool {
        let Some(larger) = Magazine::new(capacity) else { return false };
        let count = self.count(top.load(Relaxed));
        if let Some(old) = self.magazine.take() {
            for index in 1..=count {
                larger.slot(index).store(old.slot(index).load(Relaxed), Relaxed);
            }
            old.discard();
        }
        top.store(larger.top(count), Relaxed);
        self.magazine = Some(larger);
        true
    }
}

/// Takes a run for a pooled class, aligned as blocks of that size are.
pub(crate) fn alloc_run(class: usize, zeroed: bool) -> *mut u8 {
    let size = block_size(class);
    run::alloc(size, 1 << size.trailing_zeros(), zeroed)
}

/// One block of a class straight from a span, for a thread without a heap.
pub(crate) fn alloc_apart(class: usize) -> *mut u8 {
    if class >= SPAN_CLASSES {
        return alloc_run(class, false);
    }
    let out = [AtomicUsize::new(0)];
    while let Some(span) = central::attach(class) {
        let taken = span.take(&GEOMETRY[class], &out);
        central::detach(class, span);
        if taken == 1 {
            break;
        }
    }
    out[0].load(Relaxed) as *mut u8
}

/// Whether a ticker can take another thread's magazines.
fn can_close() -> bool {
    !NEEDS_BARRIER || settings::barrier_works()
}

/// The victim tier of a class: blocks that were local at the last tick.
struct Victims {
    blocks: Option<NonNull<AtomicUsize>>,
    count: usize,
    room: usize,
}

// SAFETY: the piece is reached under the heap's lock only.
unsafe impl Send for Victims {}
// SAFETY: the slots are reached under the heap's lock only, whichever thread
// holds it; magazines' slots are atomic.
unsafe impl Send for Pool {}

impl Victims {
    const fn new() -> Self {
        Self { blocks: None, count: 0, room: 0 }
    }

    fn blocks(&self) -> &[AtomicUsize] {
        match self.blocks {
            // SAFETY: the piece holds `count` blocks.
            Some(blocks) => unsafe { slice::from_raw_parts(blocks.as_ptr(), self.count) },
            None => &[],
        }
    }

    /// Copies blocks in; the tier is empty. False without memory.
    fn fill(&mut self, blocks: &[AtomicUsize]) -> bool {
        let Some(piece) = metadata::take(blocks.len() * SLOT) else { return false };
        let piece = piece.cast::<AtomicUsize>();
        for (index, block) in blocks.iter().enumerate() {
            // SAFETY: the piece has as many words.
            unsafe { piece.add(index).write(AtomicUsize::new(block.load(Relaxed))) };
        }
        *self = Self { blocks: Some(piece), count: blocks.len(), room: blocks.len() };
        true
    }

    /// Moves up to `out.len()` blocks out, the last freed first.
    fn take(&mut self, out: &[AtomicUsize]) -> usize {
        let count = out.len().min(self.count);
        for (slot, block) in out.iter().zip(&self.blocks()[self.count - count..]) {
            slot.store(block.load(Relaxed), Relaxed);
        }
        self.count -= count;
        count
    }

    fn take_one(&mut self) -> Option<usize> {
        let out = [AtomicUsize::new(0)];
        (self.take(&out) == 1).then(|| out[0].load(Relaxed))
    }

    fn discard(&mut self) {
        if let Some(piece) = self.blocks.take() {
            // SAFETY: the piece that `fill` took, of the same size.
            unsafe { metadata::give(piece.cast(), self.room * SLOT) };
        }
        *self = Self::new();
    }
}
