//! `Pool<T>` keeps what Go's `sync.Pool` promises.

mod common;

use neap::{Pool, Tier, TierOrder};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, MutexGuard};

/// A tick of one test would age another's pools, so tests run one at a time.
static ONE: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Counts how many of its kind are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn an_empty_pool_makes_objects_and_another_returns_what_was_put() {
    let _one = one_at_a_time();
    let pool: Pool<String> = Pool::new(|| "new".into());
    assert!(pool.try_take().is_none());
    assert_eq!(pool.take(), "new");
    pool.put("a".into());
    pool.put("b".into());
    let mut both = [pool.take(), pool.take()];
    both.sort();
    assert_eq!(both, ["a", "b"]);
    assert_eq!(pool.take(), "new");
}

#[test]
fn an_object_comes_back_as_it_was_left_unless_reset() {
    let _one = one_at_a_time();
    let dirty: Pool<Vec<u8>> = Pool::new(Vec::new);
    dirty.get().push(7);
    assert_eq!(*dirty.get(), [7]);
    let clean: Pool<Vec<u8>> = Pool::with_reset(Vec::new, Vec::clear);
    clean.get().push(7);
    let again = clean.get();
    assert!(again.is_empty() && again.capacity() > 0);
}

#[test]
fn into_inner_keeps_the_object() {
    let _one = one_at_a_time();
    let pool: Pool<u32> = Pool::new(|| 1);
    let kept = pool.get().into_inner();
    assert_eq!((kept, pool.is_empty()), (1, true));
}

#[test]
fn two_ticks_drop_what_nobody_took() {
    let _one = one_at_a_time();
    for by_hand in [true, false] {
        let alive = Arc::new(AtomicUsize::new(0));
        let of = alive.clone();
        let pool = Pool::new(move || Counted::new(&of));
        let tick = || if by_hand { pool.tick() } else { neap::tick() };
        (0..10).map(|_| pool.take()).collect::<Vec<_>>().into_iter().for_each(|object| pool.put(object));
        assert_eq!((pool.len(Tier::Local), pool.len(Tier::Victim)), (10, 0));
        tick();
        assert_eq!((pool.len(Tier::Local), pool.len(Tier::Victim)), (0, 10));
        // Takes one from the victim tier, and puts it into the local tier.
        drop(pool.get());
        assert_eq!((pool.len(Tier::Local), pool.len(Tier::Victim)), (1, 9));
        tick();
        assert_eq!((pool.len(Tier::Local), pool.len(Tier::Victim)), (0, 1));
        assert_eq!(alive.load(SeqCst), 1);
        tick();
        assert!(pool.is_empty() && alive.load(SeqCst) == 0);
    }
}

#[test]
fn under_steady_load_the_rest_ages_only_if_local_is_first() {
    let _one = one_at_a_time();
    for (order, left) in [(TierOrder::LocalFirst, 1), (TierOrder::VictimFirst, 10)] {
        let pool: Pool<u32> = Pool::with(|| 0, None, order);
        (0..10).for_each(|n| pool.put(n));
        for _ in 0..5 {
            pool.tick();
            (0..1000).for_each(|_| drop(pool.get()));
        }
        assert_eq!(pool.len(Tier::Local) + pool.len(Tier::Victim), left, "{order:?}");
    }
}

#[test]
fn other_threads_objects_are_found_even_after_the_threads_ended() {
    let _one = one_at_a_time();
    let alive = Arc::new(AtomicUsize::new(0));
    let of = alive.clone();
    let pool = Arc::new(Pool::new(move || Counted::new(&of)));
    let theirs = pool.clone();
    let fill = move || {
        let objects: Vec<_> = (0..100).map(|_| theirs.take()).collect();
        objects.into_iter().for_each(|object| theirs.put(object));
    };
    std::thread::spawn(fill.clone()).join().expect("no panic");
    let mine: Vec<_> = (0..100).map(|_| pool.try_take().expect("an ended thread's")).collect();
    assert!(pool.try_take().is_none());
    drop(mine);
    std::thread::spawn(fill).join().expect("no panic");
    assert_eq!(alive.load(SeqCst), 100);
    neap::tick();
    neap::tick();
    assert_eq!(alive.load(SeqCst), 0, "an ended thread's objects age");
}

#[test]
fn a_dropped_or_cleared_pool_drops_its_objects_once() {
    let _one = one_at_a_time();
    let alive = Arc::new(AtomicUsize::new(0));
    let of = alive.clone();
    let pool = Pool::new(move || Counted::new(&of));
    let objects: Vec<_> = (0..20).map(|_| pool.take()).collect();
    objects.into_iter().for_each(|object| pool.put(object));
    pool.clear();
    assert_eq!(alive.load(SeqCst), 0);
    pool.put(pool.take());
    pool.tick();
    pool.put(Counted::new(&alive));
    assert_eq!(alive.load(SeqCst), 2);
    drop(pool);
    assert_eq!(alive.load(SeqCst), 0);
    neap::tick();
}

#[test]
fn a_panic_in_new_reset_or_drop_leaves_the_pool_whole() {
    let _one = one_at_a_time();
    let fail = Arc::new(AtomicUsize::new(0));
    let failing = fail.clone();
    let pool = Pool::new(move || if failing.load(SeqCst) == 1 { panic!("in new") } else { vec![1] });
    fail.store(1, SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.take())).is_err());
    fail.store(0, SeqCst);
    assert_eq!(*pool.get(), [1]);

    let resetting: Pool<Vec<u8>> = Pool::with_reset(Vec::new, |bytes| assert!(bytes.is_empty(), "in reset"));
    assert!(catch_unwind(AssertUnwindSafe(|| resetting.put(vec![1]))).is_err());
    assert!(resetting.is_empty(), "dropped");
    resetting.put(vec![]);
    assert_eq!(resetting.len(Tier::Local), 1);

    struct Fails;
    impl Drop for Fails {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let dropping: Pool<Option<Fails>> = Pool::new(|| None);
    dropping.put(Some(Fails));
    dropping.put(None);
    dropping.tick();
    assert!(catch_unwind(AssertUnwindSafe(|| dropping.tick())).is_err());
    dropping.put(None);
    assert_eq!((dropping.len(Tier::Local), dropping.len(Tier::Victim)), (1, 0));
}

/// Many threads put and take numbered objects. Each object is always in one place.
#[test]
fn no_object_is_lost_or_doubled_under_stress() {
    let _one = one_at_a_time();
    const OBJECTS: usize = 500;
    let pool: Arc<Pool<usize>> = Arc::new(Pool::new(|| usize::MAX));
    (0..OBJECTS).for_each(|object| pool.put(object));
    let holders: Arc<Vec<AtomicUsize>> = Arc::new((0..OBJECTS).map(|_| AtomicUsize::new(0)).collect());
    let start = Arc::new(Barrier::new(9));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (pool, holders, start) = (pool.clone(), holders.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                for round in 0..50_000 {
                    let held: Vec<usize> = (0..round % 4 + 1).filter_map(|_| pool.try_take()).collect();
                    for &object in &held {
                        assert_eq!(holders[object].fetch_add(1, SeqCst), 0, "handed out twice");
                    }
                    for object in held {
                        holders[object].fetch_sub(1, SeqCst);
                        pool.put(object);
                    }
                }
            })
        })
        .collect();
    start.wait();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let mut all: Vec<usize> = std::iter::from_fn(|| pool.try_take()).collect();
    all.sort();
    assert_eq!(all, (0..OBJECTS).collect::<Vec<_>>());
}

/// More threads at once than there are shards.
#[test]
fn threads_beyond_the_table_share() {
    let _one = one_at_a_time();
    let pool: Arc<Pool<usize>> = Arc::new(Pool::new(|| 0));
    let barrier = Arc::new(Barrier::new(200));
    let threads: Vec<_> = (0..200)
        .map(|_| {
            let (pool, barrier) = (pool.clone(), barrier.clone());
            let work = move || {
                barrier.wait();
                (0..100).for_each(|_| drop(pool.get()));
                barrier.wait();
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn(work).expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let count = pool.len(Tier::Local);
    assert!((1..=200).contains(&count), "{count}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    Take,
    Tick,
    Clear,
}

proptest! {
    #![proptest_config(common::property(256))]

    /// For one thread a pool is two bags. A tick drops the victims, and what was local becomes victim.
    #[test]
    fn the_tiers_are_two_bags(steps in prop::collection::vec(prop_oneof![
        4 => any::<u32>().prop_map(Step::Put),
        4 => Just(Step::Take),
        1 => Just(Step::Tick),
        1 => Just(Step::Clear),
    ], 0..200)) {
        let _one = one_at_a_time();
        let pool: Pool<u32> = Pool::new(|| 0);
        let (mut local, mut victim): (Vec<u32>, Vec<u32>) = Default::default();
        for step in steps {
            match step {
                Step::Put(object) => {
                    pool.put(object);
                    local.push(object);
                }
                Step::Take => match pool.try_take() {
                    Some(object) => {
                        let bag = if local.is_empty() { &mut victim } else { &mut local };
                        let at = bag.iter().position(|&other| other == object);
                        bag.remove(at.expect("an object of the tier whose turn it is"));
                    }
                    None => prop_assert!(local.is_empty() && victim.is_empty()),
                },
                Step::Tick => {
                    pool.tick();
                    victim = std::mem::take(&mut local);
                }
                Step::Clear => {
                    pool.clear();
                    (local, victim) = Default::default();
                }
            }
            prop_assert_eq!((pool.len(Tier::Local), pool.len(Tier::Victim)), (local.len(), victim.len()));
        }
    }
}
