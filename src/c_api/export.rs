//! Exports the C API under its C names.

/// Defines the C API under its C names in the crate that expands it, for a static
/// [`Neap`](crate::Neap).
#[doc(hidden)]
#[macro_export]
macro_rules! __export_c_api {
    ($neap:path) => {
        $crate::__export_c_api! { $neap: aligned
            ".text.neap_malloc" malloc = malloc(size: usize) -> *mut c_void;
            ".text.neap_free" free = free(block: *mut c_void) -> ();
            ".text.neap_new" _Znwm = new(size: usize) -> *mut c_void;
            ".text.neap_delete" _ZdlPv = free(block: *mut c_void) -> ();
            ".text.neap_delete_sized" _ZdlPvm = delete_sized(block: *mut c_void, size: usize) -> ();
        }
        $crate::__export_c_api! { $neap:
            calloc = calloc(count: usize, size: usize) -> *mut c_void;
            realloc = realloc(block: *mut c_void, size: usize) -> *mut c_void;
            reallocarray = reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void;
            free_sized = free_sized(block: *mut c_void, size: usize) -> ();
            free_aligned_sized = free_aligned_sized(block: *mut c_void, align: usize, size: usize) -> ();
            posix_memalign = posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
            aligned_alloc = aligned_alloc(align: usize, size: usize) -> *mut c_void;
            memalign = memalign(align: usize, size: usize) -> *mut c_void;
            valloc = valloc(size: usize) -> *mut c_void;
            pvalloc = pvalloc(size: usize) -> *mut c_void;
            malloc_usable_size = malloc_usable_size(block: *mut c_void) -> usize;
            malloc_trim = malloc_trim(pad: usize) -> c_int;
            malloc_stats = malloc_stats() -> ();
            mallopt = mallopt(parameter: c_int, value: c_int) -> c_int;
            mallinfo = mallinfo() -> $crate::c_api::Info<c_int>;
            mallinfo2 = mallinfo2() -> $crate::c_api::Info<usize>;

            _Znam = new(size: usize) -> *mut c_void;
            _ZnwmRKSt9nothrow_t = new_nothrow(size: usize, tag: *const c_void) -> *mut c_void;
            _ZnamRKSt9nothrow_t = new_nothrow(size: usize, tag: *const c_void) -> *mut c_void;
            _ZnwmSt11align_val_t = new_aligned(size: usize, align: usize) -> *mut c_void;
            _ZnamSt11align_val_t = new_aligned(size: usize, align: usize) -> *mut c_void;
            _ZnwmSt11align_val_tRKSt9nothrow_t =
                new_aligned_nothrow(size: usize, align: usize, tag: *const c_void) -> *mut c_void;
            _ZnamSt11align_val_tRKSt9nothrow_t =
                new_aligned_nothrow(size: usize, align: usize, tag: *const c_void) -> *mut c_void;
            _ZdaPv = free(block: *mut c_void) -> ();
            _ZdaPvm = delete_sized(block: *mut c_void, size: usize) -> ();
            _ZdlPvRKSt9nothrow_t = delete_nothrow(block: *mut c_void, tag: *const c_void) -> ();
            _ZdaPvRKSt9nothrow_t = delete_nothrow(block: *mut c_void, tag: *const c_void) -> ();
            _ZdlPvSt11align_val_t = delete_sized(block: *mut c_void, align: usize) -> ();
            _ZdaPvSt11align_val_t = delete_sized(block: *mut c_void, align: usize) -> ();
            _ZdlPvmSt11align_val_t =
                delete_aligned(block: *mut c_void, size: usize, align: usize) -> ();
            _ZdaPvmSt11align_val_t =
                delete_aligned(block: *mut c_void, size: usize, align: usize) -> ();
            _ZdlPvSt11align_val_tRKSt9nothrow_t =
                delete_aligned_nothrow(block: *mut c_void, align: usize, tag: *const c_void) -> ();
            _ZdaPvSt11align_val_tRKSt9nothrow_t =
                delete_aligned_nothrow(block: *mut c_void, align: usize, tag: *const c_void) -> ();
        }
    };
    // Each of these starts on a cache-line boundary: otherwise its position alone can change
    // the time of a malloc and free by a tenth. The directive aligns a section that holds
    // only the function, so the function is at offset 0.
    ($neap:path: aligned $($section:literal $name:ident =
        $function:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            ::core::arch::global_asm!(
                concat!(".pushsection ", $section, ",\"ax\""),
                ".p2align 6",
                ".popsection"
            );
        )*
        $crate::__export_c_api! { $neap:
            $(#[unsafe(link_section = $section)] $name = $function($($argument: $type),*) -> $result;)*
        }
    };
    ($neap:path: $($(#[$attribute:meta])? $name:ident =
        $function:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        const _: () = {
            #[allow(unused_imports, reason = "not every list has both")]
            use ::core::ffi::{c_int, c_void};
            $(
                // May unwind: C++'s `new` throws, and so may a new-handler.
                $(#[$attribute])?
                #[unsafe(no_mangle)]
                #[allow(non_snake_case)]
                unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                    // SAFETY: the caller's contract, which is C's.
                    unsafe { $crate::c_api::$function(&$neap, $($argument),*) }
                }
            )*
        };
    };
}
