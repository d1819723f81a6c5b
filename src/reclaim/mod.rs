//! How memory goes back to the system: the tick, the background thread that may do it,
//! and what a fork does with every lock.

pub(crate) mod background;
pub(crate) mod fork;
pub(crate) mod tick;
