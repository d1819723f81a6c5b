//! Neap's shared library and those of its peers, and what runs under each.

pub mod cases;
pub mod library;
pub mod redis;
pub mod work;
