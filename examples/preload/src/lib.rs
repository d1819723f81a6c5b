//! Neap as a shared library for programs that cannot be rebuilt:
//!
//! ```sh
//! cargo build --release -p neap-preload
//! LD_PRELOAD=$PWD/target/release/libneap_preload.so redis-server
//! ```
//!
//! Its background thread runs unless `NEAP_BACKGROUND=0`.

use neap::Neap;

// With the feature `malloc` Neap itself exports the C API; then this is where
// its settings come from.
#[cfg_attr(feature = "malloc", global_allocator)]
static HEAP: Neap = Neap::new().background(true);

#[cfg(not(feature = "malloc"))]
neap::__export_c_api!(crate::HEAP);
