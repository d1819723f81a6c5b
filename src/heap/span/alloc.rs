//! Taking blocks from a span, for a refill: whole words where it can.

use super::{Span, count_of};
use crate::base::atomics::Ordering::{AcqRel, Relaxed};
use crate::base::size_class::Geometry;

/// Words that one refill takes from at most; a full magazine needs four.
const WORDS_AT_ONCE: usize = 16;

impl Span {
    /// Takes up to `out.len()` free blocks, from the cursor on, and writes
    /// their addresses so that the last written is the lowest: a magazine then
    /// hands out neighbours in order. It may take fewer than there are.
    ///
    /// Only for whoever has the span attached.
    pub(crate) fn alloc(&self, geometry: &Geometry, out: &mut [usize], single_threaded: bool) -> usize {
        let words = geometry.words as usize;
        let cursor = self.cursor.load(Relaxed) as usize;
        let start = cursor / 64;
        let mut from = cursor % 64;
        // Up to where a word ends, so that later refills find whole words.
        let most = if out.len() >= 64 + from { out.len() - from } else { out.len() };
        let out = &mut out[..most];
        let mut found = [(0, 0u64); WORDS_AT_ONCE];
        let (mut words_found, mut count) = (0, 0);
        for at in (start..words).chain(0..start) {
            if count == out.len() || words_found == WORDS_AT_ONCE {
                break;
            }
            let taken =
                self.alloc_word(geometry, at, core::mem::take(&mut from), out.len() - count, single_threaded);
            if taken != 0 {
                self.cursor.store((at * 64) as u16, Relaxed);
                self.touch(geometry, at, taken);
                found[words_found] = (at, taken);
                words_found += 1;
                count += count_of(taken);
            }
        }
        if count == 0 {
            // What is below the cursor in its own word was not looked at.
            self.cursor.store(0, Relaxed);
        }
        let mut written = 0;
        for &(at, taken) in found[..words_found].iter().rev() {
            written += self.write_blocks(geometry, at, taken, &mut out[written..]);
        }
        count
    }

    /// Up to `most` bits of one word, the lowest from bit `from` on.
    #[inline]
    fn alloc_word(
        &self,
        geometry: &Geometry,
        at: usize,
        from: usize,
        most: usize,
        single_threaded: bool,
    ) -> u64 {
        let word = &self.bitmap[at];
        let seen = word.load(Relaxed);
        let wanted = lowest_bits(seen & u64::MAX << from, most);
        if wanted == 0 {
            return 0;
        }
        if single_threaded {
            word.store(seen & !wanted, Relaxed);
            if seen == geometry.block_bits(at) {
                self.full_words.store(self.full_words.load(Relaxed) - 1, Relaxed);
            }
            return wanted;
        }
        // Acquire pairs with the release of whoever gave the blocks back.
        let (before, taken) = if wanted == seen {
            let before = word.swap(0, AcqRel);
            let taken = lowest_bits(before, most);
            if taken != before {
                // More came back meanwhile than fits.
                self.put_back(geometry, at, before & !taken);
            }
            (before, taken)
        } else {
            let before = word.fetch_and(!wanted, AcqRel);
            (before, before & wanted)
        };
        if before == geometry.block_bits(at) {
            self.full_words.fetch_sub(1, Relaxed);
        }
        taken
    }

    fn write_blocks(&self, geometry: &Geometry, at: usize, mut taken: u64, out: &mut [usize]) -> usize {
        let size = geometry.size as usize;
        let base = self.base() + at * 64 * size;
        let count = count_of(taken);
        if taken == u64::MAX {
            // A whole word: no bit to search for, one long store loop.
            let mut above = base + 64 * size;
            for slot in &mut out[..64] {
                above -= size;
                *slot = above;
            }
        } else {
            for slot in out[..count].iter_mut().rev() {
                *slot = base + taken.trailing_zeros() as usize * size;
                taken &= taken - 1;
            }
        }
        count
    }
}

/// The lowest `most` of the set bits.
fn lowest_bits(bits: u64, most: usize) -> u64 {
    if most >= 64 || count_of(bits) <= most {
        return bits;
    }
    let mut rest = bits;
    for _ in 0..most {
        rest &= rest - 1;
    }
    bits & !rest
}
