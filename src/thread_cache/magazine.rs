//! A magazine: an array stack of free blocks, with null sentinels at both ends
//! that make every exceptional case show up in the test the fast path makes
//! anyway, and a place above the upper sentinel, `CLOSED`, by which another
//! thread takes the content away.
//!
//! ```text
//! slot   0      1 ..= capacity      +1     +2     +3     +4     +5
//!      [null] [ never null ... ]  [null] [null] [null] [null] [null]
//!               ^ empty             ^ full        ^ CLOSED
//! ```
//!
//! `top` is the address of the slot above the last block. A pop lowers it and
//! reads the slot it won: null means empty, or closed. A push reads the slot at
//! `top`: null means full, or closed. Freed memory itself holds nothing.
//!
//! **Closing.** A tick swaps `top` for `CLOSED`, waits for a barrier after
//! which no thread of the process is inside an instruction that began before,
//! and looks at `top` again. At most one commit of the owner can have been
//! based on the old `top` and landed after the swap; it overwrote `CLOSED`, so
//! `top` is then far from it, and nothing was taken. Otherwise every commit
//! since has moved `top` from `CLOSED` by a slot, met a null sentinel, and gone to
//! the slow path: the blocks below the old `top` are the tick's. Only the
//! owner reopens, in its slow path.
//!
//! **Reclaiming.** The pages of a magazine that stays closed go back to the
//! system (`slot_memory.rs`). The owner may still be about to read or write the one
//! slot at the old `top`; what was there is kept, a late write finds a page
//! again, and all else that the owner reads are nulls, as the sentinels were.

use crate::base::atomics::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use crate::thread_cache::slot_memory::SlotMemory;
use core::ptr::NonNull;

/// Bytes of a slot.
pub(super) const SLOT: usize = size_of::<AtomicUsize>();
/// Slots beside those for blocks.
const SENTINELS: usize = 6;
/// What an unused slot holds, so that a push sees it is not a sentinel.
const UNUSED: usize = 1;

/// Stands for the magazine of a class that a thread has not used: empty and
/// full at once, and never written.
pub(super) static NONE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The `top` of [`NONE`].
pub(super) fn top_of_none() -> usize {
    &raw const NONE[1] as usize
}

/// The capacities a magazine grows through: with the sentinels, powers of two.
const CAPACITIES: [usize; 3] = [SMALLEST, 58, 250];
/// What a magazine starts with, and keeps while its thread uses few blocks of the class.
pub(super) const SMALLEST: usize = 10;

/// The next larger capacity, not above `most`.
pub(super) fn larger(capacity: usize, most: usize) -> Option<usize> {
    let next = CAPACITIES.into_iter().find(|&next| next > capacity)?.min(most);
    (next > capacity).then_some(next)
}

/// The operation that brought the owner to its slow path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Pop,
    Push,
}

/// One class's slots of one thread.
pub(super) struct Magazine {
    slots: NonNull<AtomicUsize>,
    /// While reclaimed: what the slot at the old `top` held; otherwise 0.
    left: usize,
    capacity: u16,
    /// While closed: one more than the slot that `top` pointed at; otherwise 0.
    closed_at: u16,
}

impl Magazine {
    /// An empty magazine, or none without memory.
    pub(super) fn new(capacity: usize, memory: &mut SlotMemory) -> Option<Self> {
        let slots = memory.alloc((capacity + SENTINELS) * SLOT)?.cast::<AtomicUsize>();
        for index in 0..capacity + SENTINELS {
            let sentinel = index == 0 || index > capacity;
            // SAFETY: the piece has that many words and is ours.
            unsafe { slots.add(index).write(AtomicUsize::new(if sentinel { 0 } else { UNUSED })) };
        }
        Some(Self { slots, left: 0, capacity: capacity as u16, closed_at: 0 })
    }

    /// Gives the memory back; the owner's `top` must not point here any more.
    pub(super) fn discard(self, memory: &mut SlotMemory) {
        // SAFETY: the piece that `new` took, of the same size.
        unsafe { memory.free(self.slots.cast(), (self.capacity() + SENTINELS) * SLOT) };
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(super) fn slot(&self, index: usize) -> &AtomicUsize {
        debug_assert!(index < self.capacity() + SENTINELS);
        // SAFETY: within the piece.
        unsafe { self.slots.add(index).as_ref() }
    }

    /// The lowest `count` blocks, which nobody disturbs: the caller is the
    /// owner, or the tick that closed the magazine above them or found its
    /// cache without a thread.
    pub(super) fn blocks(&self, count: usize) -> &[usize] {
        debug_assert!(count <= self.capacity());
        // SAFETY: slots 1 to `capacity` lie in the piece; see above.
        unsafe { core::slice::from_raw_parts(self.slots.add(1).cast().as_ptr(), count) }
    }

    /// The lowest `count` slots, to be filled by the owner while it is empty.
    pub(super) fn empty_slots(&mut self, count: usize) -> &mut [usize] {
        debug_assert!(count <= self.capacity());
        // SAFETY: slots 1 to `capacity` lie in the piece, and behind the cache's
        // lock nobody else looks at them.
        unsafe { core::slice::from_raw_parts_mut(self.slots.add(1).cast().as_ptr(), count) }
    }

    /// Moves the blocks above the lowest `dropped` of `count` down to their place.
    pub(super) fn drop_lowest(&self, dropped: usize, count: usize) {
        debug_assert!(dropped <= count && count <= self.capacity());
        // SAFETY: within the piece; nobody else looks at slots while the
        // owner is here, behind its cache's lock.
        unsafe {
            let first = self.slots.add(1);
            first.copy_from(first.add(dropped), count - dropped);
        }
    }

    /// The `top` that stands for `count` blocks.
    pub(super) fn top(&self, count: usize) -> usize {
        self.slots.as_ptr() as usize + (count + 1) * SLOT
    }

    /// How many blocks a `top` stands for. A pop that met the lower sentinel and
    /// has not been undone yet stands one below empty.
    pub(super) fn count(&self, top: usize) -> usize {
        (top.wrapping_sub(self.top(0)) as isize).max(0) as usize / SLOT
    }

    /// By a tick: moves `top` out of reach, so that the owner's next
    /// operation comes to its slow path. True if it was open.
    pub(super) fn close(&mut self, top: &AtomicUsize) -> bool {
        if self.is_closed() {
            return false;
        }
        // AcqRel: the entries below the old top are seen with it, and a
        // commit of the owner's after this starts from `CLOSED`.
        let old = top.swap(self.closed(), AcqRel);
        self.closed_at = ((old - self.slots.as_ptr() as usize) / SLOT + 1) as u16;
        true
    }

    /// By a tick, after [`close`](Self::close) and the barrier: how many
    /// blocks are its own to take. None if the owner's commit overtook the
    /// close; then the magazine is open and all is as before.
    pub(super) fn content_if_closed(&mut self, top: &AtomicUsize) -> Option<usize> {
        // At most one commit has moved it since, by a slot.
        if top.load(Relaxed).abs_diff(self.closed()) > SLOT {
            self.closed_at = 0;
            return None;
        }
        // Of the slot below the lowest, too: a pop met the sentinel there.
        Some((self.closed_at as usize).saturating_sub(2))
    }

    /// In the owner's slow path: reopens a closed magazine, empty but for what
    /// an operation left on top when it was closed in the middle of it; or
    /// undoes the pop that met the lower sentinel. True if it was closed.
    ///
    /// `from` is the operation under way: it must have moved or read `top`
    /// since the last call, or a slot counts as won that was not.
    pub(super) fn settle(&mut self, top: &AtomicUsize, from: Operation) -> bool {
        let closed = self.is_closed();
        if closed {
            let left = self.left_behind(top, from);
            if let Some(block) = left {
                self.slot(1).store(block, Relaxed);
            }
            top.store(self.top(left.is_some() as usize), Relaxed);
            self.closed_at = 0;
        } else if from == Operation::Pop {
            top.store(self.top(0), Relaxed);
        }
        closed
    }

    /// Closed, with its content taken.
    pub(super) fn is_closed(&self) -> bool {
        self.closed_at != 0
    }

    /// The `top` of a closed magazine.
    fn closed(&self) -> usize {
        self.top(self.capacity() + 2)
    }

    /// By a tick, as the pages of a closed magazine go: `word` tells what a
    /// word of them held.
    pub(super) fn reclaim(&mut self, word: impl Fn(usize) -> usize) {
        debug_assert!(self.is_closed());
        let slot = self.slots.as_ptr().wrapping_add(self.closed_at as usize - 1);
        self.left = word(slot as usize);
    }

    /// In the owner's slow path: the block on top that belongs to the owner
    /// although the magazine was closed, if `top` says so.
    ///
    /// If nothing was under way, `top` reads `CLOSED`, or one below it if the
    /// slow path comes from a pop. One more, and either that pop had won its
    /// slot before the close, or a push had put its entry there and then
    /// committed to the closed magazine; the slot is the same. If it reads as
    /// null, its page went after the block was there.
    pub(super) fn left_behind(&self, top: &AtomicUsize, from: Operation) -> Option<usize> {
        let moved = if from == Operation::Pop { SLOT } else { 0 };
        let index = (self.closed_at as usize).checked_sub(2)? + 1;
        if top.load(Relaxed) != self.closed() - moved + SLOT {
            return None;
        }
        match self.slot(index).load(Relaxed) {
            0 => Some(self.left),
            block => Some(block),
        }
    }
}
