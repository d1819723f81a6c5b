//! What all Unix systems have in common.

use super::PAGE;
use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Aborts the process.
pub(crate) fn abort() -> ! {
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}

/// Writes to standard error, unbuffered. False if that fails.
pub(crate) fn write_stderr(bytes: &[u8]) -> bool {
    // SAFETY: pointer and length are the slice's.
    keeping_errno(|| unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) >= 0 })
}

/// Reads the beginning of a file without allocating. Returns the number of bytes,
/// 0 if that fails.
pub(crate) fn read_file(path: &CStr, out: &mut [u8]) -> usize {
    // SAFETY: a C string; the buffer holds that many bytes; the descriptor is ours.
    keeping_errno(|| unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return 0;
        }
        let count = libc::read(file, out.as_mut_ptr().cast(), out.len());
        libc::close(file);
        count.max(0) as usize
    })
}

/// Calls `work` with the name and the value of each variable of the environment whose name
/// begins with `prefix`. To be used at the process's first allocation, before the program
/// can change it.
pub(crate) fn each_variable(prefix: &CStr, mut work: impl FnMut(&[u8], &[u8])) {
    let mut next = super::system::environment();
    if next.is_null() {
        return;
    }
    // SAFETY: an array of C strings that ends with a null pointer, and lasts until the program
    // changes it, later.
    unsafe {
        while !(*next).is_null() {
            if libc::strncmp(*next, prefix.as_ptr(), prefix.count_bytes()) == 0 {
                let variable = CStr::from_ptr(*next).to_bytes();
                let mut parts = variable.splitn(2, |&byte| byte == b'=');
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    work(name, value);
                }
            }
            next = next.add(1);
        }
    }
}

/// Bytes of address space that the process is limited to, if it is.
pub(crate) fn address_space_limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

/// Bytes of a page of the system's, which may be larger than [`PAGE`].
pub(crate) fn page_size() -> usize {
    static SYSTEM: AtomicUsize = AtomicUsize::new(0);
    // All of this processor's systems have this size.
    let mut page = if cfg!(target_arch = "x86_64") { PAGE } else { SYSTEM.load(Relaxed) };
    if page == 0 {
        // SAFETY: no pointers.
        page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(PAGE).max(PAGE);
        SYSTEM.store(page, Relaxed);
    }
    page
}

/// Whether a range is whole pages of the system's: it would round the end up and take what
/// is in use there.
pub(super) fn are_whole_pages(start: *mut u8, bytes: usize) -> bool {
    are_whole(start as usize, bytes, page_size())
}

fn are_whole(start: usize, bytes: usize, page: usize) -> bool {
    start.is_multiple_of(page) && bytes.is_multiple_of(page)
}

/// Lets other threads run.
pub(super) fn yield_now() {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::sched_yield() };
}

/// Milliseconds of a monotonic clock; usually no system call.
pub(super) fn clock_ms(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Calls a function at the end of each thread that has set a value.
#[derive(Clone, Copy)]
pub(crate) struct ExitKey(libc::pthread_key_t);

impl ExitKey {
    /// None if the process has too many keys.
    pub(crate) fn new(at_exit: extern "C" fn(*mut c_void)) -> Option<Self> {
        let mut key = 0;
        // SAFETY: the pointer is to a live key; the function stays for the process's life.
        let failed = unsafe { libc::pthread_key_create(&mut key, Some(at_exit)) };
        (failed == 0).then_some(Self(key))
    }

    /// Sets the calling thread's value, which the function will get; not null.
    /// False without memory.
    pub(crate) fn set(self, value: *const c_void) -> bool {
        // SAFETY: the key is valid; the C library does not follow the value.
        unsafe { libc::pthread_setspecific(self.0, value) == 0 }
    }
}

/// Starts a detached thread with every signal blocked and without Rust's runtime,
/// so that starting it allocates nothing from us and runs no code of the program.
/// False if the system has no thread to spare now.
pub(crate) fn spawn(stack: usize, run: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    // SAFETY: every pointer is to a live local, for which zeros are a valid state, and the new
    // thread uses none of them.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        let mut before: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        libc::pthread_attr_setstacksize(&mut attributes, stack.max(libc::PTHREAD_STACK_MIN));
        libc::pthread_attr_setdetachstate(&mut attributes, libc::PTHREAD_CREATE_DETACHED);
        let mut thread = mem::zeroed();
        let failed = keeping_errno(|| libc::pthread_create(&mut thread, &attributes, run, ptr::null_mut()));
        libc::pthread_attr_destroy(&mut attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        failed == 0
    }
}

/// Calls these at every fork from now on: before it, and after it in the parent
/// and in the child.
pub(crate) fn at_fork(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) {
    // SAFETY: functions of ours, which stay for the process's life; the system calls the last
    // two only after the first, on the same thread or its copy.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// Runs `work` and leaves errno as it was, as POSIX requires of `free`.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: this thread's errno, which lives as long as the thread.
    unsafe {
        let errno = super::system::errno();
        let before = *errno;
        let result = work();
        *errno = before;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_larger_page_is_not_whole() {
        assert!(are_whole(64 << 10, 128 << 10, 64 << 10));
        assert!(!are_whole(64 << 10, 4 << 10, 64 << 10));
        assert!(!are_whole(68 << 10, 64 << 10, 64 << 10));
        assert!(are_whole(68 << 10, 64 << 10, PAGE));
    }
}
