//! Models the lists of spans with free blocks: the real `heap/central.rs` and
//! `heap/span` on loom's atomics. A span may be emptied, freed and used again for
//! another class while other threads still act on what they saw of it. It must not get
//! back to the first class's lists then.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model_central`
#![cfg(loom)]

#[path = "../../src/base"]
mod base {
    #[allow(dead_code, reason = "the model needs the geometry alone")]
    pub(crate) mod size_class;
    pub(crate) use crate::stand_ins::{atomics, fatal, residency};
}

mod stand_ins;

mod platform {
    pub(crate) use crate::stand_ins::platform::PAGE;

    use loom::sync::{Mutex, MutexGuard};
    use std::cell::UnsafeCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicPtr, AtomicUsize};

    /// A lock for statics: it blocks on a mutex of loom's, a new one in each run of a model.
    pub(crate) struct Lock<T> {
        run: AtomicUsize,
        mutex: AtomicPtr<Mutex<()>>,
        value: UnsafeCell<T>,
    }

    /// To be incremented when a run begins. The run's first thread then uses each lock once.
    pub(crate) static RUN: AtomicUsize = AtomicUsize::new(0);

    // SAFETY: only the holder of the mutex reaches `value`.
    unsafe impl<T: Send> Sync for Lock<T> {}

    pub(crate) struct Guard<'a, T>(&'a Lock<T>, #[allow(dead_code, reason = "held")] MutexGuard<'a, ()>);

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            let mutex = AtomicPtr::new(std::ptr::null_mut());
            Self { run: AtomicUsize::new(0), mutex, value: UnsafeCell::new(value) }
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            if self.run.swap(RUN.load(SeqCst), SeqCst) != RUN.load(SeqCst) {
                self.mutex.store(Box::leak(Box::new(Mutex::new(()))), SeqCst);
            }
            // SAFETY: leaked above, so it lives forever.
            let mutex = unsafe { &*self.mutex.load(SeqCst) };
            Guard(self, mutex.lock().expect("no panic"))
        }

        /// # Safety
        /// For forks, which models do not have.
        pub(crate) unsafe fn force_unlock(&self) {
            unreachable!()
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            // SAFETY: the lock is held.
            unsafe { &*self.0.value.get() }
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the lock is held.
            unsafe { &mut *self.0.value.get() }
        }
    }

    /// # Safety
    /// None: it returns no pages.
    pub(crate) unsafe fn release_part(start: *mut u8, _: usize, _: bool) -> bool {
        super::heap::assert_of_class_b(start.addr());
        true
    }
}

#[path = "../../src/heap"]
mod heap {
    #[allow(dead_code, reason = "the model needs the lists alone")]
    mod central;
    #[allow(dead_code, reason = "the model needs the bitmap alone")]
    mod span;

    // Inside the heap module, since nothing outside it may do what the model does.
    mod segment {
        use super::span::Span;
        use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

        /// The one segment: room for two spans of four slices.
        pub(crate) struct Segment;

        pub(crate) static SPANS: [AtomicPtr<Span>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

        impl Segment {
            pub(crate) fn of(_: usize) -> Option<&'static Segment> {
                Some(&Segment)
            }

            pub(crate) fn slice_of(&self, address: usize) -> usize {
                (address - super::BASE) / crate::base::size_class::SLICE
            }

            pub(crate) fn span(&self, slice: usize) -> &'static Span {
                // SAFETY: leaked by `fresh`, so it lives forever.
                unsafe { &*SPANS[slice / 4].load(SeqCst) }
            }
        }
    }

    mod page_heap {
        use super::segment::Segment;
        use crate::platform::Lock;

        /// Which places are free. A lock, so that a thread that allocates one sees what was
        /// done with it before.
        pub(crate) static FREE: Lock<[bool; 2]> = Lock::new([true; 2]);

        #[allow(dead_code, reason = "all runs here are of four slices")]
        pub(crate) struct Run {
            pub(crate) segment: &'static Segment,
            pub(crate) first: usize,
            pub(crate) slices: usize,
        }

        impl Run {
            pub(crate) fn start(&self) -> usize {
                super::BASE + self.first * crate::base::size_class::SLICE
            }
        }

        pub(crate) fn alloc(slices: usize, _: usize, _: bool) -> Option<(Run, u64)> {
            let mut free = FREE.lock();
            let number = free.iter().position(|&free| free)?;
            free[number] = false;
            Some((Run { segment: &Segment, first: number * 4, slices }, u64::MAX))
        }

        pub(crate) fn free(run: Run, _: u64, _: bool) {
            let was_free = std::mem::replace(&mut FREE.lock()[run.first / 4], true);
            assert!(!was_free, "slices freed twice");
        }

        pub(crate) fn mask(count: usize) -> u64 {
            if count >= 64 { u64::MAX } else { (1 << count) - 1 }
        }
    }

    use crate::base::size_class::{GEOMETRY, class_of};
    use loom::thread;
    use page_heap::FREE;
    use span::Span;
    use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

    const BASE: usize = 1 << 30;

    /// Two classes whose spans have four slices and one word: of eight and of nine blocks.
    const A: usize = class_of(32 << 10);
    const B: usize = class_of(28 << 10);

    /// Pages are about to be returned: no blocks of another class may lie on them.
    pub(crate) fn assert_of_class_b(address: usize) {
        let segment = segment::Segment;
        assert!(
            segment.span(segment.slice_of(address)).is_class(B),
            "pages on which another class's blocks lie"
        );
    }

    /// New spans for a run of a model. The class has one on its list, with one block in use,
    /// and one that is full, which is the result. For the other class only the lock is made.
    fn fresh(class: usize, other: usize) -> &'static Span {
        let place = |place: &AtomicPtr<Span>| place.store(Box::leak(Box::new(Span::new())), SeqCst);
        segment::SPANS.iter().for_each(place);
        crate::platform::RUN.fetch_add(1, SeqCst);
        *FREE.lock() = [true; 2];
        let full = central::attach(class, 1, false).expect("a span");
        let all = GEOMETRY[class].blocks as usize;
        assert_eq!(full.alloc(&GEOMETRY[class], &mut vec![0; all], false), all);
        let listed = central::attach(class, 1, false).expect("another");
        assert_eq!(listed.alloc(&GEOMETRY[class], &mut [0; 1], false), 1);
        central::detach(class, listed);
        central::relist(other, full);
        central::detach(class, full);
        full
    }

    /// Frees all blocks of a full span, and the span.
    fn free_all_of(class: usize, span: &'static Span) {
        let geometry = &GEOMETRY[class];
        let word_is_free = span.free(geometry, 0, geometry.block_bits(0), false);
        central::after_free(class, span, word_is_free);
        central::free_if_empty(class, span, false);
    }

    /// Detaches and frees a span whose blocks are all free.
    fn detach_and_free(class: usize, span: &'static Span) {
        central::detach(class, span);
        central::free_if_empty(class, span, false);
    }

    /// Detaches a span whose blocks are all in use, and frees them all.
    fn detach_and_free_all(class: usize, span: &'static Span) {
        central::detach(class, span);
        free_all_of(class, span);
    }

    /// Runs every schedule with at most three preemptions, which the bugs found here need. One
    /// model at a time, since the lists are statics.
    fn explore(model: impl Fn() + Send + Sync + 'static) {
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one = ONE.lock();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// Another class allocates the slices if they are free, and all their blocks.
    fn other_class() -> Option<&'static Span> {
        let span = central::attach(B, 2, false)?;
        assert_eq!(span.alloc(&GEOMETRY[B], &mut [0; 9], false), 9);
        central::detach(B, span);
        Some(span)
    }

    /// Class A has its listed span, and also the other one unless class B has it. Then
    /// everything is freed.
    fn check(full: &'static Span, of_b: Option<&'static Span>) {
        let mut found: Vec<(&'static Span, usize)> = vec![];
        while let Some(span) = central::attach(A, 1, false) {
            assert!(span.is_class(A), "a span of another class");
            let count = span.alloc(&GEOMETRY[A], &mut [0; 8], false);
            found.push((span, count));
        }
        let blocks: usize = found.iter().map(|&(_, count)| count).sum();
        assert_eq!(blocks, if of_b.is_some() { 7 } else { 15 }, "blocks lost or doubled");
        if let Some(span) = of_b {
            assert!(std::ptr::eq(span, full) && span.is_class(B));
            free_all_of(B, span);
        }
        found.into_iter().for_each(|(span, _)| detach_and_free_all(A, span));
        assert_eq!(*FREE.lock(), [true; 2], "slices lost");
    }

    /// Two threads have freed the last blocks of a full span, and both go on to list it.
    #[test]
    fn a_full_span_freed_by_two() {
        explore(|| {
            let full = fresh(A, B);
            full.free(&GEOMETRY[A], 0, 0xff, false);
            let other_freer = thread::spawn(move || central::after_free(A, full, true));
            let other = thread::spawn(other_class);
            central::after_free(A, full, true);
            other_freer.join().unwrap();
            check(full, other.join().unwrap());
        });
    }

    /// A tick acts on what it saw of a span that belongs to another class by now. It must not
    /// return pages, and it must count free words by the class that the span has now.
    #[test]
    fn a_tick_comes_late() {
        explore(|| {
            let span = fresh(A, B);
            free_all_of(A, span);
            let again = central::attach(B, 2, false).expect("the same slices");
            assert!(std::ptr::eq(again, span));
            assert_eq!(span.alloc(&GEOMETRY[B], &mut [0; 9], false), 9);
            central::detach(B, span);
            central::after_free(B, span, span.free(&GEOMETRY[B], 0, 0xff, false));
            let tick = thread::spawn(move || span.release_pages(A, false, false));
            central::after_free(B, span, span.free(&GEOMETRY[B], 0, 0x100, false));
            assert_eq!(tick.join().unwrap(), 0);
            // Like the tick does afterwards.
            central::after_free(B, span, true);
            let last = central::attach(B, 2, false).expect("it is listed");
            assert!(std::ptr::eq(last, span));
            assert_eq!(span.alloc(&GEOMETRY[B], &mut [0; 1], false), 1);
            assert!(!span.seems_empty(&GEOMETRY[B]), "a word counts as free that is not");
            span.free(&GEOMETRY[B], 0, 1, false);
            detach_and_free(B, span);
            let other = central::attach(A, 1, false).expect("the listed one");
            assert_eq!(other.alloc(&GEOMETRY[A], &mut [0; 8], false), 7);
            detach_and_free_all(A, other);
            assert_eq!(*FREE.lock(), [true; 2], "slices lost");
        });
    }

    /// A tick returns the pages behind a full span's last block while its blocks are freed.
    // Without another class that allocates the slices: loom loses a store between two additions
    // of 0 like those in `Span::set_full`.
    #[test]
    fn a_full_spans_tail_is_returned_while_its_blocks_are_freed() {
        explore(|| {
            let full = fresh(B, A);
            let tick = thread::spawn(move || central::release_tail(B, full, false));
            let word_is_free = full.free(&GEOMETRY[B], 0, 0x1ff, false);
            central::after_free(B, full, word_is_free);
            tick.join().unwrap();
            let mut blocks = 0;
            let mut found = vec![];
            while let Some(span) = central::attach(B, 1, false) {
                blocks += span.alloc(&GEOMETRY[B], &mut [0; 9], false);
                found.push(span);
            }
            assert_eq!(blocks, 17, "blocks lost or doubled");
            found.into_iter().for_each(|span: &'static Span| detach_and_free_all(B, span));
        });
    }
}
