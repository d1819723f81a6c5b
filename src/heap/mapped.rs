//! Mapped blocks, above 4 MiB: each a mapping of its own, which grows by `mremap`.
//!
//! A freed mapping is kept for a while, so that allocating and freeing a buffer over
//! and over costs no system call and no fault. A tick unmaps those that stayed free
//! for an epoch. A kept mapping may serve a smaller block, which can then grow in
//! place; a tick cuts off the tail that such a block has not grown into for an epoch.
//!
//! Blocks in use, kept mappings and tails together do not exceed the peak of blocks in
//! use in this epoch or the last: for a new block beyond that, kept mappings and tails
//! are unmapped.

use crate::base::epoch;
use crate::base::fatal::abort_on_misuse;
use crate::base::size_class::{PAGE, RUN_MAX};
use crate::config::settings;
use crate::config::soft_limit::MAPPED;
use crate::heap::metadata;
use crate::platform::{self, Lock, Mapping};
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const BUCKETS: usize = 256;
/// The largest mapping that is kept after a free, and the most bytes kept in all.
const MAX_KEPT_EACH: usize = 32 << 20;
const MAX_KEPT_TOTAL: usize = 64 << 20;

struct Mapped {
    mapping: ManuallyDrop<Mapping>,
    /// The block's address: the mapping's, unless the alignment is above a page.
    start: usize,
    /// The alignment that it must keep when it moves.
    align: usize,
    /// Bytes of the mapping that the block uses, whole pages.
    used: usize,
    /// When it was freed, or got its present size.
    epoch: u64,
    next: *mut Mapped,
}

struct Table {
    in_use: [*mut Mapped; BUCKETS],
    /// Bytes of the mappings on `in_use`, without tails.
    in_use_bytes: usize,
    /// Bytes that could be cut off them.
    tail_bytes: usize,
    peak: Peak,
    kept: *mut Mapped,
    kept_bytes: usize,
}

/// The most bytes that were in use at once, in this epoch and in the last.
struct Peak {
    epoch: u64,
    current: usize,
    previous: usize,
}

// SAFETY: the nodes are reached under the lock only.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table {
    in_use: [ptr::null_mut(); BUCKETS],
    in_use_bytes: 0,
    tail_bytes: 0,
    peak: Peak { epoch: 0, current: 0, previous: 0 },
    kept: ptr::null_mut(),
    kept_bytes: 0,
});
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Allocates a block of `size` bytes; null without memory.
pub(super) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    match try_alloc(size, align, zeroed) {
        Some(start) => start as *mut u8,
        None => ptr::null_mut(),
    }
}

fn try_alloc(size: usize, align: usize, zeroed: bool) -> Option<usize> {
    let bytes = size.checked_next_multiple_of(PAGE)?;
    let slack = if align > PAGE { align } else { 0 };
    let kept = if zeroed || slack > 0 { None } else { TABLE.lock().take_kept(bytes) };
    let node = match kept {
        Some(node) => node,
        None => {
            let total = bytes.checked_add(slack).filter(|&total| total <= isize::MAX as usize)?;
            create(total, align)?
        }
    };
    // SAFETY: the node is ours alone.
    let mapped = unsafe { &mut *node.as_ptr() };
    (mapped.used, mapped.align, mapped.epoch) = (bytes, align, epoch::current());
    let start = mapped.start;
    IN_USE.fetch_add(bytes, Relaxed);
    put_in_use(node);
    Some(start)
}

/// Enters a block into the table. What is kept, and tails, make room for it before its
/// own new pages are touched.
fn put_in_use(node: NonNull<Mapped>) {
    let mut table = TABLE.lock();
    table.insert(node);
    loop {
        let surplus = table.surplus();
        if surplus == 0 {
            return;
        }
        // The last on the list: what has been free the longest.
        let Some(kept) = table.take_kept_if(|mapped| mapped.next.is_null()) else {
            table.cut_tails(true, surplus);
            return;
        };
        drop(table);
        // SAFETY: off the list, so ours alone.
        unsafe { destroy(kept) };
        table = TABLE.lock();
    }
}

fn create(total: usize, align: usize) -> Option<NonNull<Mapped>> {
    let node = metadata::alloc(size_of::<Mapped>())?.cast::<Mapped>();
    let Some(mapping) = Mapping::new(total) else {
        // SAFETY: just allocated, with the same size.
        unsafe { metadata::free(node.cast(), size_of::<Mapped>()) };
        return None;
    };
    if let Some(huge_pages) = settings::huge_pages_if_configured() {
        // SAFETY: the whole mapping, which nobody uses yet.
        unsafe { platform::set_huge_pages(mapping.start(), total, huge_pages) };
    }
    let start = (mapping.start() as usize).next_multiple_of(align.max(1));
    MAPPED.fetch_add(total, Relaxed);
    // SAFETY: the piece is ours and large enough.
    unsafe {
        node.write(Mapped {
            mapping: ManuallyDrop::new(mapping),
            start,
            align,
            used: 0,
            epoch: 0,
            next: ptr::null_mut(),
        });
    }
    Some(node)
}

/// Frees a block; aborts the process if there is none at the address.
pub(super) fn free(block: usize) {
    let mut table = TABLE.lock();
    let Some(mut node) = table.remove(block) else {
        drop(table);
        abort_on_misuse("double free, or free of a block of another allocator or another copy of Neap", block)
    };
    // SAFETY: off the table, so ours alone.
    let mapped = unsafe { node.as_mut() };
    let length = mapped.mapping.len();
    IN_USE.fetch_sub(mapped.used, Relaxed);
    let resizable = mapped.is_resizable();
    if resizable && length <= MAX_KEPT_EACH && table.kept_bytes + length <= MAX_KEPT_TOTAL {
        mapped.epoch = epoch::current();
        mapped.next = table.kept;
        table.kept = node.as_ptr();
        table.kept_bytes += length;
    } else {
        drop(table);
        // SAFETY: off the table, so ours alone.
        unsafe { destroy(node) };
    }
}

/// Resizes a block; if it must move, the system moves its pages instead of copying.
/// None if that is not possible; then the block is unchanged.
pub(super) fn resize(block: usize, size: usize) -> Option<*mut u8> {
    let bytes = size.checked_next_multiple_of(PAGE)?;
    let mut node = TABLE.lock().remove(block)?;
    // SAFETY: off the table, so ours alone.
    let mapped = unsafe { node.as_mut() };
    let fits = mapped.is_resizable() && (bytes <= mapped.mapping.len() || mapped.remap(bytes));
    if fits {
        IN_USE.fetch_add(bytes.wrapping_sub(mapped.used), Relaxed);
        (mapped.used, mapped.epoch) = (bytes, epoch::current());
    }
    let start = mapped.start;
    put_in_use(node);
    fits.then_some(start as *mut u8)
}

/// Bytes of a block in use; none if there is none at the address.
pub(crate) fn size(block: usize) -> Option<usize> {
    let mut table = TABLE.lock();
    let first = *table.bucket(block);
    // SAFETY: nodes on a list are alive, and reached under the lock only.
    unsafe { nodes(first) }.find(|mapped| mapped.start == block).map(|mapped| mapped.used)
}

/// Unmaps what stayed free for a whole epoch, or everything free with `all`. Returns
/// how many bytes.
pub(crate) fn release(all: bool) -> usize {
    let mut bytes = TABLE.lock().cut_tails(all, usize::MAX);
    loop {
        let Some(node) = TABLE.lock().take_expired(all) else { return bytes };
        // SAFETY: off the list, so ours alone.
        unsafe {
            bytes += node.as_ref().mapping.len();
            destroy(node);
        }
    }
}

/// Bytes that are mapped, in use, and kept.
pub(crate) fn bytes() -> (usize, usize, usize) {
    (MAPPED.load(Relaxed), IN_USE.load(Relaxed), TABLE.lock().kept_bytes)
}

/// Whether a tick has nothing to unmap or cut off.
pub(crate) fn nothing_kept() -> bool {
    let table = TABLE.lock();
    table.kept.is_null() && table.tail_bytes == 0
}

/// Unmaps a block and frees its node.
///
/// # Safety
/// The node is the caller's alone, and so are the block's pages.
unsafe fn destroy(mut node: NonNull<Mapped>) {
    // SAFETY: by contract, node and pages are the caller's alone.
    unsafe {
        MAPPED.fetch_sub(node.as_ref().mapping.len(), Relaxed);
        ManuallyDrop::drop(&mut node.as_mut().mapping);
        metadata::free(node.cast(), size_of::<Mapped>());
    }
}

/// Holds the lock over a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(TABLE.lock());
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: locked by this thread.
    unsafe { TABLE.force_unlock() };
}

impl Mapped {
    /// Whether the mapping can be resized: the block starts where the mapping does.
    fn is_resizable(&self) -> bool {
        self.start == self.mapping.start() as usize
    }

    /// Bytes that the block does not use and that can be cut off.
    fn tail(&self) -> usize {
        if platform::RESIZES && self.is_resizable() { self.mapping.len() - self.used } else { 0 }
    }

    /// Resizes the mapping. It may move if it grows, unless that could cost the block an
    /// alignment that it has only by chance.
    fn remap(&mut self, bytes: usize) -> bool {
        let before = self.mapping.len();
        let may_move = bytes > before && self.align <= PAGE;
        // SAFETY: only bytes that the block does not use are cut off. It moves only if
        // its owner asked for more bytes, and then the owner drops the old address.
        let done = unsafe { self.mapping.resize(bytes, may_move) };
        if done {
            self.start = self.mapping.start() as usize;
            MAPPED.fetch_add(bytes.wrapping_sub(before), Relaxed);
        }
        done
    }
}

impl Table {
    fn bucket(&mut self, block: usize) -> &mut *mut Mapped {
        // The upper bits of a product, since the system aligns large mappings to 2 MiB.
        let spread = (block / PAGE).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &mut self.in_use[spread >> (usize::BITS - BUCKETS.trailing_zeros())]
    }

    fn insert(&mut self, mut node: NonNull<Mapped>) {
        // SAFETY: the node is the caller's alone until it is linked here.
        let mapped = unsafe { node.as_mut() };
        self.in_use_bytes += mapped.mapping.len() - mapped.tail();
        self.tail_bytes += mapped.tail();
        self.peak.note(self.in_use_bytes);
        let bucket = self.bucket(mapped.start);
        mapped.next = *bucket;
        *bucket = node.as_ptr();
    }

    fn remove(&mut self, block: usize) -> Option<NonNull<Mapped>> {
        // SAFETY: nodes on a list are alive, and reached under the lock only.
        let node = unsafe { unlink(self.bucket(block), |mapped| mapped.start == block) }?;
        // What was in use until now was in use in this epoch.
        self.peak.note(self.in_use_bytes);
        // SAFETY: off the list, so ours alone.
        let mapped = unsafe { node.as_ref() };
        self.in_use_bytes -= mapped.mapping.len() - mapped.tail();
        self.tail_bytes -= mapped.tail();
        Some(node)
    }

    /// By how much blocks in use, tails and kept mappings exceed the peak of blocks in use.
    fn surplus(&self) -> usize {
        let peak = self.peak.current.max(self.peak.previous);
        (self.in_use_bytes + self.tail_bytes + self.kept_bytes).saturating_sub(peak)
    }

    /// Unmaps up to `most` bytes of tails that blocks do not use, and returns how many. It
    /// holds the lock meanwhile, since a block's owner may free it at any time.
    fn cut_tails(&mut self, all: bool, most: usize) -> usize {
        let now = epoch::current();
        let mut bytes = 0;
        for mut at in self.in_use {
            // SAFETY: as in `remove`.
            while let Some(mapped) = unsafe { at.as_mut() } {
                let (cut, expired) = (mapped.tail().min(most - bytes), all || mapped.epoch + 1 < now);
                if expired && cut > 0 && mapped.remap(mapped.mapping.len() - cut) {
                    bytes += cut;
                }
                at = mapped.next;
            }
        }
        self.tail_bytes -= bytes;
        bytes
    }

    /// The smallest kept mapping that holds `bytes`.
    fn take_kept(&mut self, bytes: usize) -> Option<NonNull<Mapped>> {
        let fits = |length: usize| length >= bytes;
        let mut best = usize::MAX;
        let mut at = self.kept;
        while let Some(mapped) = NonNull::new(at) {
            // SAFETY: as in `remove`.
            let mapped = unsafe { mapped.as_ref() };
            if fits(mapped.mapping.len()) {
                best = best.min(mapped.mapping.len());
            }
            at = mapped.next;
        }
        self.take_kept_if(|mapped| mapped.mapping.len() == best)
    }

    fn take_expired(&mut self, all: bool) -> Option<NonNull<Mapped>> {
        let now = epoch::current();
        self.take_kept_if(|mapped| all || mapped.epoch + 1 < now)
    }

    fn take_kept_if(&mut self, wanted: impl Fn(&Mapped) -> bool) -> Option<NonNull<Mapped>> {
        // SAFETY: as in `remove`.
        let node = unsafe { unlink(&mut self.kept, wanted) }?;
        // SAFETY: off the list, so ours alone.
        self.kept_bytes -= unsafe { node.as_ref().mapping.len() };
        Some(node)
    }
}

impl Peak {
    /// Notes what is in use, at the end of a change or before one.
    fn note(&mut self, bytes: usize) {
        let epoch = epoch::current();
        if epoch != self.epoch {
            // Nothing changed in any epochs between.
            self.previous = if epoch == self.epoch + 1 { self.current } else { bytes };
            (self.epoch, self.current) = (epoch, bytes);
        }
        self.current = self.current.max(bytes);
    }
}

/// The nodes of a list.
///
/// # Safety
/// Every node on the list is alive, and none is changed while the iterator is used.
unsafe fn nodes<'a>(first: *mut Mapped) -> impl Iterator<Item = &'a Mapped> {
    // SAFETY: by contract, every node on the list is alive and unchanged.
    core::iter::successors(unsafe { first.as_ref() }, |mapped| unsafe { mapped.next.as_ref() })
}

/// Takes the first node that is `wanted` off a list.
///
/// # Safety
/// Every node on the list is alive and reached by nobody else.
unsafe fn unlink(mut link: &mut *mut Mapped, wanted: impl Fn(&Mapped) -> bool) -> Option<NonNull<Mapped>> {
    loop {
        // SAFETY: by contract, the node is alive and nobody else reaches it.
        let mapped = unsafe { NonNull::new(*link)?.as_mut() };
        if wanted(mapped) {
            *link = mapped.next;
            return Some(NonNull::from(mapped));
        }
        link = &mut mapped.next;
    }
}

const _: () = assert!(RUN_MAX >= PAGE);
