//! Several threads.

use super::{Work, random, scaled};
use rand::Rng;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, scope};

pub fn producer_consumer(scale: f64) -> Work {
    let batches = scaled(40_000, scale);
    Box::new(move || {
        let (sender, receiver) = sync_channel::<Vec<Box<[u64; 6]>>>(16);
        let consumer = thread::spawn(move || receiver.into_iter().map(|batch| batch.len() as u64).sum());
        for batch in 0..batches as u64 {
            sender.send((0..1000).map(|n| Box::new([n + batch; 6])).collect()).expect("the consumer lives");
        }
        drop(sender);
        consumer.join().expect("no panic")
    })
}

/// Each thread replaces blocks of a set that the next thread goes on with.
pub fn larson(scale: f64) -> Work {
    let (rounds, steps) = (scaled(40, scale), 200_000);
    Box::new(move || {
        let mut sets: Vec<Vec<Vec<u8>>> = (0..4).map(|_| vec![Vec::new(); 2000]).collect();
        for round in 0..rounds as u64 {
            sets = scope(|scope| {
                let run = |(index, mut set): (usize, Vec<Vec<u8>>)| {
                    let mut random = random(round * 8 + index as u64);
                    scope.spawn(move || {
                        for _ in 0..steps {
                            set[random.random_range(0..2000)] =
                                Vec::with_capacity(random.random_range(8..=1000));
                        }
                        set
                    })
                };
                let threads: Vec<_> = sets.into_iter().enumerate().map(run).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            sets.rotate_left(1);
        }
        sets.len() as u64
    })
}

/// Some threads only allocate, others only free, through one exchange.
pub fn xmalloc(scale: f64) -> Work {
    let batches = scaled(20_000, scale);
    Box::new(move || {
        let (sender, receiver) = sync_channel::<Vec<Vec<u8>>>(32);
        let receiver = Arc::new(Mutex::new(receiver));
        scope(|scope| {
            for seed in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    let mut random = random(seed);
                    for _ in 0..batches {
                        let batch =
                            (0..250).map(|_| Vec::with_capacity(random.random_range(8..=400))).collect();
                        sender.send(batch).expect("a consumer lives");
                    }
                });
            }
            drop(sender);
            for _ in 0..2 {
                let receiver = receiver.clone();
                scope.spawn(move || {
                    loop {
                        let batch = receiver.lock().expect("no panic").recv();
                        let Ok(batch) = batch else { break };
                        drop(batch);
                    }
                });
            }
        });
        batches as u64
    })
}

/// Locked additions, so that what counts is which processor has the cache line, not how a loop
/// of plain stores is laid out in each contestant. The loop writes nothing else: a store to the
/// stack in each turn (as by `black_box`) costs 4 or 5 cycles, depending on the stack's address.
fn write_often(object: Box<AtomicU64>, times: usize) -> Box<AtomicU64> {
    // Hidden from the compiler once, before the loop, so that it does not merge the additions.
    let word = black_box(&*object);
    for _ in 0..times {
        word.fetch_add(1, Relaxed);
    }
    object
}

/// Threads that each allocate an object and write to it: two in one cache line would slow each
/// other down.
pub fn share_active(scale: f64) -> Work {
    let rounds = scaled(8_000, scale);
    Box::new(move || {
        scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| make_and_write(rounds));
            }
        });
        rounds as u64
    })
}

/// The same, but each thread first frees an object that is the neighbour of another thread's.
pub fn share_passive(scale: f64) -> Work {
    let rounds = scaled(8_000, scale);
    Box::new(move || {
        let objects: Vec<Box<AtomicU64>> = (0..2).map(|n| Box::new(AtomicU64::new(n))).collect();
        scope(|scope| {
            for object in objects {
                scope.spawn(move || {
                    drop(object);
                    make_and_write(rounds);
                });
            }
        });
        rounds as u64
    })
}

fn make_and_write(rounds: usize) {
    for round in 0..rounds as u64 {
        black_box(write_often(Box::new(AtomicU64::new(round)), 10_000));
    }
}

fn many(threads: usize, count: usize) -> Work {
    Box::new(move || {
        scope(|scope| {
            for seed in 0..threads as u64 {
                scope.spawn(move || {
                    let mut random = random(seed);
                    let mut live: Vec<Vec<u8>> = vec![Vec::new(); 1000];
                    for _ in 0..count {
                        live[random.random_range(0..1000)] = Vec::with_capacity(random.random_range(8..=512));
                    }
                });
            }
        });
        threads as u64
    })
}

pub fn threads_2(scale: f64) -> Work {
    many(2, scaled(30_000_000, scale))
}

pub fn threads_64(scale: f64) -> Work {
    many(64, scaled(1_000_000, scale))
}

pub fn creation(scale: f64) -> Work {
    let count = scaled(15_000, scale);
    Box::new(move || {
        for _ in 0..count {
            let thread = thread::spawn(|| (0..100u64).map(Box::new).collect::<Vec<_>>().len());
            black_box(thread.join().expect("no panic"));
        }
        count as u64
    })
}
