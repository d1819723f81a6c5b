//! `Pool<T>`: get and put back, compared with an array stack and other crates, on 1, 2
//! and 16 threads; and what the order of the tiers changes.
#![allow(missing_docs, reason = "criterion's macros write functions without")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use neap::{Pool, Tier, TierOrder};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What is pooled: a small buffer.
type Object = Vec<u8>;

fn object() -> Object {
    Vec::with_capacity(64)
}

/// The time of `rounds` calls of `work` by each of `threads` at the same time.
fn together(threads: usize, rounds: u64, work: impl Fn() + Sync) -> Duration {
    if threads == 1 {
        let start = Instant::now();
        (0..rounds).for_each(|_| work());
        return start.elapsed();
    }
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                work();
                barrier.wait();
                (0..rounds).for_each(|_| work());
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    })
}

fn get_and_put(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get and put back");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    group.bench_function("array stack/1", |bencher| {
        let mut stack = vec![object()];
        bencher.iter(|| {
            let taken = black_box(&mut stack).pop().unwrap_or_else(object);
            black_box(&mut stack).push(black_box(taken));
        });
    });
    let neap: Pool<Object> = Pool::new(object);
    let plain = object_pool::Pool::new(16, object);
    struct Buffers;
    impl opool::PoolAllocator<Object> for Buffers {
        fn allocate(&self) -> Object {
            object()
        }
    }
    let opool = opool::Pool::new(64, Buffers);
    let slab: sharded_slab::Pool<Object> = sharded_slab::Pool::new();
    let linear = lockfree_object_pool::LinearObjectPool::new(object, |_| ());
    let mutex = lockfree_object_pool::MutexObjectPool::new(object, |_| ());
    for threads in [1, 2, 16] {
        let mut one = |name: &str, work: &(dyn Fn() + Sync)| {
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter_custom(|rounds| together(threads, rounds, work));
            });
        };
        one("neap::Pool", &|| drop(black_box(neap.get())));
        one("object-pool", &|| drop(black_box(plain.pull(object))));
        one("opool", &|| drop(black_box(opool.get())));
        one("sharded-slab", &|| {
            let key = slab.create().map(|entry| black_box(&entry).key());
            key.map(|key| slab.clear(key));
        });
        one("lockfree-object-pool, linear", &|| drop(black_box(linear.pull())));
        one("lockfree-object-pool, mutex", &|| drop(black_box(mutex.pull())));
    }
}

/// Prints hits, what is kept, and how it ages, for each order of the tiers: a steady load
/// of two objects after a burst of a hundred.
fn order_of_tiers(_: &mut Criterion) {
    println!("| order | tick | hits of 1000 gets | local | victim |\n|---|---|---|---|---|");
    for order in [TierOrder::LocalFirst, TierOrder::VictimFirst] {
        let pool: Pool<Object> = Pool::with(object, None, order);
        (0..100).for_each(|_| pool.put(object()));
        for tick in 1..=4 {
            pool.tick();
            let mut hits = 0;
            for _ in 0..500 {
                let two = [pool.try_take(), pool.try_take()];
                hits += two.iter().flatten().count();
                two.into_iter().for_each(|taken| pool.put(taken.unwrap_or_else(object)));
            }
            let (local, victim) = (pool.len(Tier::Local), pool.len(Tier::Victim));
            println!("| {order:?} | {tick} | {hits} | {local} | {victim} |");
        }
    }
}

criterion_group!(benches, get_and_put, order_of_tiers);
criterion_main!(benches);
