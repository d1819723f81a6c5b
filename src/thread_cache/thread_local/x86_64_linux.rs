//! Thread-local storage defined in assembly, so that every build, with or
//! without link-time optimisation, executable or shared library, reaches it
//! relative to `fs` without a call.

use super::ThreadLocal;
use crate::base::size_class::CLASSES;
use crate::thread_cache::magazine::NONE;
use core::arch::{asm, global_asm};

/// Commits are not atomic to other processors: closing needs a barrier.
pub(crate) const NEEDS_BARRIER: bool = true;

// `ThreadLocal` as a thread starts with it. The name carries the version, so that
// two versions of this crate in one program do not meet.
global_asm!(
    ".pushsection .tdata.neap_local,\"awT\",@progbits",
    ".p2align 6",
    ".globl neap_local_0_1",
    ".hidden neap_local_0_1",
    ".type neap_local_0_1,@object",
    "neap_local_0_1:",
    ".rept {classes}",
    ".quad {none} + 8",
    ".endr",
    ".zero {rest}",
    ".size neap_local_0_1, {size}",
    ".popsection",
    classes = const CLASSES,
    none = sym NONE,
    rest = const size_of::<ThreadLocal>() - CLASSES * 8,
    size = const size_of::<ThreadLocal>(),
);

/// Offset of [`ThreadLocal`] from `fs`; a constant after linking an executable.
#[inline(always)]
fn offset() -> usize {
    let offset;
    // SAFETY: reads a constant that the linker or loader wrote.
    unsafe {
        asm!(
            "mov {}, qword ptr [rip + neap_local_0_1@gottpoff]",
            out(reg) offset,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    offset
}

/// This thread's [`ThreadLocal`].
pub(crate) fn this_thread() -> &'static ThreadLocal {
    let thread: usize;
    // SAFETY: the first word of a thread's control block is its own address.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) thread, options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: the storage lives as long as the thread, longer than any use.
    unsafe { &*(thread.wrapping_add(offset()) as *const ThreadLocal) }
}

/// Pops a block, and gives the slot's address; null if the magazine is empty or closed.
///
/// One instruction commits, before the slot is looked up: if the magazine is
/// closed between the two, the look-up meets a sentinel, and the slow path finds
/// the slot that was won. (`xadd` would do both in one, at six times the cost
/// on processors that forward memory to memory through registers.)
///
/// # Safety
/// `class` is below `CLASSES`. On null the caller goes to the slow path, which
/// puts `top` right.
#[inline(always)]
pub(crate) unsafe fn pop_slot(class: usize) -> (*mut u8, *const usize) {
    let (block, top): (*mut u8, *const usize);
    // SAFETY: every `top` points one above a readable slot.
    unsafe {
        asm!(
            "sub qword ptr fs:[{offset} + {class} * 8], 8",
            "mov {top}, qword ptr fs:[{offset} + {class} * 8]",
            "mov {block}, qword ptr [{top}]",
            offset = in(reg) offset(),
            class = in(reg) class,
            top = out(reg) top,
            block = lateout(reg) block,
            options(nostack),
        );
    }
    (block, top)
}

/// The first half of a push: the slot it would write; none if the magazine is
/// full or closed.
///
/// # Safety
/// `class` is below `CLASSES`.
#[inline(always)]
pub(crate) unsafe fn open_slot(class: usize) -> Option<*mut usize> {
    let top: *mut usize;
    // SAFETY: reads this thread's `top`, which points at a readable slot.
    let sentinel = unsafe {
        asm!(
            "mov {top}, qword ptr fs:[{offset} + {class} * 8]",
            offset = in(reg) offset(),
            class = in(reg) class,
            top = lateout(reg) top,
            options(nostack, preserves_flags, readonly),
        );
        top.read_volatile()
    };
    (sentinel != 0).then_some(top)
}

/// The second half.
///
/// # Safety
/// The slot is what [`open_slot`] gave for the class, with no operation of this
/// thread on it since; the block is the caller's to give away.
#[inline(always)]
pub(crate) unsafe fn push_at(slot: *mut usize, class: usize, block: usize) {
    // SAFETY: not a sentinel, so a slot of this thread's own magazine, on which
    // no other thread looks until the commit, one instruction, has landed.
    unsafe {
        asm!(
            "mov qword ptr [{top}], {block}",
            "add qword ptr fs:[{offset} + {class} * 8], 8",
            top = in(reg) slot,
            block = in(reg) block,
            offset = in(reg) offset(),
            class = in(reg) class,
            options(nostack),
        );
    }
}
