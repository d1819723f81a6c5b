//! `Neap`, the type a program names as its global allocator.

use core::time::Duration;
use std::alloc::{GlobalAlloc, Layout, System};

/// The allocator: set it with `#[global_allocator]`.
pub struct Neap {
    tick_interval: Duration,
    background: bool,
    thread_pool_bytes: usize,
}

impl Neap {
    /// An allocator with the default settings.
    pub const fn new() -> Self {
        Self { tick_interval: Duration::from_millis(500), background: false, thread_pool_bytes: 2 << 20 }
    }

    /// How long an epoch lasts when ticks are driven by activity or by the background ticker.
    pub const fn tick_interval(mut self, interval: Duration) -> Self {
        self.tick_interval = interval;
        self
    }

    /// Whether one ticker thread of Neap's own ticks, so that a process gone quiet gives memory back too.
    pub const fn background(mut self, on: bool) -> Self {
        self.background = on;
        self
    }

    /// How many bytes of freed blocks one thread may pool.
    pub const fn thread_pool_bytes(mut self, bytes: usize) -> Self {
        self.thread_pool_bytes = bytes;
        self
    }
}

impl Default for Neap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: placeholder: the system allocator's own contract.
unsafe impl GlobalAlloc for Neap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = (self.tick_interval, self.background, self.thread_pool_bytes);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}
