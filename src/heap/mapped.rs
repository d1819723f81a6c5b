//! Blocks above 4 MiB: each a mapping of its own, which grows by `mremap`.
//!
//! A freed mapping is kept for a while, so that buffers in turn cost no system
//! call and no fault; a tick unmaps those that stayed free for an epoch. A kept
//! one may serve a smaller block, which can then grow in place; a tick cuts off
//! the tail that such a block has not grown into for an epoch.
//!
//! What is kept, and tails, only fill up what was in use at once in this epoch or
//! the last. What comes next and is not served by them has them make way.

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
/// The largest mapping that is kept after a free, and all that are.
const KEPT_ONE: usize = 32 << 20;
const KEPT_ALL: usize = 64 << 20;

struct Mapped {
    mapping: ManuallyDrop<Mapping>,
    /// The block's address: the mapping's, unless the alignment is above a page.
    start: usize,
    /// What it may not move away from.
    align: usize,
    /// Bytes that the block has of the mapping, whole pages.
    used: usize,
    /// When it was freed, or got its present size.
    epoch: u64,
    next: *mut Mapped,
}

struct Table {
    in_use: [*mut Mapped; BUCKETS],
    /// Bytes of the mappings on `in_use`, but for tails.
    in_use_bytes: usize,
    /// Bytes that could be cut off them.
    tail_bytes: usize,
    most: Most,
    kept: *mut Mapped,
    kept_bytes: usize,
}

/// The most bytes that were in use at once, in this epoch and in the last.
struct Most {
    epoch: u64,
    now: usize,
    before: usize,
}

// SAFETY: the nodes are reached under the lock only.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table {
    in_use: [ptr::null_mut(); BUCKETS],
    in_use_bytes: 0,
    tail_bytes: 0,
    most: Most { epoch: 0, now: 0, before: 0 },
    kept: ptr::null_mut(),
    kept_bytes: 0,
});
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Takes a block of `size` bytes; null without memory.
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
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

/// Enters a block, and has what is kept and tails make way for it, before its own new
/// pages are touched.
fn put_in_use(node: NonNull<Mapped>) {
    let mut table = TABLE.lock();
    table.insert(node);
    loop {
        let surplus = table.surplus();
        if surplus == 0 {
            return;
        }
        // What has been free the longest.
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
        // SAFETY: just taken.
        unsafe { metadata::free(node.cast(), size_of::<Mapped>()) };
        return None;
    };
    if let Some(huge_pages) = settings::huge_pages_if_configured() {
        // SAFETY: the whole mapping, in no use yet.
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

/// Gives a block back; aborts the process if it is none.
pub(crate) fn free(block: usize) {
    let mut table = TABLE.lock();
    let Some(mut node) = table.remove(block) else {
        drop(table);
        abort_on_misuse("double free, or free of a block that was not allocated by Neap", block)
    };
    // SAFETY: off the table, so ours alone.
    let mapped = unsafe { node.as_mut() };
    let length = mapped.mapping.len();
    IN_USE.fetch_sub(mapped.used, Relaxed);
    let plain = mapped.is_plain();
    if plain && length <= KEPT_ONE && table.kept_bytes + length <= KEPT_ALL {
        mapped.epoch = epoch::current();
        mapped.next = table.kept;
        table.kept = node.as_ptr();
        table.kept_bytes += length;
    } else {
        drop(table);
        // SAFETY: ours alone.
        unsafe { destroy(node) };
    }
}

/// Changes a block's size, moving pages instead of bytes where it must move.
/// None if that is not possible; the block is then as before.
pub(crate) fn resize(block: usize, size: usize) -> Option<*mut u8> {
    let bytes = size.checked_next_multiple_of(PAGE)?;
    let mut node = TABLE.lock().remove(block)?;
    // SAFETY: off the table, so ours alone.
    let mapped = unsafe { node.as_mut() };
    let fits = mapped.is_plain() && (bytes <= mapped.mapping.len() || mapped.remap(bytes));
    if fits {
        IN_USE.fetch_add(bytes.wrapping_sub(mapped.used), Relaxed);
        (mapped.used, mapped.epoch) = (bytes, epoch::current());
    }
    let start = mapped.start;
    put_in_use(node);
    fits.then_some(start as *mut u8)
}

/// Bytes of a block in use; none for an address that is not one.
pub(crate) fn size(block: usize) -> Option<usize> {
    let mut table = TABLE.lock();
    let first = *table.bucket(block);
    // SAFETY: nodes on a list are alive, and reached under the lock only.
    unsafe { nodes(first) }.find(|mapped| mapped.start == block).map(|mapped| mapped.used)
}

/// Unmaps what stayed free for a whole epoch, or with `all`, whatever is free.
/// Gives the bytes.
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

/// Bytes mapped, in use, and kept.
pub(crate) fn bytes() -> (usize, usize, usize) {
    (MAPPED.load(Relaxed), IN_USE.load(Relaxed), TABLE.lock().kept_bytes)
}

/// Nothing for a tick to unmap or cut off.
pub(crate) fn nothing_kept() -> bool {
    let table = TABLE.lock();
    table.kept.is_null() && table.tail_bytes == 0
}

/// # Safety
/// The node is the caller's alone, and so are the block's pages.
unsafe fn destroy(mut node: NonNull<Mapped>) {
    // SAFETY: by contract.
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
    /// The block starts where the mapping does, so that it can be resized.
    fn is_plain(&self) -> bool {
        self.start == self.mapping.start() as usize
    }

    /// Bytes that the block does not use and that can be cut off.
    fn tail(&self) -> usize {
        if self.is_plain() { self.mapping.len() - self.used } else { 0 }
    }

    /// Changes the mapping's size; it may move if it grows, unless that could
    /// cost the block its alignment: it may be aligned by chance.
    fn remap(&mut self, bytes: usize) -> bool {
        let before = self.mapping.len();
        let may_move = bytes > before && self.align <= PAGE;
        // SAFETY: only bytes that the block does not use are cut off; it moves
        // only if its owner asked for more, and keeps no other address.
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
        // The upper bits of a product: the system aligns large mappings to 2 MiB.
        let spread = (block / PAGE).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &mut self.in_use[spread >> (usize::BITS - BUCKETS.trailing_zeros())]
    }

    fn insert(&mut self, mut node: NonNull<Mapped>) {
        // SAFETY: the node is the caller's alone until it is linked here.
        let mapped = unsafe { node.as_mut() };
        self.in_use_bytes += mapped.mapping.len() - mapped.tail();
        self.tail_bytes += mapped.tail();
        self.most.note(self.in_use_bytes);
        let bucket = self.bucket(mapped.start);
        mapped.next = *bucket;
        *bucket = node.as_ptr();
    }

    fn remove(&mut self, block: usize) -> Option<NonNull<Mapped>> {
        // SAFETY: nodes on a list are alive, and reached under the lock only.
        let node = unsafe { unlink(self.bucket(block), |mapped| mapped.start == block) }?;
        // What was in use until now was so in this epoch.
        self.most.note(self.in_use_bytes);
        // SAFETY: off the list, so ours alone.
        let mapped = unsafe { node.as_ref() };
        self.in_use_bytes -= mapped.mapping.len() - mapped.tail();
        self.tail_bytes -= mapped.tail();
        Some(node)
    }

    /// By how much kept mappings, tails and what is in use are more than was in use at once.
    fn surplus(&self) -> usize {
        let most = self.most.now.max(self.most.before);
        (self.in_use_bytes + self.tail_bytes + self.kept_bytes).saturating_sub(most)
    }

    /// Unmaps of the tails that blocks do not use so many bytes at most; gives how many. Under
    /// the lock, since a block's owner may free it at any time.
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

impl Most {
    /// So much is in use, at the end of a change or before one.
    fn note(&mut self, bytes: usize) {
        let epoch = epoch::current();
        if epoch != self.epoch {
            // Nothing changed in the epochs between.
            self.before = if epoch == self.epoch + 1 { self.now } else { bytes };
            (self.epoch, self.now) = (epoch, bytes);
        }
        self.now = self.now.max(bytes);
    }
}

/// The nodes of a list.
///
/// # Safety
/// Every node on the list is alive, and none is changed while the iterator is used.
unsafe fn nodes<'a>(first: *mut Mapped) -> impl Iterator<Item = &'a Mapped> {
    // SAFETY: by contract.
    core::iter::successors(unsafe { first.as_ref() }, |mapped| unsafe { mapped.next.as_ref() })
}

/// Takes the first node that is `wanted` off a list.
///
/// # Safety
/// Every node on the list is alive and reached by nobody else.
unsafe fn unlink(mut link: &mut *mut Mapped, wanted: impl Fn(&Mapped) -> bool) -> Option<NonNull<Mapped>> {
    loop {
        // SAFETY: by contract.
        let mapped = unsafe { NonNull::new(*link)?.as_mut() };
        if wanted(mapped) {
            *link = mapped.next;
            return Some(NonNull::from(mapped));
        }
        link = &mut mapped.next;
    }
}

const _: () = assert!(RUN_MAX >= PAGE);
