//! Segments: the aligned address space that slices are cut from, and the map
//! from an address to its segment.

use crate::base::fatal::abort_on_misuse;
use crate::base::size_class::{GEOMETRY, PAGE, RUN_MAX, SLICE};
use crate::heap::metadata;
use crate::heap::span::{Kind, Span};
use crate::platform::{self, Reservation};
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64};

/// Segments start on a granule and are a whole number of them.
const GRANULE: usize = RUN_MAX;
/// Bitmaps of the slices. Free ones that read as zero and cost nothing.
pub(crate) const FRESH: usize = 0;
/// Free ones that hold pages.
pub(crate) const RESIDENT: usize = 1;
/// A word to a group of 64 slices: not 0 if their headers may be resident.
pub(crate) const METADATA: usize = 2;
/// Those in a huge page that is whole.
pub(crate) const HUGE_PAGE: usize = 3;
const BITMAPS: usize = 4;
/// Address space asked for at once; less where the system grants less.
const LARGEST: usize = 1 << 30;

/// What an address of a segment is.
pub(crate) enum Place {
    /// In no span or run.
    Free,
    /// Where a block starts, free or not.
    Start,
    /// Inside a block, or behind the last one.
    Inside,
}

/// A stretch of reserved address space. Never unmapped, so always `'static`.
pub(crate) struct Segment {
    pub(crate) base: usize,
    pub(crate) slices: usize,
    spans: NonNull<Span>,
    next: AtomicPtr<Segment>,
    /// Which slices are free and how they are backed: [`BITMAPS`] arrays of
    /// [`Segment::words`] words each. But for [`HUGE_PAGE`] the page heap's lock guards them.
    bits: NonNull<AtomicU64>,
    /// The live map of the C API, if it has one yet (see `live.rs`).
    pub(crate) live: AtomicPtr<AtomicU8>,
}

// SAFETY: what the pointers lead to is atomic, or guards itself.
unsafe impl Sync for Segment {}

static FIRST: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

impl Segment {
    /// The header of slice `index`.
    #[inline]
    pub(crate) fn span(&self, index: usize) -> &'static Span {
        debug_assert!(index < self.slices);
        // SAFETY: `spans` is an array of `slices` zeroed spans, which is a
        // valid state, mapped forever.
        unsafe { &*self.spans.as_ptr().add(index) }
    }

    /// The slice that holds an address of this segment.
    #[inline]
    pub(crate) fn slice_of(&self, address: usize) -> usize {
        (address - self.base) / SLICE
    }

    #[inline]
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) / SLICE < self.slices
    }

    /// The segment of a block to be freed; aborts the process if there is none.
    #[inline(never)]
    pub(crate) fn of_freed(block: usize) -> &'static Segment {
        match Self::of(block) {
            Some(segment) => segment,
            None => abort_on_misuse("free of a block that was not allocated by Neap", block),
        }
    }

    /// Aborts the process: what was freed is no block in use of the size said.
    #[cold]
    pub(crate) fn abort_on_bad_free(&self, block: usize) -> ! {
        match self.place_of(block) {
            Place::Free => abort_on_misuse("double free", block),
            Place::Start => abort_on_misuse("free with a size that is not the block's", block),
            Place::Inside => abort_on_misuse("free of an address inside a block", block),
        }
    }

    /// What an address is; a search, for those who will abort.
    #[cold]
    pub(crate) fn place_of(&self, address: usize) -> Place {
        let slice = self.slice_of(address);
        let furthest = slice.saturating_sub(RUN_MAX / SLICE - 1);
        // Only the first slice of a span or run says what it is: the nearest that says something.
        let mut extents = (furthest..=slice).rev().map(|head| (head, self.span(head).extent()));
        let (head, kind) = match extents.find(|&(_, (kind, _))| kind != Kind::Nothing) {
            Some((head, (kind, slices))) if head + slices > slice => (head, kind),
            _ => return Place::Free,
        };
        let offset = address - (self.base + head * SLICE);
        let (size, blocks) = match kind {
            Kind::Class(class) => (GEOMETRY[class].size as usize, GEOMETRY[class].blocks as usize),
            _ => (RUN_MAX, 1),
        };
        if offset.is_multiple_of(size) && offset / size < blocks { Place::Start } else { Place::Inside }
    }

    /// Words of each of the page heap's bitmaps.
    pub(crate) fn words(&self) -> usize {
        self.slices.div_ceil(64)
    }

    /// A bitmap of the slices: [`FRESH`], [`RESIDENT`], [`METADATA`] or [`HUGE_PAGE`].
    pub(crate) fn bits(&self, which: usize) -> &'static [AtomicU64] {
        debug_assert!(which < BITMAPS);
        // SAFETY: so many arrays of `words` words each, mapped forever.
        unsafe { core::slice::from_raw_parts(self.bits.as_ptr().add(which * self.words()), self.words()) }
    }

    /// Returns the pages that the headers of a group of 64 free slices lie on;
    /// zeroed, they say as before that the slices are free.
    pub(crate) fn release_headers(&self, group: usize) {
        const BYTES: usize = 64 * size_of::<Span>();
        const { assert!(BYTES.is_multiple_of(PAGE)) };
        let start = self.spans.as_ptr().wrapping_add(group * 64).cast::<u8>();
        // SAFETY: whole pages; late looks of others at a span that is free
        // accept zeros. If the system refuses, the headers stay as they are.
        unsafe { platform::release(start, BYTES) };
    }

    pub(crate) fn next(&self) -> Option<&'static Segment> {
        // SAFETY: segments are published whole and never removed.
        unsafe { self.next.load(Acquire).as_ref() }
    }

    /// Every segment, newest first.
    pub(crate) fn all() -> impl Iterator<Item = &'static Segment> {
        core::iter::successors(Self::first(), |segment| segment.next())
    }

    pub(crate) fn first() -> Option<&'static Segment> {
        // SAFETY: as in `next`.
        unsafe { FIRST.load(Acquire).as_ref() }
    }

    /// Reserves a new segment and publishes it; with a live map, if that has any
    /// bytes for a slice. Under the page heap's lock, since two at once would be
    /// twice what is needed.
    pub(crate) fn create(live_bytes: usize) -> Option<&'static Segment> {
        let mut bytes = match platform::address_space_limit() {
            // Leave most of a limited address space to stacks and others.
            Some(limit) => (limit / 16).next_power_of_two().clamp(GRANULE, LARGEST),
            None => LARGEST,
        };
        loop {
            let segment = Self::create_of(bytes, live_bytes);
            // Not below a granule: the map and the bitmaps know whole ones.
            if segment.is_some() || bytes == GRANULE {
                return segment;
            }
            bytes = (bytes / 4).max(GRANULE);
        }
    }

    fn create_of(bytes: usize, live_bytes: usize) -> Option<&'static Segment> {
        let space = Reservation::new(bytes, GRANULE)?;
        let slices = bytes / SLICE;
        // What fails in here leaves nothing behind, since it may be tried often.
        let spans = Reservation::new(slices * size_of::<Span>(), PAGE)?;
        let bits = Reservation::new(BITMAPS * slices.div_ceil(64) * 8, 8)?;
        let live = if live_bytes == 0 { None } else { Some(Reservation::new(slices * live_bytes, PAGE)?) };
        let base = space.start.as_ptr() as usize;
        map::prepare(base, bytes)?;
        let segment = metadata::alloc(size_of::<Segment>())?.cast::<Segment>();
        space.keep();
        let (spans, bits) = (spans.keep().cast(), bits.keep().cast());
        let next = AtomicPtr::new(FIRST.load(Relaxed));
        let live = AtomicPtr::new(live.map_or(ptr::null_mut(), |map| map.keep().as_ptr().cast()));
        // SAFETY: the piece is ours and large enough.
        unsafe { segment.write(Segment { base, slices, spans, next, bits, live }) };
        // SAFETY: just written, never given back.
        let segment = unsafe { segment.as_ref() };
        map::insert(segment);
        FIRST.store(ptr::from_ref(segment).cast_mut(), Release);
        Some(segment)
    }

    /// The segment that `address` lies in, if any.
    #[inline]
    pub(crate) fn of(address: usize) -> Option<&'static Segment> {
        map::get(address)
    }
}

/// A two-level table by granule; 47 bits of address are 2^12 leaves of 2^13.
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
        // SAFETY: leaves and segments are published whole and never removed.
        unsafe {
            let leaf = LEAVES.get(granule >> LEAF_BITS)?.load(Acquire).as_ref()?;
            leaf[granule % (1 << LEAF_BITS)].load(Acquire).as_ref()
        }
    }

    fn granules(base: usize, bytes: usize) -> Range<usize> {
        base >> GRANULE_BITS..(base + bytes) >> GRANULE_BITS
    }

    /// Makes the leaves for a segment, under the page heap's lock; none without
    /// memory, or for an address beyond the table.
    pub(super) fn prepare(base: usize, bytes: usize) -> Option<()> {
        for granule in granules(base, bytes) {
            let place = LEAVES.get(granule >> LEAF_BITS)?;
            if place.load(Relaxed).is_null() {
                // Fresh from the system, so zeroed: null pointers throughout.
                let leaf = platform::reserve(size_of::<Leaf>(), align_of::<Leaf>())?;
                place.store(leaf.as_ptr().cast(), Release);
            }
        }
        Some(())
    }

    /// Enters a segment whose leaves were prepared.
    pub(super) fn insert(segment: &'static Segment) {
        for granule in granules(segment.base, segment.slices * SLICE) {
            // SAFETY: leaves are published whole and never removed.
            if let Some(leaf) = unsafe { LEAVES[granule >> LEAF_BITS].load(Relaxed).as_ref() } {
                leaf[granule % (1 << LEAF_BITS)].store(ptr::from_ref(segment).cast_mut(), Release);
            }
        }
    }
}
