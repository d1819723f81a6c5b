//! Address space from the system, by `memmap2`.

use super::system;
use core::mem;
use core::ptr::NonNull;
use memmap2::{MmapMut, MmapOptions};

/// Zeroed memory that is charged only as it is touched, and unmapped when dropped.
pub(crate) struct Mapping(MmapMut);

impl Mapping {
    /// Whole pages; none without address space.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        MmapOptions::new().len(bytes).no_reserve_swap().map_anon().ok().map(Self)
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Changes the length, moving pages instead of bytes if it may move. False if
    /// the system cannot; then all is as before.
    ///
    /// # Safety
    /// Nobody uses what is cut off, nor, if it may move, an address from before.
    pub(crate) unsafe fn resize(&mut self, bytes: usize, may_move: bool) -> bool {
        // SAFETY: by contract.
        unsafe { system::remap(&mut self.0, bytes, may_move) }
    }
}

/// Address space that is unmapped unless it is kept, for one part of several
/// that are of use only together.
pub(crate) struct Reservation {
    mapping: Mapping,
    pub(crate) start: NonNull<u8>,
}

impl Reservation {
    /// Aligned to `align`, backed by small pages: a system that makes all it can
    /// huge would make 2 MiB resident for one byte.
    ///
    /// `memmap2` neither places a mapping nor unmaps part of one, so the space is
    /// over-reserved by `align`, of which no page is ever touched.
    pub(crate) fn new(bytes: usize, align: usize) -> Option<Self> {
        let mapping = Mapping::new(bytes.checked_add(align)?)?;
        let start = mapping.start();
        // SAFETY: a mapping of ours, in no use yet.
        unsafe { system::set_huge_pages(start, mapping.len(), false) };
        // SAFETY: the offset is below `align`, which the mapping has to spare.
        let start = NonNull::new(unsafe { start.add(start.align_offset(align)) })?;
        Some(Self { mapping, start })
    }

    /// Never unmapped from here on.
    pub(crate) fn keep(self) -> NonNull<u8> {
        mem::forget(self.mapping);
        self.start
    }
}

/// Reserves address space that is never unmapped.
pub(crate) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    Reservation::new(bytes, align).map(Reservation::keep)
}
