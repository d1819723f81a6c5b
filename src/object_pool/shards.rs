//! All shards of a pool: one for each thread that used it, and one for threads
//! without a number.

use super::all_pools::AgedPool;
use super::fences;
use super::shard::{Reached, Shard, Tier};
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
    pub(super) fn own_or_common(&self) -> Reached<'_, T> {
        let Some(number) = thread_number::assign() else { return self.common() };
        if let Some(shard) = self.own() {
            // SAFETY: the shard of this thread's number.
            return unsafe { shard.as_owner() };
        }
        let shard = Box::into_raw(Box::new(Shard::new()));
        // In this order, so that a fork in between leaves no shard out. Release pairs with
        // the acquires in `own` and `all`.
        self.end.fetch_max(number + 1, AcqRel);
        self.table[number].store(shard, Release);
        // SAFETY: just made, with this thread's number; freed with the pool.
        unsafe { (*shard).as_owner() }
    }

    /// The shard that no thread owns.
    fn common(&self) -> Reached<'_, T> {
        // SAFETY: it has no number.
        unsafe { self.common.as_owner() }
    }

    /// Every shard, as the calling thread reaches it.
    pub(super) fn all<'a>(&'a self) -> impl Iterator<Item = Reached<'a, T>> {
        let own = self.own();
        let reach = move |shard: &'a Shard<T>| match own {
            // SAFETY: the shard of this thread's number.
            Some(own) if ptr::eq(shard, own) => unsafe { own.as_owner() },
            _ => shard.as_other(),
        };
        self.numbered().map(reach).chain([self.common()])
    }

    /// Every shard that has a number.
    fn numbered(&self) -> impl Iterator<Item = &Shard<T>> {
        let places = self.table[..self.end.load(Acquire)].iter();
        // SAFETY: as in `own`.
        places.filter_map(|place| unsafe { place.load(Acquire).as_ref() })
    }

    /// An object from another thread's local tier; moves some more to `own`.
    pub(super) fn steal_local(&self, own: &Reached<'_, T>) -> Option<T> {
        let mut stolen = Vec::new();
        for other in self.all().filter(|other| !ptr::eq(other.shard, own.shard)) {
            if other.shard.len(Tier::Local) == 0 {
                continue;
            }
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
    pub(super) fn steal_victim(&self, own: &Reached<'_, T>) -> Option<T> {
        own.steal(Tier::Victim).or_else(|| self.all().find_map(|shard| shard.steal(Tier::Victim)))
    }

    pub(super) fn len(&self, tier: Tier) -> usize {
        self.numbered().chain([&self.common]).map(|shard| shard.len(tier)).sum()
    }
}

impl<T: Send> AgedPool for Shards<T> {
    fn catch_up_all(&self) {
        for shard in self.all() {
            drop(shard.catch_up());
        }
    }

    unsafe fn reset_all_in_child(&self) {
        for shard in self.numbered().chain([&self.common]) {
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
