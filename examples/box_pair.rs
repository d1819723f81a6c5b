//! One `Box` made and dropped, in a function of its own, to look at what the
//! compiler makes of it: `.ci/disassembly` prints it.

use neap::Neap;
use std::hint::black_box;

#[global_allocator]
static HEAP: Neap = Neap::new();

#[unsafe(no_mangle)]
#[inline(never)]
fn box_pair(value: u64) {
    drop(black_box(Box::new(value)));
}

fn main() {
    (0..1000).for_each(box_pair);
    println!("1000 boxes made and dropped");
}
