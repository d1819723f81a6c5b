//! The victim tier: blocks that were local at the last tick.

use crate::magazine::SLOT;
use crate::metadata;
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ptr::NonNull;
use core::slice;

/// One class's victims, in a piece of their own.
pub(crate) struct Victims {
    blocks: Option<NonNull<AtomicUsize>>,
    pub(crate) count: usize,
    room: usize,
}

// SAFETY: the piece is reached under the heap's lock only.
unsafe impl Send for Victims {}
impl Victims {
    pub(crate) const fn new() -> Self {
        Self { blocks: None, count: 0, room: 0 }
    }

    pub(crate) fn blocks(&self) -> &[AtomicUsize] {
        match self.blocks {
            // SAFETY: the piece holds `count` blocks.
            Some(blocks) => unsafe { slice::from_raw_parts(blocks.as_ptr(), self.count) },
            None => &[],
        }
    }

    /// Copies blocks in; the tier is empty. False without memory.
    pub(crate) fn fill(&mut self, blocks: &[AtomicUsize]) -> bool {
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
    pub(crate) fn take(&mut self, out: &[AtomicUsize]) -> usize {
        let count = out.len().min(self.count);
        for (slot, block) in out.iter().zip(&self.blocks()[self.count - count..]) {
            slot.store(block.load(Relaxed), Relaxed);
        }
        self.count -= count;
        count
    }

    pub(crate) fn take_one(&mut self) -> Option<usize> {
        let out = [AtomicUsize::new(0)];
        (self.take(&out) == 1).then(|| out[0].load(Relaxed))
    }

    pub(crate) fn discard(&mut self) {
        if let Some(piece) = self.blocks.take() {
            // SAFETY: the piece that `fill` took, of the same size.
            unsafe { metadata::give(piece.cast(), self.room * SLOT) };
        }
        *self = Self::new();
    }
}
