pub(crate) mod cache;
pub(crate) mod class_cache;
pub(crate) mod magazine;
pub(crate) mod registry;
pub(crate) mod slot_memory;
pub(crate) mod thread_local;
pub(crate) mod victims;
