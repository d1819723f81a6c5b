//! The C API: the malloc family and C++'s operators `new` and `delete`, over the same
//! heap.
//!
//! Not for Rust programs to call: `export.rs` gives these functions their C names, in a
//! program built with the feature `malloc`, or in the shared library of
//! `examples/preload`. Each takes the [`Neap`](crate::Neap) with the settings to use.

mod control;
mod diagnosis;
mod export;
mod malloc;
mod malloc_family;
mod operators;

pub use control::{Info, mallinfo, mallinfo2, malloc_stats, malloc_trim, mallopt};
pub use malloc::{calloc, free, malloc, malloc_usable_size};
pub use malloc_family::{
    aligned_alloc, free_aligned_sized, free_sized, memalign, posix_memalign, pvalloc, realloc, reallocarray,
    valloc,
};
pub use operators::{
    delete_aligned, delete_aligned_nothrow, delete_nothrow, delete_sized, new, new_aligned,
    new_aligned_nothrow, new_nothrow,
};

/// The `Neap` of the C API in a program built with the feature. The settings of the
/// program's own `Neap` replace its defaults.
#[cfg(feature = "malloc")]
mod exported {
    use crate::global::neap::Neap;

    static HEAP: Neap = Neap::provisional();

    crate::__export_c_api!(HEAP);
}
