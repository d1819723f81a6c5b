//! Every pool in use, so that a tick finds those that are idle too.

use super::thread_number;
use crate::base::epoch;
use crate::platform::Lock;
use crate::reclaim::fork;
use core::mem;
use std::sync::{Arc, Weak};

/// What a tick does to a pool.
pub(super) trait Ages: Send + Sync {
    /// Ends the epochs that have passed, and drops what that sets free.
    fn catch_up_all(&self);

    /// In a fork's child: frees the shards that other threads were in.
    ///
    /// # Safety
    /// There is no other thread, and the caller is in no shard.
    unsafe fn abandon_all(&self);
}

static POOLS: Lock<Vec<Weak<dyn Ages>>> = Lock::new(Vec::new());

/// Adds a pool; it leaves by being dropped.
pub(super) fn add(pool: Weak<dyn Ages>) {
    // Each time, though once would do: who waits in a `Once` as another thread
    // forks leaves it locked forever in the child.
    fork::set_hooks(before_fork, in_parent, in_child);
    let mut pools = POOLS.lock();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(pool);
    epoch::set_hook(age_all);
}

fn age_all() {
    // The program's destructors run in here, so without the lock.
    let pools: Vec<Arc<dyn Ages>> = {
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
    let pools: Vec<Arc<dyn Ages>> = POOLS.lock().iter().filter_map(Weak::upgrade).collect();
    for pool in pools {
        // SAFETY: a child has one thread, and that one forked, which nothing
        // under a shard's lock does.
        unsafe { pool.abandon_all() };
    }
}
