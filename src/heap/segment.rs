//! Segments: the aligned address space that slices are cut from, and the table that
//! finds an address's segment.

use crate::base::size_class::{PAGE, RUN_MAX, SLICE};
use crate::heap::metadata;
use crate::heap::span::Span;
use crate::platform::{self, Reservation};
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64};

/// Segments start on a granule and are a whole number of granules.
const GRANULE: usize = RUN_MAX;
/// The bitmap of the free slices that read as zero and have no pages.
pub(super) const FRESH: usize = 0;
/// The bitmap of the free slices that hold pages.
pub(super) const RESIDENT: usize = 1;
/// One word for each group of 64 slices: not 0 if their headers may be resident.
pub(super) const HEADERS: usize = 2;
/// The bitmap of the slices that lie in a huge page, while that is whole.
pub(super) const HUGE_PAGE: usize = 3;
const BITMAPS: usize = 4;
/// Address space reserved at once; less where the system grants less.
const LARGEST_SEGMENT: usize = 1 << 30;

/// A range of reserved address space. Never unmapped, so always `'static`.
pub(crate) struct Segment {
    pub(super) base: usize,
    pub(super) slices: usize,
    spans: NonNull<Span>,
    next: AtomicPtr<Segment>,
    /// Which slices are free and how they are backed: [`BITMAPS`] arrays of
    /// [`Segment::words`] words each. The page heap's lock guards all but [`HUGE_PAGE`].
    bits: NonNull<AtomicU64>,
    /// The live map of the C API, if it has one yet (see `live_map.rs`).
    pub(super) live_map: AtomicPtr<AtomicU8>,
}

// SAFETY: what the pointers lead to is atomic, or a `Span`, which is `Sync`.
unsafe impl Sync for Segment {}

static FIRST: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

impl Segment {
    /// The header of slice `index`.
    #[inline]
    pub(super) fn span(&self, index: usize) -> &'static Span {
        debug_assert!(index < self.slices);
        // SAFETY: `spans` is an array of `slices` headers, mapped forever; zeroed
        // ones are valid.
        unsafe { &*self.spans.as_ptr().add(index) }
    }

    /// The slice that holds an address of this segment.
    #[inline]
    pub(super) fn slice_of(&self, address: usize) -> usize {
        (address - self.base) / SLICE
    }

    #[inline]
    pub(super) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) / SLICE < self.slices
    }

    /// Words of each of the page heap's bitmaps.
    pub(crate) fn words(&self) -> usize {
        self.slices.div_ceil(64)
    }

    /// One of [`FRESH`], [`RESIDENT`], [`HEADERS`] and [`HUGE_PAGE`].
    pub(super) fn bits(&self, which: usize) -> &'static [AtomicU64] {
        debug_assert!(which < BITMAPS);
        // SAFETY: `BITMAPS` arrays of `words` words each, mapped forever.
        unsafe { core::slice::from_raw_parts(self.bits.as_ptr().add(which * self.words()), self.words()) }
    }

    /// Returns the pages of the headers of a group of 64 free slices. Zeroed headers
    /// still say that the slices are free.
    pub(super) fn release_headers(&self, group: usize) {
        const BYTES: usize = 64 * size_of::<Span>();
        const { assert!(BYTES.is_multiple_of(PAGE)) };
        let start = self.spans.as_ptr().wrapping_add(group * 64).cast::<u8>();
        // SAFETY: whole pages of ours; a thread that reads a free slice's header late
        // accepts zeros. If the system refuses, the headers stay as they are.
        unsafe { platform::release(start, BYTES) };
    }

    pub(crate) fn next(&self) -> Option<&'static Segment> {
        // SAFETY: segments are published complete and never removed.
        // Acquire is not needed for older segments, but costs nothing.
        unsafe { self.next.load(Acquire).as_ref() }
    }

    /// Every segment, newest first.
    pub(super) fn all() -> impl Iterator<Item = &'static Segment> {
        core::iter::successors(Self::first(), |segment| segment.next())
    }

    pub(crate) fn first() -> Option<&'static Segment> {
        // Acquire pairs with the release in `create_with`.
        // SAFETY: as in `next`.
        unsafe { FIRST.load(Acquire).as_ref() }
    }

    /// Reserves a new segment and publishes it, with a live map of `live_bytes` for
    /// each slice unless that is 0. Called under the page heap's lock, so that two
    /// threads do not reserve one each.
    pub(super) fn create(live_bytes: usize) -> Option<&'static Segment> {
        let mut bytes = match platform::address_space_limit() {
            // Leaves most of a limited address space to stacks and others.
            Some(limit) => (limit / 16).next_power_of_two().clamp(GRANULE, LARGEST_SEGMENT),
            None => LARGEST_SEGMENT,
        };
        loop {
            let segment = Self::create_with(bytes, live_bytes);
            // Not below a granule: the table and the bitmaps hold whole granules.
            if segment.is_some() || bytes == GRANULE {
                return segment;
            }
            bytes = (bytes / 4).max(GRANULE);
        }
    }

    fn create_with(bytes: usize, live_bytes: usize) -> Option<&'static Segment> {
        let space = Reservation::new(bytes, GRANULE)?;
        let slices = bytes / SLICE;
        // A failure in here leaks no address space, since it may be tried often.
        let spans = Reservation::new(slices * size_of::<Span>(), PAGE)?;
        let bits = Reservation::new(BITMAPS * slices.div_ceil(64) * 8, 8)?;
        let live_map =
            if live_bytes == 0 { None } else { Some(Reservation::new(slices * live_bytes, PAGE)?) };
        let base = space.start.as_ptr() as usize;
        map::prepare(base, bytes)?;
        let segment = metadata::alloc(size_of::<Segment>())?.cast::<Segment>();
        space.keep();
        let (spans, bits) = (spans.keep().cast(), bits.keep().cast());
        let next = AtomicPtr::new(FIRST.load(Relaxed));
        let live_map = AtomicPtr::new(live_map.map_or(ptr::null_mut(), |map| map.keep().as_ptr().cast()));
        // SAFETY: the piece is ours and large enough.
        unsafe { segment.write(Segment { base, slices, spans, next, bits, live_map }) };
        // SAFETY: just written, never freed.
        let segment = unsafe { segment.as_ref() };
        map::insert(segment);
        // Release pairs with the acquire in `first`.
        FIRST.store(ptr::from_ref(segment).cast_mut(), Release);
        Some(segment)
    }

    /// The segment that `address` lies in, if any.
    #[inline]
    pub(crate) fn of(address: usize) -> Option<&'static Segment> {
        map::get(address)
    }
}

/// A two-level table by granule, with leaves of 2^13 entries: 2^12 leaves for 47 bits of address.
mod map {
    use super::*;
    use crate::platform::ADDRESS_BITS;
    use core::ops::Range;

    const GRANULE_BITS: u32 = GRANULE.trailing_zeros();
    const LEAF_BITS: u32 = 13;
    const ROOT: usize = 1 << (ADDRESS_BITS - GRANULE_BITS - LEAF_BITS);

    type Leaf = [AtomicPtr<Segment>; 1 << LEAF_BITS];

    static LEAVES: [AtomicPtr<Leaf>; ROOT] = [const { AtomicPtr::new(ptr::null_mut()) }; ROOT];

    #[inline]
    pub(super) fn get(address: usize) -> Option<&'static Segment> {
        let granule = address >> GRANULE_BITS;
        // Acquire pairs with the releases in `prepare` and `insert`.
        // SAFETY: leaves and segments are published complete and never removed.
        unsafe {
            let leaf = LEAVES.get(granule >> LEAF_BITS)?.load(Acquire).as_ref()?;
            leaf[granule % (1 << LEAF_BITS)].load(Acquire).as_ref()
        }
    }

    fn granules(base: usize, bytes: usize) -> Range<usize> {
        base >> GRANULE_BITS..(base + bytes) >> GRANULE_BITS
    }

    /// Makes the leaves for a segment, under the page heap's lock. None without
    /// memory, or if the address is beyond the table.
    pub(super) fn prepare(base: usize, bytes: usize) -> Option<()> {
        for granule in granules(base, bytes) {
            let place = LEAVES.get(granule >> LEAF_BITS)?;
            if place.load(Relaxed).is_null() {
                // Fresh from the system, so all null pointers.
                let leaf = platform::reserve(size_of::<Leaf>(), align_of::<Leaf>())?;
                place.store(leaf.as_ptr().cast(), Release);
            }
        }
        Some(())
    }

    /// Enters a segment whose leaves were prepared.
    pub(super) fn insert(segment: &'static Segment) {
        for granule in granules(segment.base, segment.slices * SLICE) {
            // SAFETY: leaves are published complete and never removed.
            if let Some(leaf) = unsafe { LEAVES[granule >> LEAF_BITS].load(Relaxed).as_ref() } {
                leaf[granule % (1 << LEAF_BITS)].store(ptr::from_ref(segment).cast_mut(), Release);
            }
        }
    }
}
