//! A snapshot of every tier, class and page.

use crate::base::epoch;
use crate::base::size_class::{CLASSES, GEOMETRY, PAGE, SLICE, SPAN_CLASSES, block_size};
use crate::heap::mapped;
use crate::heap::page_heap;
use crate::heap::segment::Segment;
use crate::heap::span::Kind;
use crate::reclaim::tick;
use crate::thread_cache::registry;
use core::fmt;

/// Where the memory is. Bytes unless a field says otherwise.
///
/// Taken while other threads go on, so the figures agree with each other only
/// up to what they do meanwhile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Address space reserved for blocks.
    pub mapped: usize,
    /// Of it, what is resident; an estimate from what was touched and returned.
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
    /// Ticks so far.
    pub ticks: u64,
    /// Pages given back to the operating system so far.
    pub pages_returned: u64,
    /// Slow paths of `alloc` so far: refills of a magazine.
    pub refills: u64,
    /// Slow paths of `dealloc` so far: spills of a magazine.
    pub spills: u64,
    /// Threads that have a cache.
    pub threads: usize,
    /// Each class of size, the smallest first.
    pub classes: [ClassStats; CLASSES],
}

/// One class. Blocks unless a field says otherwise.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block.
    pub block_size: usize,
    /// In the program's hands.
    pub live: usize,
    /// In the local tier of all threads.
    pub pooled_local: usize,
    /// In the victim tier of all threads.
    pub pooled_victim: usize,
    /// Free in spans.
    pub free: usize,
    /// Spans of this class, or runs in use.
    pub spans: usize,
}

/// Takes a snapshot.
///
/// Cost: a look at each thread's cache, under its lock, and at each 64 KiB of
/// reserved memory in use; about 0.1 ms for each GiB. Allocates nothing.
pub fn stats() -> Stats {
    let mut stats = Stats {
        mapped: 0,
        resident: 0,
        live: 0,
        pooled_local: 0,
        pooled_victim: 0,
        free_in_spans: 0,
        free_runs: page_heap::resident_slices() * SLICE,
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
    stats.add_segments();
    stats.add_heaps();
    let (mapped, in_use, kept) = mapped::bytes();
    stats.mapped += mapped;
    stats.resident += stats.free_runs + in_use + kept;
    stats.free_runs += kept;
    stats.live += in_use;
    stats.sum_classes();
    stats
}

impl Stats {
    fn add_segments(&mut self) {
        for segment in Segment::all() {
            self.mapped += segment.slices * SLICE;
            let mut from = 0;
            while let Some(slice) = page_heap::next_in_use(segment, from) {
                from = slice + self.add_slice(segment, slice);
            }
        }
    }

    /// Counts what starts on a slice; gives how many slices ahead the next one may start.
    fn add_slice(&mut self, segment: &Segment, slice: usize) -> usize {
        let span = segment.span(slice);
        let (kind, slices) = span.extent();
        match kind {
            Kind::Class(class) if class < SPAN_CLASSES => {
                let geometry = &GEOMETRY[class];
                let free = span.free_blocks(geometry);
                self.classes[class].spans += 1;
                self.classes[class].free += free;
                // Saturating, since the span may be another class's by now.
                self.classes[class].live += (geometry.blocks as usize).saturating_sub(free);
                self.resident += span.resident_pages(geometry) * PAGE;
            }
            Kind::Class(class) => {
                self.classes[class].spans += 1;
                self.classes[class].live += 1;
                self.resident += block_size(class);
            }
            Kind::Large => {
                self.live += span.run_pages() * PAGE;
                self.resident += span.run_pages() * PAGE;
            }
            Kind::Nothing => {}
        }
        slices.max(1)
    }

    fn add_heaps(&mut self) {
        for member in registry::all() {
            let cache = member.cache.lock();
            self.refills += cache.refills;
            self.spills += cache.spills;
            for (number, (class, class_cache)) in self.classes.iter_mut().zip(&cache.classes).enumerate() {
                let (local, victim) = class_cache.pooled(cache.thread.map(|thread| &thread.tops[number]));
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
