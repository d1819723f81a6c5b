//! The fast path on x86_64 Linux. Its thread-local storage is defined in assembly, so
//! that every executable reaches it relative to `fs` without a call, with or without
//! link-time optimisation. A shared library asks the loader where it is.

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

/// Offset of [`ThreadLocal`] from `fs`, by a TLS descriptor. In an executable the linker makes
/// a constant of it and of the call a no-op. In a shared library the call is one, and
/// nothing of the static TLS is needed, of which a process has little.
///
/// The first call on a thread in a library that was loaded late has the loader make the
/// thread's block. All registers but `rax` should be as before, but glibc before 2.40 kept
/// only the general ones then. So the others that a call may change are declared, also those
/// that only functions with AVX-512 have, into which this may be inlined. In the optimised
/// code that costs nothing unless floating-point values live across an allocation. The
/// call's result is the same throughout a thread, hence `pure`; what it does else is to
/// memory that no code of ours reaches.
#[cfg(not(feature = "static-tls"))]
#[inline(always)]
fn offset() -> usize {
    let offset;
    // SAFETY: the descriptor's convention. The stack is aligned, as `nostack` is not set.
    unsafe {
        asm!(
            "lea rax, [rip + neap_local_0_1@tlsdesc]",
            "call [rax + neap_local_0_1@tlscall]",
            out("rax") offset,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _, out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
            out("xmm24") _, out("xmm25") _, out("xmm26") _, out("xmm27") _, out("xmm28") _, out("xmm29") _, out("xmm30") _, out("xmm31") _,
            out("k0") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _, out("k5") _, out("k6") _, out("k7") _,
            options(pure, nomem),
        );
    }
    offset
}

/// The same for a library that is loaded at the start of the program: a load from where the
/// loader wrote the offset.
#[cfg(feature = "static-tls")]
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
