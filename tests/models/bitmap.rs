//! Models a span's bitmap: the real `heap/span` on loom's atomics, which try every
//! interleaving and every value that the orderings allow.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model_bitmap`
#![cfg(loom)]

#[path = "../../src/base"]
mod base {
    #[allow(dead_code, reason = "the model needs the geometry alone")]
    pub(crate) mod size_class;
    pub(crate) use crate::stand_ins::{atomics, fatal, residency};
}

mod stand_ins;

use stand_ins::platform;

#[path = "../../src/heap"]
mod heap {
    #[allow(dead_code, reason = "the model needs the bitmap alone")]
    mod span;

    // Inside the heap module, since nothing outside it may do what the model does.
    mod model {
        use super::span::{Span, bits_between, state};
        use crate::base::size_class::{GEOMETRY, PAGE, class_of};
        use crate::stand_ins::atomics::Ordering;
        use loom::sync::Arc;
        use loom::thread;

        /// Runs every schedule with at most two preemptions; all schedules are too many here.
        fn bounded(model: impl Fn() + Send + Sync + 'static) {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(2);
            builder.check(model);
        }

        /// 32 KiB blocks: eight to a span, one word, and eight pages to a block.
        const SIZE: usize = 32 << 10;
        const BASE: usize = 1 << 30;

        fn span() -> (usize, Arc<Span>) {
            let class = class_of(SIZE);
            let span = Arc::new(Span::new());
            span.start(class, BASE, u64::MAX, false);
            (class, span)
        }

        /// Allocates up to `count` blocks and returns their numbers.
        fn alloc(span: &Span, class: usize, count: usize) -> Vec<usize> {
            let mut out = vec![0; count];
            let allocated = span.alloc(&GEOMETRY[class], &mut out, false);
            out[..allocated].iter().map(|slot| (slot - BASE) / SIZE).collect()
        }

        fn free(span: &Span, class: usize, block: usize) {
            span.note_use(bits_between(block * SIZE / PAGE, (block * SIZE + SIZE - 1) / PAGE));
            span.free(&GEOMETRY[class], 0, 1 << block, false);
        }

        #[test]
        fn a_block_freed_while_others_are_allocated_is_nowhere_twice() {
            loom::model(|| {
                let (class, span) = span();
                let mine = alloc(&span, class, 2);
                let freer = {
                    let span = Arc::clone(&span);
                    thread::spawn(move || mine.into_iter().for_each(|block| free(&span, class, block)))
                };
                let mut all = alloc(&span, class, 7);
                freer.join().unwrap();
                all.extend(alloc(&span, class, 8));
                all.sort();
                assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
            });
        }

        /// A span that its owner sets full is never forgotten. It is listed by the thread
        /// that frees a block at that moment, or by the owner, if it sees the block.
        #[test]
        fn a_full_span_that_gets_a_block_is_found() {
            loom::model(|| {
                let (class, span) = span();
                let geometry = &GEOMETRY[class];
                let all = alloc(&span, class, 8);
                // Like `central::after_free` and `central::list`.
                let list = |span: &Span| {
                    span.state.load(Ordering::Acquire) == state::FULL
                        && span
                            .state
                            .compare_exchange(state::FULL, state::LISTED, Ordering::AcqRel, Ordering::Relaxed)
                            .is_ok()
                };
                let freer = {
                    let span = Arc::clone(&span);
                    thread::spawn(move || {
                        free(&span, class, all[0]);
                        list(&span)
                    })
                };
                let left_full = span.set_full(geometry);
                let listed_by_owner = !left_full && list(&span);
                let listed_by_freer = freer.join().unwrap();
                assert!(
                    listed_by_owner != listed_by_freer,
                    "left full: {left_full}, by the owner: {listed_by_owner}"
                );
            });
        }

        /// Returning pages claims bits as an allocation does, so it can race with
        /// allocations and frees.
        #[test]
        fn pages_return_beside_alloc_and_free() {
            bounded(|| {
                let (class, span) = span();
                let mut kept = alloc(&span, class, 6);
                let back = kept.pop().unwrap();
                let user = {
                    let span = Arc::clone(&span);
                    thread::spawn(move || {
                        let more = alloc(&span, class, 1);
                        free(&span, class, back);
                        more
                    })
                };
                span.release_pages(class, false, false);
                let mut all = user.join().unwrap();
                all.extend(alloc(&span, class, 8));
                all.extend(kept);
                all.sort();
                assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7], "no block lost or doubled");
            });
        }

        #[test]
        #[should_panic(expected = "double free")]
        fn a_double_free_while_its_span_is_being_freed_is_caught() {
            loom::model(|| {
                let (class, span) = span();
                assert!(span.claim_all(&GEOMETRY[class]));
                free(&span, class, 3);
                span.abort_if_freed_since(&GEOMETRY[class]);
            });
        }

        #[test]
        #[should_panic(expected = "double free")]
        fn a_double_free_is_caught_whoever_comes_second() {
            loom::model(|| {
                let (class, span) = span();
                let block = alloc(&span, class, 1)[0];
                let other = {
                    let span = Arc::clone(&span);
                    thread::spawn(move || free(&span, class, block))
                };
                free(&span, class, block);
                other.join().unwrap();
            });
        }
    }
}
