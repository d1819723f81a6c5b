//! C++'s `operator new` and `operator delete`.
//!
//! Where memory is exhausted, the throwing forms do what the C++ library's do:
//! they call the new-handler until there is memory or no handler, and then
//! throw `std::bad_alloc`. Both are the C++ library's own, found when needed;
//! these functions must be ready before it is loaded.

use super::malloc::{aligned, free, malloc};
use crate::base::fatal::report;
use crate::global::neap::Neap;
use crate::platform;
use core::ffi::{CStr, c_void};
use core::mem;

type Handler = Option<unsafe extern "C-unwind" fn()>;

/// `operator new(size_t)`.
///
/// # Safety
/// None. Unwinds with a C++ exception.
#[inline(always)]
pub unsafe fn new(neap: &'static Neap, size: usize) -> *mut c_void {
    // SAFETY: no contract.
    let block = unsafe { malloc(neap, size) };
    if block.is_null() { throwing(|| plain(neap, size)) } else { block }
}

/// `operator new(size_t, nothrow)`.
///
/// # Safety
/// None.
#[inline(always)]
pub unsafe fn new_nothrow(neap: &'static Neap, size: usize, _: *const c_void) -> *mut c_void {
    // SAFETY: no contract.
    let block = unsafe { malloc(neap, size) };
    if block.is_null() { handling(|| plain(neap, size)) } else { block }
}

/// `operator new(size_t, align_val_t)`.
///
/// # Safety
/// None. Unwinds with a C++ exception.
pub unsafe fn new_aligned(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    let block = of_power_of_two(neap, size, align);
    if block.is_null() { throwing(|| of_power_of_two(neap, size, align)) } else { block }
}

/// `operator new(size_t, align_val_t, nothrow)`.
///
/// # Safety
/// None.
pub unsafe fn new_aligned_nothrow(
    neap: &'static Neap,
    size: usize,
    align: usize,
    _: *const c_void,
) -> *mut c_void {
    let block = of_power_of_two(neap, size, align);
    if block.is_null() { handling(|| of_power_of_two(neap, size, align)) } else { block }
}

/// `operator delete` with a size, or with an alignment: neither is needed to
/// find the block, and C++ programs are known to get the size wrong.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn delete_sized(neap: &'static Neap, block: *mut c_void, _: usize) {
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

/// `operator delete(void *, nothrow)`.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn delete_nothrow(neap: &'static Neap, block: *mut c_void, _: *const c_void) {
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

/// `operator delete(void *, size_t, align_val_t)`.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn delete_aligned(neap: &'static Neap, block: *mut c_void, _: usize, _: usize) {
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

/// `operator delete(void *, align_val_t, nothrow)`.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn delete_aligned_nothrow(neap: &'static Neap, block: *mut c_void, _: usize, _: *const c_void) {
    // SAFETY: the same contract.
    unsafe { free(neap, block) };
}

fn plain(neap: &'static Neap, size: usize) -> *mut c_void {
    // SAFETY: no contract.
    unsafe { malloc(neap, size) }
}

/// An alignment that is none is C++'s undefined behaviour; it fails here.
fn of_power_of_two(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    if align.is_power_of_two() { aligned(neap, size, align) } else { core::ptr::null_mut() }
}

/// Tries again as long as there is a new-handler; null once there is none.
#[cold]
#[inline(never)]
fn handling(attempt: impl Fn() -> *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: the C++ library's function of that name and type.
        let get = unsafe {
            mem::transmute::<*mut c_void, Option<unsafe extern "C" fn() -> Handler>>(symbol(
                c"_ZSt15get_new_handlerv",
            ))
        };
        // SAFETY: as above, and the handler is the program's.
        match get.and_then(|get| unsafe { get() }) {
            // SAFETY: the program's own, which may throw.
            Some(handler) => unsafe { handler() },
            None => return core::ptr::null_mut(),
        }
        let block = attempt();
        if !block.is_null() {
            return block;
        }
    }
}

/// The same, and throws once there is no handler.
#[cold]
#[inline(never)]
fn throwing(attempt: impl Fn() -> *mut c_void) -> *mut c_void {
    let block = handling(attempt);
    if !block.is_null() {
        return block;
    }
    // SAFETY: the C++ library's function of that name and type.
    let throw = unsafe { mem::transmute::<*mut c_void, Handler>(symbol(c"_ZSt17__throw_bad_allocv")) };
    if let Some(throw) = throw {
        // SAFETY: it takes nothing and throws.
        unsafe { throw() };
    }
    report(format_args!("operator new: out of memory, and no C++ library to throw std::bad_alloc"));
    platform::abort()
}

fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}
