//! A snapshot of every tier, class and page.

use crate::base::epoch;
use crate::base::size_class::{CLASSES, block_size};
use crate::heap::inventory::{self, Item};
use crate::heap::mapped;
use crate::reclaim::tick;
use crate::thread_cache::registry;
use core::fmt;

/// Where the memory is, as [`stats`] found it. Bytes unless a field says otherwise.
///
/// Taken while other threads go on, so the figures agree with each other only up to what they do
/// meanwhile. `Display` prints all of it as a table, with a row for each size class in use;
/// printing may allocate.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// let kept = vec![1u8; 1 << 20];
/// drop(vec![1u8; 1000]);
/// let stats = neap::stats();
/// assert!(stats.mapped >= stats.resident && stats.resident >= kept.len());
/// assert!(stats.live >= kept.len() && stats.pooled_local >= 1000);
/// assert!(stats.to_string().contains("pooled, local tier"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Address space reserved for blocks; most of it costs no memory.
    pub mapped: usize,
    /// Of it, what is resident; an estimate from what was touched and returned. Neap's metadata is
    /// not in it, nor are code, stacks, and what other allocators have.
    pub resident: usize,
    /// In the program's hands, with what rounding up to a class adds.
    pub live: usize,
    /// In the local (active) tier of all threads.
    pub pooled_local: usize,
    /// In the victim (archived) tier of all threads.
    pub pooled_victim: usize,
    /// Free in spans, whether its pages are resident or not.
    pub free_in_spans: usize,
    /// Resident in free page runs and kept mappings.
    pub free_runs: usize,
    /// Ticks so far, a count: epochs that ended. A [`purge`](crate::purge) counts as two.
    pub ticks: u64,
    /// Pages of 4 KiB returned to the operating system so far, a count.
    pub pages_returned: u64,
    /// Slow paths of `alloc` so far, a count: refills of a magazine.
    pub refills: u64,
    /// Slow paths of `dealloc` so far, a count: spills of a magazine.
    pub spills: u64,
    /// Threads that have a cache, a count.
    pub threads: usize,
    classes: [ClassStats; CLASSES],
}

/// One size class, of [`Stats::classes`]. Counts of blocks unless a field says otherwise.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// let class = || -> neap::ClassStats {
///     *neap::stats().classes().iter().find(|class| class.block_size == 8192).unwrap()
/// };
/// let before = class().live;
/// let block = Box::new([0u64; 1000]); // 8,000 bytes are served by the class of 8 KiB
/// assert_eq!(class().live, before + 1);
/// drop(block);
/// assert_eq!(class().live, before);
/// assert!(class().pooled_local >= 1 && class().spans >= 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block, not a count.
    pub block_size: usize,
    /// In the program's hands.
    pub live: usize,
    /// In the local tier of all threads.
    pub pooled_local: usize,
    /// In the victim tier of all threads.
    pub pooled_victim: usize,
    /// Free in spans.
    pub free: usize,
    /// Spans of this class; runs in use where a block is above 32 KiB.
    pub spans: usize,
}

/// Takes a snapshot.
///
/// Works at any time and from any thread, and allocates nothing. Cost: a look at each thread's
/// cache, under its lock, and at each 64 KiB of memory in use; about 0.1 ms for each GiB. Where
/// Neap is not the global allocator nearly all figures are 0.
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// let before = neap::stats();
/// let block = vec![1u8; 3 << 20];
/// let after = neap::stats();
/// assert_eq!(after.live - before.live, block.len());
/// println!("{} KiB live, {} KiB resident", after.live >> 10, after.resident >> 10);
/// ```
pub fn stats() -> Stats {
    let mut stats = Stats {
        mapped: inventory::reserved(),
        resident: 0,
        live: 0,
        pooled_local: 0,
        pooled_victim: 0,
        free_in_spans: 0,
        free_runs: inventory::free_runs(),
        ticks: epoch::current(),
        pages_returned: tick::pages_returned(),
        refills: 0,
        spills: 0,
        threads: registry::threads(),
        classes: core::array::from_fn(|class| ClassStats {
            block_size: block_size(class),
            ..Default::default()
        }),
    };
    stats.add_heap();
    stats.add_caches();
    let (mapped, in_use, kept) = mapped::bytes();
    stats.mapped += mapped;
    stats.resident += stats.free_runs + in_use + kept;
    stats.free_runs += kept;
    stats.live += in_use;
    stats.sum_classes();
    stats
}

impl Stats {
    /// Each size class, the smallest first. Blocks above 256 KiB are in none. How many classes there
    /// are, and their sizes, may change from version to version.
    ///
    /// ```
    /// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
    /// # fn main() {
    /// let stats = neap::stats();
    /// let fullest = stats.classes().iter().max_by_key(|class| class.live * class.block_size);
    /// assert!(fullest.is_some_and(|class| class.live > 0));
    /// # }
    /// ```
    pub fn classes(&self) -> &[ClassStats] {
        &self.classes
    }

    fn add_heap(&mut self) {
        inventory::each(|item| match item {
            Item::Span { class, free, used, resident } => {
                self.classes[class].spans += 1;
                self.classes[class].free += free;
                self.classes[class].live += used;
                self.resident += resident;
            }
            Item::Run { class, resident } => {
                self.classes[class].spans += 1;
                self.classes[class].live += 1;
                self.resident += resident;
            }
            Item::Large { bytes } => {
                self.live += bytes;
                self.resident += bytes;
            }
        });
    }

    fn add_caches(&mut self) {
        for member in registry::all() {
            let cache = member.cache.lock();
            self.refills += cache.refills;
            self.spills += cache.spills;
            for (class, (local, victim)) in self.classes.iter_mut().zip(cache.pooled()) {
                class.pooled_local += local;
                class.pooled_victim += victim;
            }
        }
    }

    fn sum_classes(&mut self) {
        for class in &mut self.classes {
            // What is out of the spans and not pooled is the program's.
            class.live = class.live.saturating_sub(class.pooled_local + class.pooled_victim);
            self.live += class.live * class.block_size;
            self.pooled_local += class.pooled_local * class.block_size;
            self.pooled_victim += class.pooled_victim * class.block_size;
            self.free_in_spans += class.free * class.block_size;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("mapped", self.mapped),
            ("resident (estimate)", self.resident),
            ("live", self.live),
            ("pooled, local tier", self.pooled_local),
            ("pooled, victim tier", self.pooled_victim),
            ("free in spans", self.free_in_spans),
            ("free runs, resident", self.free_runs),
        ];
        for (name, bytes) in rows {
            writeln!(f, "{name:<20} {:>12.1} KiB", bytes as f64 / 1024.0)?;
        }
        writeln!(
            f,
            "{} threads, {} ticks, {} pages returned, {} refills, {} spills",
            self.threads, self.ticks, self.pages_returned, self.refills, self.spills
        )?;
        writeln!(
            f,
            "{:>8} {:>10} {:>10} {:>10} {:>10} {:>8}",
            "size", "live", "local", "victim", "free", "spans"
        )?;
        for class in self.classes.iter().filter(|class| class.spans > 0) {
            writeln!(
                f,
                "{:>8} {:>10} {:>10} {:>10} {:>10} {:>8}",
                class.block_size,
                class.live,
                class.pooled_local,
                class.pooled_victim,
                class.free,
                class.spans
            )?;
        }
        Ok(())
    }
}
