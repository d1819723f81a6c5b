//! C++'s `operator new` and `operator delete`.
//!
//! Without memory the throwing forms do what those of the C++ library do: they call the
//! new-handler until there is memory or no handler, and then throw `std::bad_alloc`.
//! The functions for both are the C++ library's own. They are looked up only when needed,
//! since the operators must work before that library is loaded.

use super::malloc::{alloc_aligned, free, malloc};
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
    // SAFETY: it has no contract.
    let block = unsafe { malloc(neap, size) };
    if block.is_null() { retry_or_throw(|| alloc(neap, size)) } else { block }
}

/// `operator new(size_t, nothrow)`.
///
/// # Safety
/// None.
#[inline(always)]
pub unsafe fn new_nothrow(neap: &'static Neap, size: usize, _: *const c_void) -> *mut c_void {
    // SAFETY: it has no contract.
    let block = unsafe { malloc(neap, size) };
    if block.is_null() { retry_with_handler(|| alloc(neap, size)) } else { block }
}

/// `operator new(size_t, align_val_t)`.
///
/// # Safety
/// None. Unwinds with a C++ exception.
pub unsafe fn new_aligned(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    let block = alloc_power_of_two(neap, size, align);
    if block.is_null() { retry_or_throw(|| alloc_power_of_two(neap, size, align)) } else { block }
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
    let block = alloc_power_of_two(neap, size, align);
    if block.is_null() { retry_with_handler(|| alloc_power_of_two(neap, size, align)) } else { block }
}

/// `operator delete` with a size or with an alignment. Neither is needed to find the
/// block, and C++ programs are known to get the size wrong.
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

fn alloc(neap: &'static Neap, size: usize) -> *mut c_void {
    // SAFETY: it has no contract.
    unsafe { malloc(neap, size) }
}

/// An alignment that is no power of two is undefined behaviour in C++; here it fails.
fn alloc_power_of_two(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    if align.is_power_of_two() { alloc_aligned(neap, size, align) } else { core::ptr::null_mut() }
}

/// Tries again as long as there is a new-handler; null once there is none.
#[cold]
#[inline(never)]
fn retry_with_handler(attempt: impl Fn() -> *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: the C++ library's function of that name and type.
        let get = unsafe {
            mem::transmute::<*mut c_void, Option<unsafe extern "C" fn() -> Handler>>(symbol(
                c"_ZSt15get_new_handlerv",
            ))
        };
        // SAFETY: as above; it takes nothing and returns the program's handler.
        match get.and_then(|get| unsafe { get() }) {
            // SAFETY: the program's handler takes nothing; this function may unwind.
            Some(handler) => unsafe { handler() },
            None => return core::ptr::null_mut(),
        }
        let block = attempt();
        if !block.is_null() {
            return block;
        }
    }
}

/// The same, but throws once there is no handler.
#[cold]
#[inline(never)]
fn retry_or_throw(attempt: impl Fn() -> *mut c_void) -> *mut c_void {
    let block = retry_with_handler(attempt);
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
    // SAFETY: the name is a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}
