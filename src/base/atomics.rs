//! The atomics of the files that `tests/models` runs, imported from one place so
//! that a model can replace them with a model checker's.

pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
