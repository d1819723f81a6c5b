//! Linux.

use super::unix::{self, keeping_errno, read_file};
use super::{PAGE, library};
use core::ffi::c_char;
use core::ptr;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};
use memmap2::{MmapMut, RemapOptions};

/// Bits of the addresses that `mmap` returns unless asked for more.
pub(crate) const ADDRESS_BITS: u32 = if cfg!(target_arch = "x86_64") { 47 } else { 48 };

/// Whether a mapping's length can change.
pub(crate) const RESIZES: bool = true;

/// Since Linux 6.1. The `libc` crate defines it for some C libraries only.
const MADV_COLLAPSE: libc::c_int = 25;

/// Returns pages to the system; they read as zero when touched again. False if
/// they are not whole pages of the kernel's, or locked: then they stay as they are.
///
/// # Safety
/// The range is whole pages of a mapping of ours that nobody uses.
pub(crate) unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by contract, pages of ours that nobody uses, and whole ones.
    unix::are_whole_pages(start, bytes)
        && keeping_errno(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) == 0 })
}

/// The same for pages that may be part of a huge page (`part`), which the system
/// has to split first. Otherwise it drops the range from the process's count but
/// keeps the memory until it runs short. It still does that with huge pages that
/// another process shares after a fork.
///
/// # Safety
/// As for [`release`].
pub(crate) unsafe fn release_part(start: *mut u8, bytes: usize, part: bool) -> bool {
    if part && unix::are_whole_pages(start, bytes) {
        // Splits the huge page, since the kernel cannot mark part of one.
        // SAFETY: the same contract; the content is not needed.
        keeping_errno(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_FREE) });
    }
    // SAFETY: the same contract.
    unsafe { release(start, bytes) }
}

/// Moves pages to `place` in one step; the old place then reads as zero. False if
/// the kernel cannot (before 5.7): then the pages have not moved, but `place` may
/// no longer be mapped.
///
/// # Safety
/// Both are the same number of whole pages in reservations of ours. Nobody uses
/// `place`, and readers of the old place accept zeros.
pub(crate) unsafe fn move_pages(start: *mut u8, bytes: usize, place: *mut u8) -> bool {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: by contract, both ranges are ours and nobody uses `place`.
    let moved = keeping_errno(|| unsafe { libc::mremap(start.cast(), bytes, bytes, flags, place) });
    moved == place.cast()
}

/// Changes a mapping's length; see `Mapping::resize`.
///
/// # Safety
/// Nobody uses what is cut off, nor an old address if the mapping may move.
pub(super) unsafe fn remap(mapping: &mut MmapMut, bytes: usize, may_move: bool) -> bool {
    // SAFETY: the same contract.
    unsafe { mapping.remap(bytes, RemapOptions::new().may_move(may_move)) }.is_ok()
}

/// Sets whether pages touched from now on may be huge, whatever the system's
/// default. A kernel without huge pages refuses, which changes nothing.
///
/// # Safety
/// The range lies in a mapping of ours.
pub(crate) unsafe fn set_huge_pages(start: *mut u8, bytes: usize, huge: bool) {
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: by contract a range of ours; its content stays.
    keeping_errno(|| unsafe { libc::madvise(start.cast(), bytes, advice) });
}

/// Backs a range that holds nothing with one huge page. What is returned of it
/// later gets small pages when touched again. False if the system has no huge
/// page; then some small pages may be resident.
///
/// # Safety
/// The range lies in a mapping of ours, nobody uses it, and it has the size and
/// alignment of a huge page.
pub(crate) unsafe fn make_huge_page(start: *mut u8, bytes: usize) -> bool {
    let mut state = 0;
    // SAFETY: by contract the range is ours alone; `state` holds the byte for one page.
    keeping_errno(|| unsafe {
        set_huge_pages(start, bytes, true);
        start.write_volatile(0);
        let last = start.add(bytes - PAGE);
        let resident = libc::mincore(last.cast(), 1, &mut state) == 0 && state & 1 == 1;
        // Where small pages were mapped before, the write got a small one again.
        let huge = resident || libc::madvise(start.cast(), bytes, MADV_COLLAPSE) == 0;
        set_huge_pages(start, bytes, false);
        huge
    })
}

/// Whether to use huge pages: as configured, but never where the system forbids
/// them. If not configured, only where the system uses them for all memory.
pub(crate) fn huge_pages(configured: Option<bool>) -> bool {
    if configured == Some(false) {
        return false;
    }
    let mut text = [0; 64];
    let count = read_file(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut text);
    let is = |word: &[u8]| text[..count].windows(word.len()).any(|part| part == word);
    if configured.is_some() { !is(b"[never]") } else { is(b"[always]") }
}

/// Tells the kernel that this process will use [`barrier`]. Called at the start:
/// it costs 2 µs while there is one thread, and milliseconds later.
pub(crate) fn register_barrier() {
    membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

/// Interrupts every running thread of the process. After it, no thread is still
/// inside an instruction that began before it, and all their earlier stores are
/// visible. False if the kernel has no such call.
pub(crate) fn barrier() -> bool {
    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) || {
        // In a fork's child, or if a system-call filter blocked only the registration.
        register_barrier();
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)
    }
}

const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointers.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 })
}

/// Sleeps until [`wake`] or until the time is over; not at all unless the word
/// still is `value`.
pub(crate) fn wait(word: &AtomicU32, value: u32, ms: Option<u64>) {
    const WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time =
        ms.map(|ms| libc::timespec { tv_sec: (ms / 1000) as _, tv_nsec: (ms % 1000 * 1_000_000) as _ });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word outlives the call, and so does the time, if any.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAIT, value, time) });
}

/// Sleeps for about 50 µs: long enough that another thread gets to run.
pub(super) fn nap() {
    const WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let (word, time) = (AtomicU32::new(0), libc::timespec { tv_sec: 0, tv_nsec: 50_000 });
    // By the call that every lock uses, which any filter allows.
    // SAFETY: both live longer than the call.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAIT, 0, &raw const time) });
}

/// Wakes the one thread that waits on the word, if any.
pub(crate) fn wake(word: &AtomicU32) {
    const WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word outlives the call.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAKE, 1) });
}

/// Milliseconds of the monotonic clock, with the resolution of the kernel's timer.
pub(crate) fn now_ms() -> u64 {
    unix::clock_ms(libc::CLOCK_MONOTONIC_COARSE)
}

/// Whether the C library knows the environment yet: the loader allocates before that.
pub(crate) fn has_environment() -> bool {
    !environment().is_null()
}

/// The variables, each `NAME=value`, and a null at the end; or null.
pub(super) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library's variable, read as `getenv` does.
    unsafe { environ }
}

/// Whether the environment is from somebody with no fewer rights than this process. It is not
/// in a program that is set-user-ID or set-group-ID, or has capabilities of its own.
pub(crate) fn environment_is_trusted() -> bool {
    // SAFETY: no pointers; the kernel always tells this one.
    unsafe { libc::getauxval(libc::AT_SECURE) == 0 }
}

/// Set once the loader is done and runs the program's or library's initialisers.
static LOADED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

extern "C" fn on_load() {
    // SeqCst, as in `stay`: one of the two sees what the other stored.
    LOADED.store(true, SeqCst);
    if ASKED_TO_STAY.load(SeqCst) {
        stay();
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static ON_UNLOAD: extern "C" fn() = on_unload;

/// Called before C++'s destructors and what `atexit` has, which may still allocate: the C
/// compiler's own entry, which calls those, is the first in the list, and the last called.
extern "C" fn on_unload() {
    let _ = STAYING.compare_exchange(UNKNOWN, GOES, Relaxed, Relaxed);
}

/// Whether [`stay_loaded`] was called, perhaps by the loader.
static ASKED_TO_STAY: AtomicBool = AtomicBool::new(false);
/// Relaxed: it only picks the one call that asks the loader.
static STAYING: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const STAYS: u8 = 1;
/// It was not used before, and is being unloaded.
const GOES: u8 = 2;

/// Has the loader keep the shared library that this code is part of, if it is part of one,
/// even if the program closes it. False if it is too late: then nothing may be left behind
/// that calls it later.
#[inline]
pub(crate) fn stay_loaded() -> bool {
    STAYING.load(Relaxed) == STAYS || stay()
}

/// Not while the loader is still at work: a malloc is called by it, and must not call it.
/// Then `on_load` comes back to it.
#[cold]
fn stay() -> bool {
    ASKED_TO_STAY.store(true, SeqCst);
    // Set before the loader is called, since it allocates, perhaps from us.
    if LOADED.load(SeqCst)
        && STAYING.compare_exchange(UNKNOWN, STAYS, Relaxed, Relaxed).is_ok()
        && !keeping_errno(library::pin_unless_program)
    {
        STAYING.store(GOES, Relaxed);
    }
    STAYING.load(Relaxed) != GOES
}

/// Whether a thread may be started: not while the loader is still at work.
pub(crate) fn program_is_loaded() -> bool {
    LOADED.load(Relaxed)
}

/// The address of the calling thread's errno.
pub(super) fn errno() -> *mut libc::c_int {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::__errno_location() }
}
