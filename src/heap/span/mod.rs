//! A span: slices cut into blocks of one class, and the bitmap that says which
//! blocks are free (1 is free).
//!
//! Refill takes whole words, so a thread gets neighbours; any thread gives
//! blocks back by setting bits, in any order, without owner, lock or message.
//! Whoever has cleared a bit owns the block. That is also how a tick returns
//! pages of a span in use: it takes the bits of all blocks on them, as an
//! allocation would, returns the pages, and sets the bits again.

mod alloc;
mod purge;

use crate::base::atomics::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::atomics::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
use crate::base::fatal::abort_on_misuse;
use crate::base::residency;
use crate::base::size_class::{BLOCKS_MAX, GEOMETRY, Geometry, PAGE, SLICE, SPAN_CLASSES};
use core::cell::UnsafeCell;
use core::ptr;

/// The largest bitmap.
pub(super) const BITMAP_WORDS: usize = BLOCKS_MAX / 64;
const _: () = {
    let mut class = 0;
    while class < SPAN_CLASSES {
        assert!(GEOMETRY[class].words as usize <= BITMAP_WORDS && GEOMETRY[class].pages() <= 64);
        class += 1;
    }
};

/// Instead of a thread cache's number.
pub(crate) const NO_CACHE: u16 = 0;

/// What starts on a slice. The later slices of a span or run are not marked: their headers
/// need not be touched, let alone be resident (see `Segment::place_of`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing: it is free, or a later slice of something.
    Nothing,
    /// A span or pooled run of this class.
    Class(usize),
    /// A run too large to be pooled.
    Large,
}

const LARGE: u8 = 255;

impl Kind {
    /// As the header holds it; 0 for what a zeroed header says.
    #[inline(always)]
    const fn code(self) -> u8 {
        match self {
            Kind::Nothing => 0,
            Kind::Large => LARGE,
            Kind::Class(class) => class as u8 + 1,
        }
    }
}

/// Who may take blocks from a span.
pub(super) mod state {
    /// Not a span, or in the middle of a change by whoever set this.
    pub(in crate::heap) const BUSY: u8 = 0;
    /// One thread refills from it.
    pub(in crate::heap) const ATTACHED: u8 = 1;
    /// On the list of its class, most likely with blocks to take.
    pub(in crate::heap) const LISTED: u8 = 2;
    /// On no list, since it had no free block; the next to give one lists it.
    pub(in crate::heap) const FULL: u8 = 3;
}

/// The header of one slice; that of a span's first slice are the span's.
#[repr(C, align(64))]
pub(crate) struct Span {
    kind: AtomicU8,
    pub(super) state: AtomicU8,
    /// The number of the thread cache that had it attached last; a hint.
    pub(super) last_cache: AtomicU16,
    /// How many words have every bit set: all of them, and the span is empty.
    full_words: AtomicU32,
    /// The block at which the next refill looks first; only whoever has it attached.
    cursor: AtomicU16,
    /// Bytes in use of a run, in pages.
    run_pages: AtomicU32,
    base: AtomicUsize,
    /// Pages that are not resident: never touched, or returned.
    released: AtomicU64,
    /// Pages with a block that the program took or gave back in this epoch, or
    /// which came with the span: more blocks are about to be taken.
    touched: AtomicU64,
    /// Links of the class's list, guarded by its lock.
    pub(super) links: UnsafeCell<Links>,
    bitmap: [AtomicU64; BITMAP_WORDS],
}

/// A place in a list of spans.
pub(super) struct Links {
    pub(super) next: *const Span,
    pub(super) previous: *const Span,
    pub(super) list: usize,
}

// SAFETY: everything is atomic but `links`, which the class's lock guards.
unsafe impl Sync for Span {}

impl Span {
    pub(super) fn kind(&self) -> Kind {
        match self.kind.load(Acquire) {
            0 => Kind::Nothing,
            LARGE => Kind::Large,
            class => Kind::Class(class as usize - 1),
        }
    }

    /// True for the span of a class; cheaper than [`Span::kind`].
    #[inline]
    pub(super) fn is_class(&self, class: usize) -> bool {
        self.kind.load(Acquire) == Kind::Class(class).code()
    }

    /// Who may take blocks from it; see [`state`].
    pub(super) fn state(&self) -> u8 {
        self.state.load(Relaxed)
    }

    /// The number of the thread cache that had it attached last; a hint.
    pub(super) fn last_cache(&self) -> u16 {
        self.last_cache.load(Relaxed)
    }

    pub(super) fn set_kind(&self, kind: Kind) {
        // Pairs with the acquire in `kind`: who sees the kind sees the rest.
        self.kind.store(kind.code(), Release);
    }

    /// What starts here, and how many slices it has.
    pub(super) fn extent(&self) -> (Kind, usize) {
        let kind = self.kind();
        let slices = match kind {
            Kind::Nothing => 0,
            Kind::Class(class) => GEOMETRY[class].slices as usize,
            Kind::Large => (self.run_pages() * PAGE).div_ceil(SLICE),
        };
        (kind, slices)
    }

    /// Frees a run's head in one step, so that only one of two frees gets it.
    pub(super) fn retire(&self, kind: Kind) -> bool {
        self.kind.compare_exchange(kind.code(), Kind::Nothing.code(), AcqRel, Relaxed).is_ok()
    }

    pub(super) fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    pub(super) fn run_pages(&self) -> usize {
        self.run_pages.load(Relaxed) as usize
    }

    pub(super) fn set_run_pages(&self, pages: usize) {
        self.run_pages.store(pages as u32, Relaxed);
    }

    /// A span that is free, as a fresh mapping holds it.
    #[cfg(loom)]
    #[allow(dead_code, reason = "the models make some")]
    pub(super) fn new() -> Self {
        Self {
            kind: AtomicU8::new(0),
            state: AtomicU8::new(state::BUSY),
            last_cache: AtomicU16::new(NO_CACHE),
            full_words: AtomicU32::new(0),
            cursor: AtomicU16::new(0),
            run_pages: AtomicU32::new(0),
            base: AtomicUsize::new(0),
            released: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            links: UnsafeCell::new(Links::none()),
            bitmap: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Makes the slice the head of a run.
    pub(super) fn start_run(&self, kind: Kind, base: usize, pages: usize) {
        self.base.store(base, Relaxed);
        self.set_run_pages(pages);
        self.set_kind(kind);
    }

    /// Makes the slice the head of a span with every block free, attached to
    /// the caller, who wants a `few` of them or all. `resident` has a bit for each
    /// page that may be resident.
    pub(super) fn start(&self, class: usize, base: usize, resident: u64, few: bool) {
        let geometry = &GEOMETRY[class];
        self.base.store(base, Relaxed);
        let first = if few { geometry.spread_start(base) } else { 0 };
        self.cursor.store(first as u16, Relaxed);
        self.released.store(!resident, Relaxed);
        self.touched.store(resident, Relaxed);
        self.full_words.store(geometry.words as u32, Relaxed);
        self.state.store(state::ATTACHED, Relaxed);
        // The kind before the bits: who holds a bit knows the class (see `claim_exactly`).
        self.set_kind(Kind::Class(class));
        for (word, bits) in self.words(geometry).iter().enumerate() {
            bits.store(geometry.block_bits(word), Release);
        }
    }

    fn words(&self, geometry: &Geometry) -> &[AtomicU64] {
        &self.bitmap[..geometry.words as usize]
    }

    /// Notes that the program took these blocks in this epoch, and that their
    /// pages will be resident.
    fn touch(&self, geometry: &Geometry, at: usize, blocks: u64) {
        let size = geometry.size as usize;
        let first = (at * 64 + blocks.trailing_zeros() as usize) * size;
        let last = (at * 64 + 64 - blocks.leading_zeros() as usize) * size - 1;
        let pages = bits_between(first / PAGE, last / PAGE);
        self.note_use(pages);
        if self.released.load(Relaxed) & pages != 0 {
            let new = self.released.fetch_and(!pages, Relaxed) & pages;
            residency::add(new.count_ones() as usize);
        }
    }

    /// Notes that the program took or gave blocks on these pages in this epoch.
    #[inline(always)]
    pub(super) fn note_use(&self, pages: u64) {
        // The load keeps the common case, already noted, free of a locked operation.
        if self.touched.load(Relaxed) & pages != pages {
            self.touched.fetch_or(pages, Relaxed);
        }
    }

    /// Sets the bits of blocks that come back; a bit already set is a double free.
    /// True if the word is full now. (A page with a block in use is resident.)
    #[inline]
    pub(super) fn free(&self, geometry: &Geometry, at: usize, blocks: u64, single_threaded: bool) -> bool {
        debug_assert!(at < geometry.words as usize);
        // The remainder spares the check of an index that is below.
        let word = &self.bitmap[at % BITMAP_WORDS];
        let before = if single_threaded {
            let before = word.load(Relaxed);
            word.store(before | blocks, Relaxed);
            before
        } else {
            // Adding sets the bits, in one instruction that also tells the old
            // ones, unless one was set already; then the process ends here.
            // Release hands the blocks' content on; acquire pairs with `set_full`,
            // since `central::after_free` loads the state next.
            word.fetch_add(blocks, AcqRel)
        };
        if before & blocks != 0 {
            self.abort_on_double_free(geometry, at, before & blocks);
        }
        let after = before | blocks;
        // A full word is ones from the lowest bit on; few others are.
        let filled = after & after.wrapping_add(1) == 0 && after == geometry.block_bits(at);
        if filled {
            self.add_full_word(single_threaded);
        }
        filled
    }

    #[inline]
    fn add_full_word(&self, single_threaded: bool) {
        if single_threaded {
            self.full_words.store(self.full_words.load(Relaxed) + 1, Relaxed);
        } else {
            self.full_words.fetch_add(1, Relaxed);
        }
    }

    /// Aborts the process: blocks came back that were free already.
    #[cold]
    pub(super) fn abort_on_double_free(&self, geometry: &Geometry, at: usize, twice: u64) -> ! {
        let block = at * 64 + twice.trailing_zeros() as usize;
        abort_on_misuse("double free", self.base() + block * geometry.size as usize);
    }

    /// Lets go of a span, attached or out of reach by its state, without listing it: the
    /// next block given back does that. The span is no longer the caller's: others may
    /// have listed, taken and freed it by then, and used it again.
    ///
    /// False if a block came meanwhile whose freer may not have seen that: then the
    /// caller lists the span, as if it had given the block.
    pub(super) fn set_full(&self, geometry: &Geometry) -> bool {
        self.state.swap(state::FULL, AcqRel);
        // A read-modify-write of each word: either it sees the bit of whoever
        // gives a block, or that one, whose operation on the word comes later,
        // acquires the state.
        self.words(geometry).iter().all(|word| word.fetch_add(0, AcqRel) == 0)
    }

    /// Every block may be free; a hint, settled by [`Span::claim_whole`].
    pub(super) fn seems_empty(&self, geometry: &Geometry) -> bool {
        self.full_words.load(Relaxed) >= geometry.words as u32
    }

    /// Any block free; a hint.
    pub(super) fn has_free(&self, geometry: &Geometry) -> bool {
        self.words(geometry).iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Free blocks at this moment; a hint.
    pub(super) fn free_blocks(&self, geometry: &Geometry) -> usize {
        self.words(geometry).iter().map(|word| count_of(word.load(Relaxed))).sum()
    }

    /// Takes every block, if every one is free. Only for a listed span, with its class's lock:
    /// no refill can take from it meanwhile.
    pub(super) fn claim_whole(&self, geometry: &Geometry) -> bool {
        let full = |word: usize| geometry.block_bits(word);
        for (at, word) in self.words(geometry).iter().enumerate() {
            if word.compare_exchange(full(at), 0, AcqRel, Relaxed).is_err() {
                for at in 0..at {
                    self.put_back(geometry, at, full(at));
                }
                return false;
            }
        }
        true
    }

    /// Sets bits again that were cleared for a moment; one that is set by now is a double free.
    fn put_back(&self, geometry: &Geometry, at: usize, blocks: u64) {
        let given = self.bitmap[at].fetch_or(blocks, Release);
        if given & blocks != 0 {
            self.abort_on_double_free(geometry, at, given & blocks);
        }
    }

    /// Aborts the process if a block was given since [`Span::claim_whole`]: all were free.
    pub(super) fn abort_if_freed_since(&self, geometry: &Geometry) {
        for (at, word) in self.words(geometry).iter().enumerate() {
            let given = word.load(Relaxed);
            if given != 0 {
                self.abort_on_double_free(geometry, at, given);
            }
        }
    }
}

/// How many bits of a word are set. Most words are all free or all taken, and counting takes
/// long where the processor's instruction for it may not be used.
#[inline]
fn count_of(bits: u64) -> usize {
    match bits {
        0 => 0,
        u64::MAX => 64,
        bits => bits.count_ones() as usize,
    }
}

/// The bits `low..=high`.
pub(super) fn bits_between(low: usize, high: usize) -> u64 {
    (2u64 << high).wrapping_sub(1 << low)
}

impl Links {
    /// Of a span on no list.
    pub(super) const fn none() -> Self {
        Self { next: ptr::null(), previous: ptr::null(), list: 0 }
    }
}
