//! A shared library that brings its own Neap, as plugins and extension modules in Rust do.
//! `tests/plugins.rs` loads it, many times over, and unloads it.

use neap::{Neap, Pool};
use std::ffi::{c_char, c_int};
use std::hint::black_box;

/// `NEAP_BACKGROUND=1` gives it a background thread.
#[global_allocator]
static HEAP: Neap = Neap::new();

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn atexit(call: extern "C" fn()) -> c_int;
}

/// With `PLUGIN_STARTS` set, its first use is while the loader is still at work on it; with
/// `PLUGIN_ENDS`, while the loader unloads it, as in a destructor of C++'s.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    // SAFETY: C strings, and a function of this library's; none of these allocates from it.
    unsafe {
        if !getenv(c"PLUGIN_STARTS".as_ptr()).is_null() {
            at_end();
        }
        if !getenv(c"PLUGIN_ENDS".as_ptr()).is_null() {
            atexit(at_end);
        }
    }
}

extern "C" fn at_end() {
    work(1000);
}

static BUFFERS: Pool<Vec<u8>> = Pool::with_reset(Vec::new, Vec::clear);

/// Makes so many strings and drops them; their length in all.
#[unsafe(no_mangle)]
pub extern "C" fn work(strings: usize) -> usize {
    let strings: Vec<String> = (0..strings).map(|n| n.to_string()).collect();
    strings.iter().map(String::len).sum()
}

/// So many boxes made and dropped, one after the other.
#[unsafe(no_mangle)]
pub extern "C" fn pairs(count: u64) {
    (0..count).for_each(|n| drop(black_box(Box::new(n))));
}

/// Uses a typed pool.
#[unsafe(no_mangle)]
pub extern "C" fn pool(bytes: usize) -> usize {
    let mut buffer = BUFFERS.get();
    buffer.resize(bytes, 1);
    buffer.len()
}

/// A block for the host, to be freed by [`free_block`] of the same copy.
#[unsafe(no_mangle)]
pub extern "C" fn alloc_block() -> *mut [u64; 8] {
    Box::into_raw(Box::new([7; 8]))
}

/// Frees a block and returns all that the thread caches.
///
/// # Safety
/// The block is from [`alloc_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_block(block: *mut [u64; 8]) {
    // SAFETY: by contract, from `alloc_block`.
    drop(unsafe { Box::from_raw(block) });
    neap::flush_thread();
}

/// Adds up while it allocates: sums live in vector registers over each allocation. Returns
/// how many of eight came out wrong.
#[unsafe(no_mangle)]
pub extern "C" fn sums(rounds: u32) -> usize {
    let start: [f64; 8] = black_box([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let mut sums = start;
    for _ in 0..rounds {
        let step = Box::new(black_box(0.5));
        sums.iter_mut().for_each(|sum| *sum += *step);
    }
    let right = |(sum, start): (&f64, &f64)| *sum == *start + 0.5 * f64::from(rounds);
    sums.iter().zip(&start).filter(|pair| !right(*pair)).count()
}
