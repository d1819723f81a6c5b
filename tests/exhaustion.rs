//! Out of memory is null, and over when memory comes back.

mod common;

use common::{MIB, child_succeeds};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};

#[global_allocator]
static HEAP: Neap = Neap::new();

/// Limits the address space to what is in use now and `more`.
fn limit(more: usize) {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    let bytes = (pages * 4096 + more) as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Allocates until null; the blocks, chained through their first word.
fn exhaust(layout: Layout) -> (usize, *mut *mut u8) {
    let mut head: *mut *mut u8 = std::ptr::null_mut();
    let mut count = 0;
    loop {
        // SAFETY: the size is that of a pointer or more.
        let block = unsafe { HEAP.alloc(layout) }.cast::<*mut u8>();
        if block.is_null() {
            return (count, head);
        }
        // SAFETY: ours.
        unsafe { block.write(head.cast()) };
        head = block;
        count += 1;
    }
}

fn free_all(mut head: *mut *mut u8, layout: Layout) {
    while !head.is_null() {
        // SAFETY: a chain that `exhaust` made.
        unsafe {
            let next = head.read();
            HEAP.dealloc(head.cast(), layout);
            head = next.cast();
        }
    }
}

fn exhaust_and_recover(size: usize) {
    // Beyond the first segment new ones are needed, which the limit denies.
    let layout = Layout::from_size_align(size, 8).expect("valid");
    limit(64 * MIB);
    let (count, head) = exhaust(layout);
    assert!(count > 0);
    // SAFETY: the size is not zero.
    assert!(unsafe { HEAP.alloc(layout) }.is_null(), "still exhausted");
    free_all(head, layout);
    let (again, head) = exhaust(layout);
    free_all(head, layout);
    assert!(again * 10 >= count * 9, "{again} of {count} after recovery");
    assert_eq!(vec![1u8; 1000].len(), 1000);
}

#[test]
fn large_blocks_run_out_and_come_back() {
    child_succeeds("large_blocks_run_out_and_come_back", &[], || exhaust_and_recover(8 * MIB));
}

#[test]
fn runs_run_out_and_come_back() {
    child_succeeds("runs_run_out_and_come_back", &[], || exhaust_and_recover(2 * MIB));
}

#[test]
fn pooled_runs_run_out_and_come_back() {
    child_succeeds("pooled_runs_run_out_and_come_back", &[], || exhaust_and_recover(200_000));
}

#[test]
fn blocks_of_spans_run_out_and_come_back() {
    child_succeeds("blocks_of_spans_run_out_and_come_back", &[], || exhaust_and_recover(16_000));
}

/// A process that starts under a tight limit gets smaller segments.
#[test]
fn a_small_address_space_suffices() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("NEAP_TEST_SMALL").is_some() {
        let all: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; 50_000]).collect();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 10_000_000);
        let thread = std::thread::spawn(|| vec![2u8; 1 << 20].len());
        assert_eq!(thread.join().expect("room for a thread"), 1 << 20);
        return;
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "a_small_address_space_suffices", "--test-threads=1"]);
    command.env("NEAP_TEST_SMALL", "1");
    // SAFETY: only a system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 128 << 20, rlim_max: 128 << 20 };
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        });
    }
    let output = command.output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
