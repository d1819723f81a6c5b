//! A global allocator in pure Rust. Each thread keeps freed blocks in two tiers, as Go's
//! `sync.Pool` keeps objects; a tick, by default every half second, returns to the operating
//! system what went unused. One line adopts it:
//!
//! ```
//! #[global_allocator]
//! static HEAP: neap::Neap = neap::Neap::new();
//!
//! fn main() {
//!     let block = vec![1u8; 1 << 20];
//!     assert!(neap::stats().live >= block.len());
//! }
//! ```
//!
//! [`Neap`] is the allocator and its settings, [`stats`] tells where every byte is, [`tick`],
//! [`purge`] and [`flush_thread`] return memory by hand. [`Pool`] is the same idea for objects
//! of your own, under any global allocator.
//!
//! # The design
//!
//! ```text
//!             pop, push                 refill, spill
//!  program  <----------->  thread cache  <--------->  span  <-->  page heap  <-->  system
//!                          per size class             bitmap      64 KiB slices    pages
//!
//!  each tick, what was not used:    local -> victim -> span,   pages -> system
//! ```
//!
//! **Magazine.** A thread cache has one for each of 68 size classes, up to 256 KiB: an array of
//! pointers to free blocks. `alloc` pops, `dealloc` pushes, inlined into the caller, without a
//! lock; if it is empty or full, a *slow path* refills or spills it. Rust passes the layout to
//! `dealloc`, so a free looks nothing up. The magazines are the *local tier*. One holds 10 blocks,
//! then 58, then 250 if the thread needs them; at most 512 KiB a class and 8 MiB a thread. Neap
//! writes nothing into freed blocks.
//!
//! **Victim.** The *victim tier* is what was in the magazines at the last tick. A refill takes a
//! few blocks from it, 4, then 8, and so on: what the program still needs stays, the rest leaves.
//!
//! **Span.** Blocks of up to 32 KiB are cut from spans of 64 or 256 KiB. A span is a bitmap, 1 is
//! free. A refill takes whole words of it, so a thread gets neighbours. A freed block is returned
//! by setting its bit, from any thread, without an owner or a message. A bit that is already set
//! is a double free. The fullest span serves first, so that others become empty.
//!
//! **Segment and page heap.** A segment is up to 1 GiB of reserved address space, cut into slices
//! of 64 KiB. The page heap knows which slices are free, and which of those still hold pages. A
//! block of 32 KiB to 4 MiB is a *run* of slices of its own; a larger one, or one that `realloc`
//! lets grow above 256 KiB, is a mapping of its own, which grows without copying.
//!
//! **Tick and epoch.** A tick ends an epoch, by default of 500 ms. It ages the thread caches,
//! those of sleeping threads too: victims are returned to their spans, and what was local becomes
//! victim. Then it returns pages. What a program keeps using stays at hand; what it stopped using
//! is with the system two ticks later. While the heap grows, epochs end early.
//!
//! **Background thread.** Every eighth slow path looks at the clock and does one small step of a
//! due tick. A process that is idle, or whose threads are served by their magazines, has no slow
//! paths; with [`Neap::background`] a thread ticks instead, and sleeps without any wake-up once
//! nothing is left to age.
//!
//! | returned to the system | when |
//! |---|---|
//! | pages of a span whose blocks are all free | unused for an epoch, though the span is in use |
//! | free slices, also those of empty spans | as many as were free at every moment of an epoch |
//! | a mapping (above 4 MiB) | when it is freed if above 32 MiB, else unused for an epoch; at most 64 MiB are kept |
//! | everything free | at a [`purge`], at the soft limit, and before memory counts as exhausted |
//!
//! # Costs
//!
//! Measured on 2 cores of an AMD EPYC (Zen 5), with fat LTO. `docs/benchmarks.md` has all tables,
//! and how they were made.
//!
//! | what | cost |
//! |---|---|
//! | a block of a size known to the compiler, allocated and freed | 0.64 ns; no call and no locked instruction |
//! | the same, 1 to 512 bytes, size unknown | 1.49 ns |
//! | 10,000 blocks of 32 bytes in a row, with refills and spills | 1.5 ns an `alloc`, 2.6 ns a `dealloc` |
//! | a block above 256 KiB | a slow path each time, under a lock; above 4 MiB perhaps a system call |
//! | a tick after 10,000 blocks | 10 µs |
//! | rounding up to a class | steps of 8 bytes to 64, of 16 to 128; at most 12.5 % to 1 KiB, 25 % to 256 KiB; whole pages above |
//! | metadata | at most 576 bytes for each slice of 64 KiB in use, 0.9 %; 576 bytes of thread-local storage |
//!
//! # Threads, fork, misuse, C
//!
//! * **Threads.** A thread gets its cache at its first slow path. When it ends, all but 64 KiB is
//!   returned to the spans; that rest is for the next thread, or for the next tick.
//! * **Fork.** Every lock is held over it, so the child may allocate at once. It gets what other
//!   threads had cached, and starts its own background thread when it needs one.
//! * **Misuse** that is noticed aborts the process, with one line on standard error. What Rust
//!   frees, up to 256 KiB, is checked only when the block leaves the thread cache, at the second
//!   tick if it lies still; **until then a block freed twice may be handed out twice**. Larger
//!   blocks, and all of C's, are checked at once. `docs/misuse.md` has every case.
//! * **C.** The feature `malloc`, or a library for `LD_PRELOAD`, has C and C++ use the same heap
//!   (`docs/c-api.md`). `free` has no layout, so a *live map*, one byte for each 16 bytes of heap,
//!   tells whether a block is in use.
//!
//! # Features
//!
//! | feature | default | what it does |
//! |---|---|---|
//! | `malloc` | off | the program exports `malloc`, `free` and the rest of the C API, and C++'s `operator new` and `delete`, for its C parts (Linux with glibc) |
//!
//! # Platforms
//!
//! | platform | state |
//! |---|---|
//! | Linux, x86_64, glibc | tested |
//! | Linux, aarch64, glibc | type-checked only; its portable fast path is tested on x86_64 |
//! | macOS, FreeBSD | type-checked only; no C API, no huge pages, no limit from a control group |
//! | Linux with musl | type-checked only |
//! | Windows, `no_std` | no |
//!
//! `membarrier` (Linux 4.14) is needed to age sleeping threads' caches; without it each thread
//! ages its own.
//!
//! # Settings
//!
//! Read at the first allocation of the process; the environment overrides the program, and a later
//! call both. [`settings`] tells those in force.
//!
//! | method | variable | default | unit | later |
//! |---|---|---|---|---|
//! | [`Neap::tick_interval`] | `NEAP_TICK_INTERVAL` | `500ms` | a time, at least 1 ms: `500`, `2s` | [`set_tick_interval`] |
//! | [`Neap::background`] | `NEAP_BACKGROUND` | off | `1` or `0`, `yes` or `no` | [`set_background`] |
//! | [`Neap::thread_pool_bytes`] | `NEAP_THREAD_POOL_BYTES` | `8M` | bytes, 0 included: `65536`, `64k` | [`set_thread_pool_bytes`] |
//! | [`Neap::limit`] | `NEAP_LIMIT_BYTES` | none | bytes, 0 is none: `1073741824`, `1G` | [`set_limit`] |
//! | [`Neap::limit_from_cgroup`] | `NEAP_LIMIT_FROM_CGROUP` | off | `1` or `0`, `yes` or `no` | |
//! | [`Neap::huge_pages`] | `NEAP_HUGE_PAGES` | as the system has it | `1` or `0`, `yes` or `no` | |
//!
//! # The source
//!
//! Folders are layers; none imports from one above it (`tests/layers.rs`). ARCHITECTURE.md goes
//! on from here.
//!
//! ```text
//! src/
//! ├ c_api/          malloc family, operators new and delete, the live map's checks
//! ├ global/         Neap: the two fast paths, their slow paths; stats
//! ├ object_pool/    Pool<T>
//! ├ reclaim/        the tick, the background thread, fork
//! ├ thread_cache/   magazines, victims, every thread's cache, thread-local storage
//! ├ heap/           spans, runs, mappings, the page heap, segments, huge pages, live map
//! ├ config/         settings, control groups, the soft limit
//! ├ base/           size classes, the epoch, what the whole process shares
//! └ platform/       the operating system and the processor, behind one contract
//! ```

// Elsewhere there is no C API, and parts are there for it alone.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

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

pub use config::settings::SettingSource;
pub use global::neap::{Neap, good_size};
pub use global::settings::{
    Setting, Settings, set_background, set_limit, set_thread_pool_bytes, set_tick_interval, settings,
};
pub use global::stats::{ClassStats, Stats, stats};
pub use object_pool::{Pool, PoolGuard, Tier, TierOrder};

/// The crate's own tests run on the crate's own allocator.
#[cfg(test)]
#[global_allocator]
static HEAP: Neap = Neap::new();

/// Ends the current epoch by hand, for all threads: returns victims to their spans, makes what
/// was local victim, and returns the pages that nobody used in the epoch. Twice returns all that
/// was not used in between.
///
/// Also ages every [`Pool`], whose dropped objects run their destructors on this thread; a panic
/// in one passes to the caller. Works whatever the global allocator is: without a [`Neap`] it only
/// ages pools. Any thread may call it, at any time; two at once are done one after the other.
///
/// Cost: a look at each thread's cache and at the header of each 64 KiB slice in use, and some
/// nanoseconds for each victim. 10 µs after 10,000 blocks.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// drop(Box::new([0u64; 1000])); // a class that nothing else here uses: 8 KiB
/// let tiers = || {
///     let class = *neap::stats().classes().iter().find(|class| class.block_size == 8192).unwrap();
///     (class.pooled_local > 0, class.pooled_victim > 0)
/// };
/// assert_eq!(tiers(), (true, false));
/// neap::tick();
/// assert_eq!(tiers(), (false, true));
/// neap::tick();
/// assert_eq!(tiers(), (false, false)); // back in its span
/// ```
pub fn tick() {
    reclaim::tick::tick();
    base::epoch::run_hook();
}

/// Returns everything that is free to the operating system now, whenever it was used last: what
/// all threads have cached, empty spans, free pages and kept mappings.
///
/// It ends two epochs, so every object that lies in a [`Pool`] is dropped too, on this thread.
/// Waits for a tick that is under way. For a long idle time ahead, or before memory is measured.
///
/// Cost: milliseconds on a large heap, and page faults for what is used again afterwards.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
/// neap::purge();
/// let stats = neap::stats();
/// assert!(stats.pages_returned >= 10_000 * 800 / 4096);
/// assert_eq!((stats.pooled_local, stats.pooled_victim, stats.free_runs), (0, 0, 0));
/// ```
pub fn purge() {
    reclaim::tick::purge();
    base::epoch::run_hook();
}

/// Returns what this thread has cached, both tiers of it, to the spans; other threads may use it
/// then, and the next tick returns its pages. For a thread that is about to wait for long, such as
/// in a runtime's park hook. It is also where misuse is noticed early: every block is checked.
///
/// Other threads and every [`Pool`] stay as they are. Cost: some nanoseconds a block.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// drop((0..1000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
/// assert!(neap::stats().pooled_local > 0);
/// neap::flush_thread();
/// let stats = neap::stats();
/// assert_eq!((stats.pooled_local, stats.pooled_victim), (0, 0));
/// ```
pub fn flush_thread() {
    global::slow_path::flush_thread();
}
