pub(crate) mod neap;
pub(crate) mod slow_path;
pub(crate) mod stats;
