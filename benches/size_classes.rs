//! Each size class: an allocation and its free, and a block that grows into the next class.
#![allow(missing_docs, reason = "criterion's macros write functions without")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::Duration;

static NEAP: Neap = Neap::new();

/// Every class, then runs and mappings.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = neap::stats().classes().iter().map(|class| class.block_size).collect();
    sizes.extend([1 << 20, 4 << 20, 16 << 20]);
    sizes
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("valid")
}

fn pair(criterion: &mut Criterion) {
    fn one<A: GlobalAlloc>(criterion: &mut Criterion, name: &str, heap: &A) {
        let mut group = criterion.benchmark_group("pair");
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
        for size in sizes() {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                // SAFETY: the size is not zero; freed with the same layout.
                bencher.iter(|| unsafe {
                    let block = black_box(heap.alloc(layout(black_box(size))));
                    block.write(1);
                    heap.dealloc(block, layout(black_box(size)));
                });
            });
        }
    }
    one(criterion, "Neap", &NEAP);
    one(criterion, "System", &System);
}

fn realloc(criterion: &mut Criterion) {
    fn one<A: GlobalAlloc>(criterion: &mut Criterion, name: &str, heap: &A) {
        let mut group = criterion.benchmark_group("realloc to twice the size");
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
        for size in [16, 256, 4096, 65_536, 1 << 20, 16 << 20] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                // SAFETY: the sizes are not zero; freed with the last layout.
                bencher.iter(|| unsafe {
                    let block = heap.alloc(layout(black_box(size)));
                    block.write(1);
                    let block = black_box(heap.realloc(block, layout(size), size * 2));
                    heap.dealloc(block, layout(size * 2));
                });
            });
        }
    }
    one(criterion, "Neap", &NEAP);
    one(criterion, "System", &System);
}

criterion_group!(benches, pair, realloc);
criterion_main!(benches);
