//! What no program should do.

use super::{Case, End};
use libc::{c_void, free, malloc};
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const fn dies(name: &'static str, what: &'static str, run: fn()) -> Case {
    Case { name, run, end: End::Dies(what) }
}

/// All of them, in the order of the table.
pub const ALL: &[Case] = &[
    dies("double free at once, 16 bytes", "double free", || at_once(16)),
    dies("double free at once, 24 bytes", "double free", || at_once(24)),
    dies("double free at once, 1,000 bytes", "double free", || at_once(1000)),
    dies("double free at once, 20,000 bytes", "double free", || at_once(20_000)),
    dies("double free at once, 100,000 bytes", "double free", || at_once(100_000)),
    dies("double free at once, 1 MiB", "double free", || at_once(1 << 20)),
    dies("double free at once, 8 MiB", "double free", || at_once(8 << 20)),
    dies("double free, others freed in between, 24 bytes", "double free", || in_between(24)),
    dies("double free, others freed in between, 1,000 bytes", "double free", || in_between(1000)),
    dies("double free, others freed in between, 100,000 bytes", "double free", || in_between(100_000)),
    dies("double free after 1.2 s, 24 bytes", "double free", || later(24)),
    dies("double free after 1.2 s, 20,000 bytes", "double free", || later(20_000)),
    dies("double free from another thread, 16 bytes", "double free", || elsewhere(16)),
    dies("double free from another thread, 24 bytes", "double free", || elsewhere(24)),
    dies("double free from another thread, 1 MiB", "double free", || elsewhere(1 << 20)),
    dies("operator delete of a freed block", "double free", deleted),
    dies("free, 8 bytes into a block", "inside a block", || interior(100, 8)),
    dies("free, 16 bytes into a block", "inside a block", || interior(100, 16)),
    dies("free, 4,096 bytes into a block of 20,000", "inside a block", || interior(20_000, 4096)),
    dies("free, 64 KiB into a block of 1 MiB", "inside a block", || interior(1 << 20, 64 << 10)),
    dies("free, 4,096 bytes into a block of 8 MiB", "of another allocator or another copy of Neap", || {
        interior(8 << 20, 4096)
    }),
    dies("free of an address on the stack", "of another allocator or another copy of Neap", stack),
    dies("free of a static", "of another allocator or another copy of Neap", in_static),
    dies("free of a wild address", "of another allocator or another copy of Neap", || give(0x1234_5678_9ab0)),
    dies("free of a small number", "of another allocator or another copy of Neap", || give(48)),
    dies("free of a non-canonical address", "of another allocator or another copy of Neap", || {
        give(0xdead_beef_dead_bee0)
    }),
    dies("free of a mapping of the program's own", "of another allocator or another copy of Neap", foreign),
    dies("realloc of a freed block, 24 bytes", "realloc of a block that is free", || reused(24)),
    dies("realloc of a freed block, 100,000 bytes", "realloc of a block that is free", || reused(100_000)),
    dies("realloc of a freed block, 8 MiB", "realloc of a block that is free", || reused(8 << 20)),
    dies("malloc_usable_size of a freed block", "malloc_usable_size of a block that is free", measured),
    dies("free_sized with a wrong size", "size that is not the block's", || sized(100, 500)),
    dies("free_sized with a wrong size, 1 MiB", "size that is not the block's", || sized(1 << 20, 100)),
    Case { name: "writes to freed blocks, 24 bytes", run: || written(24), end: End::Well },
    Case { name: "writes to freed blocks, 1,000 bytes", run: || written(1000), end: End::Well },
    Case { name: "writes to freed blocks, 20,000 bytes", run: || written(20_000), end: End::Well },
];

fn take(size: usize) -> *mut c_void {
    // SAFETY: no contract.
    let block = black_box(unsafe { malloc(black_box(size)) });
    assert!(!block.is_null());
    block
}

fn give(block: usize) {
    // SAFETY: wrong on purpose.
    unsafe { free(black_box(block as *mut c_void)) };
}

/// What happens in a program that is not aborted: prints the worst of it.
fn look_around(size: usize) {
    let mut seen = HashSet::new();
    let twice = (0..2000).any(|_| !seen.insert(take(size.min(1 << 20)) as usize));
    println!("{}", if twice { "a block handed out twice" } else { "unnoticed" });
}

fn at_once(size: usize) {
    let block = take(size) as usize;
    give(block);
    give(block);
    look_around(size);
}

fn in_between(size: usize) {
    let block = take(size) as usize;
    let others: Vec<usize> = (0..100).map(|_| take(size) as usize).collect();
    give(block);
    others.into_iter().for_each(give);
    give(block);
    look_around(size);
}

fn later(size: usize) {
    let block = take(size) as usize;
    give(block);
    std::thread::sleep(Duration::from_millis(1200));
    give(block);
    look_around(size);
}

fn elsewhere(size: usize) {
    // The thread is started before, since starting it allocates.
    let block = take(size) as usize;
    let (freed, wait) = (Arc::new(AtomicU64::new(0)), Duration::from_millis(1));
    let seen = freed.clone();
    let thread = std::thread::spawn(move || {
        while seen.load(Ordering::Acquire) == 0 {
            std::thread::sleep(wait);
        }
        give(block);
    });
    std::thread::sleep(Duration::from_millis(20));
    give(block);
    freed.store(1, Ordering::Release);
    thread.join().expect("no panic");
    look_around(size);
}

fn deleted() {
    // SAFETY: the C++ operator's C name; the second free is wrong on purpose.
    unsafe {
        let delete = symbol(c"_ZdlPv");
        let delete: extern "C" fn(usize) = std::mem::transmute(delete);
        let block = take(40) as usize;
        give(block);
        delete(block);
    }
    look_around(40);
}

fn interior(size: usize, offset: usize) {
    let block = take(size) as usize;
    give(block + offset);
    look_around(size);
}

fn stack() {
    let mut place = [0u64; 64];
    give((black_box(&mut place) as *mut [u64; 64] as usize).next_multiple_of(16) + 64);
    look_around(64);
}

fn in_static() {
    static PLACE: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
    PLACE[0].store(1, Ordering::Relaxed);
    give((&raw const PLACE as usize).next_multiple_of(16) + 64);
    look_around(64);
}

fn foreign() {
    // SAFETY: a fresh mapping.
    let mapping = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 1 << 16, access, kind, -1, 0)
    };
    give(mapping as usize);
    look_around(64);
}

fn reused(size: usize) {
    let block = take(size);
    give(block as usize);
    // SAFETY: wrong on purpose.
    let new = black_box(unsafe { libc::realloc(black_box(block), size * 2) });
    let mut seen: HashSet<usize> = (0..2000).map(|_| take(size.min(1 << 20)) as usize).collect();
    println!("{}", if seen.insert(new as usize) { "unnoticed" } else { "a block handed out twice" });
}

fn measured() {
    let block = take(100);
    give(block as usize);
    // SAFETY: wrong on purpose.
    black_box(unsafe { libc::malloc_usable_size(black_box(block)) });
    look_around(100);
}

fn sized(size: usize, given: usize) {
    // SAFETY: C23's function, where there is one; the size is wrong on purpose.
    unsafe {
        let function = symbol(c"free_sized");
        if function.is_null() {
            println!("no such function");
            return;
        }
        let function: extern "C" fn(*mut c_void, usize) = std::mem::transmute(function);
        function(take(size), given);
    }
    look_around(size);
}

/// Writes to freed blocks must not change what later calls return.
fn written(size: usize) {
    let blocks: Vec<usize> = (0..1000).map(|_| take(size) as usize).collect();
    blocks.iter().copied().for_each(give);
    for &block in &blocks {
        let page = block & !4095;
        let mut resident = 0;
        // SAFETY: only asks; what is mapped can be written, even if it is wrong to.
        unsafe {
            if libc::mincore(page as *mut c_void, 4096, &mut resident) == 0 {
                (block as *mut u8).write_bytes(0x41, 16);
            }
        }
    }
    let mut again: Vec<usize> = (0..2000).map(|_| take(size) as usize).collect();
    again.sort_unstable();
    let apart = again.windows(2).all(|pair| pair[1] - pair[0] >= size);
    println!("{}", if apart { "no effect" } else { "a block handed out twice" });
    assert!(apart);
    again.into_iter().for_each(give);
}

/// A symbol of any library that has it; null if none does.
fn symbol(name: &std::ffi::CStr) -> *mut c_void {
    // SAFETY: C strings; the C++ library is loaded for its operators.
    unsafe {
        libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr())
    }
}
