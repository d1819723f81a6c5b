//! The live map: which blocks the C API has handed out, and of which class.
//!
//! C's `free` gets no layout, so it must look the block up, and it should notice a
//! block that is not in use. A live map does both. It has one byte for each 16 bytes
//! of a segment, in a mapping of its own. The byte at a block's start is its mark
//! while the program has the block; all other bytes are 0. The mark of a pooled block
//! is its class. That is never 0, since class 0, of 8-byte blocks, is not aligned
//! enough for C. The map of one slice is one page, which comes and goes with the
//! slice's own pages.
//!
//! The first map is made when the C API's first block is marked, so a pure Rust
//! program has none. From then on a new segment is made with its map or not at all,
//! and older segments get theirs when needed. Otherwise, where address space is
//! short, there could be memory that Rust can use and C cannot.

use crate::base::size_class::{CLASSES, PAGE, SLICE};
use crate::heap::segment::Segment;
use crate::platform;
use core::hint;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize};

/// Bytes for which there is one mark; every block of the C API is aligned to this.
pub(crate) const GRAIN: usize = 16;
const MARKS_OF_SLICE: usize = SLICE / GRAIN;
const _: () = assert!(MARKS_OF_SLICE == PAGE);

/// The first segment with a map. Most processes have no other, and finding a mark in
/// it takes one comparison.
#[repr(C)]
struct FirstSegment {
    base: AtomicUsize,
    /// How many marks the map has; 0 until the rest is set.
    marks: AtomicUsize,
    map: AtomicPtr<AtomicU8>,
    /// A word for each slice, indexed by its number from address 0: the class, less 1,
    /// of a block lately freed or measured there. So a zeroed word means class 1, and
    /// no word can mean class 0, which as a mark means a free block.
    hints: AtomicPtr<AtomicU32>,
    /// Not 0 once a second thread may free blocks.
    shared: AtomicUsize,
}

// Defined in assembly, as in `thread_local/x86_64_linux.rs`, to address it relative to
// the code: across crates the compiler would load a static's address from a table.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
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

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[inline(always)]
fn first_segment() -> &'static FirstSegment {
    let first: *const FirstSegment;
    // SAFETY: only computes an address.
    unsafe {
        core::arch::asm!(
            "lea {}, [rip + neap_first_segment_0_1]",
            out(reg) first,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: storage of that size, all atomic and valid when zeroed.
    unsafe { &*first }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
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

/// The index of an address in the first segment's map. None for an address elsewhere,
/// or where no block can start.
#[inline(always)]
fn index_in_first(address: usize) -> Option<usize> {
    // Acquire pairs with the release in `make_map`: a thread that sees `marks` sees the rest.
    let marks = first_segment().marks.load(Acquire);
    // The rotation moves stray low bits to the top, which makes the index too large.
    let index = address.wrapping_sub(first_segment().base.load(Relaxed)).rotate_right(GRAIN.trailing_zeros());
    (index < marks).then_some(index)
}

/// The mark of an address in the first segment.
#[inline(always)]
pub(crate) fn mark_in_first(address: usize) -> Option<&'static AtomicU8> {
    let index = index_in_first(address)?;
    // SAFETY: the index is within the map, which is set by now and mapped forever.
    unsafe {
        let map = first_segment().map.load(Relaxed);
        hint::assert_unchecked(!map.is_null());
        Some(&*map.add(index))
    }
}

/// The mark of an address in the first segment, and the class of a block lately
/// freed or measured in its slice.
///
/// That is nearly always this block's class. Taking the class from the slice and
/// only checking the mark, in a branch that the processor predicts, is faster than
/// waiting for the mark, which was often just written.
#[inline(always)]
pub(crate) fn guess_in_first(address: usize) -> Option<(&'static AtomicU8, usize)> {
    let index = index_in_first(address)?;
    // SAFETY: as in `mark_in_first`. There is a hint for each slice, and it is below
    // `CLASSES - 1`, since it is 0 or from `note_class`.
    unsafe {
        let (map, hints) = (first_segment().map.load(Relaxed), first_segment().hints.load(Relaxed));
        hint::assert_unchecked(!map.is_null());
        let class = (*hints.wrapping_add(address / SLICE)).load(Relaxed) as usize + 1;
        hint::assert_unchecked(class < CLASSES);
        Some((&*map.add(index), class))
    }
}

/// Whether the mark is that of a live block of the class, which is not 0.
///
/// Marks are Relaxed everywhere: they tell what a block is and publish nothing. The
/// program itself hands a block from one thread to another.
#[inline(always)]
pub(crate) fn is_live(mark: &AtomicU8, class: usize) -> bool {
    mark.load(Relaxed) == class as u8
}

/// Clears the mark of a live block of the class; false if it is not one. Only for a
/// thread that has a cache.
///
/// While no other thread has one, a load and a store will do. Afterwards it takes an
/// exchange: of two threads that free the same block at the same moment, one must fail.
#[inline(always)]
pub(crate) fn unmark(mark: &AtomicU8, class: usize) -> bool {
    if first_segment().shared.load(Relaxed) != 0 {
        return mark.compare_exchange(class as u8, 0, Relaxed, Relaxed).is_ok();
    }
    let live = is_live(mark, class);
    if live {
        mark.store(0, Relaxed);
    }
    live
}

/// Called before a second thread gets its cache, or frees a block without one.
///
/// Relaxed: the first thread may see it late, and then still clears marks without an
/// exchange. That can only miss a double free by two threads at the same moment.
pub(crate) fn set_shared() {
    first_segment().shared.store(1, Relaxed);
}

/// Notes the class of a block freed or measured, for [`guess_in_first`].
pub(crate) fn note_class(address: usize, class: usize) {
    // `guess_in_first` relies on this range, so it is checked here and not by callers.
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
        // Acquire pairs with the exchange in `make_map`.
        let map = segment.live_map.load(Acquire);
        // SAFETY: as in `mark_in_first`.
        (!map.is_null()).then(|| unsafe { &*map.add((address - segment.base) / GRAIN) })
    })
}

/// The mark of a block, in a new map if need be; none without memory for that.
pub(crate) fn find_or_make(block: usize) -> Option<&'static AtomicU8> {
    find(block).or_else(|| {
        make_map(Segment::of(block)?)?;
        find(block)
    })
}

/// Bytes of map for each slice of a new segment; 0 while the C API has no blocks.
pub(super) fn bytes_of_slice() -> usize {
    if first_segment().map.load(Relaxed).is_null() { 0 } else { MARKS_OF_SLICE }
}

/// Makes the map of a segment that is older than the C API's first block.
#[cold]
fn make_map(segment: &'static Segment) -> Option<()> {
    let marks = segment.slices * SLICE / GRAIN;
    let map = platform::Reservation::new(marks + segment.slices * size_of::<AtomicU32>(), PAGE)?;
    let fresh = map.start.as_ptr().cast::<AtomicU8>();
    // If two threads are here, one's map stays and the other's is unmapped. Release
    // pairs with the acquire in `find`, though there are only the kernel's zeros to see.
    if segment.live_map.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire).is_err() {
        return Some(());
    }
    map.keep();
    if first_segment().map.compare_exchange(ptr::null_mut(), fresh, AcqRel, Relaxed).is_ok() {
        first_segment().base.store(segment.base, Relaxed);
        let hints = fresh.wrapping_add(marks).cast::<AtomicU32>();
        first_segment().hints.store(hints.wrapping_sub(segment.base / SLICE), Relaxed);
        // Release pairs with the acquire in `index_in_first`.
        first_segment().marks.store(marks, Release);
    }
    Some(())
}

/// Returns the map pages of free slices whose own pages were just returned. No block
/// is live there, so the map is all zeros, now and when touched again.
pub(super) fn release(segment: &Segment, first: usize, slices: usize) {
    let map = segment.live_map.load(Acquire);
    if !map.is_null() {
        // SAFETY: whole pages of the map, all zeros. If the system refuses they stay.
        unsafe { platform::release(map.cast::<u8>().add(first * PAGE), slices * PAGE) };
    }
}
