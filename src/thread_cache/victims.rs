//! The victim tier: blocks that were local at the last tick.

use crate::thread_cache::slot_memory::SlotMemory;
use core::ptr::NonNull;
use core::slice;

/// One class's victims, in a piece of slot memory.
pub(super) struct Victims {
    blocks: Option<NonNull<usize>>,
    count: u16,
    room: u16,
}

// SAFETY: the piece is reached under the cache's lock only.
unsafe impl Send for Victims {}

impl Victims {
    pub(super) const fn new() -> Self {
        Self { blocks: None, count: 0, room: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    pub(super) fn blocks(&self) -> &[usize] {
        match self.blocks {
            // SAFETY: the piece holds `count` blocks.
            Some(blocks) => unsafe { slice::from_raw_parts(blocks.as_ptr(), self.count()) },
            None => &[],
        }
    }

    /// Copies blocks into the empty tier. False without memory.
    pub(super) fn fill(&mut self, blocks: &[usize], memory: &mut SlotMemory) -> bool {
        let Some(piece) = memory.alloc(size_of_val(blocks)) else { return false };
        let piece = piece.cast::<usize>();
        // SAFETY: the piece is ours alone and has that many words.
        unsafe { piece.copy_from_nonoverlapping(NonNull::from(blocks).cast(), blocks.len()) };
        let count = blocks.len() as u16;
        *self = Self { blocks: Some(piece), count, room: count };
        true
    }

    /// Moves up to `out.len()` blocks out, the last freed first.
    pub(super) fn pop_into(&mut self, out: &mut [usize]) -> usize {
        let count = out.len().min(self.count());
        out[..count].copy_from_slice(&self.blocks()[self.count() - count..]);
        self.count -= count as u16;
        count
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        let mut out = [0];
        (self.pop_into(&mut out) == 1).then_some(out[0])
    }

    pub(super) fn discard(&mut self, memory: &mut SlotMemory) {
        if let Some(piece) = self.blocks.take() {
            // SAFETY: the piece that `fill` allocated, of the same size.
            unsafe { memory.free(piece.cast(), self.room as usize * size_of::<usize>()) };
        }
        *self = Self::new();
    }
}
