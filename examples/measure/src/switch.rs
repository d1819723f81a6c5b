//! The global allocator of this program: Neap, unless the environment names
//! the system's, so that both pay the same for the choice.

use neap::Neap;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Set for children that run under the system allocator.
pub const VARIABLE: &str = "MEASURE_SYSTEM";

const UNKNOWN: u8 = 0;
const NEAP: u8 = 1;
const SYSTEM: u8 = 2;

/// Neap or System, chosen at the first allocation.
pub struct Switch {
    neap: Neap,
    chosen: AtomicU8,
}

impl Switch {
    /// Neap with its background ticker, as a service would set it.
    pub const fn new() -> Self {
        Self { neap: Neap::new().background(true), chosen: AtomicU8::new(UNKNOWN) }
    }

    #[inline]
    fn is_neap(&self) -> bool {
        match self.chosen.load(Relaxed) {
            UNKNOWN => self.choose(),
            chosen => chosen == NEAP,
        }
    }

    #[cold]
    fn choose(&self) -> bool {
        // SAFETY: a C string; nothing else runs before the first allocation.
        let system = !unsafe { libc::getenv(c"MEASURE_SYSTEM".as_ptr()) }.is_null();
        self.chosen.store(if system { SYSTEM } else { NEAP }, Relaxed);
        !system
    }
}

// SAFETY: every call goes to the one allocator chosen at the first.
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { if self.is_neap() { self.neap.alloc(layout) } else { System.alloc(layout) } }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe {
            if self.is_neap() { self.neap.dealloc(block, layout) } else { System.dealloc(block, layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if self.is_neap() { self.neap.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if self.is_neap() {
                self.neap.realloc(block, layout, size)
            } else {
                System.realloc(block, layout, size)
            }
        }
    }
}
