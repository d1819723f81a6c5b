//! The contestant that runs on mimalloc.

#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    race::contest();
}
