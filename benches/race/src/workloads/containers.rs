//! Maps of strings, and containers that grow.

use super::{Work, random, scaled};
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;

pub fn btree_map(scale: f64) -> Work {
    let count = scaled(1_500_000, scale);
    let mut random = random(11);
    Box::new(move || {
        let mut map: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for _ in 0..count {
            let key = random.random_range(0..count / 2);
            map.insert(format!("key {key}"), vec![1; key % 120]);
        }
        map.len() as u64
    })
}

pub fn hash_map(scale: f64) -> Work {
    let count = scaled(4_000_000, scale);
    let mut random = random(12);
    Box::new(move || {
        let mut map: HashMap<String, String> = HashMap::new();
        for _ in 0..count {
            let key = random.random_range(0..count / 4).to_string();
            if random.random_ratio(1, 3) {
                map.remove(&key);
            } else {
                map.insert(key, "value".repeat(random.random_range(1..8)));
            }
        }
        map.len() as u64
    })
}

pub fn growing_vec(scale: f64) -> Work {
    let rounds = scaled(60, scale);
    Box::new(move || {
        for _ in 0..rounds {
            let mut numbers = Vec::new();
            (0..8_000_000u32).for_each(|number| numbers.push(number));
            black_box(numbers);
        }
        rounds as u64
    })
}

pub fn growing_string(scale: f64) -> Work {
    let rounds = scaled(60, scale);
    Box::new(move || {
        for _ in 0..rounds {
            let mut text = String::new();
            (0..1_000_000).for_each(|_| text.push_str("a line of text\n"));
            black_box(text);
        }
        rounds as u64
    })
}
