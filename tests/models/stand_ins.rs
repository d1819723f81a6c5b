//! Stand-ins for what `heap/span` and `heap/central.rs` import from the crate, for the
//! models that run them on loom's atomics.

pub(crate) mod atomics {
    #[allow(unused_imports, reason = "each model uses its part")]
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod fatal {
    pub(crate) fn abort_on_misuse(what: &str, address: usize) -> ! {
        panic!("{what}: {address:#x}")
    }
}

pub(crate) mod residency {
    pub(crate) fn add(_: usize) {}

    #[allow(dead_code, reason = "for the lists alone")]
    pub(crate) fn round_up(_: usize) {}
}

pub(crate) mod platform {
    pub(crate) const PAGE: usize = 4 << 10;

    /// # Safety
    /// None needed: nothing is returned.
    #[allow(dead_code, reason = "the lists have their own")]
    pub(crate) unsafe fn release_part(_: *mut u8, _: usize, _: bool) -> bool {
        true
    }
}
