//! What happens off the fast path: refill, spill, tick, thread exit.
#![allow(missing_docs, reason = "criterion's macros write functions without")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout, System};

static NEAP: Neap = Neap::new();

const COUNT: usize = 10_000;
const LAYOUT: Layout = Layout::new::<[u64; 4]>();

fn take<A: GlobalAlloc>(heap: &A) -> Vec<*mut u8> {
    // SAFETY: the size is not zero.
    (0..COUNT).map(|_| unsafe { heap.alloc(LAYOUT) }).collect()
}

fn give<A: GlobalAlloc>(heap: &A, blocks: &[*mut u8]) {
    for &block in blocks {
        // SAFETY: allocated with this layout, freed once.
        unsafe { heap.dealloc(block, LAYOUT) };
    }
}

/// Allocations in sequence: every 125th refills the magazine.
fn refill(criterion: &mut Criterion) {
    fn one<A: GlobalAlloc>(criterion: &mut Criterion, name: &str, heap: &A) {
        let mut group = criterion.benchmark_group("refill, by 10,000 blocks of 32 bytes");
        group.throughput(Throughput::Elements(COUNT as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        let blocks = take(heap);
                        let time = start.elapsed();
                        give(heap, &blocks);
                        time
                    })
                    .sum()
            });
        });
    }
    one(criterion, "Neap", &NEAP);
    one(criterion, "System", &System);
}

/// Frees in sequence: every 125th spills half the magazine.
fn spill(criterion: &mut Criterion) {
    fn one<A: GlobalAlloc>(criterion: &mut Criterion, name: &str, heap: &A) {
        let mut group = criterion.benchmark_group("spill, by 10,000 blocks of 32 bytes");
        group.throughput(Throughput::Elements(COUNT as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| take(heap), |blocks| give(heap, &blocks), BatchSize::LargeInput);
        });
    }
    one(criterion, "Neap", &NEAP);
    one(criterion, "System", &System);
}

/// One tick by hand with 1 MiB in the thread's tiers, compared with the nearest thing that
/// the system allocator has.
fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    group.bench_function("Neap", |bencher| {
        bencher.iter_batched(|| give(&NEAP, &take(&NEAP)), |()| neap::tick(), BatchSize::PerIteration);
    });
    #[cfg(target_env = "gnu")]
    group.bench_function("System (malloc_trim)", |bencher| {
        bencher.iter_batched(
            || give(&System, &take(&System)),
            // SAFETY: it has no contract.
            |()| unsafe { libc::malloc_trim(0) },
            BatchSize::PerIteration,
        );
    });
}

/// A thread that allocates and frees 1000 blocks, from start to join.
fn thread_exit(criterion: &mut Criterion) {
    fn one<A: GlobalAlloc + Sync>(criterion: &mut Criterion, name: &str, heap: &'static A) {
        let mut group = criterion.benchmark_group("thread, 10,000 blocks");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let thread = std::thread::spawn(move || give(heap, &take(heap)));
                thread.join().expect("no panic");
            });
        });
    }
    one(criterion, "Neap", &NEAP);
    one(criterion, "System", &System);
}

criterion_group!(benches, refill, spill, tick, thread_exit);
criterion_main!(benches);
