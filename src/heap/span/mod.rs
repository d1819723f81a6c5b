//! A span: slices cut into blocks of one class, and the bitmap that says which
//! blocks are free (1 is free).
//!
//! A refill takes whole words, so a thread gets neighbours. Any thread frees blocks
//! by setting bits, in any order, without owner, lock or message. The thread that
//! cleared a bit owns the block. That is also how a tick returns pages of a span in
//! use: it claims all blocks on them, as an allocation would, returns the pages, and
//! sets the bits again.

mod alloc;
mod purge;

use crate::base::atomics::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::base::atomics::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
use crate::base::fatal::abort_on_misuse;
use crate::base::residency;
use crate::base::size_class::{BLOCKS_MAX, GEOMETRY, Geometry, PAGE, SLICE, SPAN_CLASSES};
use core::cell::UnsafeCell;
use core::ptr;

/// Words of the largest bitmap.
pub(super) const BITMAP_WORDS: usize = BLOCKS_MAX / 64;
const _: () = {
    let mut class = 0;
    while class < SPAN_CLASSES {
        assert!(GEOMETRY[class].words as usize <= BITMAP_WORDS && GEOMETRY[class].pages() <= 64);
        class += 1;
    }
};

/// Stands for no thread cache, whose numbers begin at 1.
pub(crate) const NO_CACHE: u16 = 0;

/// What starts on a slice. The later slices of a span or run are not marked, so that their
/// headers need not be resident (see `lookup::place_of`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing: the slice is free, or a later slice of a span or run.
    Nothing,
    /// A span or pooled run of this class.
    Class(usize),
    /// A run too large to be pooled.
    Large,
}

const LARGE: u8 = 255;

impl Kind {
    /// The kind as the header holds it: a zeroed header means `Nothing`.
    #[inline(always)]
    const fn code(self) -> u8 {
        match self {
            Kind::Nothing => 0,
            Kind::Large => LARGE,
            Kind::Class(class) => class as u8 + 1,
        }
    }
}

/// Who may allocate from a span.
pub(super) mod state {
    /// Nobody: no span, or a thread is in the middle of changing it.
    pub(in crate::heap) const BUSY: u8 = 0;
    /// One thread, which refills from it.
    pub(in crate::heap) const ATTACHED: u8 = 1;
    /// Nobody yet: it is on a list of its class, most likely with free blocks.
    pub(in crate::heap) const LISTED: u8 = 2;
    /// Nobody: it had no free block, so it is on no list; the next free lists it.
    pub(in crate::heap) const FULL: u8 = 3;
}

/// The header of one slice; that of a span's first slice is the span's.
#[repr(C, align(64))]
pub(crate) struct Span {
    kind: AtomicU8,
    pub(super) state: AtomicU8,
    /// The number of the thread cache that had it attached last; a hint.
    pub(super) last_cache: AtomicU16,
    /// How many words have every block free; if all words do, the span is empty.
    free_words: AtomicU32,
    /// The block at which the next refill begins; only for the thread it is attached to.
    cursor: AtomicU16,
    /// Pages in use of a run.
    run_pages: AtomicU32,
    base: AtomicUsize,
    /// Pages that are not resident: never touched, or returned.
    released: AtomicU64,
    /// Pages with a block that the program allocated or freed in this epoch. Also pages
    /// that came with the span, since more blocks are about to be allocated.
    touched: AtomicU64,
    /// Links of the class's list, guarded by the class's lock.
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

// Orderings: `kind` is stored with Release and loaded with Acquire, so that a thread that
// sees the kind sees the rest. Counts, `cursor`, `released` and `touched` are Relaxed: they
// are hints, or guarded by a claimed block or by being attached.
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

    /// Who may allocate from it; see [`state`]. A hint.
    pub(super) fn state(&self) -> u8 {
        self.state.load(Relaxed)
    }

    /// The number of the thread cache that had it attached last; a hint.
    pub(super) fn last_cache(&self) -> u16 {
        self.last_cache.load(Relaxed)
    }

    pub(super) fn set_kind(&self, kind: Kind) {
        // Release pairs with the acquire in `kind`.
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

    /// Makes a run's header free in one step, so that only one of two frees succeeds.
    pub(super) fn free_run(&self, kind: Kind) -> bool {
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
            free_words: AtomicU32::new(0),
            cursor: AtomicU16::new(0),
            run_pages: AtomicU32::new(0),
            base: AtomicUsize::new(0),
            released: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            links: UnsafeCell::new(Links::none()),
            bitmap: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Makes this the header of a run.
    pub(super) fn start_run(&self, kind: Kind, base: usize, pages: usize) {
        self.base.store(base, Relaxed);
        self.set_run_pages(pages);
        self.set_kind(kind);
    }

    /// Makes this the header of a span with every block free, attached to the caller,
    /// who wants a `few` of them or many. `resident` has a bit for each page that may
    /// be resident.
    pub(super) fn start(&self, class: usize, base: usize, resident: u64, few: bool) {
        let geometry = &GEOMETRY[class];
        self.base.store(base, Relaxed);
        let first = if few { geometry.spread_start(base) } else { 0 };
        self.cursor.store(first as u16, Relaxed);
        self.released.store(!resident, Relaxed);
        self.touched.store(resident, Relaxed);
        self.free_words.store(geometry.words as u32, Relaxed);
        self.state.store(state::ATTACHED, Relaxed);
        // The kind before the bits: a thread that claims a bit, with acquire, knows the
        // class (see `claim_exactly`).
        self.set_kind(Kind::Class(class));
        for (word, bits) in self.words(geometry).iter().enumerate() {
            bits.store(geometry.block_bits(word), Release);
        }
    }

    fn words(&self, geometry: &Geometry) -> &[AtomicU64] {
        &self.bitmap[..geometry.words as usize]
    }

    /// Notes that the program allocated these blocks in this epoch, and that their pages
    /// will be resident.
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

    /// Notes that the program allocated or freed blocks on these pages in this epoch.
    #[inline(always)]
    pub(super) fn note_use(&self, pages: u64) {
        // The load spares the common case, already noted, a locked instruction.
        if self.touched.load(Relaxed) & pages != pages {
            self.touched.fetch_or(pages, Relaxed);
        }
    }

    /// Sets the bits of freed blocks; aborts the process if one was set already. True if
    /// all blocks of the word are free now. (Their pages are resident already, so
    /// `released` does not change.)
    #[inline]
    pub(super) fn free(&self, geometry: &Geometry, at: usize, blocks: u64, single_threaded: bool) -> bool {
        debug_assert!(at < geometry.words as usize);
        // The remainder spares a bounds check: the index is below it.
        let word = &self.bitmap[at % BITMAP_WORDS];
        let before = if single_threaded {
            let before = word.load(Relaxed);
            word.store(before | blocks, Relaxed);
            before
        } else {
            // Adding sets the bits in one instruction that also returns the old ones. That
            // is wrong if one was set already, but then the process aborts here. Release
            // pairs with the acquire in `alloc_word` and hands the blocks' content on.
            // Acquire pairs with `set_full`: `central::after_free` loads the state next.
            word.fetch_add(blocks, AcqRel)
        };
        if before & blocks != 0 {
            self.abort_on_double_free(geometry, at, before & blocks);
        }
        let after = before | blocks;
        // If all are free it is ones from the lowest bit on, which is quick to check.
        let word_is_free = after & after.wrapping_add(1) == 0 && after == geometry.block_bits(at);
        if word_is_free {
            self.add_free_word(single_threaded);
        }
        word_is_free
    }

    #[inline]
    fn add_free_word(&self, single_threaded: bool) {
        if single_threaded {
            self.free_words.store(self.free_words.load(Relaxed) + 1, Relaxed);
        } else {
            self.free_words.fetch_add(1, Relaxed);
        }
    }

    /// Aborts the process: blocks were freed that were free already.
    #[cold]
    pub(super) fn abort_on_double_free(&self, geometry: &Geometry, at: usize, twice: u64) -> ! {
        let block = at * 64 + twice.trailing_zeros() as usize;
        abort_on_misuse("double free", self.base() + block * geometry.size as usize);
    }

    /// Gives up a span that is attached or `BUSY`, without listing it: the next free does
    /// that. The span is then no longer the caller's. Others may already have listed,
    /// attached and freed it, and used it again.
    ///
    /// False if a block was freed meanwhile by a thread that may not have seen the state.
    /// Then the caller lists the span, as if it had freed the block.
    pub(super) fn set_full(&self, geometry: &Geometry) -> bool {
        self.state.swap(state::FULL, AcqRel);
        // A read-modify-write of each word. Either it sees the bit of a thread that frees
        // a block, or that thread's operation on the word comes later, acquires this one,
        // and so sees the state.
        self.words(geometry).iter().all(|word| word.fetch_add(0, AcqRel) == 0)
    }

    /// Whether every block may be free: a hint, which [`Span::claim_all`] checks.
    pub(super) fn seems_empty(&self, geometry: &Geometry) -> bool {
        self.free_words.load(Relaxed) >= geometry.words as u32
    }

    /// Whether any block is free: a hint.
    pub(super) fn has_free(&self, geometry: &Geometry) -> bool {
        self.words(geometry).iter().any(|word| word.load(Relaxed) != 0)
    }

    /// How many blocks are free: a hint.
    pub(super) fn free_blocks(&self, geometry: &Geometry) -> usize {
        self.words(geometry).iter().map(|word| count_of(word.load(Relaxed))).sum()
    }

    /// Claims every block, if every one is free. Only for a listed span, under its class's
    /// lock, so that no refill allocates from it meanwhile.
    pub(super) fn claim_all(&self, geometry: &Geometry) -> bool {
        let all = |word: usize| geometry.block_bits(word);
        for (at, word) in self.words(geometry).iter().enumerate() {
            // AcqRel: acquires the content of the blocks that other threads freed.
            if word.compare_exchange(all(at), 0, AcqRel, Relaxed).is_err() {
                for at in 0..at {
                    self.put_back(geometry, at, all(at));
                }
                return false;
            }
        }
        true
    }

    /// Sets bits again that were claimed for a moment; one that is set by now is a double free.
    fn put_back(&self, geometry: &Geometry, at: usize, blocks: u64) {
        // Release: hands the blocks on as they were acquired by the claim.
        let freed = self.bitmap[at].fetch_or(blocks, Release);
        if freed & blocks != 0 {
            self.abort_on_double_free(geometry, at, freed & blocks);
        }
    }

    /// Aborts the process if a block was freed since [`Span::claim_all`]: all were free.
    pub(super) fn abort_if_freed_since(&self, geometry: &Geometry) {
        for (at, word) in self.words(geometry).iter().enumerate() {
            let freed = word.load(Relaxed);
            if freed != 0 {
                self.abort_on_double_free(geometry, at, freed);
            }
        }
    }
}

/// How many bits of a word are set. Most words are all free or all in use, and counting is
/// slow where the processor's instruction for it may not be used.
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
    /// The links of a span on no list.
    pub(super) const fn none() -> Self {
        Self { next: ptr::null(), previous: ptr::null(), list: 0 }
    }
}
