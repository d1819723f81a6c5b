//! The smallest adoption: one line, and every allocation of the program is Neap's.

use neap::Neap;

#[global_allocator]
static HEAP: Neap = Neap::new();

fn main() {
    let words: Vec<String> = ["spring", "neap"].map(String::from).into();
    println!("hello from Neap: {}", words.join(" and "));
}
