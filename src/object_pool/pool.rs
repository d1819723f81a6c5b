//! `Pool<T>`: what it has and does; the guard that puts back is in `guard.rs`.

use super::all_pools;
use super::shard::{Shard, Tier};
use super::shards::Shards;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::Arc;

/// A set of temporary objects that many threads save and retrieve.
///
/// ```
/// use neap::Pool;
/// static BUFFERS: Pool<Vec<u8>> = Pool::with_reset(Vec::new, Vec::clear);
///
/// let mut buffer = BUFFERS.get();
/// buffer.extend_from_slice(b"request");
/// assert_eq!(buffer.len(), 7);
/// drop(buffer); // back into the pool
///
/// let again = BUFFERS.get();
/// assert!(again.is_empty() && again.capacity() >= 7);
/// ```
///
/// # For those who know `sync.Pool`
///
/// | rule of Go's | here |
/// |---|---|
/// | a set of temporary objects, saved and retrieved one by one | [`put`](Pool::put) and [`take`](Pool::take), or [`get`](Pool::get), whose guard puts back |
/// | safe for many goroutines at once | `Sync` for `T: Send`; each thread has a shard, as each P has in Go |
/// | `New` makes an object when the pool is empty; without it `Get` gives nil | the function given to [`new`](Pool::new); [`try_get`](Pool::try_get) and [`try_take`](Pool::try_take) make none |
/// | `Get` promises nothing about the object: any one, in any state | the same; [`with_reset`](Pool::with_reset) says what each put does first |
/// | what only the pool holds may be dropped at any time | at a tick: [`neap::tick`](crate::tick), the background thread, or [`Pool::tick`] |
/// | two tiers: a collection drops the victim's objects and makes the local ones victims | the same, at a tick; an object that nobody took for two ticks is dropped |
/// | `Put` goes to the local pool | the same |
/// | `Get` looks at its own P's, then at other P's, then at the victims | the same by default; [`TierOrder`] has the other order |
/// | must not be copied after first use | may be moved, not copied |
///
/// # Ageing
///
/// The pool ages with the allocator's epoch. An idle pool is aged by [`neap::tick`](crate::tick),
/// [`neap::purge`](crate::purge) and the background thread; ticks driven by allocation run inside
/// an allocation, where no destructor of a program may run, so a pool meets those at its next use.
/// Where Neap is not the global allocator, only ticks by hand age it.
///
/// Destructors run outside every lock, on the thread that ticks or that uses the pool. A panic in
/// one, in `new` or in the reset function passes to the caller and harms nothing; an object whose
/// reset panicked is dropped.
///
/// # Cost
///
/// `get` and the guard's drop, while the thread's shard serves, take 5.4 ns together
/// (`docs/benchmarks.md`): some twenty instructions each, without a call or a locked instruction (on
/// Linux with `membarrier`; one fence each elsewhere). Where the shard does not serve (it is empty,
/// has to grow, or a tick went by), each shard that is looked into costs a system call of half a
/// microsecond; another thread's gives up to 32 objects for it. The 129th thread living at a time,
/// and later ones, share one shard, at that cost.
pub struct Pool<T: Send + 'static, F = fn() -> T> {
    new: F,
    reset: Option<fn(&mut T)>,
    order: TierOrder,
    /// From `Arc::into_raw`, or null until an object is put.
    shards: AtomicPtr<Shards<T>>,
    owned: PhantomData<Arc<Shards<T>>>,
}

/// Which tier is asked first; see [`Pool::with`].
///
/// ```
/// use neap::{Pool, TierOrder};
/// for (order, got) in [(TierOrder::LocalFirst, 2), (TierOrder::VictimFirst, 1)] {
///     let pool = Pool::with(|| 0, None, order);
///     pool.put(1);
///     pool.tick(); // 1 is a victim now
///     pool.put(2);
///     assert_eq!(pool.take(), got);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TierOrder {
    /// The thread's own local tier, other threads' local tiers, victims: Go's.
    /// What a steady load does not need stays behind and is dropped.
    #[default]
    LocalFirst,
    /// Victims, then local tiers. A steady load drags every idle object through
    /// the local tier again, so that nothing is ever dropped.
    VictimFirst,
}

impl<T: Send + 'static, F: Fn() -> T> Pool<T, F> {
    /// An empty pool that makes objects by `new`. Allocates nothing until an object is put.
    /// ```
    /// let pool = neap::Pool::new(|| vec![0u8; 512]);
    /// assert!(pool.is_empty() && pool.get().len() == 512);
    /// ```
    pub const fn new(new: F) -> Self {
        Self::with(new, None, TierOrder::LocalFirst)
    }

    /// The same, with what is to be done to every object that is put back. What the pool holds has
    /// then been reset; without it an object is in whatever state it was put back.
    /// ```
    /// let pool = neap::Pool::with_reset(String::new, String::clear);
    /// pool.put(String::from("dirty"));
    /// assert_eq!(pool.try_take(), Some(String::new()));
    /// ```
    pub const fn with_reset(new: F, reset: fn(&mut T)) -> Self {
        Self::with(new, Some(reset), TierOrder::LocalFirst)
    }

    /// The same, with every choice: the reset, if any, and the order of the tiers.
    /// ```
    /// use neap::{Pool, TierOrder::VictimFirst};
    /// static POOL: Pool<Vec<u8>> = Pool::with(Vec::new, Some(Vec::clear), VictimFirst);
    /// assert!(POOL.take().is_empty());
    /// ```
    pub const fn with(new: F, reset: Option<fn(&mut T)>, order: TierOrder) -> Self {
        Self { new, reset, order, shards: AtomicPtr::new(ptr::null_mut()), owned: PhantomData }
    }

    /// An object of the pool, or a new one, to keep or to [`put`](Pool::put) back.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// pool.put(8);
    /// assert_eq!((pool.take(), pool.take()), (8, 7));
    /// ```
    #[inline]
    pub fn take(&self) -> T {
        match self.try_take() {
            Some(object) => object,
            None => (self.new)(),
        }
    }
}

impl<T: Send + 'static, F> Pool<T, F> {
    /// An object of the pool, if it has one, to keep or to [`put`](Pool::put) back.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// pool.put(8);
    /// assert_eq!((pool.try_take(), pool.try_take()), (Some(8), None));
    /// ```
    #[inline]
    pub fn try_take(&self) -> Option<T> {
        if let Some(own) = self.own()
            && (self.order == TierOrder::LocalFirst || own.len(Tier::Victim) == 0)
        {
            // SAFETY: the shard of this thread's number.
            if let Some(object) = unsafe { own.pop() } {
                return Some(object);
            }
        }
        self.take_elsewhere()
    }

    /// Puts an object into the thread's local tier, after the reset, if one is set. It need not
    /// come from the pool. There is no upper bound; what nobody takes is dropped by the second tick.
    /// ```
    /// let pool = neap::Pool::new(|| 0);
    /// pool.put(5);
    /// assert_eq!(pool.take(), 5);
    /// ```
    #[inline]
    pub fn put(&self, mut object: T) {
        if let Some(reset) = self.reset {
            reset(&mut object);
        }
        let refused = match self.own() {
            // SAFETY: the shard of this thread's number.
            Some(own) => unsafe { own.push(object) }.err(),
            None => Some(object),
        };
        if let Some(object) = refused {
            self.put_slowly(object);
        }
    }

    /// How many objects a tier holds, in all threads' shards. A moment's view: a look at each
    /// shard, without a lock.
    /// ```
    /// let pool = neap::Pool::new(|| 0);
    /// (1..=100).for_each(|object| pool.put(object));
    /// assert_eq!(pool.len(neap::Tier::Local), 100);
    /// ```
    pub fn len(&self, tier: Tier) -> usize {
        self.shards().map_or(0, |shards| shards.len(tier))
    }

    /// True if neither tier holds an object, at this moment. What is out of the pool does not count.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// assert!(pool.is_empty());
    /// pool.put(8);
    /// assert!(!pool.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len(Tier::Local) + self.len(Tier::Victim) == 0
    }

    /// Drops every object of both tiers, in all threads' shards, on this thread. What is out of the
    /// pool stays out. Where the system refuses its barrier since a while (a filter), other threads' objects
    /// stay until they use the pool. Cost: half a microsecond for each thread's shard, and the destructors.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// pool.put(8);
    /// pool.clear();
    /// assert!(pool.is_empty());
    /// ```
    pub fn clear(&self) {
        for shard in self.shards().iter().flat_map(|shards| shards.all()) {
            drop(shard.empty());
        }
    }

    /// Ends an epoch for this pool alone: drops the victims, and makes them of
    /// the local objects. [`neap::tick`](crate::tick) ends one for all. Cost: a microsecond for each
    /// thread's shard, and the destructors.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// pool.put(8);
    /// pool.tick(); // a victim
    /// pool.tick(); // dropped
    /// assert!(pool.is_empty());
    /// ```
    pub fn tick(&self) {
        for shard in self.shards().iter().flat_map(|shards| shards.all()) {
            drop(shard.catch_up());
            drop(shard.age());
        }
    }

    #[inline(always)]
    fn own(&self) -> Option<&Shard<T>> {
        self.shards()?.own()
    }

    #[cold]
    fn take_elsewhere(&self) -> Option<T> {
        let shards = self.shards()?;
        let own = shards.own_or_common();
        drop(own.catch_up());
        let local = || own.steal(Tier::Local).or_else(|| shards.steal_local(&own));
        let victim = || shards.steal_victim(&own);
        match self.order {
            TierOrder::LocalFirst => local().or_else(victim),
            TierOrder::VictimFirst => victim().or_else(local),
        }
    }

    #[inline(always)]
    fn shards(&self) -> Option<&Shards<T>> {
        // SAFETY: null, or ours until the drop. Acquire pairs with `make_shards`.
        unsafe { self.shards.load(Acquire).as_ref() }
    }

    /// No lock here: a thread in it as another forks would leave it taken in the
    /// child. On the list before they are used, so that a fork finds them.
    #[cold]
    fn make_shards(&self) -> &Shards<T> {
        let shards = Arc::new(Shards::new());
        let weak: std::sync::Weak<Shards<T>> = Arc::downgrade(&shards);
        all_pools::add(weak);
        let made = Arc::into_raw(shards).cast_mut();
        let shards = match self.shards.compare_exchange(ptr::null_mut(), made, AcqRel, Acquire) {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: from `into_raw` just now, so this count is ours.
                drop(unsafe { Arc::from_raw(made) });
                other
            }
        };
        // SAFETY: not null; ours until the drop.
        unsafe { &*shards }
    }

    #[cold]
    fn put_slowly(&self, object: T) {
        let shards = self.shards().unwrap_or_else(|| self.make_shards());
        let own = shards.own_or_common();
        drop(own.catch_up());
        own.put(&mut vec![object]);
    }
}

impl<T: Send + 'static, F> Drop for Pool<T, F> {
    fn drop(&mut self) {
        let shards = *self.shards.get_mut();
        if !shards.is_null() {
            // SAFETY: from `into_raw`, and nobody uses the pool any more.
            drop(unsafe { Arc::from_raw(shards) });
        }
    }
}

impl<T: Send + 'static, F> fmt::Debug for Pool<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("local", &self.len(Tier::Local))
            .field("victim", &self.len(Tier::Victim))
            .finish_non_exhaustive()
    }
}
