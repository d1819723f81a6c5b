//! The workloads, chosen before anything was tuned for them.

mod buffers;
mod containers;
mod libraries;
mod small;
mod threads;

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The work, ready to be timed.
pub type Work = Box<dyn FnOnce() -> u64>;

/// One workload.
pub struct Workload {
    /// Its name in arguments and tables.
    pub name: &'static str,
    /// Prepares what the work needs, at a scale, before the clock starts.
    pub prepare: fn(f64) -> Work,
}

/// All, in the order of the table.
pub const ALL: &[Workload] = &[
    Workload { name: "pair-constant", prepare: small::pair_constant },
    Workload { name: "pair-runtime", prepare: small::pair_runtime },
    Workload { name: "bulk-in-order", prepare: small::bulk_in_order },
    Workload { name: "bulk-reversed", prepare: small::bulk_reversed },
    Workload { name: "bulk-random", prepare: small::bulk_random },
    Workload { name: "replace", prepare: small::replace },
    Workload { name: "batches", prepare: small::batches },
    Workload { name: "trees", prepare: small::trees },
    Workload { name: "live-1k", prepare: small::live_1k },
    Workload { name: "live-1m", prepare: small::live_1m },
    Workload { name: "btree-map", prepare: containers::btree_map },
    Workload { name: "hash-map", prepare: containers::hash_map },
    Workload { name: "growing-vec", prepare: containers::growing_vec },
    Workload { name: "growing-string", prepare: containers::growing_string },
    Workload { name: "large-buffers", prepare: buffers::large },
    Workload { name: "zeroed-full", prepare: buffers::zeroed_full },
    Workload { name: "zeroed-sparse", prepare: buffers::zeroed_sparse },
    Workload { name: "producer-consumer", prepare: threads::producer_consumer },
    Workload { name: "larson", prepare: threads::larson },
    Workload { name: "xmalloc", prepare: threads::xmalloc },
    Workload { name: "share-active", prepare: threads::share_active },
    Workload { name: "share-passive", prepare: threads::share_passive },
    Workload { name: "threads-2", prepare: threads::threads_2 },
    Workload { name: "threads-64", prepare: threads::threads_64 },
    Workload { name: "thread-creation", prepare: threads::creation },
    Workload { name: "serde-json", prepare: libraries::json },
    Workload { name: "syn", prepare: libraries::parse_rust },
    Workload { name: "html", prepare: libraries::html },
    Workload { name: "sql", prepare: libraries::sql },
    Workload { name: "rhai", prepare: libraries::script },
    Workload { name: "persistent-map", prepare: libraries::persistent },
    Workload { name: "regex-words", prepare: libraries::words },
    Workload { name: "rayon", prepare: libraries::rayon_work },
    Workload { name: "tokio-tasks", prepare: libraries::tokio_tasks },
    Workload { name: "tokio-echo", prepare: libraries::tokio_echo },
];

fn scaled(count: usize, scale: f64) -> usize {
    ((count as f64 * scale) as usize).max(1)
}

fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
