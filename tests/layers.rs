//! The layers: no module imports one above it.

use std::collections::HashMap;
use std::path::Path;

/// Every module, the lowest first; those on one line know nothing of each other.
const LAYERS: &[&[&str]] = &[
    &["sync", "misuse", "size_class", "hook", "alone", "growth"],
    &["epoch"],
    &["os"],
    &["metadata", "cgroup", "area"],
    &["settings"],
    &["span", "magazine", "limit"],
    &["segment", "local", "victims"],
    &["live", "huge", "huge_pages"],
    &["page_heap"],
    &["run", "central"],
    &["give"],
    &["class_pool"],
    &["thread_heap"],
    &["registry"],
    &["tide"],
    &["ticker", "stats"],
    &["fork"],
    &["slow_path"],
    &["neap", "pool"],
    &["c_family"],
];

#[test]
fn no_module_imports_upward() {
    let rank: HashMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank)))
        .collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        if path.is_dir() || name == "lib" {
            continue;
        }
        let own = *rank.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no layer"));
        seen += 1;
        let text = std::fs::read_to_string(&path).expect("a source");
        assert!(text.lines().count() <= 400, "{name} is too long to read at a sitting");
        for import in text.split("crate::").skip(1) {
            let imports: Vec<&str> = match import.strip_prefix('{') {
                // `use crate::{a, b::C};`
                Some(list) => list.split('}').next().unwrap_or("").split(',').collect(),
                None => vec![import],
            };
            for import in imports {
                let module: String = import
                    .trim()
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect();
                if let Some(&other) = rank.get(module.as_str()) {
                    assert!(other < own || module == name, "{name} imports {module}, which is not below it");
                }
            }
        }
    }
    assert_eq!(seen, rank.len(), "a layer without its file");
}
