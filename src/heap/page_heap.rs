//! The page heap: which slices of the segments are free, and which of those still
//! hold pages that could go back to the system.
//!
//! Each segment has bitmaps, so free neighbours need no merging: `FRESH` slices read
//! as zero and have no pages, `RESIDENT` ones hold pages. An allocation takes the
//! lowest resident run that fits, so that pages in use stay dense and a reused page
//! costs no fault. A tick returns as many resident slices as were free at every
//! moment of the epoch, the highest first. Demand never came near that number, however
//! often each single slice was used.

use crate::base::residency;
use crate::base::size_class::{PAGES_PER_SLICE, SLICE};
use crate::heap::live_map;
use crate::heap::segment::{FRESH, HEADERS, RESIDENT, Segment};
use crate::heap::transparent_huge_pages;
use crate::platform::{self, Guard, Lock};
use core::sync::atomic::Ordering::Relaxed;

struct Totals {
    /// Free resident slices of all segments; with too few, no search is needed.
    resident: usize,
    /// How many of them nobody needed in this epoch: the lowest `resident` so far, and
    /// slices freed unused.
    idle: usize,
    /// A thread is making a huge page, for all that need slices soon. Others take fresh
    /// slices meanwhile, instead of 2 MiB each.
    making_huge_page: bool,
}

static HEAP: Lock<Totals> = Lock::new(Totals { resident: 0, idle: 0, making_huge_page: false });

/// Neighbouring slices.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) segment: &'static Segment,
    pub(super) first: usize,
    pub(super) slices: usize,
}

impl Run {
    pub(super) fn start(&self) -> usize {
        self.segment.base + self.first * SLICE
    }
}

/// Allocates `slices` (at most 64) neighbouring slices, the first at a multiple of
/// `align` slices; `for_span` if they are for a span, since more spans are likely to
/// follow. The mask tells which may be resident; the others read as zero.
pub(super) fn alloc(slices: usize, align: usize, for_span: bool) -> Option<(Run, u64)> {
    let mut heap = HEAP.lock();
    if let Some(found) = heap.alloc_resident(slices, align) {
        return Some(found);
    }
    if for_span && !heap.making_huge_page && transparent_huge_pages::are_wanted() {
        heap = make_huge_page(heap);
        if let Some(found) = heap.alloc_resident(slices, align) {
            return Some(found);
        }
    }
    let any = |segment: &Segment, word: usize| {
        segment.bits(RESIDENT)[word].load(Relaxed) | segment.bits(FRESH)[word].load(Relaxed)
    };
    if let Some(run) = find(slices, align, any) {
        return Some((run, heap.claim(run)));
    }
    let segment = Segment::create(live_map::bytes_of_slice())?;
    segment.bits(FRESH).iter().for_each(|word| word.store(u64::MAX, Relaxed));
    let run = find_in(segment, slices, align, |word| any(segment, word))?;
    Some((run, heap.claim(run)))
}

/// Makes a huge page of fresh slices, which are then free and resident. Drops the lock
/// meanwhile.
#[cold]
fn make_huge_page(mut heap: Guard<'static, Totals>) -> Guard<'static, Totals> {
    let fresh = |segment: &Segment, word: usize| segment.bits(FRESH)[word].load(Relaxed);
    let Some(run) = find(transparent_huge_pages::SLICES, transparent_huge_pages::SLICES, fresh) else {
        return heap;
    };
    heap.claim(run);
    heap.making_huge_page = true;
    drop(heap);
    let huge = transparent_huge_pages::make(run.segment, run.first);
    if !huge {
        // There will be none for the next slices either. The small pages that came
        // instead are returned.
        residency::set_growth_lasts(false);
    }
    // SAFETY: the slices are on no bitmap, so ours alone.
    let released = !huge && unsafe { platform::release(run.start() as *mut u8, run.slices * SLICE) };
    if !released {
        residency::add(run.slices * PAGES_PER_SLICE);
    }
    let mut heap = HEAP.lock();
    heap.making_huge_page = false;
    heap.put(run, if released { 0 } else { u64::MAX }, true);
    heap
}

/// Allocates the slices right behind `run`, if they are free.
pub(super) fn extend(run: Run, slices: usize) -> Option<u64> {
    let more = Run { first: run.first + run.slices, slices, ..run };
    if more.first + slices > run.segment.slices {
        return None;
    }
    let mut heap = HEAP.lock();
    let bits = |which| get(more.segment, which, more.first, slices);
    (bits(RESIDENT) | bits(FRESH) == mask(slices)).then(|| heap.claim(more))
}

/// Frees slices; `resident` tells which may hold pages, `recent` whether the program
/// used them in this epoch.
pub(super) fn free(run: Run, resident: u64, recent: bool) {
    HEAP.lock().put(run, resident, recent);
}

/// Returns the pages of free slices of a group of 64: of as many as nobody needed in
/// this epoch, or of all unless `age`. If all 64 slices are free, the pages of their
/// headers go too. The result is how many slices went.
pub(crate) fn release(segment: &'static Segment, group: usize, age: bool) -> usize {
    let [fresh, resident, headers] = [FRESH, RESIDENT, HEADERS].map(|which| &segment.bits(which)[group]);
    let (claimed, all_free) = {
        let mut heap = HEAP.lock();
        let claimed = highest(resident.load(Relaxed), if age { heap.idle } else { usize::MAX });
        resident.store(resident.load(Relaxed) & !claimed, Relaxed);
        let count = claimed.count_ones() as usize;
        heap.resident -= count;
        heap.idle = heap.idle.saturating_sub(count).min(heap.resident);
        let all_free = claimed | fresh.load(Relaxed) == u64::MAX && headers.swap(0, Relaxed) != 0;
        if all_free {
            fresh.store(0, Relaxed);
        }
        (claimed, all_free)
    };
    // The slices are on no bitmap, so they are ours without the lock.
    let returned = release_slices(segment, group, claimed);
    if all_free {
        segment.release_headers(group);
    }
    let mut heap = HEAP.lock();
    fresh.fetch_or(if all_free { !claimed | returned } else { returned }, Relaxed);
    resident.fetch_or(claimed & !returned, Relaxed);
    heap.resident += (claimed & !returned).count_ones() as usize;
    returned.count_ones() as usize
}

/// Ends the epoch: what is free now, and stays free to the end of the next one, is
/// returned then.
pub(crate) fn end_epoch() {
    let mut heap = HEAP.lock();
    heap.idle = heap.resident;
}

/// Returns the pages of slices of a group, neighbours in one call. The result has a
/// bit for each slice that the system took.
fn release_slices(segment: &'static Segment, group: usize, slices: u64) -> u64 {
    let mut returned = 0u64;
    for (first, count) in ranges(slices) {
        let run = Run { segment, first: group * 64 + first, slices: count };
        let part = transparent_huge_pages::has_part(segment, run.first, count);
        // SAFETY: free slices that nobody can allocate meanwhile.
        if unsafe { platform::release_part(run.start() as *mut u8, count * SLICE, part) } {
            transparent_huge_pages::note_split(segment, run.first, count);
            live_map::release(segment, run.first, count);
            returned |= mask(count) << first;
        }
    }
    returned
}

/// Whether a group may have something to release. Read without the lock: a hint.
pub(crate) fn may_release(segment: &Segment, group: usize) -> bool {
    let word = |which: usize| segment.bits(which)[group].load(Relaxed);
    word(RESIDENT) != 0 || (word(HEADERS) != 0 && word(FRESH) == u64::MAX)
}

/// The first slice from `slice` on whose group of 64 may have a span or run. Headers
/// of other groups must not be read: a tick would make all their pages resident, 9 MiB
/// for a segment.
pub(super) fn next_in_use(segment: &Segment, slice: usize) -> Option<usize> {
    let headers = segment.bits(HEADERS).get(slice / 64..)?;
    let ahead = headers.iter().position(|word| word.load(Relaxed) != 0)?;
    Some(if ahead == 0 { slice } else { (slice / 64 + ahead) * 64 })
}

/// Free slices that hold pages.
pub(crate) fn resident_slices() -> usize {
    HEAP.lock().resident
}

/// Holds the lock over a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(HEAP.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    // In a child, a thread that was making a huge page does not exist.
    // SAFETY: locked by this thread.
    unsafe {
        (*HEAP.as_mut_ptr()).making_huge_page = false;
        HEAP.force_unlock();
    }
}

impl Totals {
    fn alloc_resident(&mut self, slices: usize, align: usize) -> Option<(Run, u64)> {
        if self.resident < slices {
            return None;
        }
        let run = find(slices, align, |segment, word| segment.bits(RESIDENT)[word].load(Relaxed))?;
        Some((run, self.claim(run)))
    }

    /// Puts a run on the bitmaps.
    fn put(&mut self, run: Run, resident: u64, recent: bool) {
        let Run { segment, first, slices } = run;
        let (fresh, resident) = (!resident & mask(slices), resident & mask(slices));
        set(segment, RESIDENT, first, resident);
        set(segment, FRESH, first, fresh);
        let count = resident.count_ones() as usize;
        self.resident += count;
        if !recent {
            self.idle += count;
        }
    }

    /// Takes a free run off the bitmaps and returns which slices were resident.
    fn claim(&mut self, run: Run) -> u64 {
        let resident = get(run.segment, RESIDENT, run.first, run.slices);
        for which in [FRESH, RESIDENT] {
            clear(run.segment, which, run.first, mask(run.slices));
        }
        for group in run.first / 64..=(run.first + run.slices - 1) / 64 {
            run.segment.bits(HEADERS)[group].store(1, Relaxed);
        }
        self.resident -= resident.count_ones() as usize;
        self.idle = self.idle.min(self.resident);
        resident
    }
}

fn find(slices: usize, align: usize, free: impl Fn(&Segment, usize) -> u64) -> Option<Run> {
    Segment::all().find_map(|segment| find_in(segment, slices, align, |word| free(segment, word)))
}

/// The lowest free run. Looks at two words at a time, so that a run may cross one word
/// boundary; with at most 64 slices it cannot cross two.
fn find_in(
    segment: &'static Segment,
    slices: usize,
    align: usize,
    free: impl Fn(usize) -> u64,
) -> Option<Run> {
    let words = segment.words();
    (0..words).find_map(|word| {
        let low = free(word);
        if low == 0 {
            return None;
        }
        let high = if slices > 1 && word + 1 < words { free(word + 1) } else { 0 };
        let mut starts = low as u128 | (high as u128) << 64;
        let mut length = 1;
        while length < slices {
            let step = length.min(slices - length);
            starts &= starts >> step;
            length += step;
        }
        let starts = starts as u64 & aligned(align);
        let first = word * 64 + starts.trailing_zeros() as usize;
        (starts != 0).then_some(Run { segment, first, slices })
    })
}

/// The bits at multiples of `align`, a power of two up to 64.
fn aligned(align: usize) -> u64 {
    u64::MAX / mask(align)
}

/// The lowest `count` bits.
pub(super) fn mask(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// The ranges of neighbouring set bits, the lowest first: first bit and length.
pub(super) fn ranges(bits: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut rest = bits;
    core::iter::from_fn(move || {
        let first = (rest != 0).then_some(rest.trailing_zeros() as usize)?;
        let count = (rest >> first).trailing_ones() as usize;
        rest &= !(mask(count) << first);
        Some((first, count))
    })
}

/// The highest `most` of the set bits.
fn highest(bits: u64, most: usize) -> u64 {
    let mut rest = bits;
    for _ in most..bits.count_ones() as usize {
        rest &= rest - 1;
    }
    rest
}

/// The `slices` bits from `first` on, as the lowest bits of the result.
fn get(segment: &Segment, which: usize, first: usize, slices: usize) -> u64 {
    let (words, shift) = (&segment.bits(which)[first / 64..], first % 64);
    let low = words[0].load(Relaxed) >> shift;
    let high = if shift + slices > 64 { words[1].load(Relaxed) << (64 - shift) } else { 0 };
    (low | high) & mask(slices)
}

/// Sets the bits from `first` on that are set in `bits`.
fn set(segment: &Segment, which: usize, first: usize, bits: u64) {
    change(segment, which, first, bits, |word, bits| word | bits);
}

/// Clears the bits from `first` on that are set in `bits`.
fn clear(segment: &Segment, which: usize, first: usize, bits: u64) {
    change(segment, which, first, bits, |word, bits| word & !bits);
}

/// Called under the lock. Atomic only because ticks and statistics read without it.
#[inline(always)]
fn change(segment: &Segment, which: usize, first: usize, bits: u64, new: impl Fn(u64, u64) -> u64) {
    let (words, shift) = (&segment.bits(which)[first / 64..], first % 64);
    words[0].store(new(words[0].load(Relaxed), bits << shift), Relaxed);
    let high = bits.checked_shr(64 - shift as u32).unwrap_or(0);
    if high != 0 {
        words[1].store(new(words[1].load(Relaxed), high), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_run_across_words() {
        // A segment from which nobody allocates, and a bitmap of it that nobody reads.
        let segment = Segment::create(0).unwrap();
        for first in 0..128 {
            for slices in 1..=64 {
                let bits = mask(slices) & 0xd000_0000_f0f0_0a0b;
                set(segment, HEADERS, first, bits);
                assert_eq!(get(segment, HEADERS, first, slices), bits);
                let all: u32 = segment.bits(HEADERS).iter().map(|word| word.load(Relaxed).count_ones()).sum();
                assert_eq!(all, bits.count_ones());
                clear(segment, HEADERS, first, bits);
                assert!(segment.bits(HEADERS).iter().all(|word| word.load(Relaxed) == 0));
            }
        }
    }
}
