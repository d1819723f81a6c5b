//! Every pool in use, so that a tick finds those that are idle too.

use crate::epoch;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What a tick does to a pool.
pub(crate) trait Ages: Send + Sync {
    /// Ends the epochs that have passed, and drops what that sets free.
    fn catch_up_all(&self);
}

static POOLS: Mutex<Vec<Weak<dyn Ages>>> = Mutex::new(Vec::new());

/// Adds a pool; it leaves by being dropped.
pub(crate) fn add(pool: Weak<dyn Ages>) {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(pool);
    epoch::set_hook(age_all);
}

fn age_all() {
    // The program's destructors run in here, so without the lock.
    let pools: Vec<Arc<dyn Ages>> = {
        let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().filter_map(Weak::upgrade).collect()
    };
    pools.iter().for_each(|pool| pool.catch_up_all());
}
