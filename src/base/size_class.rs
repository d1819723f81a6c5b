//! Sizes, alignments and size classes: pure arithmetic, all of it `const`.
//!
//! Classes step by 8 bytes up to 64, by 16 up to 128, then eight to each
//! doubling up to 1 KiB (at most 12.5 % over) and four up to 256 KiB (25 %).
//! Blocks up to 32 KiB share spans; larger ones are page runs of their own.

pub(crate) use crate::platform::PAGE;

/// The unit in which address space is handed out: spans and runs start on a slice.
pub(crate) const SLICE: usize = 64 << 10;
pub(crate) const PAGES_PER_SLICE: usize = SLICE / PAGE;
/// Bytes of a cache line: two threads that write to blocks in the same line slow
/// each other down.
pub(crate) const CACHE_LINE: usize = 64;

/// The largest size that a thread pools.
pub(crate) const POOLED_MAX: usize = 256 << 10;
/// The largest size cut from a segment; what is larger is a mapping of its own.
pub(crate) const RUN_MAX: usize = 4 << 20;
/// The largest size whose blocks share spans; larger ones are runs.
const SPAN_MAX: usize = 32 << 10;

/// Sizes up to this step by 8 bytes,
const BY_8_MAX: usize = 64;
/// up to this by 16,
const BY_16_MAX: usize = 128;
/// up to this by eighths of a doubling, and above by quarters. Sizes up to this find
/// their class in a table, so that mixed sizes cost no mispredicted branch.
const BY_EIGHTHS_MAX: usize = 1024;
const EIGHTHS: usize = 8;
const QUARTERS: usize = 4;

/// The first class of each kind of step.
const FIRST_BY_16: usize = BY_8_MAX / 8;
const FIRST_BY_EIGHTHS: usize = FIRST_BY_16 + (BY_16_MAX - BY_8_MAX) / 16;
const FIRST_BY_QUARTERS: usize = FIRST_BY_EIGHTHS + doublings(BY_16_MAX, BY_EIGHTHS_MAX) * EIGHTHS;

/// How many classes live in spans. They come first; the others are runs.
pub(crate) const SPAN_CLASSES: usize = FIRST_BY_QUARTERS + doublings(BY_EIGHTHS_MAX, SPAN_MAX) * QUARTERS;
/// How many classes are pooled by threads.
pub(crate) const CLASSES: usize = FIRST_BY_QUARTERS + doublings(BY_EIGHTHS_MAX, POOLED_MAX) * QUARTERS;

/// How often `from` doubles up to `to`.
const fn doublings(from: usize, to: usize) -> usize {
    (to / from).ilog2() as usize
}

/// Blocks up to this share a span of one slice; larger ones a span of four.
const ONE_SLICE_MAX: usize = 1024;
/// The most blocks of a span. Only the 8-byte class would have more; letting it fill
/// half a slice instead halves the bitmap of every span header.
pub(crate) const BLOCKS_MAX: usize = 4096;

/// The size a block needs so that every block of its class is aligned to `align`.
///
/// Rounding up to a multiple of the alignment is enough: a class of that size
/// is either the size itself or a multiple of a step that `align` divides.
/// Wraps on overflow, which no valid layout comes near.
#[inline(always)]
pub(crate) const fn padded(size: usize, align: usize) -> usize {
    // A size of 0, which the trait leaves undefined, is served as 1.
    (size + (size == 0) as usize).wrapping_add(align - 1) & !(align - 1)
}

/// Where a layout's block comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// From the thread cache, as a block of this class.
    Pooled(usize),
    /// From a run or mapping: the size, padded for the alignment, above [`POOLED_MAX`].
    Large(usize),
}

/// Where a layout's block comes from. Sizes are padded here and nowhere above.
///
/// Nearly all layouts take the first branch, which needs no padding, since the
/// blocks of every class are aligned to 8.
#[inline(always)]
pub(crate) const fn placement(size: usize, align: usize) -> Placement {
    if size <= BY_EIGHTHS_MAX && align <= 8 {
        return Placement::Pooled(CLASS_BY_WORDS[size.div_ceil(8)] as usize);
    }
    core::hint::cold_path();
    let size = padded(size, align);
    if size <= POOLED_MAX { Placement::Pooled(class_of(size)) } else { Placement::Large(size) }
}

/// The class of a padded size of at most [`POOLED_MAX`] bytes.
#[inline(always)]
pub(crate) const fn class_of(padded: usize) -> usize {
    if padded <= BY_EIGHTHS_MAX {
        CLASS_BY_WORDS[padded.div_ceil(8)] as usize
    } else {
        class_by_quarters(padded)
    }
}

/// Bytes of a block of this class.
#[inline(always)]
pub(crate) const fn block_size(class: usize) -> usize {
    GEOMETRY[class].size as usize
}

/// What a span of one class looks like.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// Bytes of a block.
    pub size: u32,
    /// Blocks of a span (1 for a run).
    pub blocks: u16,
    /// Words of the span's bitmap.
    pub words: u16,
    /// Slices of a span or run.
    pub slices: u16,
    /// `ceil(2^40 / size)`: a multiplication and a shift divide an offset by the size.
    reciprocal: u64,
}

impl Geometry {
    /// Bytes of a span: a power of two, and its alignment.
    #[inline(always)]
    pub(crate) const fn bytes(&self) -> usize {
        self.slices as usize * SLICE
    }

    /// Mask that turns a slice's number into that of its span's first slice.
    #[inline(always)]
    pub(crate) const fn head_mask(&self) -> usize {
        !(self.slices as usize - 1)
    }

    /// The block that the byte at `offset` belongs to.
    ///
    /// Exact for every offset in a span: the reciprocal, times the size, is less than
    /// `size <= 2^15` above `2^40`, and an offset below `2^18` times that error stays
    /// below `2^40`.
    #[inline(always)]
    pub(crate) const fn block_at(&self, offset: usize) -> usize {
        ((offset as u64 * self.reciprocal) >> 40) as usize
    }

    /// The bits of bitmap word `word` that stand for blocks: all free if all are set.
    #[inline(always)]
    pub(crate) const fn block_bits(&self, word: usize) -> u64 {
        let blocks = self.blocks as usize - word * 64;
        if blocks >= 64 { u64::MAX } else { (1 << blocks) - 1 }
    }

    /// Cache colouring: the block from which a span at `base` is used if only a few
    /// are wanted, derived from the address. Otherwise a program that uses a few blocks
    /// of many classes would have them, and their marks in the live map, all at the start
    /// of slices, and those compete for a few sets of the processor's cache.
    pub(crate) const fn spread_start(&self, base: usize) -> usize {
        // Upper bits of a product: neighbouring slices begin far apart.
        let spread = ((base / SLICE) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((spread * self.blocks as u64) >> 32) as usize
    }

    /// Pages of a span that hold blocks; there may be more behind the last block.
    pub(crate) const fn pages_of_blocks(&self) -> usize {
        (self.blocks as usize * self.size as usize).div_ceil(PAGE)
    }

    /// Pages of a span, at most 64.
    pub(crate) const fn pages(&self) -> usize {
        self.slices as usize * PAGES_PER_SLICE
    }
}

/// Every class by its number.
pub(crate) static GEOMETRY: [Geometry; CLASSES] = {
    let mut all = [Geometry { size: 0, blocks: 0, words: 0, slices: 0, reciprocal: 0 }; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        all[class] = geometry(class);
        class += 1;
    }
    all
};

const fn geometry(class: usize) -> Geometry {
    let size = size_of_class(class);
    let (slices, blocks) = if class >= SPAN_CLASSES {
        (size.div_ceil(SLICE), 1)
    } else {
        let slices = if size <= ONE_SLICE_MAX { 1 } else { 4 };
        let blocks = slices * SLICE / size;
        (slices, if blocks > BLOCKS_MAX { BLOCKS_MAX } else { blocks })
    };
    Geometry {
        size: size as u32,
        blocks: blocks as u16,
        words: blocks.div_ceil(64) as u16,
        slices: slices as u16,
        reciprocal: (1u64 << 40).div_ceil(size as u64),
    }
}

const fn size_of_class(class: usize) -> usize {
    match class {
        0..FIRST_BY_16 => (class + 1) * 8,
        FIRST_BY_16..FIRST_BY_EIGHTHS => BY_8_MAX + (class - FIRST_BY_16 + 1) * 16,
        FIRST_BY_EIGHTHS..FIRST_BY_QUARTERS => by_parts(BY_16_MAX, EIGHTHS, class - FIRST_BY_EIGHTHS),
        _ => by_parts(BY_EIGHTHS_MAX, QUARTERS, class - FIRST_BY_QUARTERS),
    }
}

/// The size `number` steps above `from`, with `parts` steps to each doubling.
const fn by_parts(from: usize, parts: usize, number: usize) -> usize {
    let doubled = from << (number / parts);
    doubled + doubled / parts * (number % parts + 1)
}

/// For sizes above [`BY_EIGHTHS_MAX`]: four classes to a doubling.
#[inline(always)]
const fn class_by_quarters(size: usize) -> usize {
    let last = size - 1;
    let exponent = last.ilog2() as usize;
    let doubling = exponent - BY_EIGHTHS_MAX.ilog2() as usize;
    // From `QUARTERS` to `2 * QUARTERS - 1`: its leading bit counts as one doubling.
    let quarter = last >> (exponent - QUARTERS.ilog2() as usize);
    FIRST_BY_QUARTERS + doubling * QUARTERS + quarter - QUARTERS
}

/// The class of a size up to [`BY_EIGHTHS_MAX`], by how many 8-byte words it needs.
static CLASS_BY_WORDS: [u8; BY_EIGHTHS_MAX / 8 + 1] = {
    let mut table = [0; BY_EIGHTHS_MAX / 8 + 1];
    let mut words = 1;
    let mut class = 0;
    while words < table.len() {
        if words * 8 > size_of_class(class) {
            class += 1;
        }
        table[words] = class as u8;
        words += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 0..=POOLED_MAX {
            let class = class_of(size);
            assert!(block_size(class) >= size);
            assert!(class == 0 || block_size(class - 1) < size, "size {size} class {class}");
        }
        assert_eq!(block_size(SPAN_CLASSES - 1), 32 << 10);
        assert_eq!(block_size(CLASSES - 1), POOLED_MAX);
    }

    #[test]
    fn a_padded_size_gives_aligned_blocks() {
        for shift in 0..=15 {
            let align = 1 << shift;
            for size in (0..=(32 << 10)).step_by(7) {
                let padded = padded(size, align);
                if padded <= 32 << 10 && padded > 0 {
                    let block = block_size(class_of(padded));
                    assert_eq!(block % align.min(block), 0, "size {size} align {align}");
                    assert!(block >= size);
                }
            }
        }
    }

    #[test]
    fn first_blocks_of_many_classes_lie_apart() {
        for start in (0..1 << 30).step_by(SPAN_CLASSES * 4 * SLICE) {
            // A processor cache of 64 sets: how many blocks, and how many of their marks
            // in the live map, fall into each.
            let mut used = [[0; 64]; 2];
            for (number, geometry) in GEOMETRY[..SPAN_CLASSES].iter().enumerate() {
                let base = (1 << 40) + start + number * 4 * SLICE;
                let first = geometry.spread_start(base);
                assert!(first < geometry.blocks as usize, "{first} of {}", geometry.blocks);
                let block = base + first * geometry.size as usize;
                // Blocks of whole pages, which are among the larger, all start in the same set.
                used[0][block / CACHE_LINE % 64] += (geometry.slices == 1) as usize;
                used[1][block / 16 / CACHE_LINE % 64] += 1;
            }
            let most = used.as_flattened().iter().max();
            assert!(most < Some(&10), "{used:?}");
        }
    }

    #[test]
    fn the_reciprocal_divides_every_offset() {
        for geometry in &GEOMETRY[..SPAN_CLASSES] {
            for offset in 0..geometry.slices as usize * SLICE {
                assert_eq!(geometry.block_at(offset), offset / geometry.size as usize);
            }
            assert!(geometry.pages() <= 64);
        }
    }
}
