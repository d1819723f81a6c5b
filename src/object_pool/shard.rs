//! One thread's part of a pool: its two tiers.

use super::biased_lock::BiasedLock;
use crate::base::atomics::{AtomicUsize, Ordering::Relaxed};
use crate::base::epoch;
use core::mem;

/// A shard, on cache lines of its own.
#[repr(align(128))]
pub(super) struct Shard<T> {
    tiers: BiasedLock<Tiers<T>>,
    /// How many objects the tiers hold, for others to check before they take the lock.
    /// Relaxed: hints.
    locals: AtomicUsize,
    victims: AtomicUsize,
}

/// The two tiers of a shard.
pub(super) struct Tiers<T> {
    local: Vec<T>,
    victim: Vec<T>,
    /// The epoch in which they were last aged.
    epoch: u64,
}

/// One of the two tiers of a [`Pool`](crate::Pool).
///
/// ```
/// use neap::{Pool, Tier};
///
/// let pool = Pool::new(|| 7);
/// let tiers = || (pool.len(Tier::Local), pool.len(Tier::Victim));
/// pool.put(8);
/// assert_eq!(tiers(), (1, 0));
/// pool.tick();
/// assert_eq!(tiers(), (0, 1));
/// pool.tick();
/// assert_eq!(tiers(), (0, 0)); // dropped: nobody took it for two ticks
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Active: where objects are put.
    Local,
    /// Archived: what was local at the last tick. The next one drops it.
    Victim,
}

impl<T> Shard<T> {
    pub(super) fn new() -> Self {
        Self {
            tiers: BiasedLock::new(Tiers::new()),
            locals: AtomicUsize::new(0),
            victims: AtomicUsize::new(0),
        }
    }

    /// Takes an object out of the owner's local tier.
    ///
    /// # Safety
    /// The caller's thread has this shard's number.
    #[inline(always)]
    pub(super) unsafe fn pop(&self) -> Option<T> {
        let epoch = epoch::current();
        let work = |tiers: &mut Tiers<T>| {
            let object = if tiers.epoch == epoch { tiers.local.pop() } else { None };
            self.locals.store(tiers.local.len(), Relaxed);
            object
        };
        // SAFETY: by contract this is the owner; `work` runs none of the program's code.
        unsafe { self.tiers.enter(work) }.flatten()
    }

    /// Puts an object into the owner's local tier, if there is room.
    ///
    /// # Safety
    /// The caller's thread has this shard's number.
    #[inline(always)]
    pub(super) unsafe fn push(&self, object: T) -> Result<(), T> {
        let epoch = epoch::current();
        let mut object = Some(object);
        let work = |tiers: &mut Tiers<T>| {
            if tiers.epoch == epoch && tiers.local.len() < tiers.local.capacity() {
                // Within the capacity: no allocation in here.
                tiers.local.extend(object.take());
                self.locals.store(tiers.local.len(), Relaxed);
            }
        };
        // SAFETY: by contract this is the owner; `work` runs none of the program's code.
        unsafe { self.tiers.enter(work) };
        object.map_or(Ok(()), Err)
    }

    /// Objects in a tier: a hint.
    pub(super) fn len(&self, tier: Tier) -> usize {
        match tier {
            Tier::Local => self.locals.load(Relaxed),
            Tier::Victim => self.victims.load(Relaxed),
        }
    }

    /// The shard, as its owner reaches it.
    ///
    /// # Safety
    /// The calling thread has this shard's number, or no thread ever has.
    pub(super) unsafe fn as_owner(&self) -> Reached<'_, T> {
        Reached { shard: self, owned: true }
    }

    /// The shard, as other threads reach it: at the price of a barrier each time, and not
    /// at all where the system refuses one by now.
    pub(super) fn as_other(&self) -> Reached<'_, T> {
        Reached { shard: self, owned: false }
    }

    /// In a fork's child: see [`BiasedLock::reset_in_child`].
    ///
    /// # Safety
    /// There is no other thread, and the caller is not in the shard.
    pub(super) unsafe fn reset_in_child(&self) {
        // SAFETY: the same contract.
        unsafe { self.tiers.reset_in_child(Tiers::new()) };
        // SAFETY: the same contract.
        unsafe { self.as_owner() }.with(|_| ());
    }
}

/// A shard and how it is reached. Where that fails, every tier looks empty.
pub(super) struct Reached<'a, T> {
    pub(super) shard: &'a Shard<T>,
    owned: bool,
}

impl<T> Reached<'_, T> {
    /// Takes an object out of a tier.
    pub(super) fn steal(&self, tier: Tier) -> Option<T> {
        if self.shard.len(tier) == 0 {
            return None;
        }
        self.with(|tiers| tiers.of(tier).pop()).flatten()
    }

    /// Moves half of the local tier, at least one object, to `out`. Never
    /// more than `out` has room for.
    pub(super) fn steal_half(&self, out: &mut Vec<T>) {
        let most = out.capacity() - out.len();
        if self.shard.len(Tier::Local) > 0 {
            self.with(|tiers| {
                let keep = (tiers.local.len() / 2).max(tiers.local.len().saturating_sub(most));
                out.extend(tiers.local.drain(keep..));
            });
        }
    }

    /// Puts objects into the local tier. Grows it outside the lock, since
    /// allocating may come back here.
    pub(super) fn put(&self, objects: &mut Vec<T>) {
        let mut larger = Vec::new();
        loop {
            let full = self.with(|tiers| {
                let wanted = tiers.local.len() + objects.len();
                if wanted > tiers.local.capacity() {
                    if wanted > larger.capacity() {
                        return wanted;
                    }
                    larger.append(&mut tiers.local);
                    mem::swap(&mut larger, &mut tiers.local);
                }
                tiers.local.append(objects);
                0
            });
            let Some(wanted @ 1..) = full else { return };
            larger.reserve_exact((wanted * 2).max(8));
        }
    }

    /// Ends an epoch: local objects become victims. Returns the old victims, for the caller
    /// to drop outside every lock.
    pub(super) fn age(&self) -> Vec<T> {
        self.with(|tiers| mem::replace(&mut tiers.victim, mem::take(&mut tiers.local))).unwrap_or_default()
    }

    /// Ends the epochs that have passed since the last call; returns what to drop.
    pub(super) fn catch_up(&self) -> [Vec<T>; 2] {
        self.catch_up_to(epoch::current())
    }

    fn catch_up_to(&self, now: u64) -> [Vec<T>; 2] {
        self.with(|tiers| {
            // A thread that read the clock later may have come here earlier.
            let passed = now.saturating_sub(tiers.epoch);
            tiers.epoch += passed;
            let local = if passed > 0 { mem::take(&mut tiers.local) } else { Vec::new() };
            match passed {
                0 => Default::default(),
                1 => [mem::replace(&mut tiers.victim, local), Vec::new()],
                _ => [mem::take(&mut tiers.victim), local],
            }
        })
        .unwrap_or_default()
    }

    /// Takes out all objects, for the caller to drop.
    pub(super) fn empty(&self) -> [Vec<T>; 2] {
        self.with(|tiers| [mem::take(&mut tiers.victim), mem::take(&mut tiers.local)]).unwrap_or_default()
    }

    fn with<R>(&self, work: impl FnOnce(&mut Tiers<T>) -> R) -> Option<R> {
        let work = |tiers: &mut Tiers<T>| {
            let result = work(tiers);
            self.shard.locals.store(tiers.local.len(), Relaxed);
            self.shard.victims.store(tiers.victim.len(), Relaxed);
            result
        };
        let lock = &self.shard.tiers;
        // SAFETY: the callers' closures only move objects, which runs no code of the program;
        // and `owned` is true for the owner only, by `as_owner`.
        unsafe { if self.owned { Some(lock.take_as_owner(work)) } else { lock.take(work) } }
    }
}

impl<T> Tiers<T> {
    fn new() -> Self {
        Self { local: Vec::new(), victim: Vec::new(), epoch: epoch::current() }
    }

    fn of(&mut self, tier: Tier) -> &mut Vec<T> {
        match tier {
            Tier::Local => &mut self.local,
            Tier::Victim => &mut self.victim,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_at_the_clock_ages_nothing() {
        super::super::fences::prepare();
        let shard = Shard::new();
        // SAFETY: no thread has it by number.
        let shard = unsafe { shard.as_owner() };
        let now = epoch::current() + 1000;
        shard.catch_up_to(now);
        shard.put(&mut vec![1]);
        assert_eq!(shard.catch_up_to(now - 1), [vec![], vec![]]);
        assert_eq!((shard.shard.len(Tier::Local), shard.shard.len(Tier::Victim)), (1, 0));
        assert_eq!(shard.catch_up_to(now + 1), [vec![], vec![]]);
        assert_eq!((shard.shard.len(Tier::Local), shard.shard.len(Tier::Victim)), (0, 1));
    }
}
