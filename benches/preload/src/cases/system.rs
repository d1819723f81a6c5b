//! Threads, forks, limits, and libraries that come late.

use super::{Case, End, LIBRARY};
use libc::{c_int, c_void, free, malloc};
use std::ffi::CString;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

const fn well(name: &'static str, run: fn()) -> Case {
    Case { name, run, end: End::Well }
}

/// All of them.
pub const ALL: &[Case] = &[
    well("dlopen, used, closed", opened),
    well("inside dlsym and dlopen", inside_loader),
    well("fork with other threads at work", fork_busy),
    well("vfork and exec", vfork),
    well("one block freed by two threads at the same instant", same_instant),
    well("exit handlers", exit_handlers),
    well("thread-exit destructors", destructors),
    well("cancelled threads", cancelled),
    well("threads that never allocate", quiet_threads),
    well("stacks of 16 KiB", tiny_stacks),
    well("mlockall", locked),
    well("no more mappings", no_mappings),
    well("RLIMIT_AS", limited),
    well("1,500 threads in turn", many_threads),
];

/// Some of everything, with sizes that depend on `seed`.
fn work(rounds: usize, seed: usize) {
    let mut blocks = [ptr::null_mut::<c_void>(); 64];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state >> 20 & 63;
        let size = match state >> 40 & 255 {
            0 => 1 << 20,
            1..8 => 40_000,
            8..40 => 3000,
            _ => state >> 50 & 511,
        };
        // SAFETY: each block is freed once; null is left alone.
        unsafe {
            free(blocks[at]);
            blocks[at] = malloc(size);
            if size > 0 && !blocks[at].is_null() {
                blocks[at].cast::<u8>().write(1);
            }
        }
    }
    for block in blocks {
        // SAFETY: as above.
        unsafe { free(block) };
    }
}

fn library() -> CString {
    CString::new(std::env::var(LIBRARY).expect("a library")).expect("no null")
}

/// Loads the library without LD_PRELOAD, by its own handle, and closes it while in use.
fn opened() {
    if std::env::var_os("LD_PRELOAD").is_some() {
        let own = std::env::current_exe().expect("own path");
        let status = std::process::Command::new(own)
            .arg("dlopen, used, closed")
            .env_remove("LD_PRELOAD")
            .status()
            .expect("a process");
        assert!(status.success(), "{status}");
        return;
    }
    let path = library();
    for _ in 0..3 {
        // SAFETY: the functions by their types.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null(), "{:?}", std::ffi::CStr::from_ptr(libc::dlerror()));
            let malloc: extern "C" fn(usize) -> *mut c_void =
                std::mem::transmute(libc::dlsym(handle, c"malloc".as_ptr()));
            let free: extern "C" fn(*mut c_void) = std::mem::transmute(libc::dlsym(handle, c"free".as_ptr()));
            let work = move || {
                let blocks: Vec<usize> = (0..10_000).map(|size| malloc(size) as usize).collect();
                blocks.into_iter().for_each(|block| free(block as *mut c_void));
            };
            work();
            // A thread that ends after the library was closed.
            let thread = thread::spawn(move || {
                work();
                thread::sleep(std::time::Duration::from_millis(100));
            });
            thread::sleep(std::time::Duration::from_millis(30));
            libc::dlclose(handle);
            thread.join().expect("no panic");
        }
    }
    // Long enough for a tick of its background thread, if the library is still loaded.
    thread::sleep(std::time::Duration::from_millis(700));
}

fn inside_loader() {
    for name in [c"libm.so.6", c"libz.so.1", c"libstdc++.so.6"] {
        // SAFETY: C strings.
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
            black_box(libc::dlsym(libc::RTLD_DEFAULT, c"no_such_symbol".as_ptr()));
            black_box(libc::dlerror());
            if !handle.is_null() {
                libc::dlclose(handle);
            }
        }
    }
}

fn fork_busy() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (1..5)
        .map(|seed| {
            thread::spawn(move || {
                while !STOP.load(Relaxed) {
                    work(1000, seed);
                }
            })
        })
        .collect();
    for round in 0..100 {
        // SAFETY: the child allocates, which it may, and ends at once.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                libc::alarm(30);
                work(20_000, round);
                libc::_exit(0);
            }
            waited(child);
        }
    }
    STOP.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

fn waited(child: libc::pid_t) {
    let status = ended(child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
}

/// How a child ended.
fn ended(child: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: the pointer is to a live word.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}

/// In many processes, since each is aborted by its first misuse.
fn same_instant() {
    for round in 0..400 {
        // SAFETY: the child has one thread, like its parent; the misuse is intended.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                libc::close(2);
                let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &no_core);
                freed_twice(round % 2 == 0);
                libc::_exit(0);
            }
            let status = ended(child);
            let told = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT;
            assert!(told, "round {round}: both threads passed");
        }
    }
}

/// By two threads, with thread caches of their own or without.
fn freed_twice(pools: bool) {
    let ready = AtomicUsize::new(0);
    // SAFETY: no contract.
    let block = unsafe { malloc(24) } as usize;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                if pools {
                    work(100, 24);
                }
                ready.fetch_add(1, SeqCst);
                while ready.load(SeqCst) < 2 {}
                // SAFETY: none: the misuse is intended.
                unsafe { free(block as *mut c_void) };
            });
        }
    });
}

fn vfork() {
    work(1000, 1);
    for _ in 0..50 {
        // The standard library uses vfork where it can.
        assert!(std::process::Command::new("/bin/true").status().expect("a process").success());
    }
    work(1000, 2);
}

fn exit_handlers() {
    extern "C" fn handler() {
        work(5000, 3);
    }
    // SAFETY: a function that stays for the process's life.
    assert_eq!(unsafe { libc::atexit(handler) }, 0);
    thread::spawn(|| work(5000, 4)).join().expect("no panic");
}

/// Destructors of thread-specific values that run after ours allocate and free.
fn destructors() {
    static KEY: AtomicUsize = AtomicUsize::new(0);
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn destroy(value: *mut c_void) {
        // SAFETY: the value is a block; the key is valid.
        unsafe {
            free(value);
            work(500, 5);
            if RUNS.fetch_add(1, Relaxed) % 3 < 2 {
                libc::pthread_setspecific(KEY.load(Relaxed) as libc::pthread_key_t, malloc(100));
            }
        }
    }
    let mut key = 0;
    // Keys beyond the first 32 make the C library allocate.
    for _ in 0..40 {
        // SAFETY: the pointer is to a live key.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destroy)) }, 0);
    }
    KEY.store(key as usize, Relaxed);
    for _ in 0..30 {
        thread::spawn(move || {
            work(500, 6);
            // SAFETY: a valid key.
            unsafe { libc::pthread_setspecific(key, malloc(100)) };
        })
        .join()
        .expect("no panic");
    }
    assert_eq!(RUNS.load(Relaxed), 90);
}

fn cancelled() {
    unsafe extern "C-unwind" {
        fn pthread_testcancel();
    }
    // Cancelling unwinds, which a plain `extern "C"` function does not allow.
    extern "C-unwind" fn body(_: *mut c_void) -> *mut c_void {
        loop {
            work(100, 7);
            // SAFETY: no arguments; nothing here needs to be dropped.
            unsafe { pthread_testcancel() };
        }
    }
    type Body = extern "C" fn(*mut c_void) -> *mut c_void;
    for _ in 0..100 {
        // SAFETY: plain threads, each joined once.
        unsafe {
            let mut thread = std::mem::zeroed();
            let body: Body = std::mem::transmute(body as extern "C-unwind" fn(*mut c_void) -> *mut c_void);
            assert_eq!(libc::pthread_create(&mut thread, ptr::null(), body, ptr::null_mut()), 0);
            libc::usleep(300);
            assert_eq!(libc::pthread_cancel(thread), 0);
            let mut result = ptr::null_mut();
            assert_eq!(libc::pthread_join(thread, &mut result), 0);
        }
    }
}

/// When such a thread ends, the C library uses it to free what belongs to other threads'
/// stacks, after its last destructor.
fn quiet_threads() {
    const THREADS: usize = 24;
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        while LEFT.load(Relaxed) == 0 {
            // SAFETY: no contract.
            unsafe { libc::usleep(500) };
        }
        LEFT.fetch_sub(1, Relaxed);
        ptr::null_mut()
    }
    for round in 0..4 {
        // SAFETY: plain threads of their own, with nothing to share.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_attr_init(&mut attributes);
            libc::pthread_attr_setdetachstate(&mut attributes, libc::PTHREAD_CREATE_DETACHED);
            for _ in 0..THREADS {
                let mut thread = std::mem::zeroed();
                assert_eq!(libc::pthread_create(&mut thread, &attributes, body, ptr::null_mut()), 0);
            }
            libc::pthread_attr_destroy(&mut attributes);
        }
        LEFT.store(THREADS, Relaxed);
        while LEFT.load(Relaxed) > 0 {
            work(100, round);
        }
        // SAFETY: no contract. The threads are about to end.
        unsafe { libc::usleep(300_000) };
        work(5000, round);
    }
}

fn tiny_stacks() {
    extern "C" fn body(seed: *mut c_void) -> *mut c_void {
        work(3000, seed as usize);
        // Everything that a slow path may have to do, including ticks.
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: no contract.
        unsafe { malloc_trim(0) };
        ptr::null_mut()
    }
    for seed in 1..50usize {
        // SAFETY: plain threads, each joined once.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_attr_init(&mut attributes);
            assert_eq!(libc::pthread_attr_setstacksize(&mut attributes, 16 << 10), 0);
            let mut thread = std::mem::zeroed();
            let failed = libc::pthread_create(&mut thread, &attributes, body, seed as *mut c_void);
            libc::pthread_attr_destroy(&mut attributes);
            assert_eq!(failed, 0);
            assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
        }
    }
}

fn locked() {
    work(5000, 8);
    // SAFETY: no pointers. It fails if the limit of locked memory is small.
    unsafe { libc::mlockall(libc::MCL_CURRENT) };
    work(20_000, 9);
    thread::spawn(|| work(20_000, 10)).join().expect("no panic");
    // SAFETY: as above.
    unsafe { libc::munlockall() };
}

/// Uses up vm.max_map_count with pages that are alternately readable.
fn no_mappings() {
    const PAGES: usize = 140_000;
    // SAFETY: a mapping of our own.
    unsafe {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = libc::mmap(ptr::null_mut(), PAGES * 4096, libc::PROT_NONE, kind, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        let full = (0..PAGES)
            .step_by(2)
            .any(|page| libc::mprotect(start.byte_add(page * 4096), 4096, libc::PROT_READ) != 0);
        if !full {
            // The limit is too high to be worth trying.
            return;
        }
        // What is mapped already serves; more may fail, but in an orderly way.
        work(20_000, 11);
        // One that joins a neighbour needs no mapping of its own.
        super::set_errno(0);
        let large = malloc(64 << 20);
        assert!(!large.is_null() || super::errno() == libc::ENOMEM);
        free(large);
        libc::munmap(start, PAGES * 4096);
        let block = malloc(64 << 20);
        assert!(!block.is_null());
        free(block);
    }
}

fn limited() {
    match std::env::var("CASE_LIMITED").as_deref() {
        Err(_) => {
            limit_child("throughout", 700);
            // Wherever between two segments the limit falls.
            (700..776).step_by(4).for_each(|mib| limit_child("once", mib));
        }
        Ok("once") => {
            exhaust(100_000);
            let left: usize = take_address_space().iter().map(|&(_, bytes)| bytes).sum();
            assert!(left < 16 << 20, "{left} bytes could have been used");
        }
        Ok(_) => {
            // Address space that small blocks had is kept for segments.
            for size in [10 << 20, 100_000, 5000] {
                exhaust(size);
                work(10_000, size);
            }
            // All of it serves, even when there is not one more page for anything.
            let taken = take_address_space();
            for size in [5000, 2000, 100_000] {
                exhaust(size);
            }
            // SAFETY: mappings of our own.
            taken.iter().for_each(|&(start, bytes)| unsafe {
                libc::munmap(start, bytes);
            });
            work(10_000, 12);
        }
    }
}

/// A process that is limited from its start, so that the library's first mapping is too.
fn limit_child(what: &str, mib: u64) {
    let own = std::env::current_exe().expect("own path");
    let mut command = std::process::Command::new(own);
    command.arg("RLIMIT_AS").env("CASE_LIMITED", what);
    // SAFETY: only a system call between fork and exec.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            let limit = libc::rlimit { rlim_cur: mib << 20, rlim_max: mib << 20 };
            if libc::setrlimit(libc::RLIMIT_AS, &limit) == 0 {
                return Ok(());
            }
            Err(std::io::Error::last_os_error())
        });
    }
    assert!(command.status().expect("a process").success(), "{mib} MiB");
}

/// Allocates blocks until that fails, which must be after more than 200 MiB, and frees them.
fn exhaust(size: usize) {
    let mut blocks = Vec::with_capacity(400_000);
    // SAFETY: each block is freed once.
    unsafe {
        loop {
            let block = malloc(size);
            if block.is_null() {
                break;
            }
            blocks.push(block);
        }
        // Checked only when there is memory again for a panic's message.
        let (reason, count) = (super::errno(), blocks.len());
        blocks.drain(..).for_each(|block| free(block));
        assert_eq!(reason, libc::ENOMEM);
        assert!(count * size > 200 << 20, "{count} of {size}");
    }
}

/// Maps the rest of the limited address space, to the last page.
fn take_address_space() -> Vec<(*mut libc::c_void, usize)> {
    let mut taken = Vec::with_capacity(1000);
    let mut bytes = 1usize << 30;
    while bytes >= 4096 && taken.len() < taken.capacity() {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            bytes /= 2;
        } else {
            taken.push((start, bytes));
        }
    }
    taken
}

fn many_threads() {
    for seed in 0..1500 {
        thread::spawn(move || work(50, seed)).join().expect("no panic");
    }
}
