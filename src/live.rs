//! The live map: which blocks the C family has handed out, and of which class.
//!
//! C's `free` has no layout, so it must look the block up, and it should notice
//! a block that is not there to be freed. One byte for each 16 bytes of a
//! segment, in a mapping of its own, does both: the byte at a block's start is
//! its mark while the program has the block, and 0 everywhere else. The map of
//! a slice is one page, which comes and goes with the slice's own pages.
//!
//! A segment gets its map when the C family's first block in it is marked, so
//! programs that are Rust throughout have none.

use crate::os;
use crate::segment::Segment;
use crate::size_class::{PAGE, SLICE};
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize};

/// Bytes for which there is one mark; every block of the C family is aligned so.
pub(crate) const GRAIN: usize = 16;
const _: () = assert!(SLICE / GRAIN == PAGE);

/// The first segment with a map: most processes have no other, and its map is
/// found by a comparison.
static HOME: Home = Home {
    base: AtomicUsize::new(0),
    marks: AtomicUsize::new(0),
    map: AtomicPtr::new(ptr::null_mut()),
};

struct Home {
    base: AtomicUsize,
    /// How many marks the map has; 0 until the rest is set.
    marks: AtomicUsize,
    map: AtomicPtr<AtomicU8>,
}

/// The mark of an address in the first segment; none for an address elsewhere,
/// or one where no block can start.
#[inline(always)]
pub(crate) fn at_home(address: usize) -> Option<&'static AtomicU8> {
    // Acquire pairs with the release in `cover`: who sees marks sees the rest.
    let marks = HOME.marks.load(Acquire);
    // The rotation brings odd low bits up, beyond every index.
    let index = address.wrapping_sub(HOME.base.load(Relaxed)).rotate_right(GRAIN.trailing_zeros());
    // SAFETY: an index of the map, which is mapped for ever.
    (index < marks).then(|| unsafe { &*HOME.map.load(Relaxed).add(index) })
}

/// The mark of an address in any segment that has a map.
pub(crate) fn find(address: usize) -> Option<&'static AtomicU8> {
    at_home(address).or_else(|| {
        let segment = Segment::of(address).filter(|_| address.is_multiple_of(GRAIN))?;
        let map = segment.live.load(Acquire);
        // SAFETY: as in `at_home`.
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

#[cold]
fn cover(segment: &'static Segment) -> Option<()> {
    let marks = segment.slices * SLICE / GRAIN;
    let map = os::map(marks)?;
    let fresh = map.as_ptr().cast_mut().cast::<AtomicU8>();
    // Of two threads that are here, one's map stays; the other's is unmapped.
    // Release: zeros are all there is to see, and they are the kernel's.
    if segment.live.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire).is_err() {
        return Some(());
    }
    core::mem::forget(map);
    if HOME.map.compare_exchange(ptr::null_mut(), fresh, AcqRel, Relaxed).is_ok() {
        HOME.base.store(segment.base, Relaxed);
        HOME.marks.store(marks, Release);
    }
    Some(())
}

/// Returns the maps of slices that are free and have just been returned: no
/// block is live there, so they are all zeros, now and when touched again.
pub(crate) fn release(segment: &Segment, first: usize, slices: usize) {
    let map = segment.live.load(Acquire);
    if !map.is_null() {
        // SAFETY: whole pages of the map. If the system refuses they stay.
        unsafe { os::release(map.cast::<u8>().add(first * PAGE), slices * PAGE) };
    }
}
