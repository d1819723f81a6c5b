//! The shared library that this code is part of, if it is not part of the program itself.

use core::ffi::c_void;
use core::mem::MaybeUninit;

/// An address in whatever this code is part of.
fn own_address() -> *const c_void {
    pin_unless_program as *const c_void
}

/// Tells the loader to keep the library. It takes the loader's lock, which a thread may
/// take again inside `dlopen`, and allocates from the process's malloc. With the C library
/// linked in statically there is no loader. False if it refuses.
pub(super) fn pin_unless_program() -> bool {
    // musl never unloads a library, and would look for the file again.
    if cfg!(any(target_feature = "crt-static", target_env = "musl")) || is_program() {
        return true;
    }
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the pointer is to a live `Dl_info`, which is filled on success.
    unsafe {
        if libc::dladdr(own_address(), info.as_mut_ptr()) == 0 {
            // It does not know the library, so it will not unload it.
            return true;
        }
        // The loader knows it by this name, even if the file is gone by now.
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        !libc::dlopen(info.assume_init().dli_fname, flags).is_null()
    }
}

/// Whether this code is part of the program's own file: that has the program headers that
/// the system told the process of. (In a namespace of its own, by `dlmopen`, a library
/// comes first among the loaded files, so the order tells nothing.)
fn is_program() -> bool {
    let mut found = false;
    // SAFETY: the callback gets the pointer to `found`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

/// Called for each loaded file until it returns 1, the program's first.
unsafe extern "C" fn look(
    file: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut c_void,
) -> libc::c_int {
    // SAFETY: the C library describes a loaded file, with its program headers.
    let (base, headers) = unsafe {
        let file = &*file;
        (file.dlpi_addr as usize, core::slice::from_raw_parts(file.dlpi_phdr, file.dlpi_phnum.into()))
    };
    let own = own_address() as usize;
    let mut loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let holds_own = loaded.any(|header| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        own.wrapping_sub(start) < header.p_memsz as usize
    });
    if !holds_own {
        return 0;
    }
    // SAFETY: no pointers; then, the pointer is to the caller's `found`.
    unsafe {
        let program = libc::getauxval(libc::AT_PHDR) as usize;
        found.cast::<bool>().write(headers.as_ptr() as usize == program);
    }
    1
}
