//! Blocks taken and given: the fast paths, and what they fall back to.

use super::diagnosis::{Use, abort_on_misuse_of};
use crate::base::size_class::{CLASSES, POOLED_MAX, block_size, class_of, padded};
use crate::global::neap::Neap;
use crate::global::slow_path;
use crate::heap::large::{self, Backing};
use crate::heap::live_map;
use crate::heap::mapped;
use crate::heap::segment::Segment;
use crate::platform::{keeping_errno, prefetch};
use crate::thread_cache::thread_local::{open_slot, pop_slot, push, push_at, this_thread};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

/// Every block is aligned to this, also one of a single byte.
pub(super) const ALIGN: usize = live_map::GRAIN;

/// Sizes up to this find their class in a table.
const SMALL_MAX: usize = 1024;

/// The class of a size, by sixteenths. In words, since a byte would be extended once
/// more, apart for the mark.
static SMALL: [u32; SMALL_MAX / ALIGN + 1] = {
    let mut table = [0; SMALL_MAX / ALIGN + 1];
    let mut index = 0;
    while index < table.len() {
        table[index] = class_of(padded(index * ALIGN, ALIGN)) as u32;
        index += 1;
    }
    table
};
// Else a live block would be marked as a free one.
const _: () = assert!(class_of(padded(0, ALIGN)) > 0 && CLASSES <= u8::MAX as usize);

/// The mark of a run too large to be pooled; that of a pooled block is its class.
const LARGE: u8 = CLASSES as u8;

/// What a block in the program's hands is.
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
        return middling(size, neap);
    }
    pooled(neap, SMALL[size.div_ceil(ALIGN)] as usize)
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
        // SAFETY: the slot is this moment's, and the block was live, so the caller's to give.
        return unsafe { push_at(slot, class, block) };
    }
    free_elsewhere(block, neap);
}

/// `malloc_usable_size`: 0 for null, and aborts the process for what is no
/// live block. Some programs ask at every `malloc` and `free`.
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
    measure(block as usize)
}

#[inline(never)]
fn measure(block: usize) -> usize {
    if block == 0 {
        return 0;
    }
    let live = look(block, Use::Measure);
    live.note(block);
    live.usable(block)
}

/// C's `calloc`.
///
/// # Safety
/// None beyond C's contract.
#[inline(always)]
pub unsafe fn calloc(neap: &'static Neap, count: usize, size: usize) -> *mut c_void {
    let Some(size) = count.checked_mul(size) else { return exhausted() };
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

/// A block of any size and alignment, which is a power of two.
pub(super) fn aligned(neap: &'static Neap, size: usize, align: usize) -> *mut c_void {
    let align = align.max(ALIGN);
    // Beyond `isize::MAX` both fail below; here the sum must not wrap.
    if size > isize::MAX as usize || align > isize::MAX as usize / 2 {
        return exhausted();
    }
    let size = padded(size, align);
    if size > POOLED_MAX { alloc_large(size, align, false, neap) } else { pooled(neap, class_of(size)) }
}

/// A block above the sizes of the table.
///
/// In what `malloc` and `free` fall back to the heap comes last, so that their
/// arguments stay in the registers they are in. Such sizes are not rare; `cold`
/// has `malloc` go straight on with smaller ones.
#[cold]
#[inline(never)]
fn middling(size: usize, neap: &'static Neap) -> *mut c_void {
    if size > POOLED_MAX {
        return alloc_large(size, ALIGN, false, neap);
    }
    pooled(neap, class_of(padded(size, ALIGN)))
}

#[inline(always)]
fn pooled(neap: &'static Neap, class: usize) -> *mut c_void {
    // SAFETY: a class; a miss goes to the slow path.
    let (block, slot) = unsafe { pop_slot(class) };
    // Also refuses null, whose slot may have none below.
    if let Some(mark) = live_map::mark_in_first(block as usize) {
        mark.store(class as u8, Relaxed);
        // The block that is next will be written when it is, and its line may be
        // far away; a null below the lowest does no harm.
        // SAFETY: the slot held a block, so it is not the lowest, a sentinel: there is one below.
        prefetch(unsafe { slot.sub(1).read_volatile() } as *const u8);
        return block.cast();
    }
    missed(block as usize, class, neap)
}

/// Gets a block where the pop found none, and marks it wherever it lies.
#[cold]
#[inline(never)]
fn missed(block: usize, class: usize, neap: &'static Neap) -> *mut c_void {
    let block = match block {
        0 => slow_path::refill(&neap.settings, class, false) as usize,
        block => block,
    };
    if block == 0 {
        return exhausted();
    }
    match mark_of(block) {
        Some(mark) => mark.store(class as u8, Relaxed),
        None => {
            slow_path::spill(&neap.settings, class, block);
            return exhausted();
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
        return exhausted();
    }
    let size = padded(size, align);
    let block = slow_path::alloc_large(&neap.settings, size, align, zeroed);
    marked_large(block, size, neap)
}

/// A block just taken, with its mark if it is a run; null, and the reason, if there is none.
fn marked_large(block: *mut u8, size: usize, neap: &'static Neap) -> *mut c_void {
    if block.is_null() {
        return exhausted();
    }
    if large::backing_of(block as usize, size) == Backing::Run {
        match mark_of(block as usize) {
            Some(mark) => mark.store(LARGE, Relaxed),
            None => {
                slow_path::free_large(&neap.settings, block as usize, size);
                return exhausted();
            }
        }
    }
    block.cast()
}

/// A block above the pooled sizes for one that grew out of its place: mostly a
/// mapping of its own, which has no mark.
#[cold]
#[inline(never)]
pub(super) fn growing(neap: &'static Neap, size: usize) -> *mut c_void {
    let size = padded(size, ALIGN);
    let block = slow_path::alloc_growing(&neap.settings, size, ALIGN);
    marked_large(block, size, neap)
}

/// A block that its thread's magazine has no room for.
#[cold]
#[inline(never)]
fn spilled(block: usize, class: usize, neap: &'static Neap) {
    keeping_errno(|| slow_path::spill_without_joining(&neap.settings, class, block));
}

/// A block of another class than the one last freed or measured in its slice, one
/// above the pooled sizes, one beyond the first segment, one that the magazine has no room
/// for; or null, or what is no live block.
#[inline(never)]
fn free_elsewhere(block: usize, neap: &'static Neap) {
    if block == 0 {
        return;
    }
    if this_thread().cache().is_null() {
        // A thread that has not joined may be the second all the same.
        live_map::set_shared();
    }
    let live = unmark(block, Use::Free);
    live.note(block);
    match live {
        // SAFETY: a class, and the block was live, so the caller's to give.
        Live::Pooled(class) if unsafe { push(class, block) } => {}
        Live::Pooled(class) => spilled(block, class, neap),
        Live::Large(backing) => keeping_errno(|| slow_path::free_backed(&neap.settings, block, backing)),
    }
}

/// Ends a block's life; aborts the process if it had none.
fn unmark(block: usize, by: Use) -> Live {
    // Another thread may be here with the same block: one of the two finds 0.
    marked(block, live_map::find(block).map(|mark| mark.swap(0, Relaxed)), by)
}

/// What a block in the program's hands is; aborts the process if it is none.
#[inline]
pub(super) fn look(block: usize, by: Use) -> Live {
    marked(block, live_map::find(block).map(|mark| mark.load(Relaxed)), by)
}

/// The same, of a block with that mark, or where none can be.
#[inline]
fn marked(block: usize, mark: Option<u8>, by: Use) -> Live {
    match mark {
        Some(LARGE) => Live::Large(Backing::Run),
        Some(mark) if mark != 0 => Live::Pooled(mark as usize),
        // Mappings lie apart from the segments and have a table of their own.
        None if Segment::of(block).is_none() && mapped::size(block).is_some() => {
            Live::Large(Backing::Mapping)
        }
        _ => abort_on_misuse_of(block, by),
    }
}

impl Live {
    /// Has the next guess at a block of the same slice right.
    fn note(self, block: usize) {
        if let Live::Pooled(class) = self {
            live_map::note_class(block, class);
        }
    }

    /// Bytes that the program may use, every one of them.
    #[inline]
    pub(super) fn usable(self, block: usize) -> usize {
        match self {
            Live::Pooled(class) => block_size(class),
            Live::Large(backing) => large::usable(block, backing),
        }
    }
}

/// Null, and the reason.
#[cold]
#[inline(never)]
pub(super) fn exhausted() -> *mut c_void {
    fail(libc::ENOMEM)
}

pub(super) fn fail(reason: libc::c_int) -> *mut c_void {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = reason };
    ptr::null_mut()
}
