//! A magazine: an array stack of free blocks, with null fences at both ends
//! that make every exceptional case show up in the test the fast path makes
//! anyway, and a place above the upper fence, `CLOSED`, by which another
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
//! **Closing.** The ticker swaps `top` for `CLOSED`, waits for a barrier after
//! which no thread of the process is inside an instruction that began before,
//! and looks at `top` again. At most one commit of the owner can have been
//! based on the old `top` and landed after the swap; it overwrote `CLOSED`, so
//! `top` is then far from it, and nothing was taken. Otherwise every commit
//! since has moved `top` from `CLOSED` by a slot, met a null fence, and gone to
//! the slow path: the blocks below the old `top` are the ticker's. Only the
//! owner reopens, in its slow path.

use crate::metadata;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of a slot.
pub(crate) const SLOT: usize = size_of::<usize>();
/// Slots beside those for blocks.
const FENCES: usize = 6;
/// What an unused slot holds, so that a push sees it is not a fence.
const UNUSED: usize = 1;

/// Stands for the magazine of a class that a thread has not used: empty and
/// full at once, and never written.
pub(crate) static NONE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The `top` of [`NONE`].
pub(crate) fn top_of_none() -> usize {
    &raw const NONE[1] as usize
}

/// The capacities a magazine grows through: with the fences, powers of two.
const CAPACITIES: [usize; 3] = [10, 58, 250];

/// The next larger capacity, not above `most`.
pub(crate) fn larger(capacity: usize, most: usize) -> Option<usize> {
    let next = CAPACITIES.into_iter().find(|&next| next > capacity)?.min(most);
    (next > capacity).then_some(next)
}

/// One class's slots of one thread.
pub(crate) struct Magazine {
    slots: NonNull<AtomicUsize>,
    capacity: u16,
}

impl Magazine {
    /// An empty magazine, or none without memory.
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        let slots = metadata::take((capacity + FENCES) * SLOT)?.cast::<AtomicUsize>();
        for index in 0..capacity + FENCES {
            let fence = index == 0 || index > capacity;
            // SAFETY: the piece has that many words and is ours.
            unsafe { slots.add(index).write(AtomicUsize::new(if fence { 0 } else { UNUSED })) };
        }
        Some(Self { slots, capacity: capacity as u16 })
    }

    /// Gives the memory back; the owner's `top` must not point here any more.
    pub(crate) fn discard(self) {
        // SAFETY: the piece that `new` took, of the same size.
        unsafe { metadata::give(self.slots.cast(), (self.capacity() + FENCES) * SLOT) };
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(crate) fn slot(&self, index: usize) -> &AtomicUsize {
        debug_assert!(index < self.capacity() + FENCES);
        // SAFETY: within the piece.
        unsafe { self.slots.add(index).as_ref() }
    }

    /// The slots of the lowest `count` blocks.
    pub(crate) fn blocks(&self, count: usize) -> &[AtomicUsize] {
        debug_assert!(count <= self.capacity());
        // SAFETY: slots 1 to `capacity` lie in the piece.
        unsafe { core::slice::from_raw_parts(self.slots.add(1).as_ptr(), count) }
    }

    /// The `top` that stands for `count` blocks.
    pub(crate) fn top(&self, count: usize) -> usize {
        self.slots.as_ptr() as usize + (count + 1) * SLOT
    }

    /// How many blocks a `top` stands for. A pop that met the lower fence and
    /// has not been undone yet stands one below empty.
    pub(crate) fn count(&self, top: usize) -> usize {
        (top.wrapping_sub(self.top(0)) as isize).max(0) as usize / SLOT
    }

    /// The `top` of a closed magazine.
    pub(crate) fn closed(&self) -> usize {
        self.top(self.capacity() + 2)
    }

    /// True if `top` is `CLOSED`, or the one operation that the owner can have
    /// committed since has moved it by a slot.
    pub(crate) fn is_closed(&self, top: usize) -> bool {
        top.abs_diff(self.closed()) <= SLOT
    }

    /// The block that an operation of the owner left on top when the magazine
    /// was closed at `old` in the middle of it, if `top` (as the owner's next
    /// slow path finds it) says so.
    ///
    /// `expected` is what `top` reads if nothing was under way: `CLOSED`, or
    /// one below it if the slow path comes from a pop. One more, and either
    /// that pop had won its slot before the close, or a push had put its entry
    /// there and then committed to the closed magazine; the slot is the same.
    pub(crate) fn left_behind(&self, top: usize, expected: usize, old: usize) -> Option<usize> {
        let index = self.index(old).filter(|_| top == expected + SLOT)?;
        Some(self.slot(index).load(Relaxed))
    }

    /// The slot that a `top` points at; none for one below empty.
    fn index(&self, top: usize) -> Option<usize> {
        (top >= self.top(0)).then(|| (top - self.top(0)) / SLOT + 1)
    }
}
