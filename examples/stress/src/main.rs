//! Hammers the allocator from many threads and verifies every block: contents,
//! alignment, exclusiveness. Ends with a non-zero exit at the first fault.
//!
//! `cargo run --release -p stress -- --threads 64 --seconds 60`

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use neap::Neap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_millis(20)).background(true);

/// What to run.
#[derive(Parser)]
struct Options {
    /// Threads at any time; each lives for a moment, then another takes its place.
    #[arg(long, default_value_t = 16)]
    threads: usize,
    /// How long to run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Start of every random sequence.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

static FAULT: AtomicBool = AtomicBool::new(false);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicU64 = AtomicU64::new(0);

/// Blocks left for whichever thread comes by.
static EXCHANGE: [Mutex<Vec<Block>>; 64] = [const { Mutex::new(Vec::new()) }; 64];

fn main() -> ExitCode {
    let options = Options::parse();
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let bar = ProgressBar::new(options.seconds * 10);
    bar.set_style(ProgressStyle::with_template("{bar:40} {elapsed}  {msg}").expect("a valid template"));
    std::thread::scope(|scope| {
        for slot in 0..options.threads as u64 {
            scope.spawn(move || {
                let mut life = 0;
                while Instant::now() < end && !FAULT.load(Relaxed) {
                    life += 1;
                    let seed = options.seed ^ slot << 32 ^ life << 48;
                    // A new thread each time, so that thread exit is hammered too.
                    let worker = std::thread::Builder::new().stack_size(256 << 10);
                    let worker = worker.spawn(move || live(seed, end)).expect("a thread");
                    worker.join().expect("no panic");
                    THREADS.fetch_add(1, Relaxed);
                }
            });
        }
        // One thread ticks without rest: magazines close under their owners.
        scope.spawn(|| {
            let mut random = SmallRng::seed_from_u64(options.seed);
            while Instant::now() < end && !FAULT.load(Relaxed) {
                if random.random_ratio(1, 50) {
                    neap::purge()
                } else {
                    neap::tick()
                }
                std::thread::sleep(Duration::from_micros(random.random_range(0..500)));
            }
        });
        while Instant::now() < end && !FAULT.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            bar.set_position(start.elapsed().as_millis() as u64 / 100);
            bar.set_message(format!("{} operations", OPERATIONS.load(Relaxed)));
        }
    });
    bar.finish_and_clear();
    for slot in &EXCHANGE {
        lock(slot).drain(..).for_each(Block::free);
    }
    neap::purge();
    let operations = OPERATIONS.load(Relaxed);
    println!("{operations} operations, {} threads lived", THREADS.load(Relaxed));
    println!("{}", neap::stats());
    if FAULT.load(Relaxed) {
        eprintln!("a block was not as it was left");
        return ExitCode::FAILURE;
    }
    println!("no fault");
    ExitCode::SUCCESS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under a lock")
}

/// One thread's life.
fn live(seed: u64, end: Instant) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut blocks: Vec<Block> = Vec::new();
    let steps = random.random_range(100..100_000u64);
    for step in 0..steps {
        if step % 256 == 0 && (Instant::now() >= end || FAULT.load(Relaxed)) {
            break;
        }
        match random.random_range(0..100) {
            0..45 => blocks.extend(Block::new(&mut random)),
            45..80 => {
                if !blocks.is_empty() {
                    blocks.swap_remove(random.random_range(0..blocks.len())).free();
                }
            }
            80..88 => {
                if let Some(block) = blocks.last_mut() {
                    block.resize(size(&mut random));
                }
            }
            88..99 => {
                let mut exchange = lock(&EXCHANGE[random.random_range(0..EXCHANGE.len())]);
                if exchange.len() < 256 && random.random() {
                    exchange.extend(blocks.pop());
                } else {
                    blocks.extend(exchange.pop());
                }
            }
            _ => blocks.drain(..).for_each(Block::free),
        }
        if blocks.len() > 2000 {
            blocks.drain(..1500).for_each(Block::free);
        }
    }
    OPERATIONS.fetch_add(steps, Relaxed);
    blocks.into_iter().for_each(Block::free);
}

/// A block filled with a pattern of its own, so that a block handed out twice,
/// or written by another's owner, shows.
struct Block {
    start: *mut u8,
    layout: Layout,
    pattern: u64,
}

// SAFETY: a block is its holder's alone.
unsafe impl Send for Block {}

/// Mostly small, some of pages, a few of megabytes.
fn size(random: &mut SmallRng) -> usize {
    match random.random_range(0..1000) {
        0..800 => random.random_range(1..=256),
        800..960 => random.random_range(1..=8192),
        960..995 => random.random_range(1..=300_000),
        995..999 => random.random_range(1..=3_000_000),
        _ => random.random_range(4_000_000..=6_000_000),
    }
}

impl Block {
    fn new(random: &mut SmallRng) -> Option<Self> {
        let align = 1 << if random.random_ratio(1, 20) { random.random_range(4..=16) } else { 3 };
        let layout = Layout::from_size_align(size(random), align).expect("a small layout");
        let zeroed = random.random_ratio(1, 8);
        // SAFETY: the size is not zero.
        let start = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        if start.is_null() {
            return None;
        }
        if !start.addr().is_multiple_of(align) {
            FAULT.store(true, Relaxed);
        }
        let block = Self { start, layout, pattern: random.random() };
        if zeroed && !block.words().chain(block.tail()).all(|(at, _)| block.read(at) == 0) {
            FAULT.store(true, Relaxed);
        }
        block.fill();
        Some(block)
    }

    /// Offsets looked at, with the pattern there: every word of a small block,
    /// one in each 64 words of a large one, and the last bytes.
    fn words(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        let step = if self.layout.size() > 16 << 10 { 64 * 8 } else { 8 };
        let pattern = self.pattern;
        (0..self.layout.size() / 8 * 8).step_by(step).map(move |at| (at, pattern.rotate_left(at as u32 / 8)))
    }

    fn tail(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        let last = self.layout.size().checked_sub(8);
        let pattern = self.pattern;
        last.into_iter().filter(|last| last % 8 == 0).map(move |at| (at, pattern.rotate_left(at as u32 / 8)))
    }

    fn read(&self, at: usize) -> u64 {
        // SAFETY: `at` is eight bytes or more before the end.
        unsafe { self.start.add(at).cast::<u64>().read() }
    }

    fn fill(&self) {
        for (at, word) in self.words().chain(self.tail()) {
            // SAFETY: as in `read`.
            unsafe { self.start.add(at).cast::<u64>().write(word) };
        }
    }

    fn verify(&self) {
        if !self.words().chain(self.tail()).all(|(at, word)| self.read(at) == word) {
            FAULT.store(true, Relaxed);
        }
    }

    fn resize(&mut self, size: usize) {
        self.verify();
        // SAFETY: the block is ours, and the size not zero.
        let moved = unsafe { realloc(self.start, self.layout, size) };
        if moved.is_null() {
            return;
        }
        let kept = self.layout.size().min(size);
        self.start = moved;
        let step = if self.layout.size() > 16 << 10 { 64 * 8 } else { 8 };
        for at in (0..kept / 8 * 8).step_by(step) {
            if self.read(at) != self.pattern.rotate_left(at as u32 / 8) {
                FAULT.store(true, Relaxed);
            }
        }
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a small layout");
        self.fill();
    }

    fn free(self) {
        self.verify();
        // SAFETY: the block is ours, with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}
