//! The list of all pools, so that a tick finds idle ones too.

use super::thread_number;
use crate::base::epoch;
use crate::platform::Lock;
use crate::reclaim::fork;
use core::mem;
use std::sync::{Arc, Weak};

/// What a tick and a fork do to a pool.
pub(super) trait AgedPool: Send + Sync {
    /// Ends the epochs that have passed since the last call, and drops expired objects.
    fn catch_up_all(&self);

    /// In a fork's child: resets the shards that other threads were in.
    ///
    /// # Safety
    /// There is no other thread, and the caller is in no shard.
    unsafe fn reset_all_in_child(&self);
}

static POOLS: Lock<Vec<Weak<dyn AgedPool>>> = Lock::new(Vec::new());

/// Adds a pool; dropping it removes it.
pub(super) fn add(pool: Weak<dyn AgedPool>) {
    // Each time, though once would do: if a thread is inside a `Once` while another one
    // forks, the `Once` stays locked in the child forever.
    fork::set_hooks(before_fork, in_parent, in_child);
    let mut pools = POOLS.lock();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(pool);
    epoch::set_hook(age_all);
}

fn age_all() {
    // The program's destructors run in `catch_up_all`, so the lock is dropped before.
    let pools: Vec<Arc<dyn AgedPool>> = {
        let pools = POOLS.lock();
        pools.iter().filter_map(Weak::upgrade).collect()
    };
    pools.iter().for_each(|pool| pool.catch_up_all());
}

fn before_fork() {
    mem::forget(POOLS.lock());
    thread_number::lock_for_fork();
}

fn in_parent() {
    // SAFETY: `before_fork` locked them on this thread.
    unsafe {
        thread_number::unlock_after_fork();
        POOLS.force_unlock();
    }
}

fn in_child() {
    in_parent();
    thread_number::keep_own();
    let pools: Vec<Arc<dyn AgedPool>> = POOLS.lock().iter().filter_map(Weak::upgrade).collect();
    for pool in pools {
        // SAFETY: a child has one thread. It is the one that forked, and no code that runs
        // inside a shard forks.
        unsafe { pool.reset_all_in_child() };
    }
}
