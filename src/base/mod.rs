//! What every layer needs: sizes and size classes, the clock of epochs, and the
//! few facts that the whole process shares. No locks, no memory of its own.

pub(crate) mod atomics;
pub(crate) mod epoch;
pub(crate) mod fatal;
pub(crate) mod hook;
pub(crate) mod residency;
pub(crate) mod single_threaded;
pub(crate) mod size_class;
