//! For each class, the spans that have free blocks and are attached to no thread.
//!
//! They are listed by fullness, and the fullest are used first. So sparse spans are
//! left to become empty, and then their pages can be returned.

use crate::base::residency;
use crate::base::size_class::{GEOMETRY, PAGES_PER_SLICE, SPAN_CLASSES};
use crate::heap::page_heap::{self, Run};
use crate::heap::segment::Segment;
use crate::heap::span::{Kind, Links, NO_CACHE, Span, state};
use crate::platform::Lock;
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Lists of each class: by how many quarters of a span were free when it was listed.
const LISTS: usize = 4;

/// How many listed spans are searched for one that the thread cache had before.
const CANDIDATES: usize = 8;

#[repr(align(128))]
struct Central(Lock<Lists>);

struct Lists {
    heads: [*const Span; LISTS],
    spans: usize,
}

// SAFETY: the pointers are to spans, which are shared and live forever.
unsafe impl Send for Lists {}

static CLASSES: [Central; SPAN_CLASSES] =
    [const { Central(Lock::new(Lists { heads: [ptr::null(); LISTS], spans: 0 })) }; SPAN_CLASSES];

/// A bit for each class that had a span attached in this epoch. Relaxed: a hint.
static IN_DEMAND: AtomicU64 = AtomicU64::new(0);
const _: () = assert!(SPAN_CLASSES <= 64);

/// Ends the epoch and returns which classes were in demand. A tick detaches every
/// span, so a thread that allocates has attached one since the last tick.
pub(super) fn end_demand() -> u64 {
    IN_DEMAND.swap(0, Relaxed)
}

/// Which classes were in demand in this epoch so far.
pub(super) fn demand() -> u64 {
    IN_DEMAND.load(Relaxed)
}

/// A span with free blocks, attached to the caller: a listed one if there is any, and
/// of the fullest if possible one that the thread cache had before. Otherwise a new
/// one, from which a `few` blocks are wanted, or many. None without memory.
pub(crate) fn attach(class: usize, cache: u16, few: bool) -> Option<&'static Span> {
    if demand() >> class & 1 == 0 {
        IN_DEMAND.fetch_or(1 << class, Relaxed);
    }
    if let Some(span) = CLASSES[class].0.lock().pop(cache) {
        if cache != NO_CACHE {
            span.last_cache.store(cache, Relaxed);
        }
        return Some(span);
    }
    let slices = GEOMETRY[class].slices as usize;
    let (run, resident) = page_heap::alloc(slices, slices, true)?;
    let span = run.segment.span(run.first);
    span.last_cache.store(cache, Relaxed);
    span.start(class, run.start(), pages_of_slices(resident), few);
    Some(span)
}

/// Detaches a span: it is listed, left off the lists if it is full, or freed.
pub(crate) fn detach(class: usize, span: &'static Span) {
    if !span.has_free(&GEOMETRY[class]) {
        return leave_full(class, span);
    }
    {
        let mut lists = CLASSES[class].0.lock();
        span.state.store(state::LISTED, Release);
        lists.push(class, span);
    }
    // As if its free blocks had just been freed.
    after_free(class, span, true);
}

/// Leaves a full span off the lists, or lists it if a block was freed meanwhile.
fn leave_full(class: usize, span: &'static Span) {
    if !span.set_full(&GEOMETRY[class]) {
        after_free(class, span, true);
    }
}

/// To be called after blocks of a span were freed. Lists the span if it was full, and
/// frees it if it may be empty; it can only be if all blocks of a word are free now.
#[inline]
pub(super) fn after_free(class: usize, span: &'static Span, word_is_free: bool) {
    // Comes after the acquire in `Span::free`, which pairs with `Span::set_full`.
    match span.state.load(Acquire) {
        state::FULL => list(class, span),
        state::LISTED => {}
        _ => return,
    }
    // Also if it was just listed, by any thread: this may have been its last block.
    if word_is_free && span.seems_empty(&GEOMETRY[class]) {
        free_if_empty(class, span, true);
    }
}

#[cold]
fn list(class: usize, span: &'static Span) {
    let mut lists = CLASSES[class].0.lock();
    // Only one of several freeing threads lists it, and only under the lock: for the
    // holder of the lock, a span whose state is `LISTED` is on a list.
    if lists.claim_full(class, span, state::LISTED) {
        lists.push(class, span);
    }
}

/// Frees a listed span if all its blocks are free; true if it did. With `keep_last`, a
/// class's only listed span stays, so that a loop does not make and free one each time.
#[cold]
pub(super) fn free_if_empty(class: usize, span: &'static Span, keep_last: bool) -> bool {
    let geometry = &GEOMETRY[class];
    // Held to the end: another holder that has checked the span's class may rely on it,
    // and a fork, which takes all locks, finds either the span as it was or free slices.
    let mut lists = CLASSES[class].0.lock();
    if !lists.has(class, span) || (keep_last && lists.spans == 1) || !span.claim_all(geometry) {
        return false;
    }
    lists.remove(span);
    span.state.store(state::BUSY, Relaxed);
    span.set_kind(Kind::Nothing);
    span.abort_if_freed_since(geometry);
    // Read only now, when no tick returns a page of it any more.
    let (resident, recent) = (span.resident(), span.is_recent());
    let base = span.base();
    let Some(segment) = Segment::of(base) else { return true };
    let run = Run { segment, first: segment.slice_of(base), slices: geometry.slices as usize };
    // Slices with any resident page count as resident from here on, since their next
    // user may touch the other pages without counting them. If the span was unused in
    // this epoch they are no growth: they go back with this tick.
    let slices = slices_of_pages(resident);
    // Nor are pages behind the last block, which the class never touched.
    let lacking = pages_of_slices(slices) & page_heap::mask(geometry.pages()) & !resident;
    let grown = if recent { lacking & page_heap::mask(geometry.pages_of_blocks()) } else { 0 };
    residency::add(grown.count_ones() as usize);
    residency::round_up((lacking & !grown).count_ones() as usize);
    page_heap::free(run, slices, recent);
    true
}

/// Returns the pages behind a full span's last block, and how many they were. There is
/// no free block to claim, which is how `Span::release_pages` keeps a span from being
/// freed; here the state does that.
pub(super) fn release_tail(class: usize, span: &'static Span, huge: bool) -> usize {
    // A thread that frees a block from here on does not list the span.
    if !CLASSES[class].0.lock().claim_full(class, span, state::BUSY) {
        return 0;
    }
    // SAFETY: only a `LISTED` span is freed, and nobody else changes `BUSY`.
    let pages = unsafe { span.release_tail(&GEOMETRY[class], huge) };
    leave_full(class, span);
    pages
}

/// Moves a listed span to the list that fits how full it is now.
pub(super) fn relist(class: usize, span: &'static Span) {
    let mut lists = CLASSES[class].0.lock();
    if lists.has(class, span) {
        lists.remove(span);
        lists.push(class, span);
    }
}

/// Holds every class's lock over a fork.
pub(crate) fn lock_for_fork() {
    CLASSES.iter().for_each(|central| core::mem::forget(central.0.lock()));
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    for central in &CLASSES {
        // SAFETY: locked by this thread.
        unsafe { central.0.force_unlock() };
    }
}

// A span may have been freed and used for another class since the caller looked at it. So
// its class is checked before its state: while the class's lock is held a span of the class
// stays one, and the state read after it is no older.
impl Lists {
    /// Whether the span is on a list of the class.
    fn has(&self, class: usize, span: &'static Span) -> bool {
        // Acquire pairs with the release in `detach` and the exchange in `claim_full`.
        span.is_class(class) && span.state.load(Acquire) == state::LISTED
    }

    /// Changes the state of a full span of the class; false if it was not one.
    fn claim_full(&self, class: usize, span: &'static Span, to: u8) -> bool {
        // AcqRel: acquires what the thread that set `FULL` did, and hands it on.
        span.is_class(class) && span.state.compare_exchange(state::FULL, to, AcqRel, Relaxed).is_ok()
    }

    fn push(&mut self, class: usize, span: &'static Span) {
        debug_assert!(span.is_class(class));
        let geometry = &GEOMETRY[class];
        let list = (span.free_blocks(geometry) * LISTS / (geometry.blocks as usize + 1)).min(LISTS - 1);
        let next = self.heads[list];
        // SAFETY: links are read and written under this lock only.
        unsafe {
            *span.links.get() = Links { next, previous: ptr::null(), list };
            if let Some(next) = next.as_ref() {
                (*next.links.get()).previous = span;
            }
        }
        self.heads[list] = span;
        self.spans += 1;
    }

    /// Takes the fullest span off its list, or of the first few one that the thread
    /// cache had last. Where two threads allocate from the same span in turn, their
    /// blocks become neighbours, and so do the C API's marks, which then share cache lines.
    fn pop(&mut self, cache: u16) -> Option<&'static Span> {
        let had = |span: &&Span| span.last_cache.load(Relaxed) == cache;
        let fullest = self.iter().next()?;
        let span = self.iter().take(CANDIDATES).find(had).unwrap_or(fullest);
        self.remove(span);
        // Relaxed: under the lock, whose holders are the only ones that rely on `LISTED`.
        span.state.store(state::ATTACHED, Relaxed);
        Some(span)
    }

    /// Every span, the fullest first.
    fn iter(&self) -> impl Iterator<Item = &'static Span> {
        // SAFETY: spans live forever.
        let first = |&head: &*const Span| unsafe { head.as_ref() };
        // SAFETY: links are read under this lock only.
        let next = |span: &&'static Span| unsafe { (*span.links.get()).next.as_ref() };
        self.heads.iter().flat_map(move |head| core::iter::successors(first(head), next))
    }

    fn remove(&mut self, span: &'static Span) {
        // SAFETY: as in `push`; the span is on a list, since its state is `LISTED`.
        unsafe {
            let links = &mut *span.links.get();
            match links.previous.as_ref() {
                Some(previous) => (*previous.links.get()).next = links.next,
                None => self.heads[links.list] = links.next,
            }
            if let Some(next) = links.next.as_ref() {
                (*next.links.get()).previous = links.previous;
            }
            *links = Links::none();
        }
        self.spans -= 1;
    }
}

/// From a bit for each slice to a bit for each of their pages.
fn pages_of_slices(slices: u64) -> u64 {
    (0..4).filter(|slice| slices >> slice & 1 == 1).map(|slice| 0xffff << (slice * PAGES_PER_SLICE)).sum()
}

/// From a bit for each page to a bit for each slice with such a page.
fn slices_of_pages(pages: u64) -> u64 {
    (0..4).filter(|slice| pages >> (slice * PAGES_PER_SLICE) & 0xffff != 0).map(|slice| 1 << slice).sum()
}
