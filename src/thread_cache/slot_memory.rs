//! Where the slots of one thread's pools lie: address space of the thread's
//! own, so that its pages can go while the thread sleeps.
//!
//! A sleeping thread may have been interrupted between looking a slot up and
//! reading or writing it, and goes on there whenever it wakes. So the place
//! stays its own forever; only the pages go, by being moved away: the system
//! does that in one step, so a late write lies either on the pages moved or on
//! the fresh ones in their place, and a late read sees what was there, or a
//! null, which is a sentinel.

use crate::base::size_class::{CACHE_LINE, PAGE};
use crate::platform::{self, Lock};
use core::ptr::{self, NonNull};

/// Room for every class's magazine and victims at their largest, and for what
/// magazines outgrew. Without room a magazine does not grow and victims are returned at once.
const SIZE: usize = 256 << 10;
const SMALLEST: usize = 64;
/// Sizes of pieces: powers of two up to the largest magazine, and a cache line more,
/// so that those of one size do not all lie in the same few sets of a cache.
const LISTS: usize = 6;

/// One thread's place for slots, behind its cache's lock.
pub(super) struct SlotMemory {
    start: Option<NonNull<u8>>,
    /// Bytes of it that were handed out.
    next: usize,
    lists: [*mut Free; LISTS],
}

struct Free {
    next: *mut Free,
}

// SAFETY: the pointers are into the memory, which the holder of the lock reaches.
unsafe impl Send for SlotMemory {}

/// Where pages are moved to; taken under the tick's lock, so free over a fork.
static ASIDE: Lock<Aside> = Lock::new(Aside::Unmade);

enum Aside {
    Unmade,
    At(usize),
    /// The system refused a move. It may have unmapped the place before it did,
    /// so whatever lies there now may be another's: pages stay where they are.
    GivenUp,
}

impl SlotMemory {
    pub(super) const fn new() -> Self {
        Self { start: None, next: 0, lists: [ptr::null_mut(); LISTS] }
    }

    /// A piece of at least `bytes` bytes, aligned to 64; its content is arbitrary.
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
    /// `piece` came from `alloc(bytes)` with the same `bytes` and is used no more.
    pub(super) unsafe fn free(&mut self, piece: NonNull<u8>, bytes: usize) {
        let Some((_, list)) = self::piece(bytes) else { return };
        let piece = piece.cast::<Free>();
        // SAFETY: the piece is ours again, and large and aligned enough for a link.
        unsafe { piece.write(Free { next: self.lists[list] }) };
        self.lists[list] = piece.as_ptr();
    }

    /// Moves all pages away; the slot memory reads as zero then, and its pieces are
    /// still where they are. `visit` gets the words of it as they were, by their
    /// address in the slot memory. False if there is nothing, or the system cannot.
    pub(super) fn reclaim(&self, visit: impl FnOnce(&dyn Fn(usize) -> usize)) -> bool {
        let Some(start) = self.start.filter(|_| self.next > 0) else { return false };
        let mut aside = ASIDE.lock();
        let place = match *aside {
            Aside::At(place) => place,
            Aside::GivenUp => return false,
            Aside::Unmade => match platform::reserve(SIZE, PAGE) {
                Some(place) => place.as_ptr() as usize,
                None => return false,
            },
        };
        *aside = Aside::At(place);
        let bytes = self.next.next_multiple_of(PAGE);
        // SAFETY: both are whole pages of reservations of ours; the thread
        // bears that its slots turn to null, and `aside` is ours by its lock,
        // and still mapped, since every move to it succeeded so far.
        if !unsafe { platform::move_pages(start.as_ptr(), bytes, place as *mut u8) } {
            *aside = Aside::GivenUp;
            return false;
        }
        let base = start.as_ptr() as usize;
        visit(&|address| {
            debug_assert!(address >= base && address + 8 <= base + bytes);
            // SAFETY: within the pages just moved, which nobody else reaches.
            unsafe { ((address - base + place) as *const usize).read() }
        });
        // SAFETY: as above; nobody needs them any more.
        unsafe { platform::release(place as *mut u8, bytes) };
        true
    }

    /// Begins again; no piece is in use any more, not even by a late reader.
    pub(super) fn reset(&mut self) {
        *self = Self { start: self.start, ..Self::new() };
    }

    /// The same, and the pages go.
    pub(super) fn release(&mut self) {
        if let Some(start) = self.start.filter(|_| self.next > 0) {
            // SAFETY: whole pages of a reservation of ours, in no use by contract.
            unsafe { platform::release(start.as_ptr(), self.next.next_multiple_of(PAGE)) };
        }
        self.reset();
    }
}

/// Size and list of a piece; none for one that is too large.
fn piece(bytes: usize) -> Option<(usize, usize)> {
    let size = bytes.next_power_of_two().max(SMALLEST);
    let list = (size / SMALLEST).ilog2() as usize;
    (list < LISTS).then_some((size + CACHE_LINE, list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_given_back_is_taken_again() {
        let mut memory = SlotMemory::new();
        let first = memory.alloc(130).unwrap();
        // SAFETY: just taken, with the same size.
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
    fn what_is_withdrawn_is_shown_and_reads_as_null() {
        let mut memory = SlotMemory::new();
        assert!(!memory.reclaim(|_| panic!("nothing there")));
        let pieces: Vec<_> = (0..40).map(|_| memory.alloc(2048).unwrap().cast::<usize>()).collect();
        for (index, piece) in pieces.iter().enumerate() {
            // SAFETY: ours.
            unsafe { piece.write(index + 1) };
        }
        let mut seen = Vec::new();
        let done = memory.reclaim(|word| {
            seen.extend(pieces.iter().map(|piece| word(piece.as_ptr() as usize)));
        });
        // Kernels before 5.7 cannot; then all is as it was.
        if done {
            assert_eq!(seen, (1..=40).collect::<Vec<_>>());
        }
        for (index, piece) in pieces.iter().enumerate() {
            // SAFETY: ours.
            assert_eq!(unsafe { piece.read() }, if done { 0 } else { index + 1 });
        }
        memory.release();
        assert_eq!(memory.alloc(64).map(|piece| piece.cast()), Some(pieces[0]));
    }
}
