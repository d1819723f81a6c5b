//! `malloc`, `calloc`, `free` and `malloc_usable_size`: the fast paths, and what they
//! fall back to.

use super::diagnosis::{Use, abort_on_misuse_of};
use crate::base::size_class::{CLASSES, POOLED_MAX, block_size, class_of, padded};
use crate::global::neap::Neap;
use crate::global::slow_path;
use crate::heap::large::{self, Backing};
use crate::heap::live_map;
use crate::heap::mapped;
use crate::heap::segment::Segment;
use crate::platform::prefetch;
use crate::thread_cache::thread_local::{open_slot, pop_slot, push, push_at, this_thread};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

/// Every block is aligned to this, even one of a single byte.
pub(super) const ALIGN: usize = live_map::GRAIN;

/// Sizes up to this find their class in a table.
const SMALL_MAX: usize = 1024;

/// The class of a size, by how many times 16 bytes it needs. As 32-bit words: with bytes
/// the compiler would extend the class twice, once for the index and once for the mark.
static SMALL: [u32; SMALL_MAX / ALIGN + 1] = {
    let mut table = [0; SMALL_MAX / ALIGN + 1];
    let mut index = 0;
    while index < table.len() {
        table[index] = class_of(padded(index * ALIGN, ALIGN)) as u32;
        index += 1;
    }
    table
};
// Class 0 or a class that does not fit a byte would make a wrong mark.
const _: () = assert!(class_of(padded(0, ALIGN)) > 0 && CLASSES <= u8::MAX as usize);

/// The mark of a run too large to be pooled; that of a pooled block is its class.
const LARGE: u8 = CLASSES as u8;

/// What kind of live block an address is: one that the program has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    /// Of a pooled class.
    Pooled(usize),
    /// Above the pooled sizes.
    Large(Backing),
}

/// C's `malloc`.
///
/// # Safety
/// None beyond C's contract.
#[inline(always)]
pub unsafe fn malloc(neap: &'static Neap, size: usize) -> *mut c_void {
    if size > SMALL_MAX {
        return malloc_medium(size, neap);
    }
    alloc_pooled(neap, SMALL[size.div_ceil(ALIGN)] as usize)
}

/// C's `free`.
///
/// # Safety
/// None: what is no live block aborts the process.
#[inline(always)]
pub unsafe fn free(neap: &'static Neap, block: *mut c_void) {
    let block = block as usize;
    if let Some((mark, class)) = live_map::guess_in_first(block)
        // SAFETY: a class.
        && let Some(slot) = unsafe { open_slot(class) }
        && live_map::unmark(mark, class)
    {
        // SAFETY: the slot was just returned, with no operation since; the block was live,
        // so it is the caller's to free.
        return unsafe { push_at(slot, class, block) };
    }
    free_slow(block, neap);
}

/// `malloc_usable_size`: 0 for null; aborts the process for what is no live block. It has
/// a fast path since some programs call it at every `malloc` and `free`.
///
/// # Safety
/// None.
#[inline(always)]
pub unsafe fn malloc_usable_size(_: &'static Neap, block: *mut c_void) -> usize {
    if let Some((mark, class)) = live_map::guess_in_first(block as usize)
        && live_map::is_live(mark, class)
    {
        return block_size(class);
    }
    usable_size_slow(block as usize)
}

#[inline(never)]
fn usable_size_slow(block: usize) -> usize {
    if block == 0 {
        return 0;
    }
    let live = find_live(block, Use::Measure);
    live.note(block);
    live.usable(block)
}

/// C's `calloc`.
///
/// # Safety
/// None beyond C's contract.
#[inline(always)]
pub unsafe fn calloc(neap: &'static Neap, count: usize, size: usize) -> *mut c_void {
    let Some(size) = count.checked_mul(size) else { return out_of_memory() };
    if size > POOLED_MAX {
        return alloc_large(size, ALIGN, true, neap);
    }
    // SAFETY: C's contract.
    let block = unsafe { malloc(neap, size) };
    if !block.is_null() {
        // SAFETY: a block of at least that size.
        unsafe { block.cast::<u8>().write_bytes(0, size) };
    }
    block
}

/// A block of any size, aligned to any power of two.
pub(super) fn alloc_aligned(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    let align = align.max(ALIGN);
    // Larger ones would fail below anyway; here their sum must not wrap.
    if size > isize::MAX as usize || align > isize::MAX as usize / 2 {
        return out_of_memory();
    }
    let size = padded(size, align);
    if size > POOLED_MAX { alloc_large(size, align, false, neap) } else { alloc_pooled(neap, class_of(size)) }
}

/// A block above the sizes of the table.
///
/// The functions that `malloc` and `free` fall back to take `neap` last, so that the
/// other arguments stay in the registers they are in. `cold` is not because such sizes
/// are rare: it makes the smaller ones `malloc`'s straight path.
#[cold]
#[inline(never)]
fn malloc_medium(size: usize, neap: &'static Neap) -> *mut c_void {
    if size > POOLED_MAX {
        return alloc_large(size, ALIGN, false, neap);
    }
    alloc_pooled(neap, class_of(padded(size, ALIGN)))
}

#[inline(always)]
fn alloc_pooled(neap: &'static Neap, class: usize) -> *mut c_void {
    // SAFETY: a class; a miss goes to the slow path.
    let (block, slot) = unsafe { pop_slot(class) };
    // Fails for null too, whose slot may have none below it.
    if let Some(mark) = live_map::mark_in_first(block as usize) {
        mark.store(class as u8, Relaxed);
        // The next block will be written when it is allocated, and its cache line may be far
        // away. If the next is the null sentinel, fetching that does no harm.
        // SAFETY: the slot held a block, so it is not the sentinel: there is a slot below it.
        prefetch(unsafe { slot.sub(1).read_volatile() } as *const u8);
        return block.cast();
    }
    alloc_slow(block as usize, class, neap)
}

/// Gets a block if the pop found none, and marks it, in whatever segment it lies.
#[cold]
#[inline(never)]
fn alloc_slow(block: usize, class: usize, neap: &'static Neap) -> *mut c_void {
    let block = match block {
        0 => slow_path::refill(&neap.settings, class, false) as usize,
        block => block,
    };
    if block == 0 {
        return out_of_memory();
    }
    match mark_of(block) {
        Some(mark) => mark.store(class as u8, Relaxed),
        None => {
            slow_path::spill(&neap.settings, class, block);
            return out_of_memory();
        }
    }
    block as *mut c_void
}

/// The mark of a block, which may need memory for a live map.
fn mark_of(block: usize) -> Option<&'static AtomicU8> {
    live_map::find_or_make(block).or_else(|| {
        mapped::release(true);
        live_map::find_or_make(block)
    })
}

/// A block above the pooled sizes.
#[cold]
#[inline(never)]
fn alloc_large(size: usize, align: usize, zeroed: bool, neap: &'static Neap) -> *mut c_void {
    if size > isize::MAX as usize {
        return out_of_memory();
    }
    let size = padded(size, align);
    let block = slow_path::alloc_large(&neap.settings, size, align, zeroed);
    mark_large(block, size, neap)
}

/// Marks a block that was just allocated, if it is a run. Null and errno if it is null, or
/// without memory for the mark.
fn mark_large(block: *mut u8, size: usize, neap: &'static Neap) -> *mut c_void {
    if block.is_null() {
        return out_of_memory();
    }
    if large::backing_of(block as usize, size) == Backing::Run {
        match mark_of(block as usize) {
            Some(mark) => mark.store(LARGE, Relaxed),
            None => {
                slow_path::free_large(&neap.settings, block as usize, size);
                return out_of_memory();
            }
        }
    }
    block.cast()
}

/// A block above the pooled sizes for one that outgrew its place: mostly a mapping, which
/// has no mark.
#[cold]
#[inline(never)]
pub(super) fn alloc_growing(neap: &'static Neap, size: usize) -> *mut c_void {
    let size = padded(size, ALIGN);
    let block = slow_path::alloc_growing(&neap.settings, size, ALIGN);
    mark_large(block, size, neap)
}

/// Frees a block for which the thread's magazine has no room.
#[cold]
#[inline(never)]
fn spill(block: usize, class: usize, neap: &'static Neap) {
    slow_path::spill_without_joining(&neap.settings, class, block);
}

/// Frees what the fast path does not: a block of another class than the one last freed or
/// measured in its slice, one above the pooled sizes, one beyond the first segment, or one
/// for which the magazine has no room; or null, or what is no live block.
#[inline(never)]
fn free_slow(block: usize, neap: &'static Neap) {
    if block == 0 {
        return;
    }
    if this_thread().cache().is_null() {
        // This thread has no cache, but it may be the second thread.
        live_map::set_shared();
    }
    let live = unmark(block, Use::Free);
    live.note(block);
    match live {
        // SAFETY: a class, and the block was live, so it is the caller's to free.
        Live::Pooled(class) if unsafe { push(class, block) } => {}
        Live::Pooled(class) => spill(block, class, neap),
        Live::Large(backing) => slow_path::free_backed(&neap.settings, block, backing),
    }
}

/// Clears a block's mark; aborts the process if it is not live.
fn unmark(block: usize, by: Use) -> Live {
    // If two threads free the same block, one of the two swaps finds 0.
    classify(block, live_map::find(block).map(|mark| mark.swap(0, Relaxed)), by)
}

/// What a live block is; aborts the process if there is none at the address.
#[inline]
pub(super) fn find_live(block: usize, by: Use) -> Live {
    classify(block, live_map::find(block).map(|mark| mark.load(Relaxed)), by)
}

/// The same for a block with that mark; none if no mark can be at the address.
#[inline]
fn classify(block: usize, mark: Option<u8>, by: Use) -> Live {
    match mark {
        Some(LARGE) => Live::Large(Backing::Run),
        Some(mark) if mark != 0 => Live::Pooled(mark as usize),
        // Mapped blocks lie outside the segments and have a table of their own.
        None if Segment::of(block).is_none() && mapped::size(block).is_some() => {
            Live::Large(Backing::Mapping)
        }
        _ => abort_on_misuse_of(block, by),
    }
}

impl Live {
    /// Notes the class, so that the next guess for a block of the same slice is right.
    fn note(self, block: usize) {
        if let Live::Pooled(class) = self {
            live_map::note_class(block, class);
        }
    }

    /// Bytes that the program may use, including those beyond what it asked for.
    #[inline]
    pub(super) fn usable(self, block: usize) -> usize {
        match self {
            Live::Pooled(class) => block_size(class),
            Live::Large(backing) => large::usable(block, backing),
        }
    }
}

/// Null, with errno set to `ENOMEM`.
#[cold]
#[inline(never)]
pub(super) fn out_of_memory() -> *mut c_void {
    fail(libc::ENOMEM)
}

/// Null, with errno set to the reason.
pub(super) fn fail(reason: libc::c_int) -> *mut c_void {
    // SAFETY: this thread's errno, which lives as long as the thread.
    unsafe { *libc::__errno_location() = reason };
    ptr::null_mut()
}
