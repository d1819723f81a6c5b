//! The settings in force: from the builder or the environment, read once, or set later by a
//! call.
//!
//! All accesses are Relaxed: a thread that starts at the same time may still see
//! the defaults, which are valid settings too.

use crate::config::cgroup;
use crate::config::environment::Environment;
use crate::platform;
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use core::time::Duration;

/// The settings as a program states them; none where it leaves the default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) tick_interval_ms: Option<u64>,
    pub(crate) background: Option<bool>,
    pub(crate) thread_pool_bytes: Option<usize>,
    /// Bytes; 0 for none.
    pub(crate) limit: Option<usize>,
    pub(crate) limit_from_cgroup: Option<bool>,
    /// By default the system decides.
    pub(crate) huge_pages: Option<bool>,
    /// Whether other settings may replace them later: the C API's first call may
    /// come before the program's own allocator is used.
    pub(crate) provisional: bool,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self {
        tick_interval_ms: None,
        background: None,
        thread_pool_bytes: None,
        limit: None,
        limit_from_cgroup: None,
        huge_pages: None,
        provisional: false,
    };
}

/// Where a [setting](crate::Setting) is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum SettingSource {
    /// Nobody configured it.
    Default,
    /// A method of [`Neap`](crate::Neap).
    Program,
    /// A variable `NEAP_…`.
    Environment,
    /// The limit of the process's control group, where that is lower than what was set.
    ControlGroup,
    /// A call at run time, such as [`set_limit`](crate::set_limit).
    Call,
}

impl SettingSource {
    const ALL: [Self; 5] = [Self::Default, Self::Program, Self::Environment, Self::ControlGroup, Self::Call];
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Program => "program",
            Self::Environment => "environment",
            Self::ControlGroup => "control group",
            Self::Call => "call",
        })
    }
}

/// A setting in force.
struct InForce {
    default: u64,
    value: AtomicU64,
    source: AtomicU8,
}

impl InForce {
    const fn new(default: u64) -> Self {
        let source = AtomicU8::new(SettingSource::Default as u8);
        Self { default, value: AtomicU64::new(default), source }
    }

    fn value(&self) -> u64 {
        self.value.load(Relaxed)
    }

    fn source(&self) -> SettingSource {
        let source = usize::from(self.source.load(Relaxed));
        SettingSource::ALL.get(source).copied().unwrap_or(SettingSource::Default)
    }

    /// A call, which comes before the first allocation at the earliest, is what counts.
    fn read(&self, environment: Option<u64>, program: Option<u64>) {
        let (value, source) = match (environment, program) {
            _ if self.source() == SettingSource::Call => return,
            (Some(value), _) => (value, SettingSource::Environment),
            (None, Some(value)) => (value, SettingSource::Program),
            (None, None) => (self.default, SettingSource::Default),
        };
        self.value.store(value, Relaxed);
        self.source.store(source as u8, Relaxed);
    }

    fn set(&self, value: u64) {
        self.source.store(SettingSource::Call as u8, Relaxed);
        self.value.store(value, Relaxed);
    }
}

static TICK_INTERVAL_MS: InForce = InForce::new(500);
static BACKGROUND: InForce = InForce::new(0);
static THREAD_POOL_BYTES: InForce = InForce::new(8 << 20);
/// Near the limit threads may pool only part of [`THREAD_POOL_BYTES`].
static NEAR_LIMIT: AtomicBool = AtomicBool::new(false);
/// Bytes; 0 for none.
static LIMIT: InForce = InForce::new(0);
static LIMIT_FROM_CGROUP: InForce = InForce::new(0);
/// The control group's limit if it counts, else `usize::MAX`.
static LIMIT_OF_CGROUP: AtomicUsize = AtomicUsize::new(usize::MAX);
static HUGE_PAGES: InForce = InForce::new(0);
static BARRIER_WORKS: AtomicBool = AtomicBool::new(false);
/// Whether what the environment has wrong was reported already.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Stores the settings, with what the environment overrides. Called with the
/// program's own once there is an environment, and perhaps before that provisionally.
pub(crate) fn read(settings: &Settings) {
    let report = platform::has_environment() && !REPORTED.swap(true, Relaxed);
    let environment = Environment::read(report);
    TICK_INTERVAL_MS.read(environment.tick_interval_ms, settings.tick_interval_ms);
    BACKGROUND.read(environment.background.map(u64::from), settings.background.map(u64::from));
    THREAD_POOL_BYTES
        .read(environment.thread_pool_bytes, settings.thread_pool_bytes.map(|bytes| bytes as u64));
    LIMIT.read(environment.limit, settings.limit.map(|bytes| bytes as u64));
    LIMIT_FROM_CGROUP
        .read(environment.limit_from_cgroup.map(u64::from), settings.limit_from_cgroup.map(u64::from));
    let of_cgroup = if limit_from_cgroup() { cgroup::limit() } else { None };
    LIMIT_OF_CGROUP.store(of_cgroup.unwrap_or(usize::MAX), Relaxed);
    read_huge_pages(environment.huge_pages, settings.huge_pages);
    platform::register_barrier();
    BARRIER_WORKS.store(platform::barrier(), Relaxed);
}

/// In force is what the system makes of what is configured.
fn read_huge_pages(environment: Option<bool>, program: Option<bool>) {
    let huge = u64::from(platform::huge_pages(environment.or(program)));
    HUGE_PAGES.read(environment.map(|_| huge), program.map(|_| huge));
    if environment.or(program).is_none() {
        HUGE_PAGES.value.store(huge, Relaxed);
    }
}

/// The soft limit in bytes; `usize::MAX` for none.
#[inline]
pub(super) fn limit() -> usize {
    limit_from_setting().min(LIMIT_OF_CGROUP.load(Relaxed))
}

#[inline]
fn limit_from_setting() -> usize {
    match LIMIT.value() {
        0 => usize::MAX,
        bytes => to_usize(bytes),
    }
}

/// The same as a program is told it, and where it is from.
pub(crate) fn limit_if_any() -> (Option<usize>, SettingSource) {
    let lower = LIMIT_OF_CGROUP.load(Relaxed) < limit_from_setting();
    let source = if lower { SettingSource::ControlGroup } else { LIMIT.source() };
    (Some(limit()).filter(|&bytes| bytes < usize::MAX), source)
}

/// See `soft_limit::set`.
pub(super) fn set_limit(bytes: usize) {
    LIMIT.set(bytes as u64);
}

pub(crate) fn limit_from_cgroup() -> bool {
    LIMIT_FROM_CGROUP.value() != 0
}

pub(crate) fn limit_from_cgroup_source() -> SettingSource {
    LIMIT_FROM_CGROUP.source()
}

/// Whether a heap that grows should have huge pages.
pub(crate) fn huge_pages() -> bool {
    HUGE_PAGES.value() != 0
}

pub(crate) fn huge_pages_source() -> SettingSource {
    HUGE_PAGES.source()
}

/// The same; none if not configured.
pub(crate) fn huge_pages_if_configured() -> Option<bool> {
    (huge_pages_source() != SettingSource::Default).then(huge_pages)
}

/// Whether the limit was near at the last tick, or when it was changed.
pub(crate) fn near_limit() -> bool {
    NEAR_LIMIT.load(Relaxed)
}

/// Called by a tick, and when the limit changes: whether it is near.
pub(crate) fn set_near_limit(near: bool) {
    NEAR_LIMIT.store(near, Relaxed);
}

pub(crate) fn tick_interval_ms() -> u64 {
    TICK_INTERVAL_MS.value()
}

pub(crate) fn tick_interval_source() -> SettingSource {
    TICK_INTERVAL_MS.source()
}

pub(crate) fn set_tick_interval(interval: Duration) {
    TICK_INTERVAL_MS.set(whole_ms(interval));
}

/// Rounded down; what is shorter than a millisecond counts as one.
pub(crate) const fn whole_ms(interval: Duration) -> u64 {
    match interval.as_millis() {
        0 => 1,
        ms if ms > u64::MAX as u128 => u64::MAX,
        ms => ms as u64,
    }
}

pub(crate) fn background() -> bool {
    BACKGROUND.value() != 0
}

pub(crate) fn background_source() -> SettingSource {
    BACKGROUND.source()
}

pub(crate) fn set_background(on: bool) {
    BACKGROUND.set(u64::from(on));
}

/// How many bytes a thread may pool now.
pub(crate) fn thread_pool_bytes() -> usize {
    let bytes = thread_pool_bytes_if_far();
    if near_limit() { bytes / 8 } else { bytes }
}

/// The same while the limit is far: what is configured.
pub(crate) fn thread_pool_bytes_if_far() -> usize {
    to_usize(THREAD_POOL_BYTES.value())
}

pub(crate) fn thread_pool_bytes_source() -> SettingSource {
    THREAD_POOL_BYTES.source()
}

pub(crate) fn set_thread_pool_bytes(bytes: usize) {
    THREAD_POOL_BYTES.set(bytes as u64);
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_counts_before_the_program_and_a_call_before_both() {
        let setting = InForce::new(1);
        let now = || (setting.value(), setting.source());
        assert_eq!(now(), (1, SettingSource::Default));
        setting.read(None, Some(2));
        assert_eq!(now(), (2, SettingSource::Program));
        setting.read(Some(3), Some(2));
        assert_eq!(now(), (3, SettingSource::Environment));
        // As after the C API's settings, which are provisional.
        setting.read(None, None);
        assert_eq!(now(), (1, SettingSource::Default));
        // Before the first allocation, too.
        setting.set(4);
        setting.read(Some(3), Some(2));
        assert_eq!(now(), (4, SettingSource::Call));
    }

    #[test]
    fn an_interval_is_whole_milliseconds() {
        for (interval, ms) in [
            (Duration::ZERO, 1),
            (Duration::from_micros(999), 1),
            (Duration::from_micros(2999), 2),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(whole_ms(interval), ms);
        }
    }
}
