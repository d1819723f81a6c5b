//! For each class, the spans that have free blocks and belong to no thread.
//!
//! Lists by fullness, the fullest first, so that sparse spans are left alone
//! until they empty and their pages can go.

use crate::base::residency;
use crate::base::size_class::{GEOMETRY, PAGES_PER_SLICE, SPAN_CLASSES};
use crate::heap::page_heap::{self, Run};
use crate::heap::segment::Segment;
use crate::heap::span::{Kind, Links, NO_CACHE, Span, state};
use crate::platform::Lock;
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Lists of a class, by how many quarters of a span were free when it was listed.
const LISTS: usize = 4;

/// Spans among which one that the thread cache had before is looked for.
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

/// A bit for each class of which a span was attached in this epoch.
static IN_DEMAND: AtomicU64 = AtomicU64::new(0);
const _: () = assert!(SPAN_CLASSES <= 64);

/// Ends the epoch: which classes were in demand. A tick detaches every span, so
/// whoever takes blocks has attached one since the last.
pub(crate) fn end_demand() -> u64 {
    IN_DEMAND.swap(0, Relaxed)
}

/// Which classes are in demand in this epoch so far.
pub(crate) fn demand() -> u64 {
    IN_DEMAND.load(Relaxed)
}

/// A span with free blocks, attached to the caller: the fullest listed one, rather
/// one that its thread cache had before, or a new one, of which a `few` blocks are wanted or
/// many. None without memory.
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

/// Ends an attachment: the span is listed, left full, or freed.
pub(crate) fn detach(class: usize, span: &'static Span) {
    if !span.has_free(&GEOMETRY[class]) {
        return leave_full(class, span);
    }
    {
        let mut lists = CLASSES[class].0.lock();
        span.state.store(state::LISTED, Release);
        lists.push(class, span);
    }
    // As if the blocks that it has were just given.
    after_free(class, span, true);
}

/// Leaves a span full, or lists it if a block was freed meanwhile.
fn leave_full(class: usize, span: &'static Span) {
    if !span.set_full(&GEOMETRY[class]) {
        after_free(class, span, true);
    }
}

/// To be called after blocks were given to a span: lists it if it was full,
/// frees it if it may be empty, which only a word that is `filled` can make it.
#[inline]
pub(crate) fn after_free(class: usize, span: &'static Span, filled: bool) {
    // After the give's acquire, which pairs with `Span::set_full`.
    match span.state.load(Acquire) {
        state::FULL => list(class, span),
        state::LISTED => {}
        _ => return,
    }
    // Also what was just listed, by whomever: this may have been its last block.
    if filled && span.seems_empty(&GEOMETRY[class]) {
        free_if_empty(class, span, true);
    }
}

#[cold]
fn list(class: usize, span: &'static Span) {
    let mut lists = CLASSES[class].0.lock();
    // Only one of several who free lists it, and only under the lock, so that a
    // span whose state is `LISTED` is on the list for whoever has the lock.
    if lists.claim_full(class, span, state::LISTED) {
        lists.push(class, span);
    }
}

/// Frees a listed span all of whose blocks are free. With `keep`, a class's
/// only listed span stays, so that a loop does not make and free one each time. True if
/// it did.
#[cold]
pub(crate) fn free_if_empty(class: usize, span: &'static Span, keep: bool) -> bool {
    let geometry = &GEOMETRY[class];
    // To the end: whoever has the lock and looked at the class may rely on it, and a fork,
    // which has all of them, finds the span as it was or its slices free.
    let mut lists = CLASSES[class].0.lock();
    if !lists.has(class, span) || (keep && lists.spans == 1) || !span.claim_whole(geometry) {
        return false;
    }
    lists.remove(span);
    span.state.store(state::BUSY, Relaxed);
    span.set_kind(Kind::Nothing);
    span.abort_if_freed_since(geometry);
    // Now that no tick returns a page of it any more.
    let (resident, recent) = (span.resident(), span.is_recent());
    let base = span.base();
    let Some(segment) = Segment::of(base) else { return true };
    let run = Run { segment, first: segment.slice_of(base), slices: geometry.slices as usize };
    // Slices with any page resident count as resident from here on. The other
    // pages of those that are taken again may be touched without being counted;
    // those that came free unused go back with this tick.
    let slices = slices_of_pages(resident);
    // So may those behind the last block, which are no growth: the class did not touch them.
    let lacking = pages_of_slices(slices) & page_heap::mask(geometry.pages()) & !resident;
    let grown = if recent { lacking & page_heap::mask(geometry.pages_of_blocks()) } else { 0 };
    residency::add(grown.count_ones() as usize);
    residency::round_up((lacking & !grown).count_ones() as usize);
    page_heap::free(run, slices, recent);
    true
}

/// Returns the pages behind a full span's last block. There is no free block to hold, which
/// is how `Span::release_pages` keeps a span what it is, so the state does that. Gives how many.
pub(crate) fn release_tail(class: usize, span: &'static Span, huge: bool) -> usize {
    // Who gives a block from here on lists nothing.
    if !CLASSES[class].0.lock().claim_full(class, span, state::BUSY) {
        return 0;
    }
    // SAFETY: who frees a span has its state to be `LISTED`, and this one's is ours.
    let pages = unsafe { span.release_tail(&GEOMETRY[class], huge) };
    leave_full(class, span);
    pages
}

/// Moves a listed span to the list that fits how full it is now.
pub(crate) fn relist(class: usize, span: &'static Span) {
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

// Of a span that may have been freed and used again since it was looked at, its class is
// asked before its state: once it is of the class it stays so while that class's lock is
// held, and its state is then no older.
impl Lists {
    /// Whether the span is on a list of the class.
    fn has(&self, class: usize, span: &'static Span) -> bool {
        span.is_class(class) && span.state.load(Acquire) == state::LISTED
    }

    /// Gives a full span of the class another state; true if it was one.
    fn claim_full(&self, class: usize, span: &'static Span, to: u8) -> bool {
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

    /// Of the first few, one that the thread cache had attached last: where two threads
    /// take from the same spans in turn, their blocks become neighbours, and
    /// with them the marks of the C API, which then share cache lines.
    fn pop(&mut self, cache: u16) -> Option<&'static Span> {
        let had = |span: &&Span| span.last_cache.load(Relaxed) == cache;
        let fullest = self.iter().next()?;
        let span = self.iter().take(CANDIDATES).find(had).unwrap_or(fullest);
        self.remove(span);
        // Under the lock: what is `LISTED` is on a list for whoever has it.
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
        // SAFETY: as in `push`; the span is on a list, as its state says.
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

/// A bit for each page of the slices that have a bit.
fn pages_of_slices(slices: u64) -> u64 {
    (0..4).filter(|slice| slices >> slice & 1 == 1).map(|slice| 0xffff << (slice * PAGES_PER_SLICE)).sum()
}

/// A bit for each slice with a page that has a bit.
fn slices_of_pages(pages: u64) -> u64 {
    (0..4).filter(|slice| pages >> (slice * PAGES_PER_SLICE) & 0xffff != 0).map(|slice| 1 << slice).sum()
}
