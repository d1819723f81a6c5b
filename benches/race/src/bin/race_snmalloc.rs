//! The contestant that runs on snmalloc.

#[global_allocator]
static HEAP: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() {
    race::contest();
}
