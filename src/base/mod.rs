//! What every layer needs: sizes and size classes, the clock of epochs, and a few
//! facts about the whole process. It has no locks and no memory of its own.

pub(crate) mod atomics;
pub(crate) mod epoch;
pub(crate) mod fatal;
pub(crate) mod hook;
pub(crate) mod residency;
pub(crate) mod single_threaded;
pub(crate) mod size_class;

use atomics::AtomicBool;
use single_threaded::Mode;

/// This process's single-threaded mode.
pub(crate) static SINGLE_THREADED: Mode = Mode { on: AtomicBool::new(false), over: AtomicBool::new(false) };
