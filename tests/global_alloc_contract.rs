//! What `GlobalAlloc` asks of an allocator, checked against a model: whatever sequence
//! of calls, blocks are aligned, do not overlap, and keep their contents.
//!
//! `PROPTEST_CASES=1000 cargo test --test global_alloc_contract` tries more sequences.

mod common;

use neap::Neap;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;

#[global_allocator]
static HEAP: Neap = Neap::new();

#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, align: usize, zeroed: bool },
    Free { which: usize },
    Realloc { which: usize, size: usize },
    Tick,
    Purge,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0usize..=300,
        4 => 300usize..=40_000,
        2 => 40_000usize..=400_000,
        1 => 400_000usize..=9_000_000,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (size(), 0u32..=20, any::<bool>(), any::<bool>()).prop_map(|(size, shift, aligned, zeroed)| {
            Step::Alloc { size, align: if aligned { 1 << shift } else { 8 }, zeroed }
        }),
        4 => any::<usize>().prop_map(|which| Step::Free { which }),
        3 => (any::<usize>(), size()).prop_map(|(which, size)| Step::Realloc { which, size: size.max(1) }),
        1 => Just(Step::Tick),
        1 => Just(Step::Purge),
    ]
}

/// The blocks that are in use, by address.
#[derive(Default)]
struct Model {
    blocks: BTreeMap<usize, (Layout, u8)>,
    count: u8,
}

impl Model {
    fn insert(&mut self, start: *mut u8, layout: Layout) {
        let address = start.addr();
        assert!(!start.is_null(), "null, with enough memory");
        assert_eq!(address % layout.align(), 0, "{layout:?}");
        let end = address + layout.size().max(1);
        if let Some((below, (other, _))) = self.blocks.range(..end).next_back() {
            assert!(below + other.size().max(1) <= address, "two blocks overlap");
        }
        self.count = self.count.wrapping_add(1);
        // SAFETY: the block is ours, of that size.
        unsafe { start.write_bytes(self.count, layout.size()) };
        self.blocks.insert(address, (layout, self.count));
    }

    fn remove(&mut self, which: usize) -> Option<(*mut u8, Layout, u8)> {
        let index = which.checked_rem(self.blocks.len())?;
        let address = *self.blocks.keys().nth(index)?;
        let (layout, mark) = self.blocks.remove(&address)?;
        let start = address as *mut u8;
        assert!(holds(start, layout.size(), mark), "a block changed while it was in use");
        Some((start, layout, mark))
    }
}

fn holds(start: *mut u8, size: usize, mark: u8) -> bool {
    // SAFETY: a live block of that size; a layout's size of 0 reads nothing.
    let bytes = unsafe { std::slice::from_raw_parts(start, size) };
    // Each byte is as the first: one call of `memcmp`, where a loop would take most of the time.
    bytes.first().is_none_or(|&first| first == mark && bytes[1..] == bytes[..size - 1])
}

fn run(steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Alloc { size, align, zeroed } => {
                let layout = Layout::from_size_align(size, align).expect("a valid layout");
                // SAFETY: a size of 0 is beyond the trait's contract but not Neap's.
                let start = unsafe { if zeroed { HEAP.alloc_zeroed(layout) } else { HEAP.alloc(layout) } };
                assert!(!zeroed || holds(start, size, 0), "not zeroed: {layout:?}");
                model.insert(start, layout);
            }
            Step::Free { which } => {
                if let Some((start, layout, _)) = model.remove(which) {
                    // SAFETY: ours, with this layout.
                    unsafe { HEAP.dealloc(start, layout) };
                }
            }
            Step::Realloc { which, size } => {
                if let Some((start, layout, mark)) = model.remove(which) {
                    // SAFETY: ours, with this layout, and the size is valid.
                    let moved = unsafe { HEAP.realloc(start, layout, size) };
                    assert!(holds(moved, layout.size().min(size), mark), "realloc lost contents");
                    model.insert(moved, Layout::from_size_align(size, layout.align()).expect("valid"));
                }
            }
            Step::Tick => neap::tick(),
            Step::Purge => neap::purge(),
        }
    }
    while let Some((start, layout, _)) = model.remove(0) {
        // SAFETY: ours, with this layout.
        unsafe { HEAP.dealloc(start, layout) };
    }
}

proptest! {
    #![proptest_config(common::property(64))]

    #[test]
    fn blocks_are_aligned_exclusive_and_unchanged(steps in prop::collection::vec(step(), 1..200)) {
        run(&steps);
    }

    /// Each thread's blocks, that is, while others allocate and free theirs.
    #[test]
    fn blocks_of_several_threads_are_too(
        threads in prop::collection::vec(prop::collection::vec(step(), 1..60), 2..5)
    ) {
        std::thread::scope(|scope| {
            for steps in &threads {
                scope.spawn(move || run(steps));
            }
        });
    }
}

/// Found by the properties above, long ago.
#[test]
fn blocks_of_no_bytes_are_blocks_too() {
    let empty = |align, zeroed| Step::Alloc { size: 0, align, zeroed };
    run(&[empty(16, true)]);
    std::thread::scope(|scope| {
        scope.spawn(|| run(&[empty(8, false)]));
        scope.spawn(|| run(&[empty(16, false)]));
    });
}

#[test]
fn every_alignment_up_to_a_gibibyte() {
    for shift in 0..=30 {
        for size in [1, 100, 5000, 100_000, 5 << 20] {
            let layout = Layout::from_size_align(size, 1 << shift).expect("a valid layout");
            // SAFETY: the size is not zero; freed with the same layout.
            unsafe {
                let start = HEAP.alloc(layout);
                assert!(!start.is_null() && start.addr().is_multiple_of(layout.align()), "{layout:?}");
                start.write_bytes(7, size);
                HEAP.dealloc(start, layout);
            }
        }
    }
}

#[test]
fn impossible_layouts_give_null() {
    for size in [isize::MAX as usize - 4095, isize::MAX as usize - (1 << 30), 1 << 62, 1 << 50] {
        for align in [1, 8, 4096] {
            let Ok(layout) = Layout::from_size_align(size, align) else { continue };
            // SAFETY: the size is not zero.
            unsafe {
                assert!(HEAP.alloc(layout).is_null(), "{layout:?}");
                assert!(HEAP.alloc_zeroed(layout).is_null(), "{layout:?}");
                let small = Layout::from_size_align(64, align).expect("valid");
                let start = HEAP.alloc(small);
                start.write_bytes(3, 64);
                assert!(HEAP.realloc(start, small, size).is_null());
                assert!(holds(start, 64, 3), "a failed realloc leaves the block");
                HEAP.dealloc(start, small);
            }
        }
    }
}

#[test]
fn good_size_is_what_the_block_holds() {
    for size in (1..200_000).step_by(37) {
        let layout = Layout::from_size_align(size, 8).expect("valid");
        let good = neap::good_size(layout);
        assert!(good >= size && good <= size + size / 4 + 8);
        // SAFETY: the size is not zero; all of the good size may be used.
        unsafe {
            let start = HEAP.alloc(layout);
            start.write_bytes(1, good);
            assert_eq!(HEAP.realloc(start, layout, good), start, "in place up to the good size");
            HEAP.dealloc(start, Layout::from_size_align(good, 8).expect("valid"));
        }
    }
}
