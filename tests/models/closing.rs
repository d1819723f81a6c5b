//! Models the closing of a magazine: the real `magazine.rs` on a model checker's
//! atomics, its owner on a processor with a store buffer (x86's memory model), and a
//! tick that closes it at any moment and later reclaims its pages. Every block must end
//! up in exactly one place.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release --test model_closing`
#![cfg(shuttle)]

/// What `magazine.rs` imports from the crate, on the checker's atomics.
mod base {
    pub(crate) mod atomics {
        pub(crate) use shuttle::sync::atomic::{AtomicUsize, Ordering};
    }
}

#[path = "../../src/thread_cache"]
mod thread_cache {
    #[allow(dead_code, reason = "the model needs the closing alone")]
    mod magazine;

    /// Memory for slots; the model may leak.
    mod slot_memory {
        use std::alloc::Layout;
        use std::ptr::NonNull;

        pub(crate) struct SlotMemory;

        impl SlotMemory {
            pub(crate) fn alloc(&mut self, bytes: usize) -> Option<NonNull<u8>> {
                let layout = Layout::from_size_align(bytes, 64).expect("a small layout");
                // SAFETY: the size is not zero.
                NonNull::new(unsafe { std::alloc::alloc(layout) })
            }

            /// # Safety
            /// None: it does nothing.
            pub(crate) unsafe fn free(&mut self, _: NonNull<u8>, _: usize) {}
        }
    }

    mod model {
        use super::magazine::{Magazine, Operation, SLOT};
        use super::slot_memory::SlotMemory;
        use crate::base::atomics::{AtomicUsize, Ordering::SeqCst};
        use shuttle::sync::Mutex;
        use shuttle::thread;
        use std::collections::VecDeque;
        use std::sync::Arc;

        const CAPACITY: usize = 2;

        /// A bug that is planted to see the model fail.
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Plant {
            Nothing,
            /// A tick takes the content without waiting for stores under way.
            NoBarrier,
            /// A pop reads the slot before it commits.
            ReadFirst,
            /// The slow path forgets the block of an interrupted operation.
            NoRecovery,
            /// The pages go, and what the slot at the old top held is not kept.
            NotKept,
            /// The slot at the old top is read before the pages go, so that a late write
            /// can fall in between.
            KeptTooEarly,
        }

        struct Model {
            top: AtomicUsize,
            magazine: Mutex<Magazine>,
            reclaimed: Mutex<bool>,
            slots: Vec<usize>,
            /// The owner's stores that other processors do not see yet.
            buffer: Mutex<VecDeque<(usize, usize)>>,
            /// Held while the owner is inside one instruction.
            instruction: Mutex<()>,
            plant: Plant,
        }

        // SAFETY: the magazine is reached under its lock, and its slots are atomic.
        unsafe impl Send for Model {}
        // SAFETY: as above.
        unsafe impl Sync for Model {}

        impl Model {
            fn cell(&self, address: usize) -> &AtomicUsize {
                if address == &raw const self.top as usize {
                    return &self.top;
                }
                // SAFETY: `top` and the buffer only ever name slots of the magazine.
                unsafe { &*(address as *const AtomicUsize) }
            }

            /// A load by the owner, which sees its own buffered stores first.
            fn load(&self, address: usize) -> usize {
                let own = self
                    .buffer
                    .lock()
                    .unwrap()
                    .iter()
                    .rev()
                    .find(|(at, _)| *at == address)
                    .map(|(_, value)| *value);
                own.unwrap_or_else(|| self.cell(address).load(SeqCst))
            }

            fn store(&self, address: usize, value: usize) {
                self.buffer.lock().unwrap().push_back((address, value));
            }

            fn top_address(&self) -> usize {
                &raw const self.top as usize
            }

            /// `add [top], amount`: other processors may see the load and the store apart, but
            /// no interrupt falls between them.
            fn commit(&self, amount: usize) {
                let _inside = self.instruction.lock().unwrap();
                let top = self.load(self.top_address());
                self.store(self.top_address(), top.wrapping_add(amount));
            }

            /// One buffered store becomes visible.
            fn land_one(&self) {
                let mut buffer = self.buffer.lock().unwrap();
                if let Some((address, value)) = buffer.pop_front() {
                    self.cell(address).store(value, SeqCst);
                }
            }

            fn land_all(&self) {
                let mut buffer = self.buffer.lock().unwrap();
                while let Some((address, value)) = buffer.pop_front() {
                    self.cell(address).store(value, SeqCst);
                }
            }

            fn pop(&self) -> Option<usize> {
                let block = if self.plant == Plant::ReadFirst {
                    let top = self.load(self.top_address());
                    self.commit(SLOT.wrapping_neg());
                    self.load(top - SLOT)
                } else {
                    self.commit(SLOT.wrapping_neg());
                    let top = self.load(self.top_address());
                    self.load(top)
                };
                if block != 0 { Some(block) } else { self.slow(Operation::Pop, 0) }
            }

            fn push(&self, block: usize) -> Option<usize> {
                let top = self.load(self.top_address());
                if self.load(top) == 0 {
                    return self.slow(Operation::Push, block);
                }
                self.store(top, block);
                self.commit(SLOT);
                None
            }

            /// The owner's slow path. The result is a pop's block, or the block for which a
            /// push had no room.
            fn slow(&self, from: Operation, block: usize) -> Option<usize> {
                let mut magazine = self.magazine.lock().unwrap();
                // Taking the lock is a locked instruction, after which all stores are visible.
                self.land_all();
                if std::mem::take(&mut *self.reclaimed.lock().unwrap()) {
                    // As a thread cache does: a new magazine, here in the old place.
                    let left = magazine.interrupted_block(&self.top, from);
                    *magazine = self.renew();
                    if let Some(block) = left {
                        magazine.slot(1).store(block, SeqCst);
                    }
                    self.top.store(magazine.top(left.is_some() as usize), SeqCst);
                } else if self.plant == Plant::NoRecovery && magazine.is_closed() {
                    magazine.restore_top(&AtomicUsize::new(0), from);
                    self.top.store(magazine.top(0), SeqCst);
                } else {
                    magazine.restore_top(&self.top, from);
                }
                let count = magazine.count(self.top.load(SeqCst));
                match from {
                    Operation::Pop if count > 0 => {
                        self.top.store(magazine.top(count - 1), SeqCst);
                        Some(magazine.slot(count).load(SeqCst))
                    }
                    Operation::Pop => None,
                    Operation::Push if count < CAPACITY => {
                        magazine.slot(count + 1).store(block, SeqCst);
                        self.top.store(magazine.top(count + 1), SeqCst);
                        None
                    }
                    Operation::Push => Some(block),
                }
            }

            fn renew(&self) -> Magazine {
                Magazine::new(CAPACITY, &mut SlotMemory).expect("memory")
            }

            /// The system moves the pages away. No store to them is under way meanwhile, since
            /// the system waits for every processor that may have one.
            fn reclaim(&self, magazine: &mut Magazine) {
                let early: Vec<usize> = self.slots.iter().map(|slot| self.cell(*slot).load(SeqCst)).collect();
                if self.plant == Plant::KeptTooEarly {
                    thread::yield_now();
                }
                let mut buffer = self.buffer.lock().unwrap();
                while let Some((address, value)) = buffer.pop_front() {
                    self.cell(address).store(value, SeqCst);
                }
                let moved: Vec<usize> =
                    self.slots.iter().map(|slot| self.cell(*slot).swap(0, SeqCst)).collect();
                let held = if self.plant == Plant::KeptTooEarly { early } else { moved };
                let word =
                    |address| self.slots.iter().position(|slot| *slot == address).map_or(0, |at| held[at]);
                magazine.reclaim(|address| if self.plant == Plant::NotKept { 0 } else { word(address) });
                *self.reclaimed.lock().unwrap() = true;
            }

            /// A tick closes the magazine and takes what it may, or reclaims the pages of one
            /// that was still closed.
            fn drain(&self) -> Vec<usize> {
                let mut magazine = self.magazine.lock().unwrap();
                if *self.reclaimed.lock().unwrap() {
                    return Vec::new();
                }
                if magazine.is_closed() {
                    self.reclaim(&mut magazine);
                    return Vec::new();
                }
                if !magazine.close(&self.top) {
                    return Vec::new();
                }
                if self.plant != Plant::NoBarrier {
                    let _between = self.instruction.lock().unwrap();
                    self.land_all();
                }
                let count = magazine.content_if_closed(&self.top).unwrap_or(0);
                (1..=count).map(|index| magazine.slot(index).load(SeqCst)).collect()
            }
        }

        /// Runs one sequence of pops (0) and pushes (1) of the owner against three drains.
        fn run(operations: u32, count: u32, plant: Plant) {
            let magazine = Magazine::new(CAPACITY, &mut SlotMemory).expect("memory");
            magazine.slot(1).store(101, SeqCst);
            let top = AtomicUsize::new(magazine.top(1));
            let slots = (0..CAPACITY + 6).map(|index| magazine.slot(index) as *const _ as usize).collect();
            let model = Arc::new(Model {
                top,
                magazine: Mutex::new(magazine),
                reclaimed: Mutex::new(false),
                slots,
                buffer: Mutex::new(VecDeque::new()),
                instruction: Mutex::new(()),
                plant,
            });
            let owner = Arc::clone(&model);
            let owner = thread::spawn(move || {
                let mut held = vec![102, 103];
                for index in 0..count {
                    if operations >> index & 1 == 0 {
                        held.extend(owner.pop());
                    } else if let Some(block) = held.pop() {
                        held.extend(owner.push(block));
                    }
                }
                held
            });
            let tick = Arc::clone(&model);
            let tick = thread::spawn(move || {
                let mut taken = tick.drain();
                taken.extend(tick.drain());
                taken.extend(tick.drain());
                taken
            });
            let processor = Arc::clone(&model);
            let processor = thread::spawn(move || (0..count).for_each(|_| processor.land_one()));
            let mut all = owner.join().unwrap();
            all.extend(tick.join().unwrap());
            processor.join().unwrap();
            // What is left is found by the owner's next slow paths.
            while let Some(block) = model.pop() {
                all.push(block);
            }
            all.sort();
            assert_eq!(all, [101, 102, 103], "every block in exactly one place");
        }

        /// Every sequence of four operations, under many schedules.
        fn explore(plant: Plant, schedules: usize) {
            for operations in 0..1 << 4 {
                shuttle::check_random(move || run(operations, 4, plant), schedules);
                shuttle::check_pct(move || run(operations, 4, plant), schedules, 3);
            }
        }

        #[test]
        fn every_block_stays_in_one_place() {
            explore(Plant::Nothing, 10_000);
        }

        #[test]
        #[should_panic(expected = "exactly one place")]
        fn without_the_barrier_blocks_are_lost() {
            explore(Plant::NoBarrier, 10_000);
        }

        #[test]
        #[should_panic(expected = "exactly one place")]
        fn a_pop_that_reads_before_it_commits_gets_a_block_twice() {
            explore(Plant::ReadFirst, 10_000);
        }

        #[test]
        #[should_panic(expected = "exactly one place")]
        fn without_recovery_an_interrupted_operation_loses_its_block() {
            explore(Plant::NoRecovery, 10_000);
        }

        #[test]
        #[should_panic(expected = "exactly one place")]
        fn what_a_page_held_at_the_old_top_is_needed() {
            explore(Plant::NotKept, 10_000);
        }

        #[test]
        #[should_panic(expected = "exactly one place")]
        fn a_page_read_before_it_goes_loses_a_late_write() {
            explore(Plant::KeptTooEarly, 10_000);
        }
    }
}
