//! A thread cache holds, for each class, a magazine of free blocks (the local tier),
//! which the fast path pops from and pushes to, and the victims (the victim tier),
//! which the next tick returns to their spans.
//!
//! The owner reaches its magazines without a lock. Everything else is behind the
//! cache's lock, which the owner takes in its slow path, and a tick takes while it
//! ages the cache. The registry lists every cache, so that a tick finds those of
//! sleeping threads too.

pub(crate) mod cache;
mod class_cache;
mod magazine;
pub(crate) mod registry;
mod slot_memory;
pub(crate) mod thread_local;
mod victims;
