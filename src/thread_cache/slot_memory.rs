//! Slot memory: the address space in which the slots of one thread cache lie. Each
//! has its own, so that its pages can be reclaimed while the thread sleeps.
//!
//! A sleeping thread may have been interrupted between computing a slot's address and
//! reading or writing it, and goes on from there when it wakes. So the address space
//! stays its own forever. Only the pages go, by being moved away, which the system
//! does in one step: a late write lands either on the moved pages or on the fresh ones
//! in their place. A late read sees what was there, or null, which is a sentinel.

use crate::base::size_class::{CACHE_LINE, PAGE};
use crate::platform::{self, Lock};
use core::ptr::{self, NonNull};

/// Room for every class's magazine and victims at their largest, and for magazines that
/// were outgrown. Without room a magazine does not grow, and victims are freed at once.
const SIZE: usize = 256 << 10;
const SMALLEST: usize = 64;
/// How many sizes of pieces there are: powers of two up to the largest magazine, plus a
/// cache line, so that pieces of one size do not all fall into a few sets of the
/// processor's cache.
const LISTS: usize = 6;

/// The slot memory of one thread cache, behind the cache's lock.
pub(super) struct SlotMemory {
    start: Option<NonNull<u8>>,
    /// Bytes that were cut into pieces so far.
    next: usize,
    lists: [*mut Free; LISTS],
}

struct Free {
    next: *mut Free,
}

// SAFETY: the pointers are into the memory, whose free pieces only the holder of the
// cache's lock reaches.
unsafe impl Send for SlotMemory {}

/// Where pages are moved to before they are returned. Locked only under the tick's lock,
/// so it is never locked at a fork.
static MOVE_TARGET: Lock<MoveTarget> = Lock::new(MoveTarget::Unreserved);

enum MoveTarget {
    Unreserved,
    At(usize),
    /// The system refused a move. It may have unmapped the target before, so what lies
    /// there now may not be ours: pages stay where they are from then on.
    Unusable,
}

impl SlotMemory {
    pub(super) const fn new() -> Self {
        Self { start: None, next: 0, lists: [ptr::null_mut(); LISTS] }
    }

    /// Allocates a piece of at least `bytes` bytes, aligned to 64, with arbitrary content.
    pub(super) fn alloc(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let (size, list) = piece(bytes)?;
        if let Some(piece) = NonNull::new(self.lists[list]) {
            // SAFETY: a listed piece is free and holds a link.
            self.lists[list] = unsafe { piece.as_ref().next };
            return Some(piece.cast());
        }
        let start = match self.start {
            Some(start) => start,
            None => *self.start.insert(platform::reserve(SIZE, PAGE)?),
        };
        if self.next + size > SIZE {
            return None;
        }
        // SAFETY: within the slot memory.
        let piece = unsafe { start.add(self.next) };
        self.next += size;
        Some(piece)
    }

    /// Frees a piece.
    ///
    /// # Safety
    /// `piece` came from `alloc(bytes)` with the same `bytes` and is no longer used.
    pub(super) unsafe fn free(&mut self, piece: NonNull<u8>, bytes: usize) {
        let Some((_, list)) = self::piece(bytes) else { return };
        let piece = piece.cast::<Free>();
        // SAFETY: the piece is ours again, and large and aligned enough for a link.
        unsafe { piece.write(Free { next: self.lists[list] }) };
        self.lists[list] = piece.as_ptr();
    }

    /// Returns all pages, by moving them away first. The slot memory then reads as zero,
    /// and its pieces are still where they are. `visit` gets a function that tells what a
    /// word held, by its address. False if there is nothing, or the system cannot.
    pub(super) fn reclaim(&self, visit: impl FnOnce(&dyn Fn(usize) -> usize)) -> bool {
        let Some(start) = self.start.filter(|_| self.next > 0) else { return false };
        let mut target = MOVE_TARGET.lock();
        let place = match *target {
            MoveTarget::At(place) => place,
            MoveTarget::Unusable => return false,
            MoveTarget::Unreserved => match platform::reserve(SIZE, PAGE) {
                Some(place) => place.as_ptr() as usize,
                None => return false,
            },
        };
        *target = MoveTarget::At(place);
        let bytes = self.next.next_multiple_of(PAGE);
        // SAFETY: both are whole pages of reservations of ours. The thread tolerates that its
        // slots turn to null. The target is ours by its lock, and still mapped, since every
        // move to it so far succeeded.
        if !unsafe { platform::move_pages(start.as_ptr(), bytes, place as *mut u8) } {
            *target = MoveTarget::Unusable;
            return false;
        }
        let base = start.as_ptr() as usize;
        visit(&|address| {
            debug_assert!(address >= base && address + 8 <= base + bytes);
            // SAFETY: within the pages that were just moved, which nobody else reaches.
            unsafe { ((address - base + place) as *const usize).read() }
        });
        // SAFETY: the same pages; nobody needs them any more.
        unsafe { platform::release(place as *mut u8, bytes) };
        true
    }

    /// Starts again with no pieces; none is in use any more, not even by a late reader.
    pub(super) fn reset(&mut self) {
        *self = Self { start: self.start, ..Self::new() };
    }

    /// The same, and returns the pages.
    pub(super) fn release(&mut self) {
        if let Some(start) = self.start.filter(|_| self.next > 0) {
            // SAFETY: whole pages of a reservation of ours, and no piece is in use.
            unsafe { platform::release(start.as_ptr(), self.next.next_multiple_of(PAGE)) };
        }
        self.reset();
    }
}

/// The size of a piece and its free list; none if it is too large.
fn piece(bytes: usize) -> Option<(usize, usize)> {
    let size = bytes.next_power_of_two().max(SMALLEST);
    let list = (size / SMALLEST).ilog2() as usize;
    (list < LISTS).then_some((size + CACHE_LINE, list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_piece_is_used_again() {
        let mut memory = SlotMemory::new();
        let first = memory.alloc(130).unwrap();
        // SAFETY: just allocated, with the same size.
        unsafe { memory.free(first, 130) };
        assert_eq!(memory.alloc(200), Some(first));
        assert!(memory.alloc(4096).is_none());
    }

    #[test]
    fn large_pieces_begin_in_different_sets_of_a_cache() {
        let mut memory = SlotMemory::new();
        let lines = (0..32).map(|_| memory.alloc(2048).unwrap().as_ptr() as usize / CACHE_LINE % 64);
        assert_eq!(lines.collect::<std::collections::HashSet<_>>().len(), 32);
    }

    #[test]
    fn what_is_reclaimed_is_shown_and_reads_as_null() {
        let mut memory = SlotMemory::new();
        assert!(!memory.reclaim(|_| panic!("nothing there")));
        let pieces: Vec<_> = (0..40).map(|_| memory.alloc(2048).unwrap().cast::<usize>()).collect();
        for (index, piece) in pieces.iter().enumerate() {
            // SAFETY: a piece of our own, large enough.
            unsafe { piece.write(index + 1) };
        }
        let mut seen = Vec::new();
        let done = memory.reclaim(|word| {
            seen.extend(pieces.iter().map(|piece| word(piece.as_ptr() as usize)));
        });
        // Kernels before 5.7 cannot; then nothing changes.
        if done {
            assert_eq!(seen, (1..=40).collect::<Vec<_>>());
        }
        for (index, piece) in pieces.iter().enumerate() {
            // SAFETY: as above; its address stays mapped.
            assert_eq!(unsafe { piece.read() }, if done { 0 } else { index + 1 });
        }
        memory.release();
        assert_eq!(memory.alloc(64).map(|piece| piece.cast()), Some(pieces[0]));
    }
}
