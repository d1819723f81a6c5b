//! The contestant that runs on neap.

#[global_allocator]
static HEAP: neap::Neap = neap::Neap::new();

fn main() {
    race::scenarios::STATS.get_or_init(|| || neap::stats().to_string());
    race::contest();
}
