//! How memory goes back to the system: the tick, who does it, and what a fork
//! needs of every lock that it holds.

pub(crate) mod background;
pub(crate) mod fork;
pub(crate) mod tick;
