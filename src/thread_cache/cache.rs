//! The thread cache: for each class its magazine (the local tier), its victim tier
//! and the span it refills from; and the slow paths of its thread.
//!
//! Everything here is behind the cache's lock, which the owner takes in its slow
//! path, and a tick takes while it ages the cache. The fast path takes no lock: it
//! touches only `top` and slots of the open magazine.

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
/// Bytes of freed blocks that stay in the cache at a thread's end, for the next thread.
const KEPT_AT_EXIT_BYTES: usize = 64 << 10;
/// Slow paths in one epoch before a magazine grows.
const GROW_AFTER: u8 = 2;
/// A bit for each class.
type ClassSet = u128;
const _: () = assert!(CLASSES <= ClassSet::BITS as usize);

/// A thread's cache, behind its lock.
pub(crate) struct ThreadCache {
    /// The thread's thread-local storage; none while the cache has no thread.
    thread: Option<&'static ThreadLocal>,
    /// The number that its spans are marked with.
    number: u16,
    classes: [ClassCache; CLASSES],
    /// A bit for each class cache that may hold anything. The others are skipped when a
    /// thread comes or goes, since reading them would cost a cache miss each.
    used: ClassSet,
    /// Where the slots lie.
    memory: SlotMemory,
    /// Whether the slots' pages were reclaimed while the thread slept.
    reclaimed: bool,
    /// Bytes that the open magazines can hold.
    capacity: usize,
    /// The epoch in which it was last aged.
    epoch: u64,
    /// The owner's slow paths. A tick compares the number to see whether anything has
    /// happened; and every few of them the clock is checked.
    slow_paths: u64,
    /// For statistics only.
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

    /// Gives the cache to a thread, with what its last thread left.
    pub(super) fn attach_thread(&mut self, thread: &'static ThreadLocal) {
        self.thread = Some(thread);
        self.epoch = epoch::current();
        self.capacity = 0;
        for class in class_numbers(self.used) {
            let class_cache = &mut self.classes[class];
            self.capacity += class_cache.capacity() * block_size(class);
            thread.tops[class].store(class_cache.attach_thread(), Relaxed);
        }
    }

    /// At the thread's end. A few pooled blocks stay, with the spans they come from, for
    /// the next thread or until the next tick.
    pub(super) fn exit_thread(&mut self) {
        self.detach_thread(KEPT_AT_EXIT_BYTES);
    }

    /// Frees everything to the spans and leaves the thread without a thread cache.
    pub(super) fn empty_and_detach(&mut self) {
        self.detach_thread(0);
    }

    /// Takes the cache from its thread. Up to `keep` bytes stay pooled.
    fn detach_thread(&mut self, mut keep: usize) {
        self.restart_if_reclaimed(None);
        let Some(thread) = self.thread.take() else { return };
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            class_cache.restore_top(top, Operation::Push);
            let bytes = class_cache.count(top.load(Relaxed)) * block_size(class);
            if bytes > 0 && bytes <= keep {
                keep -= bytes;
                class_cache.detach_thread(top);
            } else {
                class_cache.free_all(class, top);
                class_cache.detach_span(class);
            }
            class_cache.free_victims(class, &mut self.memory);
        }
    }

    /// Frees the thread's pooled blocks to their spans, but keeps its cache.
    pub(crate) fn flush(&mut self) {
        if let Some(thread) = self.thread {
            self.empty_and_detach();
            self.attach_thread(thread);
        }
    }

    /// A block for the owner, whose pop found none; zeroed on request. Null without
    /// memory.
    pub(crate) fn refill(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        self.refills += 1;
        self.used |= 1 << class;
        self.restart_if_reclaimed(Some((class, Operation::Pop)));
        self.age_if_unaged();
        let block = match self.alloc_pooled(class) {
            // Returned at once: a fresh run need not be cleared again.
            None if class >= SPAN_CLASSES => return self.alloc_run(class, zeroed),
            None => self.refill_from_spans(class),
            Some(block) => block as *mut u8,
        };
        cleared(block, class, zeroed)
    }

    /// A block of either tier that the owner's pop did not find.
    fn alloc_pooled(&mut self, class: usize) -> Option<usize> {
        let top = &self.thread?.tops[class];
        self.reopen(class, top, Operation::Pop);
        let class_cache = &mut self.classes[class];
        class_cache.pop(top).or_else(|| class_cache.refill_from_victims(top))
    }

    fn alloc_run(&mut self, class: usize, zeroed: bool) -> *mut u8 {
        if let Some(thread) = self.thread {
            self.grow_if_pressed(class, &thread.tops[class]);
        }
        run::alloc_class(class, zeroed)
    }

    fn refill_from_spans(&mut self, class: usize) -> *mut u8 {
        let Some(thread) = self.thread else { return ptr::null_mut() };
        let top = &thread.tops[class];
        self.grow_if_pressed(class, top);
        self.classes[class].refill(class, top, self.number) as *mut u8
    }

    /// Frees a block for the owner, whose push found the magazine full or closed.
    ///
    /// A block that another thread allocated may share its cache line with blocks that
    /// are still in use there. The first few blocks of a class in this thread, and the
    /// first after a tick, are likely to be such. They are returned to their spans
    /// instead of being reused here.
    pub(crate) fn spill(&mut self, class: usize, block: usize) {
        self.spills += 1;
        self.used |= 1 << class;
        self.restart_if_reclaimed(Some((class, Operation::Push)));
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

    /// Makes the magazine usable again; true if it was closed. If it was, it counts
    /// towards the thread's bytes again, and if that is too much it is dropped, to start
    /// again small.
    fn reopen(&mut self, class: usize, top: &AtomicUsize, from: Operation) -> bool {
        let class_cache = &mut self.classes[class];
        if !class_cache.restore_top(top, from) {
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

    /// Where a tick cannot close another thread's magazines, the owner ages them.
    fn age_if_unaged(&mut self) {
        if !can_close() && self.epoch != epoch::current() {
            self.age(true);
        }
    }

    /// Ends an epoch for this cache: its victims are returned to their spans, and the
    /// content of its magazines becomes the victims. `own` if the caller is the owner.
    /// False if there was nothing to age.
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
            let just_closed = class_cache.magazine.as_mut().is_some_and(|magazine| magazine.close(top));
            closed |= (just_closed as ClassSet) << class;
        }
        // If the system refuses the barrier, though it worked when the tick began, the owner
        // may still be about to commit. So nothing is taken, and what was in the magazines
        // is lost.
        let all_landed = closed == 0 || !NEEDS_BARRIER || own || platform::barrier();
        if !all_landed {
            settings::note_barrier_failed();
        }
        for class in class_numbers(self.used) {
            let (class_cache, top) = (&mut self.classes[class], &thread.tops[class]);
            class_cache.free_victims(class, &mut self.memory);
            class_cache.detach_span(class);
            let closed = closed >> class & 1 == 1;
            if closed && (!all_landed || class_cache.archive(class, top, &mut self.memory)) {
                self.capacity -= class_cache.capacity() * block_size(class);
            }
            class_cache.end_epoch();
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

    /// Counts one more slow path of the owner and returns the count.
    pub(crate) fn count_slow_path(&mut self) -> u64 {
        self.slow_paths += 1;
        self.slow_paths
    }

    pub(crate) fn slow_paths(&self) -> u64 {
        self.slow_paths
    }

    /// Whether nothing is pooled and the owner's next operation comes to its slow path.
    pub(super) fn is_idle(&self) -> bool {
        let owned = self.thread.is_some();
        self.reclaimed || class_numbers(self.used).all(|class| self.classes[class].is_idle(owned))
    }

    /// Every magazine was closed for a whole epoch and there are no victims: returns the
    /// pages of all slots.
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

    /// In the owner's slow path, after the operation `from`: starts again with no
    /// magazines if the slots' pages were reclaimed.
    #[inline]
    fn restart_if_reclaimed(&mut self, from: Option<(usize, Operation)>) {
        if self.reclaimed {
            self.restart(from);
        }
    }

    /// The owner is in no other operation than `from`, so no slot is read late any more.
    /// At most one class has a block whose operation was interrupted.
    #[cold]
    fn restart(&mut self, from: Option<(usize, Operation)>) {
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

    /// A cache without a thread keeps no magazines beyond a tick.
    fn discard_magazines(&mut self) -> bool {
        let had_any = !self.is_idle();
        for class in class_numbers(core::mem::take(&mut self.used)) {
            self.classes[class].free_detached(class, &mut self.memory);
        }
        self.memory.release();
        self.capacity = 0;
        had_any
    }
}

/// The block, cleared if `zeroed`; it may be null.
pub(crate) fn cleared(block: *mut u8, class: usize, zeroed: bool) -> *mut u8 {
    if zeroed && !block.is_null() {
        // SAFETY: a block of this class, which the program does not have yet.
        unsafe { block.write_bytes(0, block_size(class)) };
    }
    block
}

/// The classes in a set.
fn class_numbers(mut bits: ClassSet) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let class = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(class)
    })
}

/// Whether a tick can close another thread's magazines.
fn can_close() -> bool {
    !NEEDS_BARRIER || settings::barrier_works()
}
