//! The program by which `sync.Pool` is often explained, in Rust: what is put
//! back dirty comes back dirty, what is reset comes back clean, and the second
//! of two gets makes a new one.
//!
//! `cargo run --example sync_pool`

use neap::Pool;

#[derive(Debug, Default)]
struct Person {
    name: String,
    age: u32,
}

impl Person {
    fn new() -> Self {
        println!("  (New makes a person)");
        Self::default()
    }

    fn reset(&mut self) {
        self.name.clear();
        self.age = 0;
    }
}

fn main() {
    let people: Pool<Person> = Pool::new(Person::new);

    println!("the pool is empty, so get makes one:");
    let mut first = people.get();
    first.name = "Ada".into();
    first.age = 36;
    println!("  {first:?}, put back as it is");
    drop(first);

    println!("get promises nothing about an object's state:");
    let mut again = people.get();
    println!("  {again:?}, the same, dirty; reset and put back");
    again.reset();
    drop(again);

    println!("two gets, one object in the pool:");
    let clean = people.get();
    println!("  {clean:?}, clean");
    let second = people.get();
    println!("  {second:?}, new");
    assert!(clean.name.is_empty() && second.name.is_empty());
    drop((clean, second));

    println!("two ticks without use drop what only the pool holds:");
    people.tick();
    println!("  after one: {people:?}");
    people.tick();
    println!("  after two: {people:?}");
    assert!(people.is_empty());
}
