//! Memory for the allocator's own data. It lies away from all blocks, so that a
//! write through a stray pointer into a freed block cannot reach it.
//!
//! Pieces are multiples of 64 bytes, cut from mappings of their own, and never
//! unmapped, so a late read still finds mapped memory. Small pieces go to free lists
//! by size. Large ones (thread caches) are never freed.

use crate::platform::{self, Lock, PAGE};
use core::ptr::{self, NonNull};

const SMALLEST: usize = 64;
/// How many sizes can be freed: up to 1 KiB.
const SIZES: usize = 16;
const CHUNK: usize = 1 << 20;
/// Under a tight address-space limit even a chunk may be too much.
const SMALL_CHUNK: usize = 64 << 10;

struct Store {
    free: [*mut Free; SIZES],
    next: usize,
    end: usize,
}

struct Free {
    next: *mut Free,
}

// SAFETY: the pointers are to free pieces, which only the holder of the lock reaches.
unsafe impl Send for Store {}

static STORE: Lock<Store> = Lock::new(Store { free: [ptr::null_mut(); SIZES], next: 0, end: 0 });

/// Allocates a piece of at least `bytes` bytes, aligned to 64, with arbitrary content.
pub(crate) fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    let size = bytes.checked_next_multiple_of(SMALLEST)?;
    let mut store = STORE.lock();
    if let Some(list) = store.free.get_mut(list_of(bytes))
        && let Some(piece) = NonNull::new(*list)
    {
        // SAFETY: a listed piece is free and holds a link.
        *list = unsafe { piece.as_ref().next };
        return Some(piece.cast());
    }
    store.cut(size)
}

/// Frees a piece from [`alloc`].
///
/// # Safety
/// `piece` came from `alloc(bytes)` with the same `bytes`, at most 1 KiB, and is no
/// longer used.
pub(super) unsafe fn free(piece: NonNull<u8>, bytes: usize) {
    let list = list_of(bytes);
    debug_assert!(list < SIZES);
    let mut store = STORE.lock();
    let piece = piece.cast::<Free>();
    // SAFETY: the piece is ours again, and large and aligned enough for a link.
    unsafe { piece.write(Free { next: store.free[list] }) };
    store.free[list] = piece.as_ptr();
}

/// Holds the lock over a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(STORE.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: locked by this thread.
    unsafe { STORE.force_unlock() };
}

fn list_of(bytes: usize) -> usize {
    bytes.div_ceil(SMALLEST).max(1) - 1
}

impl Store {
    fn cut(&mut self, size: usize) -> Option<NonNull<u8>> {
        if self.end - self.next < size {
            let chunk = [CHUNK.max(size), SMALL_CHUNK.max(size)]
                .into_iter()
                .find_map(|bytes| Some((platform::reserve(bytes, PAGE)?, bytes)));
            let (start, bytes) = chunk?;
            // What is left of the old chunk is smaller than this piece and stays unused.
            self.next = start.as_ptr() as usize;
            self.end = self.next + bytes;
        }
        let piece = self.next as *mut u8;
        self.next += size;
        NonNull::new(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_piece_is_used_again() {
        let first = alloc(700).unwrap();
        assert_eq!(first.as_ptr() as usize % SMALLEST, 0);
        // SAFETY: just allocated, with the same size.
        unsafe { free(first, 700) };
        let second = alloc(650).unwrap();
        // SAFETY: as above.
        unsafe { free(second, 650) };
        assert!(alloc(usize::MAX / 4).is_none() && alloc(usize::MAX).is_none());
    }
}
