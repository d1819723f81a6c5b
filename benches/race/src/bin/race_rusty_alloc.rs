//! The contestant that runs on rusty_alloc.

#[global_allocator]
static HEAP: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

fn main() {
    race::contest();
}
