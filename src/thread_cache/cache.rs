//! A thread's cache: for each class its magazine (the local tier), its victim
//! tier and the span it refills from; and the slow paths of its thread.
//!
//! Everything here is behind the cache's lock, which the owner takes in its slow
//! path and a tick while it ages the cache. The fast path does not: it touches
//! only `top` and slots of the open magazine.

use crate::base::atomics::{AtomicUsize, Ordering::Relaxed};
use crate::base::epoch;
use crate::base::size_class::{CACHE_LINE, CLASSES, SPAN_CLASSES, block_size};
use crate::config::settings;
use crate::heap::free_batch;
use crate::heap::run;
use crate::platform;
use crate::thread_cache::class_cache::ClassCache;
use crate::thread_cache::magazine::{self, Operation};
use crate::thread_cache::slot_memory::SlotMemory;
use crate::thread_cache::thread_local::{NEEDS_BARRIER, ThreadLocal};
use core::ptr;

/// Bytes that one class's magazine may hold.
const MAGAZINE_BYTES: usize = 512 << 10;
/// Bytes of freed blocks that a thread leaves to the next.
const LEFT_BYTES: usize = 64 << 10;
/// Slow paths in one epoch before a magazine grows.
const GROW_AFTER: u8 = 2;
/// A bit for each class.
type ClassSet = u128;
const _: () = assert!(CLASSES <= ClassSet::BITS as usize);

/// A thread's cache, behind its lock.
pub(crate) struct ThreadCache {
    /// The thread's storage; none while the cache has no thread.
    thread: Option<&'static ThreadLocal>,
    /// What its spans are marked with.
    number: u16,
    classes: [ClassCache; CLASSES],
    /// A bit for each class whose class cache may hold anything. The others are not
    /// looked at when a thread comes or goes: they may be far away.
    used: ClassSet,
    /// Where the slots lie.
    memory: SlotMemory,
    /// The slots' pages went while the thread slept.
    reclaimed: bool,
    /// Bytes that the magazines can hold.
    capacity: usize,
    /// The epoch it was last aged in.
    epoch: u64,
    /// How often the owner came here: what a tick compares to see that nothing has
    /// happened since, and what the looks at the clock are counted by.
    slow_paths: u64,
    /// Statistics, and nothing else.
    pub(crate) refills: u64,
    pub(crate) spills: u64,
}

impl ThreadCache {
    pub(super) const fn new(number: u16) -> Self {
        Self {
            thread: None,
            number,
            classes: [const { ClassCache::new() }; CLASSES],
            used: 0,
            memory: SlotMemory::new(),
            reclaimed: false,
            capacity: 0,
            epoch: 0,
            slow_paths: 0,
            refills: 0,
            spills: 0,
        }
    }

    /// Makes the cache the thread's, with what its last thread left.
    pub(super) fn adopt(&mut self, thread: &'static ThreadLocal) {
        self.thread = Some(thread);
        self.epoch = epoch::current();
        self.capacity = 0;
        for class in class_numbers(self.used) {
            let class_cache = &mut self.classes[class];
            self.capacity += class_cache.capacity() * block_size(class);
            thread.tops[class].store(class_cache.adopt(), Relaxed);
        }
    }

    /// At the thread's end. Little of what it pools stays, with the spans it
    /// comes from, for the next thread or until the next tick.
    pub(super) fn leave(&mut self) {
        self.part(LEFT_BYTES);
    }

    /// Gives everything back and leaves the thread without a thread cache.
    pub(super) fn abandon(&mut self) {
        self.part(0);
    }

    /// Takes the cache from its thread. Up to `most` bytes stay in the pools.
    fn part(&mut self, mut most: usize) {
        self.wake(None);
        let Some(thread) = self.thread.take() else { return };
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            class_cache.settle(top, Operation::Push);
            let bytes = class_cache.count(top.load(Relaxed)) * block_size(class);
            if bytes > 0 && bytes <= most {
                most -= bytes;
                class_cache.leave(top);
            } else {
                class_cache.free_all(class, top);
                class_cache.detach(class);
            }
            class_cache.drop_victims(class, &mut self.memory);
        }
    }

    /// Gives the thread's pooled blocks back, but keeps its cache.
    pub(crate) fn flush(&mut self) {
        if let Some(thread) = self.thread {
            self.abandon();
            self.adopt(thread);
        }
    }

    /// A block for the owner, whose pop found none, zeroed on request. Null
    /// without memory.
    pub(crate) fn refill(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        self.refills += 1;
        self.used |= 1 << class;
        self.wake(Some((class, Operation::Pop)));
        self.age_if_unaged();
        let block = match self.alloc_pooled(class) {
            // A fresh run need not be cleared, so it is not in here.
            None if class >= SPAN_CLASSES => return self.take_run(class, zeroed),
            None => self.take_from_spans(class),
            Some(block) => block as *mut u8,
        };
        cleared(block, class, zeroed)
    }

    /// A block of either tier, if the owner's pop missed one there.
    fn alloc_pooled(&mut self, class: usize) -> Option<usize> {
        let top = &self.thread?.tops[class];
        self.reopen(class, top, Operation::Pop);
        let class_cache = &mut self.classes[class];
        class_cache.pop(top).or_else(|| class_cache.rescue(top))
    }

    fn take_run(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        if let Some(thread) = self.thread {
            self.grow_if_pressed(class, &thread.tops[class]);
        }
        run::alloc_class(class, zeroed)
    }

    fn take_from_spans(&mut self, class: usize) -> *mut u8 {
        let Some(thread) = self.thread else { return ptr::null_mut() };
        let top = &thread.tops[class];
        self.grow_if_pressed(class, top);
        self.classes[class].refill(class, top, self.number) as *mut u8
    }

    /// Takes a block from the owner, whose push found the magazine full or closed.
    ///
    /// A block that another thread allocated may share its cache line with
    /// blocks still in use there. Those likely to be such, a class's first in
    /// this thread and its first after a tick, are returned instead of being reused.
    pub(crate) fn spill(&mut self, class: usize, block: usize) {
        self.spills += 1;
        self.used |= 1 << class;
        self.wake(Some((class, Operation::Push)));
        self.age_if_unaged();
        let Some(thread) = self.thread else { return free_batch::free(class, &[block], true) };
        let top = &thread.tops[class];
        let reopened = self.reopen(class, top, Operation::Push);
        let class_cache = &mut self.classes[class];
        if block_size(class) < CACHE_LINE && (reopened || class_cache.is_foreign()) {
            return free_batch::free(class, &[block], true);
        }
        if class_cache.push(top, block) {
            return;
        }
        self.grow_if_pressed(class, top);
        let class_cache = &mut self.classes[class];
        if class_cache.push(top, block) {
            return;
        }
        class_cache.spill(class, top);
        if !class_cache.push(top, block) {
            free_batch::free(class, &[block], true);
        }
    }

    /// Makes the magazine usable again. What reopens counts towards the
    /// thread's bytes again; beyond them it starts again, small. True if it was closed.
    fn reopen(&mut self, class: usize, top: &AtomicUsize, from: Operation) -> bool {
        let class_cache = &mut self.classes[class];
        if !class_cache.settle(top, from) {
            return false;
        }
        self.capacity += class_cache.capacity() * block_size(class);
        if self.capacity > settings::thread_pool_bytes() {
            self.capacity -= class_cache.capacity() * block_size(class);
            class_cache.free_all(class, top);
            class_cache.discard_magazine(&mut self.memory);
        }
        true
    }

    fn grow_if_pressed(&mut self, class: usize, top: &AtomicUsize) {
        let size = block_size(class);
        let budget = settings::thread_pool_bytes().saturating_sub(self.capacity) / size;
        let class_cache = &mut self.classes[class];
        class_cache.pressure = class_cache.pressure.saturating_add(1);
        let capacity = class_cache.capacity();
        if capacity > 0 && class_cache.pressure < GROW_AFTER {
            return;
        }
        let most = (MAGAZINE_BYTES / size).min(capacity + budget);
        if let Some(larger) = magazine::larger(capacity, most)
            && class_cache.grow(larger, top, &mut self.memory)
        {
            class_cache.pressure = 0;
            self.capacity += (larger - capacity) * size;
        }
    }

    /// Where closing another thread's magazine is impossible, its owner ages it.
    fn age_if_unaged(&mut self) {
        if !can_close() && self.epoch != epoch::current() {
            self.age(true);
        }
    }

    /// Ends an epoch for this cache: its victims are returned to their spans, the content of its
    /// magazines becomes the victims. `own` if the caller is the owner. False
    /// if there was nothing to age.
    pub(crate) fn age(&mut self, own: bool) -> bool {
        let Some(thread) = self.thread else { return self.discard_magazines() };
        if self.reclaimed || (!own && !can_close()) {
            return !self.reclaimed;
        }
        let idle = self.is_idle();
        self.epoch = epoch::current();
        let mut closed: ClassSet = 0;
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            let just = class_cache.magazine.as_mut().is_some_and(|magazine| magazine.close(top));
            closed |= (just as ClassSet) << class;
        }
        // Refused although it worked when the tick began: the owner may still be
        // about to commit, so nothing is taken. What was in the magazines is lost.
        let all_landed = closed == 0 || !NEEDS_BARRIER || own || platform::barrier();
        if !all_landed {
            settings::note_barrier_failed();
        }
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            class_cache.drop_victims(class, &mut self.memory);
            class_cache.detach(class);
            let closed = closed >> class & 1 == 1;
            if closed && (!all_landed || class_cache.archive(class, top, &mut self.memory)) {
                self.capacity -= class_cache.capacity() * block_size(class);
            }
            class_cache.calm();
        }
        if closed == 0 && !own {
            self.reclaim();
        }
        !idle
    }

    /// For each class, how many blocks are in the local and in the victim tier.
    pub(crate) fn pooled(&self) -> impl Iterator<Item = (usize, usize)> {
        let top = |class: usize| self.thread.map(|thread| &thread.tops[class]);
        self.classes.iter().enumerate().map(move |(class, cache)| cache.pooled(top(class)))
    }

    /// Counts a slow path of the owner's; how many there were.
    pub(crate) fn count_slow_path(&mut self) -> u64 {
        self.slow_paths += 1;
        self.slow_paths
    }

    pub(crate) fn slow_paths(&self) -> u64 {
        self.slow_paths
    }

    /// Nothing is pooled, and the owner's next operation comes to its slow path.
    pub(super) fn is_idle(&self) -> bool {
        let owned = self.thread.is_some();
        self.reclaimed || class_numbers(self.used).all(|class| self.classes[class].is_idle(owned))
    }

    /// Every magazine was closed for a whole epoch and there are no victims:
    /// the pages of all slots go.
    #[cold]
    fn reclaim(&mut self) {
        let classes = &mut self.classes;
        self.reclaimed = self.memory.reclaim(|word| {
            classes
                .iter_mut()
                .filter_map(|class_cache| class_cache.magazine.as_mut())
                .for_each(|magazine| magazine.reclaim(word));
        });
    }

    /// In the owner's slow path, which `from` led to: begins again with its
    /// slots if their pages went.
    #[inline]
    fn wake(&mut self, from: Option<(usize, Operation)>) {
        if self.reclaimed {
            self.begin_again(from);
        }
    }

    /// The owner is in no operation but `from`, so no slot is looked at late
    /// any more. At most one class has a block that was under way.
    #[cold]
    fn begin_again(&mut self, from: Option<(usize, Operation)>) {
        self.reclaimed = false;
        let Some(thread) = self.thread else { return };
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            let operation = from.filter(|from| from.0 == class).map_or(Operation::Push, |from| from.1);
            if let Some(block) = class_cache.forget_magazine(top, operation) {
                free_batch::free(class, &[block], true);
            }
        }
        self.memory.reset();
    }

    /// A thread cache without a thread keeps no magazines beyond a tick.
    fn discard_magazines(&mut self) -> bool {
        let some = !self.is_idle();
        for class in class_numbers(core::mem::take(&mut self.used)) {
            self.classes[class].discard_left(class, &mut self.memory);
        }
        self.memory.release();
        self.capacity = 0;
        some
    }
}

/// A block of the class, if there is one, zeroed on request.
pub(crate) fn cleared(block: *mut u8, class: usize, zeroed: bool) -> *mut u8 {
    if zeroed && !block.is_null() {
        // SAFETY: a block of this class, ours until it is returned.
        unsafe { block.write_bytes(0, block_size(class)) };
    }
    block
}

/// The classes that have a bit.
fn class_numbers(mut bits: ClassSet) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let class = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(class)
    })
}

/// Whether a tick can take another thread's magazines.
fn can_close() -> bool {
    !NEEDS_BARRIER || settings::barrier_works()
}
