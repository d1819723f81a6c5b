//! Blocks above the pooled sizes: runs up to 4 MiB, and mappings above. Blocks that
//! outgrew their place get mappings too, since they are likely to go on growing.

use crate::base::size_class::{PAGE, RUN_MAX};
use crate::heap::segment::Segment;
use crate::heap::{mapped, run};
use core::ptr;

/// How a block above the pooled sizes is backed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// By a run of slices.
    Run,
    /// By a mapping of its own.
    Mapping,
}

/// How a block of that size is backed. For a wrong address this is a guess, which
/// `free` detects.
pub(crate) fn backing_of(block: usize, size: usize) -> Backing {
    if size <= RUN_MAX && Segment::of(block).is_some() { Backing::Run } else { Backing::Mapping }
}

/// Allocates a block; null without memory.
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    if size <= RUN_MAX { run::alloc_large(size, align, zeroed) } else { mapped::alloc(size, align, zeroed) }
}

/// For a block that outgrew its place: a mapping, which grows without copying. Null
/// without memory, or if the alignment would keep it from being resized.
pub(crate) fn alloc_growing(size: usize, align: usize) -> *mut u8 {
    if align <= PAGE { mapped::alloc(size, align, false) } else { ptr::null_mut() }
}

/// Frees a block; aborts the process if there is none with that backing.
pub(crate) fn free(block: usize, backing: Backing) {
    match backing {
        Backing::Run => run::free_large(block),
        Backing::Mapping => mapped::free(block),
    }
}

/// Resizes a block to another size above the pooled ones and returns its address, if
/// that needs no copying.
pub(crate) fn resize(block: usize, size: usize) -> Option<*mut u8> {
    if Segment::of(block).is_none() {
        return mapped::resize(block, size);
    }
    (size <= RUN_MAX && run::resize(block, size)).then_some(block as *mut u8)
}

/// Bytes of a block in use; 0 if there is none at the address.
pub(crate) fn usable(block: usize, backing: Backing) -> usize {
    match backing {
        Backing::Run => run::usable(block),
        Backing::Mapping => mapped::size(block).unwrap_or(0),
    }
}
