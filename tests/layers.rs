//! The layers: folders import downwards only, and so do the files within one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every folder of `src` and in it every module, the lowest first; those on one
/// line know nothing of each other.
const LAYERS: &[(&str, &[&[&str]])] = &[
    ("platform", &[&["processor", "unix", "library"], &["linux", "generic"], &["mapping", "lock"], &["mod"]]),
    (
        "base",
        &[&["atomics", "fatal", "size_class", "hook", "residency"], &["epoch", "single_threaded"], &["mod"]],
    ),
    ("config", &[&["cgroup", "parse"], &["environment"], &["settings"], &["soft_limit"]]),
    (
        "heap",
        &[
            &["metadata", "span"],
            &["segment"],
            &["live_map", "mapped", "transparent_huge_pages", "lookup"],
            &["page_heap"],
            &["run", "central", "inventory"],
            &["large", "uncached", "free_batch", "sweep"],
        ],
    ),
    (
        "thread_cache",
        &[
            &["slot_memory"],
            &["magazine"],
            &["thread_local", "victims"],
            &["class_cache"],
            &["cache"],
            &["registry"],
        ],
    ),
    ("reclaim", &[&["tick"], &["background"], &["fork"]]),
    (
        "object_pool",
        &[
            &["fences", "thread_number"],
            &["biased_lock"],
            &["shard"],
            &["all_pools"],
            &["shards"],
            &["pool"],
            &["guard"],
        ],
    ),
    ("global", &[&["stats", "settings", "slow_path"], &["neap"]]),
    ("c_api", &[&["export", "diagnosis"], &["malloc"], &["malloc_family", "operators", "control"], &["mod"]]),
];

/// The most lines that a file may have: what is read at a sitting.
const LINES: usize = 400;

/// The place of each module: its folder's number, and its own in the folder.
fn ranks() -> HashMap<(String, String), (usize, usize)> {
    let mut ranks = HashMap::new();
    for (folder_rank, (folder, floors)) in LAYERS.iter().enumerate() {
        for (rank, modules) in floors.iter().enumerate() {
            for module in *modules {
                let twice = ranks.insert((folder.to_string(), module.to_string()), (folder_rank, rank));
                assert!(twice.is_none(), "{folder}/{module} is listed twice");
            }
        }
    }
    ranks
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// `use` paths with groups taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flattened(tree: &syn::UseTree, so_far: &[String], out: &mut Vec<Vec<String>>) {
    let with = |name: &proc_macro2::Ident| [so_far, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => flattened(&path.tree, &with(&path.ident), out),
        syn::UseTree::Name(name) => out.push(with(&name.ident)),
        syn::UseTree::Rename(rename) => out.push(with(&rename.ident)),
        syn::UseTree::Glob(_) => out.push(so_far.to_vec()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| flattened(item, so_far, out)),
    }
}

/// Every path of a file, in `use` lines and elsewhere.
struct Paths(Vec<Vec<String>>);

impl<'ast> syn::visit::Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flattened(&item.tree, &[], &mut self.0);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}

#[test]
fn no_module_imports_upward() {
    let ranks = ranks();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = std::collections::HashSet::new();
    for path in sources(&src) {
        let text = fs::read_to_string(&path).expect("a source");
        let inside: Vec<String> = path
            .strip_prefix(&src)
            .expect("below src")
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let name = inside.join("/");
        assert!(text.lines().count() <= LINES, "{name} is too long to read at a sitting");
        assert!(!text.contains("#[path"), "{name} has a module from elsewhere");
        if name == "lib" {
            continue;
        }
        // A folder in a folder is one module; a folder's `mod.rs` that only lists its modules has no place.
        let own = (inside[0].clone(), inside[1].clone());
        let Some(&rank) = ranks.get(&own) else {
            assert_eq!(own.1, "mod", "{name} has no layer");
            continue;
        };
        seen.insert(own.clone());
        let mut paths = Paths(vec![]);
        syn::visit::Visit::visit_file(&mut paths, &syn::parse_file(&text).expect("Rust"));
        for path in paths.0 {
            let other = match path.first().map(String::as_str) {
                Some("crate") if path.len() > 1 => {
                    let within = path.get(2).cloned().unwrap_or_default();
                    let module = (path[1].clone(), within);
                    let whole = (path[1].clone(), "mod".to_owned());
                    ranks
                        .get(&module)
                        .map(|&rank| (module, rank))
                        .or(ranks.get(&whole).map(|&rank| (whole, rank)))
                }
                // In a folder's own files; deeper ones are one module.
                Some("super") if inside.len() == 2 && own.1 != "mod" && path.len() > 1 => {
                    let module = (own.0.clone(), path[1].clone());
                    ranks.get(&module).map(|&rank| (module, rank))
                }
                _ => None,
            };
            if let Some((module, other)) = other
                && module != own
            {
                assert!(other < rank, "{name} imports {}/{}, which is not below it", module.0, module.1);
            }
        }
    }
    let missing: Vec<_> = ranks.keys().filter(|module| !seen.contains(*module)).collect();
    assert!(missing.is_empty(), "listed, and not there: {missing:?}");
}
