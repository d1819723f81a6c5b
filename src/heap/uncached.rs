//! Allocates for threads without a thread cache: one block at a time, from a span.

use crate::base::size_class::{GEOMETRY, SPAN_CLASSES};
use crate::heap::span::NO_CACHE;
use crate::heap::{central, run};

/// A block of the class; null without memory. The caller has called `registry::enter`.
pub(crate) fn alloc(class: usize) -> *mut u8 {
    if class >= SPAN_CLASSES {
        return run::alloc_class(class, false);
    }
    let mut out = [0];
    while let Some(span) = central::attach(class, NO_CACHE, true) {
        let allocated = span.alloc(&GEOMETRY[class], &mut out, false);
        central::detach(class, span);
        if allocated == 1 {
            break;
        }
    }
    out[0] as *mut u8
}
