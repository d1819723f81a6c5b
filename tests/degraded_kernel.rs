//! A kernel that offers less: no `membarrier`, no room to move pages, little address
//! space, mappings that are not aligned. And a tick interval without an end.

mod common;

use common::{MIB, child_succeeds, limited_child};
use neap::Neap;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[global_allocator]
static HEAP: Neap = Neap::new();

/// Where the system has no 8 MiB at once, but a quarter of it, a segment is still a
/// whole number of granules.
#[test]
fn a_segment_is_never_below_a_granule() {
    if let Some(taken) = std::env::var_os("NEAP_TEST_TAKEN") {
        let taken: usize = taken.to_str().and_then(|text| text.parse().ok()).expect("a number");
        // Address space that Neap cannot have, so that what is left at the end varies.
        // SAFETY: a new mapping.
        let hole = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), taken * MIB, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(hole, libc::MAP_FAILED);
        let layout = Layout::from_size_align(16_000, 8).expect("valid");
        let mut head: *mut *mut u8 = std::ptr::null_mut();
        loop {
            // SAFETY: the size is not zero.
            let block = unsafe { HEAP.alloc(layout) };
            if block.is_null() {
                break;
            }
            // SAFETY: ours, and large and aligned enough.
            unsafe {
                block.write_bytes(1, layout.size());
                block.cast::<*mut *mut u8>().write(head);
            }
            head = block.cast();
        }
        while !head.is_null() {
            // SAFETY: the chain just made.
            unsafe {
                let next = head.read();
                HEAP.dealloc(head.cast(), layout);
                head = next.cast();
            }
        }
        return;
    }
    for taken in 1..13 {
        limited_child(
            "a_segment_is_never_below_a_granule",
            128 * MIB,
            ("NEAP_TEST_TAKEN", &taken.to_string()),
        );
    }
}

/// A mapping may start at a multiple of the alignment by chance. It must not be
/// moved to where it does not.
#[test]
fn a_large_block_that_grows_stays_aligned() {
    for shift in [13, 16, 20, 21, 22, 23, 24] {
        let align = 1 << shift;
        let mut blocks = Vec::new();
        for _ in 0..20 {
            let layout = Layout::from_size_align((5 * MIB).next_multiple_of(align), align).expect("valid");
            // SAFETY: the size is not zero.
            let block = unsafe { HEAP.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: ours.
            unsafe { block.cast::<usize>().write(blocks.len()) };
            blocks.push((block, layout));
        }
        for (block, layout) in &mut blocks {
            for _ in 0..3 {
                let size = layout.size() + 9 * MIB + align;
                // SAFETY: ours, with this layout.
                *block = unsafe { HEAP.realloc(*block, *layout, size) };
                *layout = Layout::from_size_align(size, align).expect("valid");
                assert!(
                    !block.is_null() && block.addr().is_multiple_of(align),
                    "{:p} for {align:#x}",
                    *block
                );
            }
        }
        for (index, (block, layout)) in blocks.into_iter().enumerate() {
            // SAFETY: ours, with this layout.
            unsafe {
                assert_eq!(block.cast::<usize>().read(), index);
                HEAP.dealloc(block, layout);
            }
        }
    }
}

#[test]
fn an_endless_tick_interval_never_ends() {
    let environment = [("NEAP_TICK_INTERVAL_MS", "18446744073709551615")];
    child_succeeds("an_endless_tick_interval_never_ends", &environment, || {
        for _ in 0..20 {
            drop((0..2000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        }
        assert_eq!(neap::stats().ticks, 0);
    });
    assert_eq!(
        format!("{:?}", Neap::new().tick_interval(Duration::MAX)),
        format!("{:?}", Neap::new().tick_interval(Duration::from_millis(u64::MAX)))
    );
}

/// Counts one up and sleeps until somebody unparks this thread.
fn park(count: &AtomicUsize) {
    count.fetch_add(1, SeqCst);
    std::thread::park();
}

/// Waits until so many have parked, and a little, so that they sleep.
fn wait_for(count: &AtomicUsize, parked: usize) {
    while count.load(SeqCst) < parked {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
}

/// Makes this thread's calls of `membarrier` fail from now on.
#[cfg(all(target_arch = "x86_64", not(neap_portable)))]
fn deny_membarrier() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_membarrier as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is alive, and so is its filter.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// A program that limits its own system calls after it has begun: without the barrier
/// nobody may empty another thread's magazines. (Elsewhere no barrier is needed.)
#[cfg(all(target_arch = "x86_64", not(neap_portable)))]
#[test]
fn where_the_barrier_is_denied_later_owners_keep_their_blocks() {
    let test = "where_the_barrier_is_denied_later_owners_keep_their_blocks";
    child_succeeds(test, &[("NEAP_TICK_INTERVAL_MS", "1000000")], || {
        static FILLED: AtomicUsize = AtomicUsize::new(0);
        let pooled = || common::class_of(3072).pooled_local;
        let owner = std::thread::spawn(|| {
            for _ in 0..2 {
                drop((0..100).map(|_| vec![1u8; 3000]).collect::<Vec<_>>());
                park(&FILLED);
            }
            (0..100).map(|_| vec![1u8; 3000]).map(|bytes| bytes.len()).sum::<usize>()
        });
        wait_for(&FILLED, 1);
        assert!(pooled() > 0);
        (0..3).for_each(|_| neap::tick());
        assert_eq!(pooled(), 0, "emptied while there is a barrier");
        owner.thread().unpark();
        wait_for(&FILLED, 2);
        deny_membarrier();
        (0..3).for_each(|_| neap::tick());
        assert!(pooled() > 0, "emptied without a barrier");
        owner.thread().unpark();
        assert_eq!(owner.join().expect("no panic"), 300_000);
        neap::purge();
    });
}

/// The system may have no address space while a sleeping thread's slots are moved
/// aside. The place they were to go to may then belong to somebody else.
#[test]
fn slots_that_cannot_be_moved_harm_no_other_mapping() {
    child_succeeds("slots_that_cannot_be_moved_harm_no_other_mapping", &[], || {
        const SLEEPERS: usize = 3;
        static PARKED: AtomicUsize = AtomicUsize::new(0);
        let sleepers: Vec<_> = (0..SLEEPERS)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..4 {
                        drop((0..1000).map(|n| Box::new([n; 3])).collect::<Vec<_>>());
                        park(&PARKED);
                    }
                })
            })
            .collect();
        let limit = |bytes: libc::rlim_t| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the pointer is to a live limit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        };
        wait_for(&PARKED, SLEEPERS);
        // The place is made, and used once.
        (0..4).for_each(|_| neap::tick());
        sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
        wait_for(&PARKED, 2 * SLEEPERS);
        limit(1 << 20);
        (0..4).for_each(|_| neap::tick());
        limit(libc::RLIM_INFINITY);
        // Who asks the system for pages now may get them where the place was.
        let pages: Vec<*mut u8> = (0..2000)
            .map(|_| {
                let (access, flags) =
                    (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                // SAFETY: a new mapping.
                let page =
                    unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) }.cast::<u8>();
                assert_ne!(page.cast(), libc::MAP_FAILED);
                // SAFETY: ours.
                unsafe { page.write(42) };
                page
            })
            .collect();
        sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
        wait_for(&PARKED, 3 * SLEEPERS);
        (0..4).for_each(|_| neap::tick());
        // SAFETY: ours.
        let lost = pages.iter().filter(|page| unsafe { page.read() } != 42).count();
        assert_eq!(lost, 0, "pages of others were replaced");
        for sleeper in sleepers {
            while !sleeper.is_finished() {
                sleeper.thread().unpark();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}
