//! The platform: everything that differs by operating system or processor,
//! behind the functions that this page lists. Nothing above asks what system it
//! is on. PORTING.md walks through what a new port writes.
//!
//! | what | a port provides | and if the system has no such thing |
//! |---|---|---|
//! | memory | [`PAGE`], [`ADDRESS_BITS`], [`Mapping`], [`Reservation`] | no port without |
//! | | [`release`]: returns pages to the system, which read as zero when touched again; tells whether they went | false: pages stay, nothing breaks |
//! | | [`release_part`]: the same for pages that may be part of a huge page | as `release` |
//! | | [`move_pages`]: moves pages to another address in one step and leaves zeros in their place | false: sleeping threads keep their slots |
//! | | [`make_huge_page`], [`set_huge_pages`], [`huge_pages`] | false: the heap grows on small pages |
//! | | `remap`: a mapping's length changed, by moving pages if it may move ([`RESIZES`]) | false: what grows is copied |
//! | | [`address_space_limit`] | none |
//! | barrier | [`register_barrier`], [`barrier`]: after it no thread of the process is inside an instruction that began before, and all their earlier stores are visible | false: each thread ages its own cache, if its fast path needs the barrier |
//! | wait and wake | [`wait`], [`wake`] on a 32-bit word; `yield_now` and `nap` for locks | wait for a while and check again |
//! | clock | [`now_ms`]: monotonic and cheap; a few milliseconds of error are fine | no port without |
//! | threads | [`ExitKey`]: a call at a thread's end | none: no thread has a cache, which is right and slow |
//! | | [`spawn`], [`program_is_loaded`] | false: no background thread |
//! | libraries | [`stay_loaded`]: the loader keeps the library that this code is part of; false if it goes already | true, and such a library must not be unloaded |
//! | fork | [`at_fork`] | nothing, where processes do not fork |
//! | process | [`abort`], [`write_stderr`], [`each_variable`], [`has_environment`], [`environment_is_trusted`], [`read_file`], [`page_size`], [`keeping_errno`] (by `errno`) | |
//!
//! Two more places depend on the processor: [`prefetch`] here, and the fast path's
//! few instructions in `thread_cache/thread_local`.
//!
//! `--cfg neap_generic` has a Linux build take the generic port, so that it is built
//! and tested too.
//!
//! None of these panics, or changes errno: POSIX has `free` leave it as it was, and a
//! program may ask for it after it dropped something. `ExitKey::set`, `spawn`, `at_fork` and
//! `stay_loaded` may allocate, by the C library, and are called without locks; the others
//! may be called with locks held.

#[cfg(all(target_os = "linux", not(neap_generic)))]
mod library;
mod lock;
mod mapping;
mod processor;
mod unix;

#[cfg(any(neap_generic, not(target_os = "linux")))]
mod generic;
#[cfg(all(target_os = "linux", not(neap_generic)))]
mod linux;

#[cfg(any(neap_generic, not(target_os = "linux")))]
use generic as system;
#[cfg(all(target_os = "linux", not(neap_generic)))]
use linux as system;

pub(crate) use lock::{Guard, Lock, back_off};
pub(crate) use mapping::{Mapping, Reservation, reserve};
pub(crate) use processor::prefetch;
pub(crate) use system::{
    ADDRESS_BITS, RESIZES, barrier, environment_is_trusted, has_environment, huge_pages, make_huge_page,
    move_pages, now_ms, program_is_loaded, register_barrier, release, release_part, set_huge_pages,
    stay_loaded, wait, wake,
};
pub(crate) use unix::{
    ExitKey, abort, address_space_limit, at_fork, each_variable, keeping_errno, page_size, read_file, spawn,
    write_stderr,
};

/// Bytes of a page: what the processor maps and the system takes back. Where the
/// system's pages are larger, [`release`] refuses what does not line up, and it stays.
pub(crate) const PAGE: usize = 4 << 10;
