//! Returns pages of a span in use to the system.

use super::{Kind, Span, bits_between};
use crate::base::atomics::Ordering::{AcqRel, Relaxed};
use crate::base::size_class::{GEOMETRY, Geometry, PAGE, SPAN_CLASSES};
use crate::platform;

impl Span {
    /// The pages of this span that may be resident.
    pub(in crate::heap) fn resident(&self) -> u64 {
        !self.released.load(Relaxed)
    }

    /// Resident pages of a span; an estimate.
    pub(in crate::heap) fn resident_pages(&self, geometry: &Geometry) -> usize {
        self.candidates(geometry, 0).count_ones() as usize
    }

    /// Whether the program used any of it in this epoch.
    pub(in crate::heap) fn is_recent(&self) -> bool {
        self.touched.load(Relaxed) != 0
    }

    /// Ends the epoch for this span: returns every resident page on which all blocks are
    /// free, and with `age` only if none was used since the last call. `huge` if the
    /// pages may be part of a huge page. The result is the number of pages.
    ///
    /// The caller must call `central::after_free` afterwards, as after a free.
    pub(in crate::heap) fn release_pages(&self, class: usize, age: bool, huge: bool) -> usize {
        let geometry = &GEOMETRY[class];
        let touched = self.touched.swap(0, Relaxed);
        let mut candidates = self.candidates(geometry, if age { touched } else { 0 });
        let mut pages = 0;
        while candidates != 0 {
            let first = candidates.trailing_zeros() as usize;
            let mut end = first;
            while end < geometry.pages() && candidates >> end & 1 == 1 && self.page_is_free(geometry, end) {
                end += 1;
            }
            if end > first {
                pages += self.release_range(class, first, end, huge);
            }
            // Goes on behind the range and the page that ended it.
            candidates &= u64::MAX.checked_shl(end.max(first) as u32 + 1).unwrap_or(0);
        }
        pages
    }

    /// Returns the pages behind the last block, if they may be resident, and how many they
    /// were; `huge` as above.
    ///
    /// # Safety
    /// This is a span of that geometry, and nobody can free it meanwhile.
    pub(in crate::heap) unsafe fn release_tail(&self, geometry: &Geometry, huge: bool) -> usize {
        let (first, pages) = (geometry.pages_of_blocks(), geometry.pages());
        if !self.has_tail(geometry, false) {
            return 0;
        }
        // SAFETY: no block lies on these pages, and by contract it stays that span.
        unsafe { self.release(first, pages, huge) }
    }

    /// Whether pages behind the last block may be resident; with `age`, only those that
    /// did not come with the span in this epoch.
    pub(in crate::heap) fn has_tail(&self, geometry: &Geometry, age: bool) -> bool {
        let recent = if age { self.touched.load(Relaxed) } else { 0 };
        self.candidates(geometry, recent) >> (geometry.pages_of_blocks() - 1) > 1
    }

    /// How many pages a tick would return now. Those behind the last block count only if
    /// they are more than a sixteenth, since every span of the class has them.
    pub(in crate::heap) fn spare_pages(&self, geometry: &Geometry) -> usize {
        let candidates = self.candidates(geometry, self.touched.load(Relaxed));
        let (of_blocks, all) = (geometry.pages_of_blocks(), geometry.pages());
        let pages = 0..if (all - of_blocks) * 16 > all { all } else { of_blocks };
        pages.filter(|&page| candidates >> page & 1 == 1 && self.page_is_free(geometry, page)).count()
    }

    /// The resident pages that are not in `skip`.
    fn candidates(&self, geometry: &Geometry, skip: u64) -> u64 {
        bits_between(0, geometry.pages() - 1) & self.resident() & !skip
    }

    /// Ends the epoch for a span that keeps its pages.
    pub(in crate::heap) fn end_epoch(&self) {
        if self.is_recent() {
            self.touched.store(0, Relaxed);
        }
    }

    /// Whether no block in use lies on the page; behind the last block none does.
    fn page_is_free(&self, geometry: &Geometry, page: usize) -> bool {
        blocks_of_pages(geometry, page, page + 1).is_none_or(|(first, last)| {
            self.each_mask(first, last, |at, mask| self.bitmap[at].load(Relaxed) & mask == mask)
        })
    }

    /// Returns the pages `first..end` if their blocks are all still free.
    fn release_range(&self, class: usize, first: usize, end: usize, huge: bool) -> usize {
        let geometry = &GEOMETRY[class];
        // For pages behind the last block, claims any other free block: only while a block
        // is claimed does the span stay what it is.
        let blocks = blocks_of_pages(geometry, first, end).or_else(|| self.free_block(geometry));
        let Some((from, to)) = blocks else { return 0 };
        // How many words we have claimed blocks of, and the class that the span has by now:
        // it may have been freed and used again.
        let (mut held, mut now) = (0, class);
        let ours = self.each_mask(from, to, |at, mask| {
            let Some(found) = self.claim_exactly(at, mask) else { return false };
            (held, now) = (held + 1, found);
            found == class
        });
        // SAFETY: we have claimed every block on these pages. That also keeps the span what
        // it is, so that no block lies behind its last.
        let pages = if ours { unsafe { self.release(first, end, huge) } } else { 0 };
        self.each_mask(from, to, |at, mask| {
            let more = held > 0;
            if more {
                held -= 1;
                self.free(&GEOMETRY[now], at, mask, false);
            }
            more
        });
        pages
    }

    /// Returns the pages `first..end` and how many they are, 0 if the system refuses.
    ///
    /// # Safety
    /// No block on them is in use or can be allocated meanwhile.
    unsafe fn release(&self, first: usize, end: usize, huge: bool) -> usize {
        let start = (self.base() + first * PAGE) as *mut u8;
        // SAFETY: whole pages of a segment; by contract nobody uses them.
        if !unsafe { platform::release_part(start, (end - first) * PAGE, huge) } {
            return 0;
        }
        self.released.fetch_or(bits_between(first, end - 1), Relaxed);
        end - first
    }

    /// Some block that is free at this moment, as a range of one.
    fn free_block(&self, geometry: &Geometry) -> Option<(usize, usize)> {
        let (at, bits) = self
            .words(geometry)
            .iter()
            .map(|word| word.load(Relaxed))
            .enumerate()
            .find(|word| word.1 != 0)?;
        let block = at * 64 + bits.trailing_zeros() as usize;
        Some((block, block))
    }

    /// Claims all the bits of `mask`, or none. Returns the span's class, which cannot change
    /// while a block is claimed.
    fn claim_exactly(&self, at: usize, mask: u64) -> Option<usize> {
        let mut seen = self.bitmap[at].load(Relaxed);
        while seen & mask == mask {
            match self.bitmap[at].compare_exchange_weak(seen, seen & !mask, AcqRel, Relaxed) {
                Ok(_) => {
                    // The class is as new as the bits, which `start` sets last. If it is no span's,
                    // the bits stand for no block: one was freed twice while its span was freed.
                    let Kind::Class(class @ 0..SPAN_CLASSES) = self.kind() else { return None };
                    let geometry = &GEOMETRY[class];
                    if at >= geometry.words as usize {
                        return None;
                    }
                    if seen == geometry.block_bits(at) {
                        self.free_words.fetch_sub(1, Relaxed);
                    }
                    return Some(class);
                }
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Calls `visit` with each word that holds blocks of `first..=last` and their bits, as
    /// long as it returns true; true if it always did.
    fn each_mask(&self, first: usize, last: usize, mut visit: impl FnMut(usize, u64) -> bool) -> bool {
        (first / 64..=last / 64).all(|at| {
            let low = if at == first / 64 { first % 64 } else { 0 };
            let high = if at == last / 64 { last % 64 } else { 63 };
            visit(at, bits_between(low, high))
        })
    }
}

/// The first and last block that lie on pages `first..end`, at least in part. None for
/// pages behind the last block.
fn blocks_of_pages(geometry: &Geometry, first: usize, end: usize) -> Option<(usize, usize)> {
    let from = geometry.block_at(first * PAGE);
    let to = geometry.block_at(end * PAGE - 1).min(geometry.blocks as usize - 1);
    (from <= to).then_some((from, to))
}
