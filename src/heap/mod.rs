//! The heap that all threads share: from address space to blocks.
//!
//! A segment is reserved address space, cut into slices of 64 KiB. The page heap
//! knows which slices are free and which of those are resident. A span is one or
//! four slices of blocks of one class, with a bitmap of the free ones. A run is the
//! slices of one larger block. Above 4 MiB a block has a mapping of its own. For
//! each class a central list holds the spans with free blocks. Nothing outside this
//! folder reads a span's state.

pub(crate) mod central;
pub(crate) mod free_batch;
pub(crate) mod inventory;
pub(crate) mod large;
pub(crate) mod live_map;
pub(crate) mod lookup;
pub(crate) mod mapped;
pub(crate) mod metadata;
pub(crate) mod page_heap;
pub(crate) mod run;
pub(crate) mod segment;
pub(crate) mod span;
pub(crate) mod sweep;
mod transparent_huge_pages;
pub(crate) mod uncached;
