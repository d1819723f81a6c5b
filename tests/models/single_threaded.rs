//! Models the end of single-threaded mode: the real `base/single_threaded.rs` and
//! `heap/span` on loom's atomics. The first thread changes a bitmap by plain loads and
//! stores; others enter at any moment and change it atomically. No block may be lost or
//! handed out twice.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model_single_threaded`
#![cfg(loom)]

#[path = "../../src/base"]
mod base {
    pub(crate) mod single_threaded;
    #[allow(dead_code, reason = "the model needs the geometry alone")]
    pub(crate) mod size_class;
    pub(crate) use crate::stand_ins::{atomics, fatal, residency};

    pub(crate) fn fresh() -> single_threaded::Mode {
        use atomics::AtomicBool;
        single_threaded::Mode { on: AtomicBool::new(false), over: AtomicBool::new(false) }
    }
}

mod stand_ins;

use stand_ins::platform;

#[path = "../../src/heap"]
mod heap {
    #[allow(dead_code, reason = "the model needs the bitmap alone")]
    mod span;

    mod model {
        use super::span::Span;
        use crate::base::single_threaded::Mode;
        use crate::base::size_class::{GEOMETRY, class_of};
        use loom::sync::{Arc, Mutex};
        use loom::thread;

        /// 32 KiB blocks: eight to a span, one word.
        const CLASS: usize = class_of(32 << 10);
        const BASE: usize = 1 << 30;

        struct Process {
            mode: Mode,
            span: Span,
            /// The registry's lock, under which the mode ends.
            joining: Mutex<()>,
            /// The lock of the first thread's cache.
            first: Mutex<()>,
        }

        impl Process {
            /// In single-threaded mode, with all eight blocks allocated.
            fn new() -> Arc<Self> {
                let span = Span::new();
                span.start(CLASS, BASE, u64::MAX, false);
                assert_eq!(span.alloc(&GEOMETRY[CLASS], &mut [0; 8], false), 8);
                let (joining, first) = (Mutex::new(()), Mutex::new(()));
                let process = Arc::new(Self { mode: crate::base::fresh(), span, joining, first });
                process.mode.begin();
                process
            }

            /// The first thread's slow path.
            fn free_as_first(&self, block: usize) {
                let _cache = self.first.lock().unwrap();
                self.span.free(&GEOMETRY[CLASS], 0, 1 << block, self.mode.is_on());
            }

            /// Another thread's slow path: like `registry::enter`, and then a free.
            fn free_as_other(&self, block: usize, with_lock: bool) {
                if !self.mode.is_over() {
                    let _joining = self.joining.lock().unwrap();
                    self.mode.end(|off| {
                        let _cache = with_lock.then(|| self.first.lock().unwrap());
                        off();
                    });
                }
                assert!(!self.mode.is_on(), "still on for a thread that entered");
                self.span.free(&GEOMETRY[CLASS], 0, 1 << block, false);
            }
        }

        fn explore(others: usize, with_lock: bool) {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(move || {
                let process = Process::new();
                let others: Vec<_> = (0..others)
                    .map(|number| {
                        let process = Arc::clone(&process);
                        thread::spawn(move || process.free_as_other(4 + number, with_lock))
                    })
                    .collect();
                process.free_as_first(0);
                process.free_as_first(1);
                let freed = 2 + others.len();
                others.into_iter().for_each(|other| other.join().unwrap());
                assert_eq!(process.span.free_blocks(&GEOMETRY[CLASS]), freed, "a block was lost");
            });
        }

        #[test]
        fn a_second_thread_ends_it() {
            explore(1, true);
        }

        #[test]
        fn two_threads_enter_at_once() {
            explore(2, true);
        }

        /// The plant: ended without the first thread's lock.
        #[test]
        #[should_panic(expected = "a block was lost")]
        fn without_the_lock_a_block_is_lost() {
            explore(1, false);
        }
    }
}
