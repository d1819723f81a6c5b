//! The contestant that runs on neap.

#[global_allocator]
static HEAP: neap::Neap = neap::Neap::new();

fn main() {
    race::contest();
}
