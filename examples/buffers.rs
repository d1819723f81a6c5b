//! Request buffers under many threads, made anew for each request and from a
//! `Pool`: profile before and after.
//!
//! `cargo run --release --example buffers -- --threads 8`

use clap::Parser;
use neap::{Neap, Pool};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tabled::builder::Builder;
use tabled::settings::Style;

/// Neap, and a count of what it is asked for.
struct Counting {
    neap: Neap,
    allocations: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    fn count(&self, bytes: usize) {
        self.allocations.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

// SAFETY: every call goes to Neap as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: the caller's contract.
        unsafe { self.neap.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.neap.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count(size);
        // SAFETY: as above.
        unsafe { self.neap.realloc(block, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting =
    Counting { neap: Neap::new(), allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) };

/// What to run.
#[derive(Parser)]
struct Options {
    /// Threads that answer requests.
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// Requests of each thread.
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
}

static BUFFERS: Pool<Vec<u8>> = Pool::with_reset(Vec::new, Vec::clear);

/// Writes an answer of some kilobytes, as a handler would.
fn answer(buffer: &mut Vec<u8>, request: usize) -> usize {
    for line in 0..100 {
        writeln!(buffer, "{request}: line {line} of the answer").expect("memory takes every write");
    }
    black_box(&*buffer).len()
}

fn anew(request: usize) -> usize {
    answer(&mut Vec::new(), request)
}

fn pooled(request: usize) -> usize {
    answer(&mut BUFFERS.get(), request)
}

/// Time, allocations and bytes of all requests.
fn run(options: &Options, handle: fn(usize) -> usize) -> (Duration, u64, u64) {
    let before = (HEAP.allocations.load(Relaxed), HEAP.bytes.load(Relaxed));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| (0..options.requests).map(handle).sum::<usize>());
        }
    });
    let (allocations, bytes) = (HEAP.allocations.load(Relaxed), HEAP.bytes.load(Relaxed));
    (start.elapsed(), allocations - before.0, bytes - before.1)
}

fn main() {
    let options = Options::parse();
    let mut builder = Builder::new();
    builder.push_record(["buffers", "time, ms", "allocations", "MiB allocated"]);
    for (name, handle) in [("made anew", anew as fn(usize) -> usize), ("from the pool", pooled)] {
        let (time, allocations, bytes) = run(&options, handle);
        builder.push_record([
            name.to_string(),
            format!("{:.1}", time.as_secs_f64() * 1000.0),
            allocations.to_string(),
            format!("{:.1}", bytes as f64 / (1 << 20) as f64),
        ]);
    }
    println!("{} threads, {} requests each", options.threads, options.requests);
    println!("{}", builder.build().with(Style::markdown()));
    println!("{BUFFERS:?}");
}
