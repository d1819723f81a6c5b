//! One allocation and its free, both served by the thread's magazine.
#![allow(missing_docs, reason = "criterion's macros write functions without")]

use criterion::{Criterion, criterion_group, criterion_main};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

static NEAP: Neap = Neap::new();

fn pair<A: GlobalAlloc>(heap: &A, layout: Layout) {
    // SAFETY: the size is not zero; freed with the same layout.
    unsafe {
        let block = black_box(heap.alloc(layout));
        heap.dealloc(block, layout);
    }
}

fn constant_size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pair, constant 8 bytes");
    group.bench_function("Neap", |bencher| bencher.iter(|| pair(&NEAP, Layout::new::<u64>())));
    group.bench_function("System", |bencher| bencher.iter(|| pair(&System, Layout::new::<u64>())));
}

fn runtime_size(criterion: &mut Criterion) {
    let sizes: Vec<Layout> = (0..1024usize)
        .map(|n| Layout::from_size_align(n.wrapping_mul(2_654_435_761) % 512 + 1, 8).expect("valid"))
        .collect();
    let mut group = criterion.benchmark_group("pair, 1024 of 1 to 512 bytes");
    group.bench_function("Neap", |bencher| {
        bencher.iter(|| sizes.iter().for_each(|&layout| pair(&NEAP, layout)));
    });
    group.bench_function("System", |bencher| {
        bencher.iter(|| sizes.iter().for_each(|&layout| pair(&System, layout)));
    });
}

criterion_group!(benches, constant_size, runtime_size);
criterion_main!(benches);
