//! Allocates blocks of a span for a refill: whole words where possible.

use super::{Span, count_of};
use crate::base::atomics::Ordering::{AcqRel, Relaxed};
use crate::base::size_class::Geometry;

/// The most words that one refill takes from; a full magazine needs four.
const WORDS_AT_ONCE: usize = 16;

impl Span {
    /// Allocates up to `out.len()` free blocks, from the cursor on, and returns how many.
    /// The last address written is the lowest, so that a magazine hands out neighbours in
    /// order. It may find fewer blocks than there are.
    ///
    /// Only for the thread that has the span attached.
    pub(crate) fn alloc(&self, geometry: &Geometry, out: &mut [usize], single_threaded: bool) -> usize {
        let words = geometry.words as usize;
        let cursor = self.cursor.load(Relaxed) as usize;
        let start = cursor / 64;
        let mut from = cursor % 64;
        // Ends where a word ends, so that later refills find whole words.
        let most = if out.len() >= 64 + from { out.len() - from } else { out.len() };
        let out = &mut out[..most];
        let mut found = [(0, 0u64); WORDS_AT_ONCE];
        let (mut words_found, mut count) = (0, 0);
        for at in (start..words).chain(0..start) {
            if count == out.len() || words_found == WORDS_AT_ONCE {
                break;
            }
            let claimed =
                self.alloc_word(geometry, at, core::mem::take(&mut from), out.len() - count, single_threaded);
            if claimed != 0 {
                self.cursor.store((at * 64) as u16, Relaxed);
                self.touch(geometry, at, claimed);
                found[words_found] = (at, claimed);
                words_found += 1;
                count += count_of(claimed);
            }
        }
        if count == 0 {
            // Blocks below the cursor in its own word were not considered: next time.
            self.cursor.store(0, Relaxed);
        }
        let mut written = 0;
        for &(at, claimed) in found[..words_found].iter().rev() {
            written += self.write_blocks(geometry, at, claimed, &mut out[written..]);
        }
        count
    }

    /// Claims up to `most` bits of one word, the lowest from bit `from` on.
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
                self.free_words.store(self.free_words.load(Relaxed) - 1, Relaxed);
            }
            return wanted;
        }
        // Acquire pairs with the release in `free`: what the freeing thread did is seen.
        let (before, claimed) = if wanted == seen {
            let before = word.swap(0, AcqRel);
            let claimed = lowest_bits(before, most);
            if claimed != before {
                // More blocks were freed meanwhile than fit.
                self.put_back(geometry, at, before & !claimed);
            }
            (before, claimed)
        } else {
            let before = word.fetch_and(!wanted, AcqRel);
            (before, before & wanted)
        };
        if before == geometry.block_bits(at) {
            self.free_words.fetch_sub(1, Relaxed);
        }
        claimed
    }

    fn write_blocks(&self, geometry: &Geometry, at: usize, mut claimed: u64, out: &mut [usize]) -> usize {
        let size = geometry.size as usize;
        let base = self.base() + at * 64 * size;
        let count = count_of(claimed);
        if claimed == u64::MAX {
            // A whole word needs no search for bits: one plain loop of stores.
            let mut above = base + 64 * size;
            for slot in &mut out[..64] {
                above -= size;
                *slot = above;
            }
        } else {
            for slot in out[..count].iter_mut().rev() {
                *slot = base + claimed.trailing_zeros() as usize * size;
                claimed &= claimed - 1;
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
