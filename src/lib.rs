//! Neap: a global allocator in pure Rust whose pools age with the tide.

mod epoch;
mod neap;

pub use neap::Neap;

/// Ends the current epoch by hand: empties every victim tier, demotes every
/// local one, and returns pages that stayed free for a whole epoch.
pub fn tick() {
    epoch::advance();
}

/// Gives every free block and page back to the operating system, now.
pub fn purge() {
    tick();
    tick();
}
