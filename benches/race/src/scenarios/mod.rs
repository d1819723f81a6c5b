//! Memory scenarios: what a process keeps, and what returning memory costs.

mod growth;
mod latency;
mod phases;
mod spike;
mod steady;
mod threads;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::OnceLock;
use std::time::Duration;

const MIB: f64 = (1 << 20) as f64;
/// Two of Neap's ticks, and the time they take.
const TWO_TICKS: Duration = Duration::from_millis(1200);

/// One scenario.
pub struct Scenario {
    /// Its name in arguments.
    pub name: &'static str,
    /// The table it belongs to.
    pub table: &'static str,
    /// The rows for what it measures, in this order.
    pub figures: &'static [Figure],
    /// Runs it, at a scale.
    pub run: fn(f64) -> Vec<f64>,
    /// Contestants in addition to the usual ones.
    pub variants: &'static [&'static str],
}

/// A row of a table.
pub struct Figure {
    /// Its name in tables.
    pub name: &'static str,
    /// What Neap should reach.
    pub goal: Goal,
}

/// What Neap should reach.
pub enum Goal {
    /// Nothing in particular.
    None,
    /// This much, or less.
    AtMost(f64),
    /// No more than another contestant has.
    AtMostOf(&'static str),
    /// A share of what another contestant has, or more.
    AtLeastOf(&'static str, f64),
}

const fn figure(name: &'static str, goal: Goal) -> Figure {
    Figure { name, goal }
}

const KEPT: &str = "Resident above the start, MiB";
const DRIFT: &str = "Resident / live; 100 MiB of blocks replaced by others of drifting sizes";
const STEADY: &str = "A steady load of 200 MiB";
const GROWTH: &str = "An operation by live blocks of 8 to 64 bytes, ns";
const LATENCY: &str = "Single operations over a heap of 500 MiB, ns";

/// All, in the order of the tables.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "spike",
        table: KEPT,
        figures: &[
            figure("1 GiB of 32..512 bytes freed, 1.2 s later", Goal::AtMost(8.0)),
            figure("the same, 10 s later", Goal::None),
        ],
        run: spike::spike,
        variants: &[],
    },
    Scenario {
        name: "survivors",
        table: KEPT,
        figures: &[figure("the same, 1 block in 100 kept (11 MiB)", Goal::AtMost(190.0))],
        run: spike::survivors,
        variants: &[],
    },
    Scenario {
        name: "runs",
        table: KEPT,
        figures: &[figure("200 of every 2,000 neighbours kept (31 MiB of 305)", Goal::AtMost(45.0))],
        run: spike::runs,
        variants: &[],
    },
    Scenario {
        name: "sleepers-8",
        table: KEPT,
        figures: &[figure("8 threads free 1 GiB in all and sleep", Goal::AtMost(12.0))],
        run: |scale| threads::sleepers(scale, 8),
        variants: &[],
    },
    Scenario {
        name: "sleepers-64",
        table: KEPT,
        figures: &[figure("64 threads free 1 GiB in all and sleep", Goal::AtMost(12.0))],
        run: |scale| threads::sleepers(scale, 64),
        variants: &[],
    },
    Scenario {
        name: "sleepers-1000",
        table: "Kept for a sleeping thread, KiB",
        figures: &[figure("1,000 threads used 200 blocks of 16..2048 bytes each", Goal::AtMost(4.0))],
        run: threads::little,
        variants: &[],
    },
    Scenario {
        name: "phases-oldest",
        table: DRIFT,
        figures: &[
            figure("the oldest first, worst at any time", Goal::AtMost(1.25)),
            figure("the oldest first, worst at a phase's end", Goal::AtMost(1.25)),
        ],
        run: |scale| phases::phases(scale, phases::Order::Oldest),
        variants: &[],
    },
    Scenario {
        name: "phases-random",
        table: DRIFT,
        figures: &[
            figure("in random order, worst at any time", Goal::AtMost(1.25)),
            figure("in random order, worst at a phase's end", Goal::AtMost(1.25)),
        ],
        run: |scale| phases::phases(scale, phases::Order::Random),
        variants: &[],
    },
    Scenario {
        name: "steady",
        table: STEADY,
        figures: &[
            figure("page faults per second", Goal::AtMostOf("neap-no-ticks")),
            figure("million replacements per second", Goal::AtLeastOf("neap-no-ticks", 0.99)),
        ],
        run: steady::steady,
        variants: &["neap-no-ticks"],
    },
    Scenario {
        name: "growth-1k",
        table: GROWTH,
        figures: &[
            figure("1 thousand live, one replaced", Goal::None),
            figure("1 thousand live, one only written to", Goal::None),
        ],
        run: |scale| growth::growth(scale, 1_000),
        variants: &[],
    },
    Scenario {
        name: "growth-1m",
        table: GROWTH,
        figures: &[
            figure("1 million live, one replaced", Goal::None),
            figure("1 million live, one only written to", Goal::None),
        ],
        run: |scale| growth::growth(scale, 1_000_000),
        variants: &[],
    },
    Scenario {
        name: "growth-30m",
        table: GROWTH,
        figures: &[
            figure("30 million live, one replaced", Goal::None),
            figure("30 million live, one only written to", Goal::None),
        ],
        run: |scale| growth::growth(scale, 30_000_000),
        variants: &[],
    },
    Scenario {
        name: "latency",
        table: LATENCY,
        figures: &[
            figure("alloc, p50", Goal::None),
            figure("alloc, p99", Goal::None),
            figure("alloc, p99.9", Goal::None),
            figure("alloc, p99.99", Goal::AtMostOf("mimalloc")),
            figure("alloc, most", Goal::None),
            figure("free, p50", Goal::None),
            figure("free, p99", Goal::None),
            figure("free, p99.9", Goal::None),
            figure("free, p99.99", Goal::AtMostOf("mimalloc")),
            figure("free, most", Goal::None),
        ],
        run: latency::latency,
        variants: &["neap-foreground", "neap-no-ticks"],
    },
];

/// The allocator's own statistics, if it has any.
pub static STATS: OnceLock<fn() -> String> = OnceLock::new();

/// Prints them on standard error, if `RACE_STATS` asks for it. To be called after the last
/// reading, while what survives is still live.
fn tell_stats() {
    if let Some(stats) = STATS.get().filter(|_| std::env::var_os("RACE_STATS").is_some()) {
        eprintln!("{}", stats());
        eprintln!("{}", std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default());
    }
}

fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// A block, written all over.
fn block(size: usize) -> Box<[u8]> {
    vec![1; size].into_boxed_slice()
}

/// Blocks of 32 to 512 bytes, `bytes` in all, in a list that does not need to grow.
fn blocks(bytes: f64, random: &mut SmallRng) -> Vec<Box<[u8]>> {
    let mut sizes = random.clone();
    let mut rest = bytes;
    let count = std::iter::repeat_with(|| sizes.random_range(32..=512))
        .take_while(|&size| {
            rest -= size as f64;
            rest > 0.0
        })
        .count();
    let mut all = Vec::with_capacity(count);
    all.extend((0..count).map(|_| block(random.random_range(32..=512))));
    all
}
