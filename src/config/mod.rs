//! What a user may configure, and the limits that the process lives under.

mod cgroup;
pub(crate) mod settings;
pub(crate) mod soft_limit;
