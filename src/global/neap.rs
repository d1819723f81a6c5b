//! `Neap`, the type a program names as its global allocator: the two fast
//! paths, inlined into the caller, and the settings.

use crate::base::size_class::{PAGE, Placement, block_size, placement};
use crate::config::settings::{Settings, whole_ms};
use crate::global::slow_path;
use crate::thread_cache::thread_local::{pop, push};
use core::alloc::{GlobalAlloc, Layout};
use core::time::Duration;

/// The allocator: one line sets it for a whole program.
///
/// ```
/// #[global_allocator]
/// static HEAP: neap::Neap = neap::Neap::new();
/// # fn main() {
/// let words = vec![String::from("spring"), String::from("neap")];
/// assert_eq!(words.join(" and "), "spring and neap");
/// assert!(neap::stats().live > 0);
/// # }
/// ```
///
/// # Settings
///
/// Each method below is a setting, with its default, its unit, and the environment variable that
/// overrides it, for programs that can't be rebuilt: `256M`, `2s` and `yes` are understood. An
/// invalid value, or an unknown name that begins with `NEAP_`, is reported once on standard error
/// and ignored. In a set-user-ID or set-group-ID program the environment sets nothing.
///
/// All are read once, at the first allocation of the process; a process has one heap, whatever
/// number of `Neap`s it has, and the first one used decides. Those for which it makes sense can be
/// changed later: [`set_tick_interval`](crate::set_tick_interval),
/// [`set_background`](crate::set_background),
/// [`set_thread_pool_bytes`](crate::set_thread_pool_bytes), [`set_limit`](crate::set_limit).
/// [`settings`](crate::settings) tells those in force. `docs/settings.md` has recipes for a server,
/// a command-line tool and a container.
///
/// # Layouts
///
/// Any valid size and alignment is served. Up to 256 KiB a block comes from the thread cache. A
/// size of 0, which the trait leaves undefined, counts as 1. A block in use is never moved but by
/// `realloc`; [`good_size`] tells how large it really is.
///
/// # Errors
///
/// Exhausted memory and impossible sizes give null; before that everything free is returned to
/// the system and it is tried again. Nothing here panics or unwinds.
///
/// Misuse that is noticed aborts the process with one line on standard error: a double free, an
/// address that is no block, a size of another class. A block above 256 KiB is checked when it is
/// freed. A smaller one is checked when it leaves the thread cache: at a spill, a tick,
/// [`flush_thread`](crate::flush_thread), [`purge`](crate::purge) or the thread's end, and at the
/// second tick if it lies still. **Until then a block freed twice may be handed out twice**, and a
/// process that ends before is not told. `docs/misuse.md` has every line and every case.
#[derive(Debug)]
pub struct Neap {
    pub(crate) settings: Settings,
}

impl Neap {
    /// An allocator with the default settings. The methods below change them.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new();
    /// # fn main() {
    /// let before = neap::stats().live;
    /// let block = vec![1u8; 1 << 20];
    /// assert!(neap::stats().live >= before + block.len());
    /// # }
    /// ```
    pub const fn new() -> Self {
        Self { settings: Settings::DEFAULT }
    }

    /// The default settings, as long as no other allocator's are known.
    #[cfg(feature = "malloc")]
    pub(crate) const fn provisional() -> Self {
        Self { settings: Settings { provisional: true, ..Settings::DEFAULT } }
    }

    /// How long an epoch lasts. What a program stopped using is returned after two.
    ///
    /// `NEAP_TICK_INTERVAL`, such as `500`, `500ms` or `2s` (or by its older name,
    /// `NEAP_TICK_INTERVAL_MS`); default 500 ms. Rounded down to whole milliseconds; what is shorter
    /// counts as 1. Epochs also end early while the heap grows, and near the soft limit. Ticks are
    /// driven by allocation activity unless [`background`](Self::background) is on.
    ///
    /// Cost: with a shorter interval, memory that comes and goes is returned in between and faulted
    /// in again; with a longer one it is kept longer.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().tick_interval(Duration::from_millis(20));
    /// # fn main() {
    /// let start = Instant::now();
    /// while neap::stats().ticks < 2 {
    ///     drop(vec![1u8; 300_000]); // activity drives the ticks
    /// }
    /// assert!(start.elapsed() >= Duration::from_millis(20));
    /// # }
    /// ```
    pub const fn tick_interval(mut self, interval: Duration) -> Self {
        self.settings.tick_interval_ms = Some(whole_ms(interval));
        self
    }

    /// Whether a background thread ticks, so that memory is returned without slow paths too. A
    /// server should set it.
    ///
    /// `NEAP_BACKGROUND`, `1` or `0`; default off. The thread starts at a thread's eighth
    /// slow path, and again after a fork.
    /// It blocks all signals, and has a stack of 512 KiB of address space.
    ///
    /// Cost: one wake-up an interval while there is something to age, none after two ticks that
    /// found nothing. Once a [`Pool`](crate::Pool) has been used, one short tick an interval.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// #[global_allocator]
    /// static HEAP: neap::Neap =
    ///     neap::Neap::new().background(true).tick_interval(Duration::from_millis(20));
    /// # fn main() {
    /// drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
    /// let mut rounds = 0..1000;
    /// // Quiet from here on: nobody allocates.
    /// while neap::stats().resident > 1 << 20 && rounds.next().is_some() {
    ///     std::thread::sleep(Duration::from_millis(10));
    /// }
    /// assert!(neap::stats().resident <= 1 << 20);
    /// # }
    /// ```
    pub const fn background(mut self, on: bool) -> Self {
        self.settings.background = Some(on);
        self
    }

    /// How many bytes of freed blocks one thread may keep in its local tier.
    ///
    /// `NEAP_THREAD_POOL_BYTES`, such as `65536` or `64k`; default 8 MiB. One size class never keeps more than
    /// 512 KiB. The victims come on top, until the next tick. Near the soft limit it is an eighth.
    ///
    /// Cost: lower bounds mean more trips to the spans, some ten nanoseconds a block. With 0 every
    /// block goes straight to its span, which is slow. With many threads the product counts.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().thread_pool_bytes(64 << 10);
    /// # fn main() {
    /// drop((0..10_000).map(|_| Box::new([1u64; 100])).collect::<Vec<_>>());
    /// let stats = neap::stats();
    /// assert!(stats.pooled_local <= (64 << 10) * stats.threads);
    /// # }
    /// ```
    pub const fn thread_pool_bytes(mut self, bytes: usize) -> Self {
        self.settings.thread_pool_bytes = Some(bytes);
        self
    }

    /// A soft limit: how many bytes of memory for blocks, live or free, the process should stay
    /// below, by Neap's own count.
    ///
    /// `NEAP_LIMIT_BYTES`, such as `1073741824` or `1G`; default none. 0 is no limit, in the variable
    /// too.
    ///
    /// Above three quarters of it epochs are an eighth as long, or end after a quarter of what is
    /// left was newly touched; threads keep an eighth of
    /// [`thread_pool_bytes`](Self::thread_pool_bytes), and no new huge pages are made. At it the
    /// thread that needs more first returns everything free; if that is not enough, it does so
    /// again after each 32nd part of the limit. **It never makes an allocation fail.**
    ///
    /// Cost: nothing while it is far; at it, milliseconds in the allocating thread.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().limit(8 << 20);
    /// # fn main() {
    /// for size in [400, 2_000, 4_000, 20_000] {
    ///     drop((0..(6 << 20) / size).map(|_| vec![1u8; size]).collect::<Vec<_>>());
    ///     assert!(neap::stats().resident <= 8 << 20);
    /// }
    /// assert_eq!(vec![1u8; 32 << 20].len(), 32 << 20); // beyond the limit, and served
    /// # }
    /// ```
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.settings.limit = Some(bytes);
        self
    }

    /// Whether the memory limit of the process's control group is a soft limit, too: the lowest of
    /// the group's and its parents', version 1 or 2 (Linux). The lower of it and
    /// [`limit`](Self::limit) counts.
    ///
    /// `NEAP_LIMIT_FROM_CGROUP`, `1` or `0`; default off. Read once, at the first allocation; a group without a
    /// limit changes nothing. A group also counts code, stacks and files read: a program with much
    /// of these sets a lower limit by hand.
    ///
    /// Cost: a few files are read at the first allocation; then as for `limit`.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().background(true).limit_from_cgroup(true);
    /// # fn main() {
    /// // Whatever the group says, it is soft.
    /// let blocks: Vec<_> = (1..1000).map(|size| vec![1u8; size]).collect();
    /// assert!(blocks.iter().zip(1..).all(|(block, size)| block.len() == size));
    /// # }
    /// ```
    pub const fn limit_from_cgroup(mut self, on: bool) -> Self {
        self.settings.limit_from_cgroup = Some(on);
        self
    }

    /// Whether a heap whose growth lasts takes transparent huge pages for it (Linux): 2 MiB in one
    /// page fault, and fewer misses of the address translation afterwards.
    ///
    /// `NEAP_HUGE_PAGES`, `1` or `0`; by default as the system has it: on where
    /// `/sys/kernel/mm/transparent_hugepage/enabled` is `always`, else off. Where that is `never`
    /// they are off whatever is set here.
    ///
    /// A tick that has parts of one to return has the system split it first. While less than a
    /// sixteenth of it is free, and no whole 64 KiB, it stays whole until a
    /// [`purge`](crate::purge). Blocks above 4 MiB have huge pages or not from the start. What a
    /// process shares with a fork's child is not split: of such a page the system keeps what was
    /// returned until it runs short, or both let go of it.
    ///
    /// Cost: 0.1 to 3 ms within the allocation that makes one, some 0.15 ms in a tick that splits
    /// one.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().huge_pages(false);
    /// # fn main() {
    /// let blocks: Vec<_> = (0..10_000).map(|n| Box::new([n; 100])).collect();
    /// let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    /// let mut sizes = maps.lines().filter(|line| line.starts_with("AnonHugePages:"));
    /// assert!(blocks.len() == 10_000 && sizes.all(|line| line.ends_with(" 0 kB")));
    /// # }
    /// ```
    pub const fn huge_pages(mut self, on: bool) -> Self {
        self.settings.huge_pages = Some(on);
        self
    }
}

impl Default for Neap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a block is handed out by whoever cleared its bit and held until
// `dealloc`; its class is large and aligned enough for the padded size; nothing
// here unwinds or allocates.
unsafe impl GlobalAlloc for Neap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = match placement(layout.size(), layout.align()) {
            Placement::Pooled(class) => class,
            Placement::Large(size) => {
                return slow_path::alloc_large(&self.settings, size, layout.align(), false);
            }
        };
        // SAFETY: a class; a miss goes to the slow path.
        let block = unsafe { pop(class) };
        if block.is_null() { slow_path::refill(&self.settings, class, false) } else { block }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = match placement(layout.size(), layout.align()) {
            Placement::Pooled(class) => class,
            Placement::Large(size) => return slow_path::free_large(&self.settings, block as usize, size),
        };
        // SAFETY: a class, and the caller gives the block up.
        if !unsafe { push(class, block as usize) } {
            slow_path::spill(&self.settings, class, block as usize);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let class = match placement(layout.size(), layout.align()) {
            Placement::Pooled(class) => class,
            Placement::Large(size) => {
                return slow_path::alloc_large(&self.settings, size, layout.align(), true);
            }
        };
        // SAFETY: a class; a miss goes to the slow path.
        let block = unsafe { pop(class) };
        if block.is_null() {
            return slow_path::refill(&self.settings, class, true);
        }
        // SAFETY: the block holds at least the layout's size.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let new = placement(new_size, align);
        match (placement(size, align), new) {
            (Placement::Pooled(old), Placement::Pooled(new)) if old == new => return block,
            (Placement::Large(_), Placement::Large(new)) => {
                if let Some(block) = slow_path::resize_large(block as usize, new) {
                    return block;
                }
            }
            _ => {}
        }
        // SAFETY: a new block of the new size; both hold the smaller of the two.
        unsafe {
            let to = match new {
                Placement::Large(new) if new_size > size => {
                    slow_path::alloc_growing(&self.settings, new, align)
                }
                // By the caller's contract the layout is valid.
                _ => self.alloc(Layout::from_size_align_unchecked(new_size, align)),
            };
            if !to.is_null() {
                to.copy_from_nonoverlapping(block, size.min(new_size));
                self.dealloc(block, layout);
            }
            to
        }
    }
}

/// The bytes that a block of this layout really has, for containers that can use them all.
///
/// A size is first rounded up to a multiple of its alignment, then to a class: in steps of 8 bytes
/// up to 64 and of 16 up to 128, at most 12.5 % up to 1 KiB and 25 % up to 256 KiB, and to whole
/// pages of 4 KiB above. All of these bytes may be used by a block that is allocated, and freed,
/// with a layout of that size. A `const fn`; where the layout is a constant it costs nothing.
///
/// ```
/// use std::alloc::Layout;
///
/// const ROOM: usize = neap::good_size(Layout::new::<[u8; 100]>());
/// assert_eq!(ROOM, 112);
/// assert_eq!(neap::good_size(Layout::new::<[u64; 40_000]>()), 79 * 4096);
///
/// let room = |size| neap::good_size(Layout::from_size_align(size, 1).unwrap());
/// assert!((129..=1024).all(|size| room(size) * 1000 <= size * 1125));
/// assert!((1025..=256 << 10).all(|size| room(size) * 100 <= size * 125));
/// ```
pub const fn good_size(layout: Layout) -> usize {
    match placement(layout.size(), layout.align()) {
        Placement::Pooled(class) => block_size(class),
        Placement::Large(size) => size.next_multiple_of(PAGE),
    }
}
