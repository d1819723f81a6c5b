//! Linux, with glibc or musl.

use super::{PAGE, read_file, unix};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use memmap2::{MmapMut, RemapOptions};

/// Bits of an address in user space that `mmap` gives unasked.
#[cfg(target_arch = "x86_64")]
pub(crate) const ADDRESS_BITS: u32 = 47;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ADDRESS_BITS: u32 = 48;

/// Since Linux 6.1. The `libc` crate has it for some C libraries only.
const MADV_COLLAPSE: libc::c_int = 25;

/// Returns pages; they read as zero when touched again. False if the kernel
/// refuses (locked pages, a larger page size): then they stay as they are.
///
/// # Safety
/// The range is whole pages of a mapping of ours, in nobody's use.
pub(crate) unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: by contract.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) == 0 }
}

/// The same for pages that may be a part of a huge one (`part`): the system is to
/// split it first. It would else drop the range from the process's count and keep
/// the memory until it runs short; so it does with huge pages that another process
/// has too, after a fork.
///
/// # Safety
/// As for [`release`].
pub(crate) unsafe fn release_part(start: *mut u8, bytes: usize, part: bool) -> bool {
    if part {
        // Splits it, as it cannot mark a part of one.
        // SAFETY: by contract.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_FREE) };
    }
    // SAFETY: by contract.
    unsafe { release(start, bytes) }
}

/// Moves pages to `place` in one step; where they were reads as zero then.
/// False if the kernel cannot (before 5.7); then the pages are where they were,
/// but `place` may be mapped no more.
///
/// # Safety
/// Both are as many whole pages of reservations of ours, `place` in nobody's use,
/// and whoever reads the old place accepts the zeros.
pub(crate) unsafe fn move_pages(start: *mut u8, bytes: usize, place: *mut u8) -> bool {
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: by contract.
    let moved = unsafe { libc::mremap(start.cast(), bytes, bytes, how, place) };
    moved == place.cast()
}

/// Changes a mapping's length; see `Mapping::resize`.
///
/// # Safety
/// Nobody uses what is cut off, nor, if it may move, an address from before.
pub(super) unsafe fn remap(mapping: &mut MmapMut, bytes: usize, may_move: bool) -> bool {
    // SAFETY: by contract.
    unsafe { mapping.remap(bytes, RemapOptions::new().may_move(may_move)) }.is_ok()
}

/// Whether pages touched from now on may be huge, whatever the system does by
/// itself. A kernel that knows no huge pages refuses, which changes nothing.
///
/// # Safety
/// The range is of a mapping of ours.
pub(crate) unsafe fn set_huge_pages(start: *mut u8, bytes: usize, huge: bool) {
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: by contract; the content stays.
    unsafe { libc::madvise(start.cast(), bytes, advice) };
}

/// Has the system back a range that holds nothing by one huge page, and by small
/// ones again what is touched of it after that was returned. False if it has
/// none; then some small pages may be resident.
///
/// # Safety
/// The range is of a mapping of ours, in nobody's use, and as a huge page is.
pub(crate) unsafe fn make_huge_page(start: *mut u8, bytes: usize) -> bool {
    let mut state = 0;
    // SAFETY: by contract; one byte of state for the last page.
    unsafe {
        set_huge_pages(start, bytes, true);
        start.write_volatile(0);
        let last = start.add(bytes - PAGE);
        let resident = libc::mincore(last.cast(), 1, &mut state) == 0 && state & 1 == 1;
        // Where there were small pages once, the write made a small one again.
        let huge = resident || libc::madvise(start.cast(), bytes, MADV_COLLAPSE) == 0;
        set_huge_pages(start, bytes, false);
        huge
    }
}

/// Whether there are to be huge pages: as configured, but never where the system
/// forbids them; if not configured, where it makes all memory huge that it can.
pub(crate) fn huge_pages(configured: Option<bool>) -> bool {
    if configured == Some(false) {
        return false;
    }
    let mut text = [0; 64];
    let count = read_file(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut text);
    let is = |word: &[u8]| text[..count].windows(word.len()).any(|part| part == word);
    if configured.is_some() { !is(b"[never]") } else { is(b"[always]") }
}

/// Tells the kernel that this process will use [`barrier`]. Costs 2 µs while
/// there is one thread and milliseconds later, so it is done at the start.
pub(crate) fn register_barrier() {
    membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

/// Interrupts every running thread of the process: after it, no thread is
/// inside an instruction that began before it, and all their stores have
/// landed. False if the kernel has no such call.
pub(crate) fn barrier() -> bool {
    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) || {
        // A fork's child, or a filter that let only the registration down.
        register_barrier();
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)
    }
}

const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Sleeps until [`wake`], if the word still is `value`, or until the time is over.
pub(crate) fn wait(word: &AtomicU32, value: u32, ms: Option<u64>) {
    const WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time = ms.map(|ms| libc::timespec {
        tv_sec: (ms / 1000) as libc::time_t,
        tv_nsec: (ms % 1000 * 1_000_000) as libc::c_long,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word is alive, and so is the time, if any.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAIT, value, time) };
}

/// Wakes the one thread that waits on the word.
pub(crate) fn wake(word: &AtomicU32) {
    const WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is alive.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), WAKE, 1) };
}

/// Milliseconds of the monotonic clock, to the kernel's tick.
pub(crate) fn now_ms() -> u64 {
    unix::clock_ms(libc::CLOCK_MONOTONIC_COARSE)
}

/// Whether the C library knows the environment: the loader allocates before it does.
pub(crate) fn has_environment() -> bool {
    unsafe extern "C" {
        static environ: *const *const core::ffi::c_char;
    }
    // SAFETY: the C library's variable; read, as `getenv` does.
    !unsafe { environ }.is_null()
}

/// Set once the loader has done its part and runs the program's initialisers.
static LOADED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

extern "C" fn on_load() {
    LOADED.store(true, Relaxed);
}

/// Whether a thread may be started: not yet while the loader is at work.
pub(crate) fn program_is_loaded() -> bool {
    LOADED.load(Relaxed)
}

/// Where the calling thread's errno lies.
pub(super) fn errno() -> *mut libc::c_int {
    // SAFETY: always allowed.
    unsafe { libc::__errno_location() }
}
