//! Address space from the system, through `memmap2`.

use super::system;
use super::unix::keeping_errno;
use core::mem::{self, ManuallyDrop};
use core::ptr::NonNull;
use memmap2::{MmapMut, MmapOptions};

/// Zeroed memory that is charged only as it is touched, and unmapped when dropped.
pub(crate) struct Mapping(ManuallyDrop<MmapMut>);

impl Mapping {
    /// Maps whole pages; none without address space.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let mapping = keeping_errno(|| MmapOptions::new().len(bytes).no_reserve_swap().map_anon());
        mapping.ok().map(ManuallyDrop::new).map(Self)
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Changes the length. If the mapping may move, the system moves its pages
    /// instead of copying. False if the system cannot; then nothing has changed.
    ///
    /// # Safety
    /// Nobody uses what is cut off, nor an old address if the mapping may move.
    pub(crate) unsafe fn resize(&mut self, bytes: usize, may_move: bool) -> bool {
        // SAFETY: the same contract.
        keeping_errno(|| unsafe { system::remap(&mut self.0, bytes, may_move) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else.
        keeping_errno(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

/// Address space that is unmapped again unless it is kept: one of several parts
/// that are useful only together.
pub(crate) struct Reservation {
    mapping: Mapping,
    pub(crate) start: NonNull<u8>,
}

impl Reservation {
    /// Aligned to `align` and backed by small pages: with huge pages everywhere,
    /// one byte would make 2 MiB resident.
    ///
    /// `memmap2` neither places a mapping nor unmaps part of one, so this reserves
    /// `align` bytes too many and never touches them.
    pub(crate) fn new(bytes: usize, align: usize) -> Option<Self> {
        let mapping = Mapping::new(bytes.checked_add(align)?)?;
        let start = mapping.start();
        // SAFETY: a mapping of ours that nobody uses yet.
        unsafe { system::set_huge_pages(start, mapping.len(), false) };
        // SAFETY: the offset is below `align`, and the mapping is larger by that.
        let start = NonNull::new(unsafe { start.add(start.align_offset(align)) })?;
        Some(Self { mapping, start })
    }

    /// Keeps the address space forever.
    pub(crate) fn keep(self) -> NonNull<u8> {
        mem::forget(self.mapping);
        self.start
    }
}

/// Reserves address space that is never unmapped.
pub(crate) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    Reservation::new(bytes, align).map(Reservation::keep)
}
