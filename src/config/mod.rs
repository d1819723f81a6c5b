//! What a user may configure, and the memory limits of the process.

pub(crate) mod cgroup;
pub(crate) mod settings;
pub(crate) mod soft_limit;
