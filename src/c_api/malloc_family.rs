//! The rest of what C, POSIX and the C library promise, to the letter.

use super::diagnosis::Use;
use super::malloc::{ALIGN, Live, aligned, exhausted, fail, free, growing, look, malloc};
use crate::base::fatal::abort_on_misuse;
use crate::base::size_class::{PAGE, POOLED_MAX, RUN_MAX, class_of, padded};
use crate::global::neap::Neap;
use crate::global::slow_path;
use crate::heap::large::Backing;
use crate::platform::keeping_errno;
use core::ffi::{c_int, c_void};
use core::ptr;

/// C's `realloc`. As the C library has it, a size of 0 frees the block and
/// gives null.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn realloc(neap: &'static Neap, block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: C's contract.
        return unsafe { malloc(neap, size) };
    }
    let live = look(block as usize, Use::Realloc);
    if size == 0 {
        // SAFETY: C's contract.
        unsafe { free(neap, block) };
        return ptr::null_mut();
    }
    if size > isize::MAX as usize {
        return exhausted();
    }
    let usable = live.usable(block as usize);
    if let Some(block) = in_place(live, usable, block, size) {
        return block;
    }
    // SAFETY: a new block; both hold the smaller of the two sizes.
    unsafe {
        let to = if size > POOLED_MAX && size > usable { growing(neap, size) } else { malloc(neap, size) };
        if !to.is_null() {
            to.cast::<u8>().copy_from_nonoverlapping(block.cast(), usable.min(size));
            free(neap, block);
        }
        to
    }
}

/// The block's new place, if nothing needs to be copied.
fn in_place(live: Live, usable: usize, block: *mut c_void, size: usize) -> Option<*mut c_void> {
    // A block that stays at least half full stays.
    if keeps(usable, size) && matches!(live, Live::Pooled(_)) {
        return Some(block);
    }
    // A run or mapping of the same kind.
    let size = padded(size, ALIGN);
    let fits = match live {
        Live::Pooled(_) => false,
        Live::Large(Backing::Run) => size > POOLED_MAX && size <= RUN_MAX,
        Live::Large(Backing::Mapping) => size > POOLED_MAX,
    };
    let resized = if fits { keeping_errno(|| slow_path::resize_large(block as usize, size)) } else { None };
    resized.map(<*mut u8>::cast).or_else(|| keeps(usable, size).then_some(block))
}

/// Whether a block of `usable` bytes may go on as one of `size`.
fn keeps(usable: usize, size: usize) -> bool {
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
        None => exhausted(),
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
        let live = look(block as usize, Use::Free);
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
        if !same_class && !keeps(usable, given) {
            abort_on_misuse("free with a size that is not the block's", block as usize);
        }
    }
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

/// POSIX's `posix_memalign`: gives the reason, and leaves errno alone.
///
/// # Safety
/// `out` can be written.
pub unsafe fn posix_memalign(neap: &'static Neap, out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = keeping_errno(|| aligned(neap, size, align));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: by contract.
    unsafe { out.write(block) };
    0
}

/// C17's `aligned_alloc`: any power of two, any size.
///
/// # Safety
/// None beyond C's contract.
pub unsafe fn aligned_alloc(neap: &'static Neap, align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() { aligned(neap, size, align) } else { fail(libc::EINVAL) }
}

/// `memalign`: as the C library does, an alignment that is no power of two
/// counts as the next one.
///
/// # Safety
/// None.
pub unsafe fn memalign(neap: &'static Neap, align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(neap, size, align),
        None => fail(libc::EINVAL),
    }
}

/// `valloc`: a block that starts on a page.
///
/// # Safety
/// None.
pub unsafe fn valloc(neap: &'static Neap, size: usize) -> *mut c_void {
    aligned(neap, size, page())
}

/// `pvalloc`: whole pages, at least one.
///
/// # Safety
/// None.
pub unsafe fn pvalloc(neap: &'static Neap, size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page()) {
        Some(size) => aligned(neap, size, page()),
        None => exhausted(),
    }
}

fn page() -> usize {
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(PAGE)
}
