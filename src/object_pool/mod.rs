//! `Pool<T>`: Go's `sync.Pool`, typed, on the same tide.
//!
//! Each thread has a shard with two tiers in each pool that it uses, behind a lock
//! that is biased to it. Of the allocator it needs the clock of epochs and its
//! fork handlers, nothing else.

mod all_pools;
mod biased_lock;
mod fences;
mod guard;
mod pool;
mod shard;
mod shards;
mod thread_number;

pub use guard::PoolGuard;
pub use pool::{Pool, TierOrder};
pub use shard::Tier;
