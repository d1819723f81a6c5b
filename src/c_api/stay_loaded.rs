//! Keeps the shared library loaded.

use core::ffi::c_void;
use core::mem::MaybeUninit;

/// Tells the loader to keep the library that this code is part of, even if the program
/// closes it: its blocks are in use, threads will call it when they end, and its own
/// thread runs in it.
pub fn stay_loaded() {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the pointer is to a live `Dl_info`, which is filled on success.
    unsafe {
        if libc::dladdr(stay_loaded as *const c_void, info.as_mut_ptr()) != 0 {
            let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            libc::dlopen(info.assume_init().dli_fname, flags);
        }
    }
}
