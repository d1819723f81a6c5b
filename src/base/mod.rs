pub(crate) mod atomics;
pub(crate) mod epoch;
pub(crate) mod fatal;
pub(crate) mod hook;
pub(crate) mod residency;
pub(crate) mod single_threaded;
pub(crate) mod size_class;
