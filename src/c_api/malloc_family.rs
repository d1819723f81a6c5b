//! The rest of the malloc family, exactly as C, POSIX and the C library specify it.

use super::diagnosis::Use;
use super::malloc::{
    ALIGN, Live, alloc_aligned, alloc_growing, fail, find_live, free, malloc, out_of_memory,
};
use crate::base::fatal::abort_on_misuse;
use crate::base::size_class::{PAGE, POOLED_MAX, RUN_MAX, class_of, padded};
use crate::global::neap::Neap;
use crate::global::slow_path;
use crate::heap::large::Backing;
use crate::platform::{keeping_errno, page_size};
use core::ffi::{c_int, c_void};
use core::ptr;

/// C's `realloc`. As in the C library, a size of 0 frees the block and returns null.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn realloc(neap: &'static Neap, block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: C's contract.
        return unsafe { malloc(neap, size) };
    }
    let live = find_live(block as usize, Use::Realloc);
    if size == 0 {
        // SAFETY: C's contract.
        unsafe { free(neap, block) };
        return ptr::null_mut();
    }
    if size > isize::MAX as usize {
        return out_of_memory();
    }
    let usable = live.usable(block as usize);
    if let Some(block) = in_place(live, usable, block, size) {
        return block;
    }
    // SAFETY: a new block; both hold the smaller of the two sizes.
    unsafe {
        let to =
            if size > POOLED_MAX && size > usable { alloc_growing(neap, size) } else { malloc(neap, size) };
        if !to.is_null() {
            to.cast::<u8>().copy_from_nonoverlapping(block.cast(), usable.min(size));
            free(neap, block);
        }
        to
    }
}

/// The block's address after resizing, if nothing needs to be copied.
fn in_place(live: Live, usable: usize, block: *mut c_void, size: usize) -> Option<*mut c_void> {
    // A pooled block that stays more than half used stays where it is.
    if still_fits(usable, size) && matches!(live, Live::Pooled(_)) {
        return Some(block);
    }
    // A run can become another run, and a mapping another mapping.
    let size = padded(size, ALIGN);
    let fits = match live {
        Live::Pooled(_) => false,
        Live::Large(Backing::Run) => size > POOLED_MAX && size <= RUN_MAX,
        Live::Large(Backing::Mapping) => size > POOLED_MAX,
    };
    let resized = if fits { slow_path::resize_large(block as usize, size) } else { None };
    resized.map(<*mut u8>::cast).or_else(|| still_fits(usable, size).then_some(block))
}

/// Whether a block of `usable` bytes still fits a size: it does not waste half of itself.
fn still_fits(usable: usize, size: usize) -> bool {
    size <= usable && size > usable / 2
}

/// `reallocarray`.
///
/// # Safety
/// None beyond its contract.
pub unsafe fn reallocarray(
    neap: &'static Neap,
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the same contract.
        Some(size) => unsafe { realloc(neap, block, size) },
        None => out_of_memory(),
    }
}

/// C23's `free_sized`: aborts the process if the block cannot be of that size.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn free_sized(neap: &'static Neap, block: *mut c_void, size: usize) {
    // SAFETY: the same contract.
    unsafe { free_aligned_sized(neap, block, ALIGN, size) };
}

/// C23's `free_aligned_sized`, with the same check.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn free_aligned_sized(neap: &'static Neap, block: *mut c_void, align: usize, size: usize) {
    if !block.is_null() {
        let live = find_live(block as usize, Use::Free);
        let usable = live.usable(block as usize);
        let given = if align.is_power_of_two() && size <= isize::MAX as usize {
            padded(size, align.max(ALIGN))
        } else {
            usize::MAX
        };
        let same_class = match live {
            Live::Pooled(class) => given <= POOLED_MAX && class_of(given) == class,
            _ => given.checked_next_multiple_of(PAGE) == Some(usable),
        };
        // `realloc` may have left a smaller size in a larger block.
        if !same_class && !still_fits(usable, given) {
            abort_on_misuse("free with a size that is not the block's", block as usize);
        }
    }
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

/// POSIX's `posix_memalign`: returns the error, and leaves errno as it was.
///
/// # Safety
/// `out` can be written.
pub unsafe fn posix_memalign(neap: &'static Neap, out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = keeping_errno(|| alloc_aligned(neap, size, align));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: by contract `out` can be written.
    unsafe { out.write(block) };
    0
}

/// C17's `aligned_alloc`: any power of two and any size.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn aligned_alloc(neap: &'static Neap, align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() { alloc_aligned(neap, size, align) } else { fail(libc::EINVAL) }
}

/// `memalign`: as in the C library, an alignment that is no power of two is rounded up
/// to one.
///
/// # Safety
/// None.
pub unsafe fn memalign(neap: &'static Neap, align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => alloc_aligned(neap, size, align),
        None => fail(libc::EINVAL),
    }
}

/// `valloc`: a block that starts on a page.
///
/// # Safety
/// None.
pub unsafe fn valloc(neap: &'static Neap, size: usize) -> *mut c_void {
    alloc_aligned(neap, size, page_size())
}

/// `pvalloc`: whole pages, at least one.
///
/// # Safety
/// None.
pub unsafe fn pvalloc(neap: &'static Neap, size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page_size()) {
        Some(size) => alloc_aligned(neap, size, page_size()),
        None => out_of_memory(),
    }
}
