//! The C API over the same core: `malloc` and the rest, and C++'s operators.
//!
//! Not for Rust programs to call: `export.rs` gives these functions their C
//! names, in a program built with the feature `malloc`, or in the shared
//! library `examples/neap_preload.rs`. Each takes the [`Neap`](crate::Neap)
//! whose settings hold.

mod control;
mod diagnosis;
mod export;
mod malloc;
mod malloc_family;
mod operators;
mod stay_loaded;

pub use control::{mallinfo, mallinfo2, malloc_stats, malloc_trim, mallopt};
pub use libc::{mallinfo as Info, mallinfo2 as Info2};
pub use malloc::{calloc, free, malloc, malloc_usable_size};
pub use malloc_family::{
    aligned_alloc, free_aligned_sized, free_sized, memalign, posix_memalign, pvalloc, realloc, reallocarray,
    valloc,
};
pub use operators::{
    delete_aligned, delete_aligned_nothrow, delete_nothrow, delete_sized, new, new_aligned,
    new_aligned_nothrow, new_nothrow,
};
pub use stay_loaded::stay_loaded;

/// The C API's own heap in a program built with the feature: what settings
/// the program's own `Neap` has come before its.
#[cfg(feature = "malloc")]
mod exported {
    use crate::global::neap::Neap;

    static HEAP: Neap = Neap::provisional();

    crate::__export_c_api!(HEAP);
}
