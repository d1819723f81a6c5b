//! The live map: which blocks the C API has handed out, and of which class.
//!
//! C's `free` has no layout, so it must look the block up, and it should notice
//! a block that is not there to be freed. One byte for each 16 bytes of a
//! segment, in a mapping of its own, does both: the byte at a block's start is
//! its mark while the program has the block, and 0 everywhere else. The mark of a
//! pooled block is its class, which is never 0: those are blocks of 8 bytes. The
//! map of a slice is one page, which comes and goes with the slice's own pages.
//!
//! The first map is made when the C API's first block is marked, so programs
//! that are Rust throughout have none. From then on a segment is made with its
//! map or not at all (those that were there are covered when needed): else, where
//! address space is short, there would be memory that Rust can have and C cannot.

use crate::base::size_class::{CLASSES, PAGE, SLICE};
use crate::heap::segment::Segment;
use crate::platform;
use core::hint;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize};

/// Bytes for which there is one mark; every block of the C API is aligned so.
pub(crate) const GRAIN: usize = 16;
const MARKS_OF_SLICE: usize = SLICE / GRAIN;
const _: () = assert!(MARKS_OF_SLICE == PAGE);

/// The first segment with a map: most processes have no other, and its map is
/// found by a comparison.
#[repr(C)]
struct FirstSegment {
    base: AtomicUsize,
    /// How many marks the map has; 0 until the rest is set.
    marks: AtomicUsize,
    map: AtomicPtr<AtomicU8>,
    /// A word for each slice, by its number from address 0 on: the class of a
    /// block lately freed or measured there, less 1. So a zeroed word means class 1,
    /// and none can mean class 0, whose number marks a free block.
    hints: AtomicPtr<AtomicU32>,
    /// Not 0 once a second thread may free blocks.
    shared: AtomicUsize,
}

// By its distance from the code, as `thread_local/x86_64_linux.rs` has it: across
// crates the compiler would look the address of a static up in a table.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .bss.neap_first_segment,\"aw\",@nobits",
    ".p2align 6",
    ".globl neap_first_segment_0_1",
    ".hidden neap_first_segment_0_1",
    ".type neap_first_segment_0_1,@object",
    "neap_first_segment_0_1:",
    ".zero {size}",
    ".size neap_first_segment_0_1, {size}",
    ".popsection",
    size = const size_of::<FirstSegment>(),
);

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_segment() -> &'static FirstSegment {
    let first: *const FirstSegment;
    // SAFETY: computes an address.
    unsafe {
        core::arch::asm!(
            "lea {}, [rip + neap_first_segment_0_1]",
            out(reg) first,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: zeroed storage of that size, which is a valid state, all atomic.
    unsafe { &*first }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn first_segment() -> &'static FirstSegment {
    static FIRST: FirstSegment = FirstSegment {
        base: AtomicUsize::new(0),
        marks: AtomicUsize::new(0),
        map: AtomicPtr::new(ptr::null_mut()),
        hints: AtomicPtr::new(ptr::null_mut()),
        shared: AtomicUsize::new(0),
    };
    &FIRST
}

/// The index of an address in the first segment's map; none for an address
/// elsewhere, or one where no block can start.
#[inline(always)]
fn index_in_first(address: usize) -> Option<usize> {
    // Acquire pairs with the release in `cover`: who sees marks sees the rest.
    let marks = first_segment().marks.load(Acquire);
    // The rotation brings odd low bits up, beyond every index.
    let index = address.wrapping_sub(first_segment().base.load(Relaxed)).rotate_right(GRAIN.trailing_zeros());
    (index < marks).then_some(index)
}

/// The mark of an address in the first segment.
#[inline(always)]
pub(crate) fn mark_in_first(address: usize) -> Option<&'static AtomicU8> {
    let index = index_in_first(address)?;
    // SAFETY: an index of the map, which is mapped forever, and set by now.
    unsafe {
        let map = first_segment().map.load(Relaxed);
        hint::assert_unchecked(!map.is_null());
        Some(&*map.add(index))
    }
}

/// The mark of an address in the first segment, and the class that a block
/// lately freed or measured in its slice had.
///
/// Nearly always it is this block's. To take the class from the slice and only
/// check it against the mark, in a branch that the processor predicts, is faster
/// than to wait for the mark, which was often just written.
#[inline(always)]
pub(crate) fn guess_in_first(address: usize) -> Option<(&'static AtomicU8, usize)> {
    let index = index_in_first(address)?;
    // SAFETY: as in `mark_in_first`; there is a hint for each slice, below `CLASSES - 1`: it
    // is 0, or from `note_class`.
    unsafe {
        let (map, hints) = (first_segment().map.load(Relaxed), first_segment().hints.load(Relaxed));
        hint::assert_unchecked(!map.is_null());
        let class = (*hints.wrapping_add(address / SLICE)).load(Relaxed) as usize + 1;
        hint::assert_unchecked(class < CLASSES);
        Some((&*map.add(index), class))
    }
}

/// Whether a block is a live one of that class, which is not 0.
#[inline(always)]
pub(crate) fn is(mark: &AtomicU8, class: usize) -> bool {
    mark.load(Relaxed) == class as u8
}

/// Ends the life of a block if it is a live one of that class, for a thread
/// that has a heap.
///
/// While no other thread has, a load and a store do. Afterwards an exchange:
/// of two threads that free the same block at the same instant, one is told.
#[inline(always)]
pub(crate) fn end(mark: &AtomicU8, class: usize) -> bool {
    if first_segment().shared.load(Relaxed) != 0 {
        return mark.compare_exchange(class as u8, 0, Relaxed, Relaxed).is_ok();
    }
    let live = is(mark, class);
    if live {
        mark.store(0, Relaxed);
    }
    live
}

/// Before a second thread gets its heap, or frees a block without one.
pub(crate) fn share() {
    first_segment().shared.store(1, Relaxed);
}

/// The class of a block freed or measured in its slice, for [`guess_in_first`].
pub(crate) fn note_class(address: usize, class: usize) {
    // What is noted is believed, so this is not left to the callers.
    if (1..CLASSES).contains(&class) && index_in_first(address).is_some() {
        // SAFETY: as in `guess_in_first`.
        let hint = unsafe { &*first_segment().hints.load(Relaxed).wrapping_add(address / SLICE) };
        hint.store(class as u32 - 1, Relaxed);
    }
}

/// The mark of an address in any segment that has a map.
pub(crate) fn find(address: usize) -> Option<&'static AtomicU8> {
    mark_in_first(address).or_else(|| {
        let segment = Segment::of(address).filter(|_| address.is_multiple_of(GRAIN))?;
        let map = segment.live.load(Acquire);
        // SAFETY: as in `mark_in_first`.
        (!map.is_null()).then(|| unsafe { &*map.add((address - segment.base) / GRAIN) })
    })
}

/// The mark of a block; none without memory for its segment's map.
pub(crate) fn find_or_cover(block: usize) -> Option<&'static AtomicU8> {
    find(block).or_else(|| {
        cover(Segment::of(block)?)?;
        find(block)
    })
}

/// Bytes of the map for a slice of a new segment; 0 while the C API has no blocks.
pub(crate) fn bytes_of_slice() -> usize {
    if first_segment().map.load(Relaxed).is_null() { 0 } else { MARKS_OF_SLICE }
}

/// Makes the map of a segment that was there before the C API's first block.
#[cold]
fn cover(segment: &'static Segment) -> Option<()> {
    let marks = segment.slices * SLICE / GRAIN;
    let map = platform::Reservation::new(marks + segment.slices * size_of::<AtomicU32>(), PAGE)?;
    let fresh = map.start.as_ptr().cast::<AtomicU8>();
    // Of two threads that are here, one's map stays; the other's is unmapped.
    // Release: zeros are all there is to see, and they are the kernel's.
    if segment.live.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire).is_err() {
        return Some(());
    }
    map.keep();
    if first_segment().map.compare_exchange(ptr::null_mut(), fresh, AcqRel, Relaxed).is_ok() {
        first_segment().base.store(segment.base, Relaxed);
        let hints = fresh.wrapping_add(marks).cast::<AtomicU32>();
        first_segment().hints.store(hints.wrapping_sub(segment.base / SLICE), Relaxed);
        first_segment().marks.store(marks, Release);
    }
    Some(())
}

/// Returns the maps of slices that are free and have just been returned: no
/// block is live there, so they are all zeros, now and when touched again.
pub(crate) fn release(segment: &Segment, first: usize, slices: usize) {
    let map = segment.live.load(Acquire);
    if !map.is_null() {
        // SAFETY: whole pages of the map. If the system refuses they stay.
        unsafe { platform::release(map.cast::<u8>().add(first * PAGE), slices * PAGE) };
    }
}
