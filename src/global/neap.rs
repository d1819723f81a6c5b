//! `Neap`, the type a program names as its global allocator: the two fast
//! paths, inlined into the caller, and the settings.

use crate::base::size_class::{block_size, class_of_layout, padded};
use crate::config::settings::Settings;
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
/// # }
/// ```
///
/// Every setting has an environment variable that overrides it, for programs
/// that can't be rebuilt; an invalid value is reported once on standard error
/// and ignored. The first allocation of the process fixes them.
///
/// | method | variable | default |
/// |---|---|---|
/// | [`tick_interval`](Neap::tick_interval) | `NEAP_TICK_INTERVAL_MS` | 500 ms |
/// | [`background`](Neap::background) | `NEAP_BACKGROUND` (`0`, `1`) | off |
/// | [`thread_pool_bytes`](Neap::thread_pool_bytes) | `NEAP_THREAD_POOL_BYTES` | 8 MiB |
/// | [`limit`](Neap::limit) | `NEAP_LIMIT_BYTES` | none |
/// | [`limit_from_cgroup`](Neap::limit_from_cgroup) | `NEAP_LIMIT_FROM_CGROUP` (`0`, `1`) | off |
/// | [`huge_pages`](Neap::huge_pages) | `NEAP_HUGE_PAGES` (`0`, `1`) | as the system has it |
///
/// # Errors
///
/// Exhausted memory and impossible layouts give null. A double free, a foreign
/// pointer or a wrong size aborts the process with one line on standard error,
/// at the latest when the block leaves the thread's pool.
#[derive(Debug)]
pub struct Neap {
    pub(crate) settings: Settings,
}

impl Neap {
    /// An allocator with the default settings.
    pub const fn new() -> Self {
        Self { settings: Settings::DEFAULT }
    }

    /// The default settings, as long as no other allocator's are known.
    #[cfg(feature = "malloc")]
    pub(crate) const fn provisional() -> Self {
        Self { settings: Settings { provisional: true, ..Settings::DEFAULT } }
    }

    /// How long an epoch lasts (whole milliseconds, at least one). Memory that
    /// a program stopped using is gone after two.
    ///
    /// Ticks are driven by allocation activity unless [`background`](Self::background) is on.
    pub const fn tick_interval(mut self, interval: Duration) -> Self {
        let ms = interval.as_millis();
        self.settings.tick_interval_ms = match ms {
            0 => 1,
            ms if ms > u64::MAX as u128 => u64::MAX,
            ms => ms as u64,
        };
        self
    }

    /// Whether a thread of Neap's own ticks, so that a process gone quiet gives
    /// memory back too. It is started at the first need, and again after a fork.
    pub const fn background(mut self, on: bool) -> Self {
        self.settings.background = on;
        self
    }

    /// How many bytes of freed blocks one thread may pool in its local tier.
    /// With 0 every block goes straight to its span, which is slow.
    pub const fn thread_pool_bytes(mut self, bytes: usize) -> Self {
        self.settings.thread_pool_bytes = bytes;
        self
    }

    /// A soft limit: how many bytes of memory for blocks, live or free, the
    /// process should stay below.
    ///
    /// Above three quarters of it epochs are an eighth as long, or end after
    /// a quarter of what is left was newly touched, and threads pool an eighth
    /// of [`thread_pool_bytes`](Self::thread_pool_bytes). At it the thread that needs
    /// more gives back everything free first, which may take milliseconds; if
    /// that is not enough, it does so again after each 32nd part of the limit.
    /// It never makes an allocation fail. 0 is as no limit.
    ///
    /// ```
    /// #[global_allocator]
    /// static HEAP: neap::Neap = neap::Neap::new().limit(256 << 20);
    /// # fn main() { drop(vec![1u8; 1000]) }
    /// ```
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.settings.limit = if bytes == 0 { usize::MAX } else { bytes };
        self
    }

    /// Whether the memory limit of the process's control group is a soft
    /// limit, too: the lowest of the group's and its parents', version 1 or 2,
    /// read at the first allocation. The lower of it and [`limit`](Self::limit) counts.
    ///
    /// A group also counts code, stacks and files read; a program with much of
    /// these sets a lower limit by hand.
    pub const fn limit_from_cgroup(mut self, on: bool) -> Self {
        self.settings.limit_from_cgroup = on;
        self
    }

    /// Whether a heap that grows by more than it frees takes transparent huge
    /// pages for that (Linux): 2 MiB in one page fault, within the allocation that
    /// needs it, and fewer misses of the address translation afterwards. A tick
    /// that finds parts of one free returns them, after the system has split it,
    /// which takes some 0.15 ms. Only while no whole 64 KiB of it and less than a
    /// sixteenth within spans are free it stays as it is, until a
    /// [`purge`](crate::purge). Blocks above 4 MiB, mappings of their own, have huge
    /// pages or not from the start.
    ///
    /// What a process shares with a fork's child is not split: of such a page the
    /// system keeps what was returned, until it runs short or both let go of it.
    ///
    /// Unless it is said here, the system's own word holds: on where
    /// `/sys/kernel/mm/transparent_hugepage/enabled` is `always`, else off.
    pub const fn huge_pages(mut self, on: bool) -> Self {
        self.settings.huge_pages = Some(on);
        self
    }

    /// A block above the pooled sizes. Null without memory.
    #[inline(always)]
    fn alloc_large(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        slow_path::alloc_large(&self.settings, padded_size(layout), layout.align(), zeroed)
    }
}

/// The bytes that a layout takes, with what its alignment adds.
#[inline(always)]
const fn padded_size(layout: Layout) -> usize {
    padded(layout.size(), layout.align())
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
        let Some(class) = class_of_layout(layout.size(), layout.align()) else {
            return self.alloc_large(layout, false);
        };
        // SAFETY: a class; a miss goes to the slow path.
        let block = unsafe { pop(class) };
        if block.is_null() { slow_path::refill(&self.settings, class, false) } else { block }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of_layout(layout.size(), layout.align()) else {
            return slow_path::free_large(&self.settings, block as usize, padded_size(layout));
        };
        // SAFETY: a class, and the caller gives the block up.
        if !unsafe { push(class, block as usize) } {
            slow_path::spill(&self.settings, class, block as usize);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of_layout(layout.size(), layout.align()) else {
            return self.alloc_large(layout, true);
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
        let (old, new) = (class_of_layout(size, align), class_of_layout(new_size, align));
        if old.is_some() && new.is_some() {
            if old == new {
                return block;
            }
        } else if let Some(block) = slow_path::resize(block, padded(size, align), padded(new_size, align)) {
            return block;
        }
        // SAFETY: a new block of the new size; both hold the smaller of the two.
        unsafe {
            let to = if new.is_none() && new_size > size {
                slow_path::alloc_growing(&self.settings, padded(new_size, align), align)
            } else {
                // By the caller's contract the layout is valid.
                self.alloc(Layout::from_size_align_unchecked(new_size, align))
            };
            if !to.is_null() {
                to.copy_from_nonoverlapping(block, size.min(new_size));
                self.dealloc(block, layout);
            }
            to
        }
    }
}

/// The bytes that a block of this layout really has, for containers that can
/// use them all. At most 25 % above the layout's size up to 256 KiB (12.5 % from
/// 64 bytes to 1 KiB), below a
/// page above it.
pub const fn good_size(layout: Layout) -> usize {
    match class_of_layout(layout.size(), layout.align()) {
        Some(class) => block_size(class),
        None => padded_size(layout).next_multiple_of(4096),
    }
}
