//! The atomics that `span.rs` and `magazine.rs` use, in one place, so that the
//! models under `tests` can run those files on a model checker's atomics.

pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
