//! What a program may ask of the whole heap: returning memory, and statistics.

use crate::base::epoch;
use crate::global::neap::Neap;
use crate::global::stats::stats;
use crate::platform;
use crate::reclaim::tick;
use core::ffi::c_int;
use core::fmt::{self, Write};

/// `malloc_trim`: does a tick, and then returns everything free. 1 if any page went back.
///
/// # Safety
/// None.
pub unsafe fn malloc_trim(_: &'static Neap, _pad: usize) -> c_int {
    let before = tick::pages_returned();
    tick::tick();
    tick::purge();
    epoch::run_hook();
    (tick::pages_returned() > before) as c_int
}

/// `mallopt`: `M_PURGE` (-101, as on Android) returns everything free; the result is 1.
/// The C library's parameters have no counterpart here; the result is 0, for not set.
///
/// # Safety
/// None.
pub unsafe fn mallopt(neap: &'static Neap, parameter: c_int, _value: c_int) -> c_int {
    const M_PURGE: c_int = -101;
    if parameter != M_PURGE {
        return 0;
    }
    // SAFETY: it has no contract.
    unsafe { malloc_trim(neap, 0) };
    1
}

/// C's `struct mallinfo2`, or with `int`s `struct mallinfo`, which not every C library has.
#[repr(C)]
#[derive(Debug)]
#[expect(missing_docs, reason = "`mallinfo(3)` tells them")]
pub struct Info<T> {
    pub arena: T,
    pub ordblks: T,
    pub smblks: T,
    pub hblks: T,
    pub hblkhd: T,
    pub usmblks: T,
    pub fsmblks: T,
    pub uordblks: T,
    pub fordblks: T,
    pub keepcost: T,
}

/// `mallinfo2`: `arena` is what is resident, `uordblks` what the program has, and
/// `fordblks` what is free and resident.
///
/// # Safety
/// None.
pub unsafe fn mallinfo2(_: &'static Neap) -> Info<usize> {
    let stats = stats();
    let free = stats.resident.saturating_sub(stats.live);
    Info {
        arena: stats.resident,
        ordblks: stats.classes().iter().map(|class| class.free).sum(),
        smblks: stats.classes().iter().map(|class| class.pooled_local + class.pooled_victim).sum(),
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: stats.pooled_local + stats.pooled_victim,
        uordblks: stats.live,
        fordblks: free,
        keepcost: stats.free_runs,
    }
}

/// `mallinfo`: the same, as far as its smaller fields reach.
///
/// # Safety
/// None.
pub unsafe fn mallinfo(neap: &'static Neap) -> Info<c_int> {
    // SAFETY: it has no contract.
    let info = unsafe { mallinfo2(neap) };
    let cut = |figure: usize| c_int::try_from(figure).unwrap_or(c_int::MAX);
    Info {
        arena: cut(info.arena),
        ordblks: cut(info.ordblks),
        smblks: cut(info.smblks),
        hblks: cut(info.hblks),
        hblkhd: cut(info.hblkhd),
        usmblks: cut(info.usmblks),
        fsmblks: cut(info.fsmblks),
        uordblks: cut(info.uordblks),
        fordblks: cut(info.fordblks),
        keepcost: cut(info.keepcost),
    }
}

/// `malloc_stats`: [`stats`] on standard error.
///
/// # Safety
/// None.
pub unsafe fn malloc_stats(_: &'static Neap) {
    // If standard error cannot be written there is nowhere to report that.
    let _ = write!(Stderr, "{}", stats());
}

struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if platform::write_stderr(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}
