//! Neap's shared library and its peers', and what is run under each.

pub mod cases;
pub mod library;
pub mod redis;
pub mod work;
