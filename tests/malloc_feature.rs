//! With the feature `malloc`, Neap also serves what C code allocates.
#![cfg(feature = "malloc")]

mod common;

use neap::Neap;
use std::time::Duration;

#[global_allocator]
static HEAP: Neap = Neap::new().background(true).tick_interval(Duration::from_millis(20));

#[test]
fn the_c_librarys_blocks_are_neaps() {
    let before = neap::stats().live;
    let text = std::ffi::CString::new(vec![b'x'; 3_000_000]).expect("no null");
    // SAFETY: a C string; each copy is freed once.
    unsafe {
        let copies: Vec<_> = (0..5).map(|_| libc::strdup(text.as_ptr())).collect();
        assert!(neap::stats().live >= before + 6 * 3_000_000);
        copies.into_iter().for_each(|copy| libc::free(copy.cast()));
    }
    assert!(neap::stats().live < before + 2 * 3_000_000);
}

#[test]
fn the_programs_settings_apply() {
    common::child_succeeds("the_programs_settings_apply", &[], || {
        // C called malloc long before. The background thread runs all the same, until it rests.
        let boxes: Vec<_> = (0..100_000).map(Box::new).collect();
        drop(boxes);
        let before = neap::stats().ticks;
        std::thread::sleep(Duration::from_millis(500));
        assert!(neap::stats().ticks >= before + 2, "{}", neap::stats().ticks - before);
    });
}

#[test]
fn c_code_that_frees_a_block_of_rusts_aborts() {
    let output = common::child("c_code_that_frees_a_block_of_rusts_aborts", &[], || {
        let block = Box::into_raw(Box::new([1u64; 20]));
        // SAFETY: wrong on purpose; the process aborts in here.
        unsafe { libc::free(block.cast()) };
    });
    if let Some(output) = output {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.starts_with("neap: double free"), "{error}");
    }
}
