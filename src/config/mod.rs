//! What a user may configure, and the memory limits of the process.

pub(crate) mod cgroup;
mod environment;
mod parse;
pub(crate) mod settings;
pub(crate) mod soft_limit;
