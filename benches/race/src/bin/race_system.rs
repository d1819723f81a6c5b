//! The contestant that runs on system.

#[global_allocator]
static HEAP: std::alloc::System = std::alloc::System;

fn main() {
    race::contest();
}
