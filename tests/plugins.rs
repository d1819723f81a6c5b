//! Shared libraries that bring a Neap of their own (`examples/plugin`) into one process, which
//! has one, too: loaded by the hundred, used from several threads, and closed.
#![cfg(all(target_os = "linux", target_env = "gnu", not(neap_generic)))]

mod common;

use common::{child, child_succeeds};
use neap::Neap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

#[global_allocator]
static HEAP: Neap = Neap::new();

const LIBRARY: &str = "NEAP_TEST_LIBRARY";

/// The library's path. It is built once, with both fast paths inlined; children are told.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--release", "-p", "plugin", "--target-dir"]).arg(&target);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_STRIP", "true");
        assert!(cargo.status().expect("cargo").success(), "the plugin does not build");
        target.join("release/libplugin.so")
    };
    std::env::var_os(LIBRARY).map_or_else(|| BUILT.get_or_init(build).clone(), PathBuf::from)
}

/// A copy of the library of its own, gone when dropped.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let name = format!("plugin-{}-{name}.so", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::copy(library(), &path).expect("a copy");
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zeros")
}

/// A loaded library.
#[derive(Clone, Copy)]
struct Plugin(usize);

impl Plugin {
    fn open(path: &Path) -> Self {
        // SAFETY: a C string; the library's initialisers are ours.
        let handle = unsafe { libc::dlopen(c_path(path).as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure there is a message, which stays until the next call.
            let why = unsafe { std::ffi::CStr::from_ptr(libc::dlerror()) };
            panic!("{}: {why:?}", path.display());
        }
        Self(handle as usize)
    }

    /// Closes it; code of it may run all the same.
    fn close(self) {
        // SAFETY: opened, and closed once for each time.
        assert_eq!(unsafe { libc::dlclose(self.0 as *mut _) }, 0);
    }

    fn symbol(self, name: &str) -> *mut libc::c_void {
        let name = CString::new(name).expect("no zeros");
        // SAFETY: opened, and a C string.
        let symbol = unsafe { libc::dlsym(self.0 as *mut _, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    fn work(self) {
        // SAFETY: the library's function of this type.
        let work = unsafe {
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> usize>(self.symbol("work"))
        };
        assert_eq!(work(1000), 10 + 90 * 2 + 900 * 3);
    }

    fn pool(self) {
        // SAFETY: the library's function of this type.
        let pool = unsafe {
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> usize>(self.symbol("pool"))
        };
        assert_eq!(pool(100), 100);
    }

    fn wrong_sums(self) -> usize {
        // SAFETY: the library's function of this type.
        let sums = unsafe {
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(u32) -> usize>(self.symbol("sums"))
        };
        sums(1000)
    }

    fn alloc(self) -> *mut u8 {
        // SAFETY: the library's function of this type.
        let alloc = unsafe {
            std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *mut u8>(self.symbol("alloc_block"))
        };
        alloc()
    }

    fn free(self, block: *mut u8) {
        // SAFETY: the library's function of this type; whose block it is is what is tested.
        unsafe {
            let free = self.symbol("free_block");
            std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut u8)>(free)(block);
        }
    }
}

fn is_loaded(path: &Path) -> bool {
    // SAFETY: a C string; nothing is loaded by this.
    let handle = unsafe { libc::dlopen(c_path(path).as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW) };
    // SAFETY: opened by the line above.
    !handle.is_null() && unsafe { libc::dlclose(handle) } == 0
}

/// Runs `body` in a child process that knows the library, with these variables set.
fn in_child(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    let library = library().into_os_string().into_string().expect("a path in UTF-8");
    let environment: Vec<_> = environment.iter().copied().chain([(LIBRARY, library.as_str())]).collect();
    child_succeeds(test, &environment, body);
}

fn fork_and_wait() {
    // SAFETY: the child only ends.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(7);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
    }
}

#[test]
fn two_hundred_copies_work_on_two_threads() {
    in_child("two_hundred_copies_work_on_two_threads", &[], || {
        let (send, receive) = mpsc::channel::<Plugin>();
        let other = thread::spawn(move || receive.into_iter().for_each(Plugin::work));
        let mut plugins = vec![];
        for n in 0..200 {
            let copy = Copy::new(&n.to_string());
            let plugin = Plugin::open(&copy.0);
            // The loader keeps it by its name, so the file may go before the first use.
            drop(copy);
            plugin.work();
            send.send(plugin).expect("it receives");
            plugins.push(plugin);
        }
        plugins.iter().for_each(|&plugin| send.send(plugin).expect("it receives"));
        plugins.iter().for_each(|plugin| plugin.work());
        drop(send);
        other.join().expect("no panic");
    });
}

/// The first allocation on a thread has the loader make the library's block, in the middle
/// of a computation. glibc before 2.40 does not keep its registers then.
#[test]
fn vector_registers_survive_a_threads_first_allocation() {
    in_child("vector_registers_survive_a_threads_first_allocation", &[], || {
        let plugin = Plugin::open(&library());
        for _ in 0..10 {
            assert_eq!(thread::spawn(move || plugin.wrong_sums()).join().expect("no panic"), 0);
        }
    });
}

/// Opens, uses and closes the library; threads that used it live on and end.
fn use_and_close(first_use: fn(Plugin)) {
    let path = library();
    let plugin = Plugin::open(&path);
    first_use(plugin);
    let ended = thread::spawn(move || first_use(plugin));
    ended.join().expect("no panic");
    let (ready, is_ready) = mpsc::channel();
    let (end, told_to_end) = mpsc::channel::<()>();
    let living = thread::spawn(move || {
        first_use(plugin);
        ready.send(()).expect("somebody waits");
        let _ = told_to_end.recv();
    });
    is_ready.recv().expect("it works");
    plugin.close();
    assert!(is_loaded(&path));
    // Some ticks.
    thread::sleep(Duration::from_millis(100));
    fork_and_wait();
    drop(end);
    living.join().expect("no panic");
    thread::sleep(Duration::from_millis(100));
    fork_and_wait();
    let again = Plugin::open(&path);
    thread::spawn(move || again.work()).join().expect("no panic");
    again.close();
    fork_and_wait();
}

const TICKS: (&str, &str) = ("NEAP_TICK_INTERVAL_MS", "10");

#[test]
fn closed_while_a_thread_lives() {
    in_child("closed_while_a_thread_lives", &[TICKS], || use_and_close(Plugin::work));
}

#[test]
fn closed_with_its_background_thread() {
    let environment = [TICKS, ("NEAP_BACKGROUND", "1")];
    in_child("closed_with_its_background_thread", &environment, || use_and_close(Plugin::work));
}

#[test]
fn closed_after_a_pool_was_used() {
    in_child("closed_after_a_pool_was_used", &[TICKS], || use_and_close(Plugin::pool));
}

#[test]
fn closed_when_only_its_initialiser_used_it() {
    let environment = [TICKS, ("NEAP_BACKGROUND", "1"), ("PLUGIN_STARTS", "1")];
    in_child("closed_when_only_its_initialiser_used_it", &environment, || {
        let path = library();
        let opens_and_closes = || Plugin::open(&library()).close();
        thread::spawn(opens_and_closes).join().expect("no panic");
        assert!(is_loaded(&path));
        thread::sleep(Duration::from_millis(100));
        fork_and_wait();
    });
}

/// Too late to stay: it serves all the same, and leaves nothing behind.
#[test]
fn first_used_while_it_is_unloaded() {
    let environment = [TICKS, ("NEAP_BACKGROUND", "1"), ("PLUGIN_ENDS", "1")];
    in_child("first_used_while_it_is_unloaded", &environment, || {
        let path = library();
        let opens_and_closes = || Plugin::open(&library()).close();
        thread::spawn(opens_and_closes).join().expect("no panic");
        opens_and_closes();
        assert!(!is_loaded(&path));
        thread::sleep(Duration::from_millis(100));
        fork_and_wait();
    });
}

/// A program that goes on loading and closing: what was used stays, once; what was not goes.
/// The numbers that the loader gives to thread-local blocks are used again in between.
#[test]
fn loading_and_closing_for_long_is_bounded() {
    in_child("loading_and_closing_for_long_is_bounded", &[TICKS, ("NEAP_BACKGROUND", "1")], || {
        let used: Vec<_> = (0..4).map(|n| Copy::new(&format!("used-{n}"))).collect();
        let unused = Copy::new("unused");
        let round = |n: usize| {
            let idle = Plugin::open(&unused.0);
            let plugin = Plugin::open(&used[n % used.len()].0);
            plugin.work();
            idle.close();
            assert!(!is_loaded(&unused.0));
            let idle = Plugin::open(&unused.0);
            thread::spawn(move || plugin.work()).join().expect("no panic");
            plugin.close();
            idle.close();
        };
        (0..40).for_each(round);
        thread::sleep(Duration::from_millis(100));
        let (before, mappings) = (common::resident(), mappings());
        (0..1000).for_each(round);
        thread::sleep(Duration::from_millis(100));
        assert!(common::resident() < before + 2 * common::MIB, "{before}, then {}", common::resident());
        assert!(self::mappings() < mappings + 20, "{mappings}, then {}", self::mappings());
        assert!(used.iter().all(|copy| is_loaded(&copy.0)));
    });
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count()
}

#[test]
fn a_block_of_another_copys_is_refused() {
    let test = "a_block_of_another_copys_is_refused";
    let library = library().into_os_string().into_string().expect("a path in UTF-8");
    let aborted = child(test, &[(LIBRARY, &library)], || {
        let (one, other) = (Copy::new("one"), Copy::new("other"));
        let (one, other) = (Plugin::open(&one.0), Plugin::open(&other.0));
        // Within one copy a block may cross threads.
        let block = one.alloc().addr();
        thread::spawn(move || one.free(block as *mut u8)).join().expect("no panic");
        other.free(one.alloc());
    });
    let Some(output) = aborted else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{error}");
    let lines: Vec<_> = error.lines().collect();
    assert!(lines.len() == 1 && lines[0].contains("of another allocator or another copy of Neap"), "{error}");
}
