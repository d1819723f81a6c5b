//! Neap: a global allocator in pure Rust whose pools age with the tide.

mod central;
mod class_pool;
mod epoch;
mod fork;
mod give;
mod huge;
mod local;
mod magazine;
mod metadata;
mod misuse;
mod neap;
mod os;
mod page_heap;
mod registry;
mod run;
mod segment;
mod settings;
mod size_class;
mod slow_path;
mod span;
mod stats;
mod sync;
mod thread_heap;
mod ticker;
mod tide;
mod victims;

pub use neap::{Neap, good_size};
pub use stats::{ClassStats, Stats, stats};

/// The crate's own tests run on the crate's own allocator.
#[cfg(test)]
#[global_allocator]
static HEAP: Neap = Neap::new();

/// Ends the current epoch by hand: empties every victim tier, demotes every
/// local one, and returns the pages that nobody used in the epoch.
pub fn tick() {
    tide::tick();
}

/// Gives everything that is free back to the operating system, now, whenever
/// it was used last.
pub fn purge() {
    tide::purge();
}

/// Gives this thread's pooled blocks back to their spans, for a thread that is
/// about to wait for long, such as in a runtime's park hook.
pub fn flush_thread() {
    slow_path::flush_thread();
}
