//! Models the biased lock of a pool's shards, on loom's atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model_biased_lock`
#![cfg(loom)]

/// What `biased_lock.rs` imports from the crate, on loom's atomics.
mod base {
    pub(crate) mod atomics {
        pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
    }
}

#[path = "../../src/object_pool"]
mod object_pool {
    mod biased_lock;

    /// A barrier that one side runs for both acts as a full fence on each side.
    mod fences {
        use loom::sync::atomic::{Ordering::SeqCst, fence};

        /// Of the model that runs: whether the system still runs barriers.
        pub(crate) static WORKS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);

        fn works() -> bool {
            WORKS.load(std::sync::atomic::Ordering::SeqCst)
        }

        pub(crate) fn light() {
            if works() {
                fence(SeqCst);
            }
        }

        pub(crate) fn heavy() -> bool {
            if works() {
                fence(SeqCst);
            }
            works()
        }

        pub(crate) fn wait() {
            loom::thread::yield_now();
        }
    }

    mod model {
        use super::biased_lock::BiasedLock;
        use loom::cell::UnsafeCell;
        use loom::sync::Arc;

        /// Loom's cell panics if two threads are in it at once.
        type Guarded = Arc<BiasedLock<UnsafeCell<usize>>>;

        fn add(cell: &mut UnsafeCell<usize>) {
            cell.with_mut(|value| {
                // SAFETY: that this is exclusive is what the model shows.
                unsafe { *value += 1 }
            });
        }

        fn check(barrier: bool, model: impl Fn() + Send + Sync + 'static) {
            // One at a time, since what the fences do is a static.
            static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
            let _one = ONE.lock();
            super::fences::WORKS.store(barrier, std::sync::atomic::Ordering::SeqCst);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(model);
        }

        #[test]
        fn the_owner_and_others_exclude_each_other() {
            check(true, || {
                let lock: Guarded = Arc::new(BiasedLock::new(UnsafeCell::new(0)));
                let other = lock.clone();
                // SAFETY: `add` does not come back to the lock.
                let other = loom::thread::spawn(move || unsafe { other.take(add) }.expect("a barrier"));
                // SAFETY: this thread is the only owner.
                let mut done = unsafe { lock.enter(add) }.is_some() as usize;
                // SAFETY: as above.
                done += unsafe { lock.enter(add) }.is_some() as usize;
                other.join().unwrap();
                // SAFETY: as above.
                let sum = unsafe { lock.take_as_owner(|cell| cell.with(|value| *value)) };
                assert_eq!(sum, done + 1);
            });
        }

        #[test]
        fn a_new_owner_sees_what_the_old_one_did() {
            check(true, || {
                let lock: Guarded = Arc::new(BiasedLock::new(UnsafeCell::new(0)));
                let old = lock.clone();
                let thief = lock.clone();
                // SAFETY: that thread is the only owner until it ends.
                let old = loom::thread::spawn(move || unsafe { old.enter(add) }.is_some() as usize);
                // SAFETY: `add` does not come back to the lock.
                let thief = loom::thread::spawn(move || unsafe { thief.take(add) }.expect("a barrier"));
                let mut done = old.join().unwrap();
                // SAFETY: the old owner has ended, which `join` orders.
                done += unsafe { lock.enter(add) }.is_some() as usize;
                thief.join().unwrap();
                // SAFETY: as above.
                let sum = unsafe { lock.take_as_owner(|cell| cell.with(|value| *value)) };
                assert_eq!(sum, done + 1);
            });
        }

        /// The owner takes it the slow way while another thread does: it waits, and needs no barrier.
        #[test]
        fn the_owner_takes_it_too() {
            check(true, || {
                let lock: Guarded = Arc::new(BiasedLock::new(UnsafeCell::new(0)));
                let other = lock.clone();
                // SAFETY: `add` does not come back to the lock.
                let other = loom::thread::spawn(move || unsafe { other.take(add) }.expect("a barrier"));
                // SAFETY: this thread is the only owner.
                unsafe { lock.take_as_owner(add) };
                // SAFETY: as above.
                let done = unsafe { lock.enter(add) }.is_some() as usize;
                other.join().unwrap();
                // SAFETY: as above.
                let sum = unsafe { lock.take_as_owner(|cell| cell.with(|value| *value)) };
                assert_eq!(sum, done + 2);
            });
        }

        /// The system refuses barriers from now on, and the owner still has no fence of its own.
        #[test]
        fn without_a_barrier_only_the_owner_is_let_in() {
            check(false, || {
                let lock: Guarded = Arc::new(BiasedLock::new(UnsafeCell::new(0)));
                let other = lock.clone();
                // SAFETY: `add` does not come back to the lock.
                let other = loom::thread::spawn(move || unsafe { other.take(add) });
                // SAFETY: this thread is the only owner.
                let mut done = unsafe { lock.enter(add) }.is_some() as usize;
                // SAFETY: as above.
                unsafe { lock.take_as_owner(add) };
                done += 1;
                assert!(other.join().unwrap().is_none());
                // SAFETY: as above.
                let sum = unsafe { lock.take_as_owner(|cell| cell.with(|value| *value)) };
                assert_eq!(sum, done);
            });
        }
    }
}
