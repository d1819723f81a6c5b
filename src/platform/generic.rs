//! Any other Unix: what POSIX has. Everything else reports that it is not there.

use super::unix::{self, keeping_errno};
use core::ffi::c_char;
use core::sync::atomic::AtomicU32;
use memmap2::MmapMut;

/// Whether a mapping's length can change.
pub(crate) const RESIZES: bool = false;

/// Bits of the addresses that `mmap` returns unless asked for more.
pub(crate) const ADDRESS_BITS: u32 = 48;

/// Returns pages to the system; they read as zero when touched again. False if
/// they are not whole pages of the system's, or it refuses.
///
/// # Safety
/// The range is whole pages of a mapping of ours that nobody uses.
pub(crate) unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    if !unix::are_whole_pages(start, bytes) {
        return false;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
    // `madvise` promises zeros on Linux only; a fresh mapping in the same place does everywhere.
    // SAFETY: by contract, pages of ours that nobody uses, and whole ones.
    let mapped = keeping_errno(|| unsafe { libc::mmap(start.cast(), bytes, access, flags, -1, 0) });
    if mapped == libc::MAP_FAILED {
        // POSIX lets a failed `MAP_FIXED` leave nothing mapped there, and others would use it.
        unix::write_stderr(b"neap: the system took pages away and gave none back\n");
        unix::abort();
    }
    true
}

/// The same: there are no huge pages to split.
///
/// # Safety
/// As for [`release`].
pub(crate) unsafe fn release_part(start: *mut u8, bytes: usize, _part: bool) -> bool {
    // SAFETY: the same contract.
    unsafe { release(start, bytes) }
}

/// Not possible here.
///
/// # Safety
/// None.
pub(crate) unsafe fn move_pages(_: *mut u8, _: usize, _: *mut u8) -> bool {
    false
}

/// Not possible here.
///
/// # Safety
/// None.
pub(super) unsafe fn remap(_: &mut MmapMut, _: usize, _: bool) -> bool {
    false
}

/// Nothing to set.
///
/// # Safety
/// None.
pub(crate) unsafe fn set_huge_pages(_: *mut u8, _: usize, _: bool) {}

/// Not possible here.
///
/// # Safety
/// None.
pub(crate) unsafe fn make_huge_page(_: *mut u8, _: usize) -> bool {
    false
}

/// Never.
pub(crate) fn huge_pages(_configured: Option<bool>) -> bool {
    false
}

/// Nothing to register.
pub(crate) fn register_barrier() {}

/// There is none, so each thread ages its own cache.
pub(crate) fn barrier() -> bool {
    false
}

/// Nobody is woken early; a wait without a limit ends after a second.
pub(crate) fn wait(_: &AtomicU32, _: u32, ms: Option<u64>) {
    // POSIX allows less than a second.
    let us = ms.unwrap_or(1000).saturating_mul(1000).min(999_999);
    // SAFETY: takes no pointers.
    keeping_errno(|| unsafe { libc::usleep(us as libc::useconds_t) });
}

/// Yields once more: what sleeps is a cancellation point everywhere, and a thread that is
/// cancelled while it waits for a lock may hold others.
pub(super) fn nap() {
    unix::yield_now();
}

/// Nothing to do: [`wait`] ends by itself.
pub(crate) fn wake(_: &AtomicU32) {}

/// Milliseconds of the monotonic clock.
pub(crate) fn now_ms() -> u64 {
    unix::clock_ms(libc::CLOCK_MONOTONIC)
}

/// The C library knows it before it allocates.
pub(crate) fn has_environment() -> bool {
    true
}

/// The variables, each `NAME=value`, and a null at the end; or null.
pub(super) fn environment() -> *const *const c_char {
    #[cfg(target_vendor = "apple")]
    // SAFETY: takes nothing and returns the address of a variable, read as `getenv` does.
    return unsafe { (*libc::_NSGetEnviron()).cast() };
    #[cfg(not(target_vendor = "apple"))]
    return {
        unsafe extern "C" {
            static environ: *const *const c_char;
        }
        // SAFETY: the C library's variable, read as `getenv` does.
        unsafe { environ }
    };
}

/// Whether the environment is from somebody with no fewer rights than this process. Where the
/// system does not tell, it is taken for that.
pub(crate) fn environment_is_trusted() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: no pointers; the kernel always tells this one.
    return unsafe { libc::getauxval(libc::AT_SECURE) == 0 };
    #[cfg(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris",
        target_os = "illumos"
    ))]
    return {
        unsafe extern "C" {
            safe fn issetugid() -> libc::c_int;
        }
        issetugid() == 0
    };
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris",
        target_os = "illumos"
    )))]
    return true;
}

/// Nothing tells when that is; the first allocations are the program's own.
pub(crate) fn program_is_loaded() -> bool {
    true
}

/// Nothing here asks the loader: a library that has used its Neap must not be unloaded.
pub(crate) fn stay_loaded() -> bool {
    true
}

/// The address of the calling thread's errno.
pub(super) fn errno() -> *mut libc::c_int {
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: takes nothing and cannot fail.
    return unsafe { libc::__error() };
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    // SAFETY: takes nothing and cannot fail.
    return unsafe { libc::__errno() };
    #[cfg(not(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    // SAFETY: takes nothing and cannot fail.
    return unsafe { libc::__errno_location() };
}
