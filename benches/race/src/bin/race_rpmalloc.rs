//! The contestant that runs on rpmalloc.

#[global_allocator]
static HEAP: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() {
    race::contest();
}
