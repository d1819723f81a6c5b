//! The settings, from the builder or the environment, read once.
//!
//! All accesses are Relaxed: a thread that starts at the same time may still see
//! the defaults, which are valid settings too.

use crate::base::fatal::report;
use crate::config::cgroup;
use crate::platform;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// The settings as a program states them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) tick_interval_ms: u64,
    pub(crate) background: bool,
    pub(crate) thread_pool_bytes: usize,
    /// Bytes; `usize::MAX` for none.
    pub(crate) limit: usize,
    pub(crate) limit_from_cgroup: bool,
    /// None if not configured: then the system's default decides.
    pub(crate) huge_pages: Option<bool>,
    /// Whether other settings may replace them later: the C API's first call may
    /// come before the program's own allocator is used.
    pub(crate) provisional: bool,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self {
        tick_interval_ms: 500,
        background: false,
        thread_pool_bytes: 8 << 20,
        limit: usize::MAX,
        limit_from_cgroup: false,
        huge_pages: None,
        provisional: false,
    };
}

static TICK_INTERVAL_MS: AtomicU64 = AtomicU64::new(Settings::DEFAULT.tick_interval_ms);
static BACKGROUND: AtomicBool = AtomicBool::new(false);
static THREAD_POOL_BYTES: AtomicUsize = AtomicUsize::new(Settings::DEFAULT.thread_pool_bytes);
/// Near the limit threads may pool only part of [`THREAD_POOL_BYTES`].
static NEAR_LIMIT: AtomicBool = AtomicBool::new(false);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static HUGE_PAGES: AtomicBool = AtomicBool::new(false);
/// Whether [`HUGE_PAGES`] is from the program or the environment, not the system.
static HUGE_PAGES_CONFIGURED: AtomicBool = AtomicBool::new(false);
static BARRIER_WORKS: AtomicBool = AtomicBool::new(false);
/// Whether invalid variables were reported already.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Stores the settings, with what the environment overrides. Called with the
/// program's own once there is an environment, and perhaps before that provisionally.
pub(crate) fn read(settings: &Settings) {
    let interval = variable(c"NEAP_TICK_INTERVAL_MS", "milliseconds above 0", |&value| value > 0);
    let background = flag(c"NEAP_BACKGROUND");
    let pool = variable(c"NEAP_THREAD_POOL_BYTES", "a number of bytes", |_| true);
    TICK_INTERVAL_MS.store(interval.unwrap_or(settings.tick_interval_ms.max(1)), Relaxed);
    BACKGROUND.store(background.unwrap_or(settings.background), Relaxed);
    let pool = pool.map_or(settings.thread_pool_bytes, |value| value as usize);
    THREAD_POOL_BYTES.store(pool, Relaxed);
    LIMIT.store(read_limit(settings), Relaxed);
    let huge = flag(c"NEAP_HUGE_PAGES").or(settings.huge_pages);
    HUGE_PAGES.store(platform::huge_pages(huge), Relaxed);
    HUGE_PAGES_CONFIGURED.store(huge.is_some(), Relaxed);
    REPORTED.store(platform::has_environment(), Relaxed);
    platform::register_barrier();
    BARRIER_WORKS.store(platform::barrier(), Relaxed);
}

fn read_limit(settings: &Settings) -> usize {
    let bytes = variable(c"NEAP_LIMIT_BYTES", "a number of bytes above 0", |&value| value > 0);
    let cgroup = flag(c"NEAP_LIMIT_FROM_CGROUP");
    let bytes = bytes.map_or(settings.limit, |value| value as usize);
    let cgroup = cgroup.unwrap_or(settings.limit_from_cgroup);
    bytes.min(if cgroup { cgroup::limit().unwrap_or(usize::MAX) } else { usize::MAX })
}

/// The soft limit in bytes; `usize::MAX` for none.
#[inline]
pub(super) fn limit() -> usize {
    LIMIT.load(Relaxed)
}

/// Whether a heap that grows should have huge pages.
pub(crate) fn huge_pages() -> bool {
    HUGE_PAGES.load(Relaxed)
}

/// The same; none if not configured.
pub(crate) fn huge_pages_if_configured() -> Option<bool> {
    HUGE_PAGES_CONFIGURED.load(Relaxed).then(huge_pages)
}

/// Whether the last tick found the limit near.
pub(crate) fn near_limit() -> bool {
    NEAR_LIMIT.load(Relaxed)
}

/// Called by a tick: whether the limit is near.
pub(crate) fn set_near_limit(near: bool) {
    NEAR_LIMIT.store(near, Relaxed);
}

pub(crate) fn tick_interval_ms() -> u64 {
    TICK_INTERVAL_MS.load(Relaxed)
}

pub(crate) fn background() -> bool {
    BACKGROUND.load(Relaxed)
}

pub(crate) fn thread_pool_bytes() -> usize {
    let bytes = THREAD_POOL_BYTES.load(Relaxed);
    if near_limit() { bytes / 8 } else { bytes }
}

/// Tries the barrier again: a program may forbid itself system calls at any time.
pub(crate) fn check_barrier() {
    if barrier_works() && !platform::barrier() {
        note_barrier_failed();
    }
}

/// The system refused the barrier: from now on each thread ages its own cache.
pub(crate) fn note_barrier_failed() {
    BARRIER_WORKS.store(false, Relaxed);
}

/// Whether the kernel has the barrier that closing a magazine needs.
pub(crate) fn barrier_works() -> bool {
    BARRIER_WORKS.load(Relaxed)
}

/// A variable that is 0 or 1.
fn flag(name: &CStr) -> Option<bool> {
    variable(name, "0 or 1", |&value| value <= 1).map(|value| value == 1)
}

/// A variable's number, if it is set and `valid`. Reports it on stderr if not valid.
fn variable(name: &CStr, wanted: &str, valid: impl Fn(&u64) -> bool) -> Option<u64> {
    let parse = |value: &CStr| value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(valid);
    let number = platform::with_variable(name, parse)?;
    if number.is_none() && !REPORTED.load(Relaxed) {
        let name = name.to_str().unwrap_or_default();
        report(format_args!("{name} is ignored: it should be {wanted}"));
    }
    number
}
