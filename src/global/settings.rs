//! The settings in force, for the program to read, and those that it may change later.

use crate::config::settings::{self, SettingSource};
use crate::config::soft_limit;
use crate::reclaim::background;
use core::fmt;
use core::time::Duration;

/// The settings in force, as [`settings`] found them, and where each is from. `Display` prints a
/// line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// See [`Neap::tick_interval`](crate::Neap::tick_interval).
    pub tick_interval: Setting<Duration>,
    /// See [`Neap::background`](crate::Neap::background).
    pub background: Setting<bool>,
    /// See [`Neap::thread_pool_bytes`](crate::Neap::thread_pool_bytes); near the soft limit threads
    /// keep an eighth of it.
    pub thread_pool_bytes: Setting<usize>,
    /// The soft limit in bytes, if there is one: the lower of [`Neap::limit`](crate::Neap::limit)
    /// and the control group's, if that counts.
    pub limit: Setting<Option<usize>>,
    /// See [`Neap::limit_from_cgroup`](crate::Neap::limit_from_cgroup).
    pub limit_from_cgroup: Setting<bool>,
    /// Whether a heap whose growth lasts takes huge pages: what the system makes of
    /// [`Neap::huge_pages`](crate::Neap::huge_pages).
    pub huge_pages: Setting<bool>,
}

/// One of the [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Where it is from.
    pub source: SettingSource,
}

impl<T> Setting<T> {
    fn new(value: T, source: SettingSource) -> Self {
        Self { value, source }
    }
}

/// The settings in force: what became of the program's, the environment's and later calls.
///
/// They are read at the first allocation of the process; before that, and in a program without a
/// [`Neap`](crate::Neap), they are the defaults. Cost: some nanoseconds; allocates nothing.
///
/// ```
/// use neap::SettingSource;
///
/// #[global_allocator]
/// static HEAP: neap::Neap = neap::Neap::new().limit(1 << 30);
/// # fn main() {
/// drop(Box::new(1));
/// let settings = neap::settings();
/// assert_eq!(settings.limit.value, Some(1 << 30));
/// assert_eq!(settings.limit.source, SettingSource::Program);
/// assert_eq!(settings.thread_pool_bytes.value, 8 << 20);
/// assert_eq!(settings.thread_pool_bytes.source, SettingSource::Default);
/// println!("{settings}");
/// # let text = settings.to_string();
/// # assert!(text.contains("limit              1 GiB (program)\n"), "{text}");
/// # assert!(text.contains("tick_interval      500 ms (default)\n"), "{text}");
/// # }
/// ```
pub fn settings() -> Settings {
    let (limit, limit_source) = settings::limit_if_any();
    Settings {
        tick_interval: Setting::new(
            Duration::from_millis(settings::tick_interval_ms()),
            settings::tick_interval_source(),
        ),
        background: Setting::new(settings::background(), settings::background_source()),
        thread_pool_bytes: Setting::new(
            settings::thread_pool_bytes_if_far(),
            settings::thread_pool_bytes_source(),
        ),
        limit: Setting::new(limit, limit_source),
        limit_from_cgroup: Setting::new(settings::limit_from_cgroup(), settings::limit_from_cgroup_source()),
        huge_pages: Setting::new(settings::huge_pages(), settings::huge_pages_source()),
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |on| if on { "on" } else { "off" };
        let ms = self.tick_interval.value.as_millis();
        writeln!(f, "tick_interval      {ms} ms ({})", self.tick_interval.source)?;
        writeln!(f, "background         {} ({})", flag(self.background.value), self.background.source)?;
        let pool = self.thread_pool_bytes;
        writeln!(f, "thread_pool_bytes  {} ({})", Bytes(pool.value), pool.source)?;
        match self.limit.value {
            Some(bytes) => writeln!(f, "limit              {} ({})", Bytes(bytes), self.limit.source)?,
            None => writeln!(f, "limit              none ({})", self.limit.source)?,
        }
        let cgroup = self.limit_from_cgroup;
        writeln!(f, "limit_from_cgroup  {} ({})", flag(cgroup.value), cgroup.source)?;
        writeln!(f, "huge_pages         {} ({})", flag(self.huge_pages.value), self.huge_pages.source)
    }
}

/// A number of bytes in the largest unit of which it is a multiple.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_multiple = |unit: usize| self.0 > 0 && self.0.is_multiple_of(unit);
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|&(unit, _)| is_multiple(unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Changes how long an epoch lasts, whatever the program and the environment set.
///
/// At once: the epoch that is under way ends so long after it began, at the next slow path that
/// looks, or by the background thread, which is woken. Rounded as by
/// [`Neap::tick_interval`](crate::Neap::tick_interval). Before the first allocation it counts, too.
///
/// Any thread may call it, at any time. Cost: some stores, and a system call if the background
/// thread sleeps.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// #[global_allocator]
/// static HEAP: neap::Neap = neap::Neap::new().tick_interval(Duration::from_secs(3600));
/// # fn main() {
/// drop(vec![1u8; 300_000]);
/// neap::set_tick_interval(Duration::from_millis(20));
/// # let end = Instant::now() + Duration::from_secs(30);
/// while neap::stats().ticks < 2 {
///     drop(vec![1u8; 300_000]); // activity drives the ticks
/// #   assert!(Instant::now() < end);
/// }
/// # }
/// ```
pub fn set_tick_interval(interval: Duration) {
    settings::set_tick_interval(interval);
    background::settings_changed();
}

/// Changes whether a background thread ticks, whatever the program and the environment set.
///
/// `true`: a slow path soon starts the thread; one in eight looks. `false`: the thread ends, after
/// the tick that is under way, if any; from then on allocation activity drives the ticks. It may
/// still be there for a moment when this returns. Before the first allocation it counts, too.
///
/// Any thread may call it, at any time. Cost: some stores, and a system call if the thread sleeps.
///
/// ```
/// use std::time::Duration;
///
/// #[global_allocator]
/// static HEAP: neap::Neap = neap::Neap::new().tick_interval(Duration::from_millis(20));
/// # fn main() {
/// neap::set_background(true);
/// drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
/// let mut rounds = 0..1000;
/// // Quiet from here on: nobody allocates.
/// while neap::stats().resident > 1 << 20 && rounds.next().is_some() {
///     std::thread::sleep(Duration::from_millis(10));
/// }
/// assert!(neap::stats().resident <= 1 << 20);
/// # }
/// ```
pub fn set_background(on: bool) {
    settings::set_background(on);
    background::settings_changed();
}

/// Changes how many bytes of freed blocks one thread may keep in its local tier, whatever the
/// program and the environment set.
///
/// More holds at once. Less holds for each size class from the thread's first use of it after the
/// next [`tick`](crate::tick); what is kept goes as ever, at the second tick without use. Before
/// the first allocation it counts, too.
///
/// Any thread may call it, at any time. Cost: two stores; then as for
/// [`Neap::thread_pool_bytes`](crate::Neap::thread_pool_bytes).
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// let churn = || drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
/// churn();
/// assert!(neap::stats().pooled_local > 64 << 10);
/// neap::set_thread_pool_bytes(64 << 10);
/// neap::tick();
/// churn();
/// let stats = neap::stats();
/// assert!(stats.pooled_local <= (64 << 10) * stats.threads);
/// ```
pub fn set_thread_pool_bytes(bytes: usize) {
    settings::set_thread_pool_bytes(bytes);
}

/// Changes the soft limit, in bytes; 0 lifts it. Whatever the program and the environment set;
/// only the limit of the control group goes on to count, if it is lower and
/// [`limit_from_cgroup`](crate::Neap::limit_from_cgroup) is on.
///
/// At the next slow path that looks, which is one in eight, and each of a block above 256 KiB: if
/// more than this is resident by then, that thread returns everything free. How soon growth ends an
/// epoch follows at the next tick. Before the first allocation it counts, too.
///
/// Any thread may call it, at any time. Cost: some stores, and a system call if the background
/// thread sleeps; then as for [`Neap::limit`](crate::Neap::limit).
///
/// ```
/// # #[global_allocator] static HEAP: neap::Neap = neap::Neap::new();
/// drop((0..100_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
/// assert!(neap::stats().resident > 64 << 20);
/// neap::set_limit(16 << 20);
/// drop(vec![1u8; 300_000]); // a slow path
/// assert!(neap::stats().resident <= 16 << 20);
/// neap::set_limit(0);
/// assert_eq!(neap::settings().limit.value, None);
/// ```
pub fn set_limit(bytes: usize) {
    soft_limit::set(bytes);
    background::settings_changed();
}
