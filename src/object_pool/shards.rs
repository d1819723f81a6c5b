//! All shards of a pool: one for each thread that used it, and one for threads
//! without a number.

use super::all_pools::AgedPool;
use super::fences;
use super::shard::{Shard, Tier};
use super::thread_number::{self, THREADS};
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use core::sync::atomic::{AtomicPtr, AtomicUsize};

/// The most objects that are stolen at once.
const MAX_STOLEN: usize = 32;

/// The shards, made when their threads first need them.
pub(super) struct Shards<T> {
    table: [AtomicPtr<Shard<T>>; THREADS],
    /// One more than the highest number that has a shard.
    end: AtomicUsize,
    common: Shard<T>,
}

impl<T> Shards<T> {
    pub(super) fn new() -> Self {
        fences::prepare();
        let table = [const { AtomicPtr::new(ptr::null_mut()) }; THREADS];
        Self { table, end: AtomicUsize::new(0), common: Shard::new() }
    }

    /// The calling thread's shard, if it has one.
    #[inline(always)]
    pub(super) fn own(&self) -> Option<&Shard<T>> {
        let place = self.table.get(thread_number::current())?;
        // Acquire pairs with the release in `own_or_common`: the thread that had the number
        // before may have made it.
        // SAFETY: shards live as long as the pool.
        unsafe { place.load(Acquire).as_ref() }
    }

    /// The same, made if need be, or the common one for a thread without a number.
    pub(super) fn own_or_common(&self) -> &Shard<T> {
        let Some(number) = thread_number::assign() else { return &self.common };
        if let Some(shard) = self.own() {
            return shard;
        }
        let shard = Box::into_raw(Box::new(Shard::new()));
        // In this order, so that a fork in between leaves no shard out. Release pairs with
        // the acquires in `own` and `all`.
        self.end.fetch_max(number + 1, AcqRel);
        self.table[number].store(shard, Release);
        // SAFETY: just made; freed with the pool.
        unsafe { &*shard }
    }

    /// Every shard.
    pub(super) fn all(&self) -> impl Iterator<Item = &Shard<T>> {
        let numbered = self.table[..self.end.load(Acquire)].iter();
        // SAFETY: as in `own`.
        numbered.filter_map(|place| unsafe { place.load(Acquire).as_ref() }).chain([&self.common])
    }

    /// An object from another thread's local tier; moves some more to `own`.
    pub(super) fn steal_local(&self, own: &Shard<T>) -> Option<T> {
        let mut stolen = Vec::new();
        for other in self.all().filter(|other| !ptr::eq(*other, own) && other.len(Tier::Local) > 0) {
            stolen.reserve_exact(MAX_STOLEN);
            other.steal_half(&mut stolen);
            if let Some(object) = stolen.pop() {
                own.put(&mut stolen);
                return Some(object);
            }
        }
        None
    }

    /// An object from any victim tier, the thread's own first.
    pub(super) fn steal_victim(&self, own: &Shard<T>) -> Option<T> {
        own.steal(Tier::Victim).or_else(|| self.all().find_map(|shard| shard.steal(Tier::Victim)))
    }

    pub(super) fn len(&self, tier: Tier) -> usize {
        self.all().map(|shard| shard.len(tier)).sum()
    }
}

impl<T: Send> AgedPool for Shards<T> {
    fn catch_up_all(&self) {
        for shard in self.all() {
            drop(shard.catch_up());
        }
    }

    unsafe fn reset_all_in_child(&self) {
        for shard in self.all() {
            // SAFETY: the same contract.
            unsafe { shard.reset_in_child() };
        }
    }
}

impl<T> Drop for Shards<T> {
    fn drop(&mut self) {
        for place in &mut self.table {
            let shard = core::mem::replace(place.get_mut(), ptr::null_mut());
            if !shard.is_null() {
                // SAFETY: from `Box::into_raw`, and nobody uses the pool any more.
                drop(unsafe { Box::from_raw(shard) });
            }
        }
    }
}
