//! Any other Unix: what POSIX has, and a refusal for the rest.

use super::unix;
use core::sync::atomic::AtomicU32;
use memmap2::MmapMut;

/// Bits of an address in user space that `mmap` gives unasked.
pub(crate) const ADDRESS_BITS: u32 = 48;

/// Returns pages; they read as zero when touched again. False if the system refuses.
///
/// # Safety
/// The range is whole pages of a mapping of ours, in nobody's use.
pub(crate) unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let how = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
    // `madvise` promises zeros on Linux alone; a fresh mapping in the same place does everywhere.
    // SAFETY: by contract.
    unsafe { libc::mmap(start.cast(), bytes, access, how, -1, 0) == start.cast() }
}

/// The same; there are no parts of huge pages.
///
/// # Safety
/// As for [`release`].
pub(crate) unsafe fn release_part(start: *mut u8, bytes: usize, _part: bool) -> bool {
    // SAFETY: by contract.
    unsafe { release(start, bytes) }
}

/// Refused.
///
/// # Safety
/// None.
pub(crate) unsafe fn move_pages(_: *mut u8, _: usize, _: *mut u8) -> bool {
    false
}

/// Refused.
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

/// Refused.
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

/// There is none.
pub(crate) fn barrier() -> bool {
    false
}

/// Nobody is woken early; what was to last forever lasts for a second.
pub(crate) fn wait(_: &AtomicU32, _: u32, ms: Option<u64>) {
    // SAFETY: no pointers.
    unsafe { libc::usleep((ms.unwrap_or(1000).min(1000) * 1000) as libc::useconds_t) };
}

/// See [`wait`].
pub(crate) fn wake(_: &AtomicU32) {}

/// Milliseconds of the monotonic clock.
pub(crate) fn now_ms() -> u64 {
    unix::clock_ms(libc::CLOCK_MONOTONIC)
}

/// The C library has it before it allocates.
pub(crate) fn has_environment() -> bool {
    true
}

/// Nothing tells; the first allocations are the program's own.
pub(crate) fn program_is_loaded() -> bool {
    true
}

/// Where the calling thread's errno lies.
pub(super) fn errno() -> *mut libc::c_int {
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: always allowed.
    return unsafe { libc::__error() };
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    // SAFETY: always allowed.
    return unsafe { libc::__errno() };
    #[cfg(not(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    // SAFETY: always allowed.
    return unsafe { libc::__errno_location() };
}
