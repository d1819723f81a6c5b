//! A global allocator in pure Rust whose pools age with the tide.
//!
//! ```
//! #[global_allocator]
//! static HEAP: neap::Neap = neap::Neap::new();
//! # fn main() {
//! let boxed = Box::new([1, 2, 3]);
//! drop(boxed);
//! // Where is the memory?
//! println!("{}", neap::stats());
//! # }
//! ```
//!
//! Each thread keeps freed blocks in pools by size class, in two tiers: **local**
//! (active) and **victim** (archived). A **tick** ends an **epoch**: victims go
//! back to their spans, what was local becomes victim, and pages that nobody
//! used in the epoch go back to the operating system. So what a program keeps
//! using stays at hand, and what it stopped using is gone two ticks later.
//!
//! Ticks are driven by allocation activity; by a thread of Neap's own if
//! [`Neap::background`] is set; and by hand with [`tick`]. [`Neap`] lists the
//! settings and what happens on misuse, [`stats`] tells where every byte is.
//!
//! [`Pool`] is the same idea for objects of your own: Go's `sync.Pool`, typed.
//! It works under any global allocator.
//!
//! # C code in the same process
//!
//! The feature `malloc` exports `malloc` and the rest of the C API, and C++'s
//! operators, from the program, so that what its C libraries allocate is Neap's
//! too (Linux). The settings are those of the program's own [`Neap`]. For
//! programs that cannot be rebuilt, `examples/neap_preload.rs` is the same as a
//! shared library for `LD_PRELOAD`. `free` looks every pointer up: a double
//! free, or an address that is no block in use, aborts the process at once.
//!
//! # Costs
//!
//! A block of up to 256 KiB taken and given back while the thread's pool serves
//! is about 25 instructions, none of them a call or locked (with fat LTO; two
//! calls in a plain release build). Every hundredth or so operation goes to
//! the spans, for some ten nanoseconds a block. A tick looks at each thread's
//! heap and at the header of each 64 KiB slice in use, in small steps when it is done
//! from an allocation.

mod base;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod c_api;
mod config;
mod global;
mod heap;
mod object_pool;
mod platform;
mod reclaim;
mod thread_cache;

pub use global::neap::{Neap, good_size};
pub use global::stats::{ClassStats, Stats, stats};
pub use object_pool::{Pool, PoolGuard, Tier, TierOrder};

/// The crate's own tests run on the crate's own allocator.
#[cfg(test)]
#[global_allocator]
static HEAP: Neap = Neap::new();

/// Ends the current epoch by hand: empties every victim tier, demotes every
/// local one, and returns the pages that nobody used in the epoch.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// drop(vec![1u8; 100_000]);
/// let before = neap::stats().ticks;
/// neap::tick();
/// neap::tick();
/// assert!(neap::stats().ticks >= before + 2);
/// ```
pub fn tick() {
    reclaim::tick::tick();
    base::epoch::run_hook();
}

/// Gives everything that is free back to the operating system, now, whenever
/// it was used last.
pub fn purge() {
    reclaim::tick::purge();
    base::epoch::run_hook();
}

/// Gives this thread's pooled blocks back to their spans, for a thread that is
/// about to wait for long, such as in a runtime's park hook.
pub fn flush_thread() {
    global::slow_path::flush_thread();
}
