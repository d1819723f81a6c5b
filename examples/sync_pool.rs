//! The program by which Go's `sync.Pool` is explained, in Rust: what is put
//! back dirty comes back dirty, what is reset reads as new, and what nobody
//! takes is gone after two ticks.
//!
//! `cargo run --example sync_pool`

use neap::{Pool, Tier};
use std::io::{self, Write};

/// New makes an empty buffer; it is called when the pool has nothing to give.
static POOL: Pool<Vec<u8>> = Pool::new(new_buffer);

fn new_buffer() -> Vec<u8> {
    println!("(New makes a buffer)");
    Vec::new()
}

fn main() -> io::Result<()> {
    // The pool is empty, so this buffer is New's. It is put back as it is.
    let mut buffer = POOL.take();
    buffer.write_all(b"dirty")?;
    POOL.put(buffer);

    // "Another" buffer is the same one, as nothing was collected in between:
    // pools can return dirty results.
    let mut buffer = POOL.take();
    buffer.write_all(b"append")?;
    show(&buffer, "dirtyappend");
    POOL.put(buffer);

    // So reset what you get. The guard of `get` puts the buffer back at the end
    // of `main`, as `defer pool.Put(s)` would.
    let mut buffer = POOL.get();
    buffer.clear();
    buffer.write_all(b"reset!")?;
    show(&buffer, "reset!");

    // A pool takes any object. The first of two gets has the one put in by hand;
    // the pool is empty again, so New makes the second.
    POOL.put(new_buffer());
    let (first, second) = (POOL.take(), POOL.take());
    show(&first, "");
    show(&second, "");
    POOL.put(first);
    POOL.put(second);

    // Two ticks drop what nobody takes: local objects become victims, then go.
    show_tiers("before a tick", 2, 0);
    POOL.tick();
    show_tiers("after one tick", 0, 2);
    POOL.tick();
    show_tiers("after two ticks", 0, 0);
    Ok(())
}

fn show(buffer: &[u8], expected: &str) {
    println!("{:?}", String::from_utf8_lossy(buffer));
    assert_eq!(buffer, expected.as_bytes());
}

fn show_tiers(when: &str, local: usize, victim: usize) {
    println!("{when}: {POOL:?}");
    assert_eq!((POOL.len(Tier::Local), POOL.len(Tier::Victim)), (local, victim));
}
