//! The workloads. They call the C library's names, so the preloaded library serves them.

mod blocks;
mod threads;

use std::time::Instant;

/// A workload.
pub struct Work {
    /// Its name in tables.
    pub name: &'static str,
    /// Does the given number of units of it.
    pub run: fn(u64),
    /// Units that take about 0.3 seconds.
    pub units: u64,
}

/// All workloads that run in a process of their own.
pub const ALL: &[Work] = &[
    Work { name: "pairs of 16 bytes", run: |units| blocks::pairs(units, 16), units: 80_000_000 },
    Work { name: "pairs of 64 bytes", run: |units| blocks::pairs(units, 64), units: 80_000_000 },
    Work { name: "pairs of 512 bytes", run: |units| blocks::pairs(units, 512), units: 80_000_000 },
    Work { name: "pairs of 16 KiB", run: |units| blocks::pairs(units, 16 << 10), units: 40_000_000 },
    Work { name: "pairs of 1 to 512 bytes", run: blocks::mixed_pairs, units: 40_000_000 },
    Work { name: "batches of 1,000 mixed, oldest first", run: blocks::batches_in_order, units: 25_000 },
    Work { name: "batches of 1,000 mixed, newest first", run: blocks::batches_reversed, units: 25_000 },
    Work { name: "batches of 100,000 mixed, shuffled", run: blocks::batches_shuffled, units: 80 },
    Work { name: "one of 20,000 replaced at random", run: blocks::replaced, units: 15_000_000 },
    Work { name: "calloc of 1 to 1,024 bytes", run: blocks::cleared, units: 15_000_000 },
    Work { name: "realloc, grown from 16 bytes to 64 KiB", run: blocks::grown, units: 150_000 },
    Work { name: "blocks of 32 KiB to 1 MiB, 20 at a time", run: blocks::big, units: 1_000_000 },
    Work { name: "larson-like, 2 threads", run: threads::larson, units: 10_000_000 },
    Work { name: "producer and consumer", run: threads::handed_on, units: 10_000_000 },
    Work { name: "2 threads, each its own blocks", run: threads::apart, units: 15_000_000 },
];

/// Runs a workload and returns its seconds. None if there is no such workload.
pub fn time(name: &str, scale: f64) -> Option<f64> {
    let work = ALL.iter().find(|work| work.name == name)?;
    let start = Instant::now();
    (work.run)((work.units as f64 * scale).ceil() as u64);
    Some(start.elapsed().as_secs_f64())
}

/// A small generator that allocates nothing.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half of a product: no division.
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}
