//! The operating system: address space, pages given back, barriers, the clock.

use core::ffi::CStr;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use memmap2::{MmapMut, MmapOptions};

/// What the processor maps and the kernel takes back.
pub(crate) const PAGE: usize = 4 << 10;

/// Maps `bytes` of zeroed memory that is charged only as it is touched.
pub(crate) fn map(bytes: usize) -> Option<MmapMut> {
    MmapOptions::new().len(bytes).no_reserve_swap().map_anon().ok()
}

/// Reserves address space that is never unmapped, aligned to `align`, backed
/// by small pages: a system that makes all it can huge would make 2 MiB
/// resident for one byte.
///
/// `memmap2` neither places a mapping nor unmaps part of one, so the space is
/// over-reserved by `align`, of which no page is ever touched.
pub(crate) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    Reservation::new(bytes, align).map(Reservation::keep)
}

/// Address space that goes back to the system unless it is kept, for one part
/// of several that are of use only together.
pub(crate) struct Reservation {
    mapping: MmapMut,
    pub(crate) start: NonNull<u8>,
}

impl Reservation {
    pub(crate) fn new(bytes: usize, align: usize) -> Option<Self> {
        let mut mapping = map(bytes.checked_add(align)?)?;
        let start = mapping.as_mut_ptr();
        // SAFETY: a mapping of ours, in no use yet.
        unsafe { set_huge_pages(start, mapping.len(), false) };
        // SAFETY: the offset is below `align`, which the mapping has to spare.
        let start = NonNull::new(unsafe { start.add(start.align_offset(align)) })?;
        Some(Self { mapping, start })
    }

    /// Never unmapped from here on.
    pub(crate) fn keep(self) -> NonNull<u8> {
        core::mem::forget(self.mapping);
        self.start
    }
}

/// Whether pages touched from now on may be huge, whatever the system does by
/// itself. A kernel that knows no huge pages refuses, which changes nothing.
///
/// # Safety
/// The range is of a mapping of ours.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn set_huge_pages(start: *mut u8, bytes: usize, huge: bool) {
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: by contract; the content stays.
    unsafe { libc::madvise(start.cast(), bytes, advice) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn set_huge_pages(_: *mut u8, _: usize, _: bool) {}

/// Has the system back a range that holds nothing by one huge page, and by small
/// ones again what is touched of it after that was returned. False if it has
/// none; then some small pages may be resident.
///
/// # Safety
/// The range is of a mapping of ours, in nobody's use, and as a huge page is.
#[cfg(target_os = "linux")]
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

/// Since Linux 6.1. The `libc` crate has it for some C libraries only.
#[cfg(target_os = "linux")]
const MADV_COLLAPSE: libc::c_int = 25;

#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn make_huge_page(_: *mut u8, _: usize) -> bool {
    false
}

/// Moves pages to `place` in one step; where they were reads as zero then.
/// False if the system cannot; then the pages are where they were, but `place`
/// may be mapped no more.
///
/// # Safety
/// Both are as many whole pages of reservations of ours, `place` in nobody's use,
/// and whoever reads the old place bears the zeros.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn move_pages(start: *mut u8, bytes: usize, place: *mut u8) -> bool {
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: by contract.
    let moved = unsafe { libc::mremap(start.cast(), bytes, bytes, how, place) };
    moved == place.cast()
}

#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn move_pages(_: *mut u8, _: usize, _: *mut u8) -> bool {
    false
}

/// Gives the pages back; they read as zero when touched again. False if the
/// kernel refuses (locked pages, an odd page size): then they stay as they are.
///
/// # Safety
/// The range is whole pages of a mapping of ours, in nobody's use.
pub(crate) unsafe fn release(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller owns the pages; anonymous memory may be dropped.
    let refused = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) };
    refused == 0
}

/// The same for pages that may be a part of a huge one (`part`): the system is to
/// split it first. It would else drop the range from the process's books and keep
/// the memory until it runs short; so it does with huge pages that another process
/// has too, after a fork.
///
/// # Safety
/// As for [`release`].
pub(crate) unsafe fn release_part(start: *mut u8, bytes: usize, part: bool) -> bool {
    #[cfg(target_os = "linux")]
    if part {
        // Splits it, as it cannot mark a part of one.
        // SAFETY: by contract.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_FREE) };
    }
    let _ = part;
    // SAFETY: by contract.
    unsafe { release(start, bytes) }
}

/// Milliseconds of the monotonic clock, to the kernel's tick; no system call.
pub(crate) fn now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(CLOCK, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Bytes of address space the process may still be limited to, if it is.
pub(crate) fn address_space_limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
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

#[cfg(target_os = "linux")]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn membarrier(_: libc::c_int) -> bool {
    false
}

/// Reads a file's beginning with plain calls; gives how many bytes, 0 if that fails.
pub(crate) fn read_file(path: &CStr, out: &mut [u8]) -> usize {
    // SAFETY: a C string; the buffer holds as many bytes; the descriptor is ours.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return 0;
        }
        let count = libc::read(file, out.as_mut_ptr().cast(), out.len());
        libc::close(file);
        count.max(0) as usize
    }
}

/// Whether there are to be huge pages: as is said, but never where the system
/// forbids them; else where it makes all memory huge that it can.
pub(crate) fn huge_pages(said: Option<bool>) -> bool {
    if !cfg!(target_os = "linux") || said == Some(false) {
        return false;
    }
    let mut text = [0; 64];
    let count = read_file(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut text);
    let is = |word: &[u8]| text[..count].windows(word.len()).any(|part| part == word);
    if said.is_some() { !is(b"[never]") } else { is(b"[always]") }
}

/// Sleeps until [`wake`], if the word still is `value`, or until the time is over.
#[cfg(target_os = "linux")]
pub(crate) fn sleep(word: &AtomicU32, value: u32, ms: Option<u64>) {
    let time = ms.map(|ms| libc::timespec {
        tv_sec: (ms / 1000) as libc::time_t,
        tv_nsec: (ms % 1000 * 1_000_000) as libc::c_long,
    });
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the word is alive, and so is the time, if any.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), FUTEX_WAIT_PRIVATE, value, time) };
}

/// Wakes the one thread that sleeps on the word.
#[cfg(target_os = "linux")]
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: the word is alive.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), FUTEX_WAKE_PRIVATE, 1) };
}

#[cfg(target_os = "linux")]
const FUTEX_WAIT_PRIVATE: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
#[cfg(target_os = "linux")]
const FUTEX_WAKE_PRIVATE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// Elsewhere nobody is woken; what was to last for ever lasts for a second.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sleep(_: &AtomicU32, _: u32, ms: Option<u64>) {
    // SAFETY: no pointers.
    unsafe { libc::usleep((ms.unwrap_or(1000).min(1000) * 1000) as libc::useconds_t) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn wake(_: &AtomicU32) {}

/// How a lock waits: for a moment, since its holder is most likely at work on
/// another processor; then it lets others run, since the holder may have been
/// descheduled.
pub(crate) struct Yield;

/// Looks at a lock between two yields: about as long as it is held.
const LOOKS: u32 = 32;

impl spin::RelaxStrategy for Yield {
    fn relax() {
        // Of all that wait, together; a count that is lost does no harm.
        static LOOK: AtomicU32 = AtomicU32::new(0);
        let look = LOOK.load(Relaxed).wrapping_add(1);
        LOOK.store(look, Relaxed);
        core::hint::spin_loop();
        if look.is_multiple_of(LOOKS) {
            // SAFETY: no arguments, no failure.
            unsafe { libc::sched_yield() };
        }
    }
}

/// Held for tens of instructions, or some hundreds; which ones may be while a page is given back,
/// `ARCHITECTURE.md` says.
pub(crate) type Lock<T> = spin::mutex::SpinMutex<T, Yield>;
pub(crate) type Guard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;
