//! What the program sees: the global allocator, its slow paths, and statistics.

pub(crate) mod neap;
pub(crate) mod settings;
pub(crate) mod slow_path;
pub(crate) mod stats;
