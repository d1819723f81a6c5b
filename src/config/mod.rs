//! What a user may configure, and the limits that the process lives under.

pub(crate) mod cgroup;
pub(crate) mod settings;
pub(crate) mod soft_limit;
