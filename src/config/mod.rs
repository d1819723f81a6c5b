pub(crate) mod cgroup;
pub(crate) mod settings;
pub(crate) mod soft_limit;
