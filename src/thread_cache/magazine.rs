//! A magazine: an array stack of free blocks, with null sentinels at both ends. The
//! sentinels make every exceptional case show up in the one test that the fast path
//! makes anyway. A position above the upper sentinel, `CLOSED`, lets another thread
//! take the content away.
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
//! **Closing.** A tick swaps `top` for `CLOSED`, waits for a barrier after which no
//! thread of the process is inside an instruction that began before, and reads `top`
//! again. At most one commit of the owner can have started from the old `top` and
//! landed after the swap. It overwrote `CLOSED`, so `top` is far from it, and the tick
//! takes nothing. Otherwise a commit since then has moved `top` from `CLOSED` by one
//! slot, met a null sentinel, and gone to the slow path. Then the blocks below the old
//! `top` are the tick's. Only the owner reopens the magazine, in its slow path.
//!
//! **Reclaiming.** The pages of a magazine that stays closed go back to the system
//! (`slot_memory.rs`). The owner may still be about to read or write the one slot at
//! the old `top`. What that slot held is kept; a late write finds a page again; and
//! all else that the owner reads is null, as the sentinels were.

use crate::base::atomics::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use crate::thread_cache::slot_memory::SlotMemory;
use core::ptr::NonNull;

/// Bytes of a slot.
pub(super) const SLOT: usize = size_of::<AtomicUsize>();
/// Slots in addition to those for blocks.
const SENTINELS: usize = 6;
/// What an unused slot holds: not null, so that a push does not take it for a sentinel.
const UNUSED: usize = 1;

/// Stands for the magazine of a class that a thread has not used: empty and full at
/// the same time, and never written.
pub(super) static NO_MAGAZINE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The `top` of [`NO_MAGAZINE`].
pub(super) fn top_of_no_magazine() -> usize {
    &raw const NO_MAGAZINE[1] as usize
}

/// The capacities through which a magazine grows. With the sentinels they are powers of two.
const CAPACITIES: [usize; 3] = [SMALLEST, 58, 250];
/// The first capacity, which a magazine keeps while its thread uses few blocks of the class.
pub(super) const SMALLEST: usize = 10;

/// The next larger capacity, not above `most`.
pub(super) fn larger(capacity: usize, most: usize) -> Option<usize> {
    let next = CAPACITIES.into_iter().find(|&next| next > capacity)?.min(most);
    (next > capacity).then_some(next)
}

/// The fast-path operation that brought the owner to its slow path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Pop,
    Push,
}

/// One class's slots of one thread.
pub(super) struct Magazine {
    slots: NonNull<AtomicUsize>,
    /// While reclaimed: what the slot at the old `top` held. Otherwise 0.
    reclaimed_slot: usize,
    capacity: u16,
    /// While closed: one more than the slot that `top` pointed to. Otherwise 0.
    closed_at: u16,
}

impl Magazine {
    /// An empty magazine, or none without memory.
    pub(super) fn new(capacity: usize, memory: &mut SlotMemory) -> Option<Self> {
        let slots = memory.alloc((capacity + SENTINELS) * SLOT)?.cast::<AtomicUsize>();
        for index in 0..capacity + SENTINELS {
            let sentinel = index == 0 || index > capacity;
            // SAFETY: the piece has that many words and is ours alone.
            unsafe { slots.add(index).write(AtomicUsize::new(if sentinel { 0 } else { UNUSED })) };
        }
        Some(Self { slots, reclaimed_slot: 0, capacity: capacity as u16, closed_at: 0 })
    }

    /// Frees the slots; the owner's `top` must not point here any more.
    pub(super) fn discard(self, memory: &mut SlotMemory) {
        // SAFETY: the piece that `new` allocated, of the same size.
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

    /// The lowest `count` blocks. Nobody changes them meanwhile: the caller is the owner,
    /// or a tick that closed the magazine above them or found the cache without a thread.
    pub(super) fn blocks(&self, count: usize) -> &[usize] {
        debug_assert!(count <= self.capacity());
        // SAFETY: slots 1 to `capacity` lie in the piece, and nobody writes them, see above.
        unsafe { core::slice::from_raw_parts(self.slots.add(1).cast().as_ptr(), count) }
    }

    /// The lowest `count` slots, for the owner to fill while the magazine is empty.
    pub(super) fn empty_slots(&mut self, count: usize) -> &mut [usize] {
        debug_assert!(count <= self.capacity());
        // SAFETY: slots 1 to `capacity` lie in the piece, and under the cache's lock nobody
        // else reads them.
        unsafe { core::slice::from_raw_parts_mut(self.slots.add(1).cast().as_ptr(), count) }
    }

    /// Removes the lowest `dropped` of `count` blocks by moving the others down.
    pub(super) fn drop_lowest(&self, dropped: usize, count: usize) {
        debug_assert!(dropped <= count && count <= self.capacity());
        // SAFETY: within the piece, and nobody else reads slots while the owner is here,
        // under its cache's lock.
        unsafe {
            let first = self.slots.add(1);
            first.copy_from(first.add(dropped), count - dropped);
        }
    }

    /// The `top` that stands for `count` blocks.
    pub(super) fn top(&self, count: usize) -> usize {
        self.slots.as_ptr() as usize + (count + 1) * SLOT
    }

    /// How many blocks a `top` stands for. After a pop that met the lower sentinel and is
    /// not undone yet, it is one below empty.
    pub(super) fn count(&self, top: usize) -> usize {
        (top.wrapping_sub(self.top(0)) as isize).max(0) as usize / SLOT
    }

    /// Called by a tick: moves `top` out of reach, so that the owner's next operation comes
    /// to its slow path. True if it was open.
    pub(super) fn close(&mut self, top: &AtomicUsize) -> bool {
        if self.is_closed() {
            return false;
        }
        // Acquire pairs with the owner's commit: the entries below the old `top` are seen.
        // Release pairs with the acquire in `pop_slot`, where commits are atomic.
        let old = top.swap(self.closed(), AcqRel);
        self.closed_at = ((old - self.slots.as_ptr() as usize) / SLOT + 1) as u16;
        true
    }

    /// Called by a tick, after [`close`](Self::close) and the barrier: how many blocks it
    /// may take. None if the owner's commit came after the close and undid it; then the
    /// magazine is open as before.
    pub(super) fn content_if_closed(&mut self, top: &AtomicUsize) -> Option<usize> {
        // Relaxed: the barrier orders it, or `top` changes by atomic additions alone. At most one commit has moved it since, by a slot.
        if top.load(Relaxed).abs_diff(self.closed()) > SLOT {
            self.closed_at = 0;
            return None;
        }
        // Saturating: a pop that met the lower sentinel leaves `top` one slot below empty.
        Some((self.closed_at as usize).saturating_sub(2))
    }

    /// In the owner's slow path: makes `top` valid again. Reopens a closed magazine, which
    /// is then empty except for the block of an interrupted operation, or undoes the pop
    /// that met the lower sentinel. True if it was closed.
    ///
    /// `from` is the operation under way. It must have moved or read `top` since the last
    /// call; otherwise a slot would count as popped that was not.
    pub(super) fn restore_top(&mut self, top: &AtomicUsize, from: Operation) -> bool {
        let closed = self.is_closed();
        if closed {
            let interrupted = self.interrupted_block(top, from);
            if let Some(block) = interrupted {
                self.slot(1).store(block, Relaxed);
            }
            top.store(self.top(interrupted.is_some() as usize), Relaxed);
            self.closed_at = 0;
        } else if from == Operation::Pop {
            top.store(self.top(0), Relaxed);
        }
        closed
    }

    /// Whether a tick has closed it, and has taken its content or is about to.
    pub(super) fn is_closed(&self) -> bool {
        self.closed_at != 0
    }

    /// The `top` of a closed magazine.
    fn closed(&self) -> usize {
        self.top(self.capacity() + 2)
    }

    /// Called by a tick that returns the pages of a closed magazine: `word` tells what a
    /// word on them held.
    pub(super) fn reclaim(&mut self, word: impl Fn(usize) -> usize) {
        debug_assert!(self.is_closed());
        let slot = self.slots.as_ptr().wrapping_add(self.closed_at as usize - 1);
        self.reclaimed_slot = word(slot as usize);
    }

    /// In the owner's slow path: the block at the old `top` of a closed magazine, if an
    /// operation was interrupted by the close, so that the block is the owner's.
    ///
    /// `top` tells. If no operation was interrupted it is `CLOSED`, or one slot below if
    /// the slow path comes from a pop. If it is one slot more than that, either the pop
    /// had committed before the close, or a push had written its entry and then committed
    /// to the closed magazine. The slot is the same for both. If it reads as null, its page
    /// was reclaimed after the block was written.
    pub(super) fn interrupted_block(&self, top: &AtomicUsize, from: Operation) -> Option<usize> {
        let moved = if from == Operation::Pop { SLOT } else { 0 };
        let index = (self.closed_at as usize).checked_sub(2)? + 1;
        if top.load(Relaxed) != self.closed() - moved + SLOT {
            return None;
        }
        match self.slot(index).load(Relaxed) {
            0 => Some(self.reclaimed_slot),
            block => Some(block),
        }
    }
}
