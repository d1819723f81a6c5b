//! Says in one line what is wrong with a pointer that is no live block.

use crate::base::fatal::abort_on_misuse;
use crate::heap::lookup::{Place, place_of};

/// What the program wanted to do with a pointer.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Free,
    Realloc,
    Measure,
}

/// Aborts the process, with a line that says what was done to what.
#[cold]
#[inline(never)]
pub(super) fn abort_on_misuse_of(block: usize, by: Use) -> ! {
    let what = match place_of(block) {
        None => foreign(by),
        Some(Place::Inside) => interior(by),
        Some(Place::Start | Place::Free) => freed(by),
    };
    abort_on_misuse(what, block)
}

/// A block could start there, but none is in use.
fn freed(by: Use) -> &'static str {
    match by {
        Use::Free => "double free",
        Use::Realloc => "realloc of a block that is free",
        Use::Measure => "malloc_usable_size of a block that is free",
    }
}

fn interior(by: Use) -> &'static str {
    match by {
        Use::Free => "free of an address inside a block",
        Use::Realloc => "realloc of an address inside a block",
        Use::Measure => "malloc_usable_size of an address inside a block",
    }
}

fn foreign(by: Use) -> &'static str {
    match by {
        Use::Free => "double free, or free of a block of another allocator or another copy of Neap",
        Use::Realloc => "realloc of a block that is free, or of another allocator or another copy of Neap",
        Use::Measure => {
            "malloc_usable_size of a block that is free, or of another allocator or another copy of Neap"
        }
    }
}
