//! A function that an upper layer registers with a lower one.

use core::mem;
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Empty until it is set.
pub(crate) struct Hook(AtomicPtr<()>);

impl Hook {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn set(&self, call: fn()) {
        // Release pairs with the acquire in `run`: what was done before `set` is seen there.
        self.0.store(call as *mut (), Release);
    }

    pub(super) fn is_set(&self) -> bool {
        !self.0.load(Relaxed).is_null()
    }

    /// Calls the function, if there is one.
    pub(crate) fn run(&self) {
        // Acquire pairs with the release in `set`.
        let call = self.0.load(Acquire);
        if !call.is_null() {
            // SAFETY: only `set` stores here, and only a `fn()`.
            let call = unsafe { mem::transmute::<*mut (), fn()>(call) };
            call();
        }
    }
}
