//! What is measured.

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::mpsc;
use syn::visit::Visit;

/// One workload.
pub struct Workload {
    /// As a child is told.
    pub name: &'static str,
    /// As the table says.
    pub title: &'static str,
    /// The work; its answer keeps it from being left out.
    pub run: fn(&[String]) -> usize,
}

/// All of them, in the order of the table.
pub const ALL: &[Workload] = &[
    Workload { name: "parse", title: "parse with syn", run: parse },
    Workload { name: "words", title: "count words", run: words },
    Workload { name: "json", title: "JSON trees", run: json_trees },
    Workload { name: "threads", title: "pass work between threads", run: threads },
];

/// Parses every file, keeps the trees of 64 at a time, and walks them.
fn parse(files: &[String]) -> usize {
    struct Count(usize);
    impl<'ast> Visit<'ast> for Count {
        fn visit_ident(&mut self, _: &'ast proc_macro2::Ident) {
            self.0 += 1;
        }
    }
    let mut count = Count(0);
    for batch in files.chunks(64) {
        // A file that is not the newest Rust, or a template, does not parse.
        let trees: Vec<syn::File> = batch.iter().filter_map(|text| syn::parse_file(text).ok()).collect();
        trees.iter().for_each(|tree| count.visit_file(tree));
    }
    count.0
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// Counts words in a hash map, and notes where they are in a B-tree.
fn words(files: &[String]) -> usize {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut places: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (file, text) in files.iter().enumerate() {
        for word in split(text) {
            *counts.entry(word.to_owned()).or_default() += 1;
            places.entry(word.to_lowercase()).or_default().push(file as u32);
        }
    }
    counts.len() + places.values().map(Vec::len).sum::<usize>()
}

/// Builds a tree of each file's lines, prints it, and reads it back.
fn json_trees(files: &[String]) -> usize {
    let tree = |text: &String| -> Value {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| json!({ "indent": line.len() - line.trim_start().len(), "words": split(line).collect::<Vec<_>>() })).collect()
    };
    let mut bytes = 0;
    for batch in files.chunks(16) {
        let trees: Vec<Value> = batch.iter().map(tree).collect();
        let printed = serde_json::to_string_pretty(&trees).expect("a tree prints");
        let again: Vec<Value> = serde_json::from_str(&printed).expect("what was printed");
        assert_eq!(trees.len(), again.len());
        bytes += printed.len();
    }
    bytes
}

/// One thread cuts lines, four make words of them, one counts.
fn threads(files: &[String]) -> usize {
    let (counted, results) = mpsc::sync_channel::<Vec<String>>(64);
    std::thread::scope(|scope| {
        let mut lines = Vec::new();
        for _ in 0..4 {
            let (sender, receiver) = mpsc::sync_channel::<Vec<String>>(16);
            let counted = counted.clone();
            scope.spawn(move || {
                for batch in receiver {
                    let words = batch.iter().flat_map(|line| split(line)).map(str::to_owned).collect();
                    counted.send(words).expect("the counter lives");
                }
            });
            lines.push(sender);
        }
        drop(counted);
        scope.spawn(move || {
            for (index, text) in files.iter().enumerate() {
                let batch = text.lines().map(str::to_owned).collect();
                lines[index % lines.len()].send(batch).expect("the worker lives");
            }
        });
        results.into_iter().map(|words| black_box(words).len()).sum()
    })
}
