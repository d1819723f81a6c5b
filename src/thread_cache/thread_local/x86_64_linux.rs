//! The fast path on x86_64 Linux. Its thread-local storage is defined in assembly, so
//! that every build reaches it relative to `fs` without a call: with or without
//! link-time optimisation, executable or shared library.

use super::ThreadLocal;
use crate::base::size_class::CLASSES;
use crate::thread_cache::magazine::NO_MAGAZINE;
use core::arch::{asm, global_asm};

/// Commits are not atomic to other processors: closing needs a barrier.
pub(crate) const NEEDS_BARRIER: bool = true;

// The initial `ThreadLocal` of a thread. The name contains the version, so that two
// versions of this crate in one program do not clash.
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
    none = sym NO_MAGAZINE,
    rest = const size_of::<ThreadLocal>() - CLASSES * 8,
    size = const size_of::<ThreadLocal>(),
);

/// Offset of [`ThreadLocal`] from `fs`; a constant after linking an executable.
#[inline(always)]
fn offset() -> usize {
    let offset;
    // SAFETY: only reads a constant that the linker or loader wrote.
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
    // SAFETY: the storage lives as long as the thread, and only its thread uses this, or a
    // tick under the lock of a cache that the thread has not left.
    unsafe { &*(thread.wrapping_add(offset()) as *const ThreadLocal) }
}

/// Pops a block; null if the magazine is empty or closed. Also returns the slot's address.
///
/// One instruction commits before the slot is read. If the magazine is closed between
/// the two, the read meets a sentinel, and the slow path finds the slot that the pop had
/// won. (`xadd` would do both in one instruction, at six times the cost on processors
/// that forward memory to memory through registers.)
///
/// # Safety
/// `class` is below `CLASSES`. On null the caller goes to the slow path, which repairs `top`.
#[inline(always)]
pub(crate) unsafe fn pop_slot(class: usize) -> (*mut u8, *const usize) {
    let (block, top): (*mut u8, *const usize);
    // SAFETY: every `top` points one slot above a readable slot.
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

/// The first half of a push: the slot it would write. None if the magazine is full or
/// closed.
///
/// # Safety
/// `class` is below `CLASSES`.
#[inline(always)]
pub(crate) unsafe fn open_slot(class: usize) -> Option<*mut usize> {
    let top: *mut usize;
    // SAFETY: reads this thread's `top`, which points to a readable slot.
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

/// The second half of a push: writes the slot and commits.
///
/// # Safety
/// The slot is what [`open_slot`] returned for the class, and this thread has done no
/// operation on the class since. The block is the caller's to free.
#[inline(always)]
pub(crate) unsafe fn push_at(slot: *mut usize, class: usize, block: usize) {
    // SAFETY: not a sentinel, so a slot of this thread's own magazine, which no other
    // thread reads until the commit, one instruction, has landed.
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
