//! The documents: short where they promise it, and no link leads nowhere.

use pulldown_cmark::{Event, Parser, Tag};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn documents() -> Vec<PathBuf> {
    let markdown = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|end| end == "md"))
    };
    let root = Path::new(ROOT);
    markdown(root.to_owned()).chain(markdown(root.join("docs"))).collect()
}

/// Where a document leads to: its links and images, and the sources of pictures in HTML.
fn targets(text: &str) -> Vec<String> {
    let mut targets = vec![];
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                targets.push(dest_url.to_string())
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                let sources = ["src=\"", "srcset=\""].into_iter().flat_map(|name| html.split(name).skip(1));
                targets.extend(sources.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
            _ => {}
        }
    }
    targets
}

/// The anchors that a page's headings have, as most renderers make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() >= 9, "{documents:?}");
    for document in documents {
        let text = fs::read_to_string(&document).expect("a document");
        for target in targets(&text).iter().filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                document.clone()
            } else {
                document.parent().expect("a folder").join(path)
            };
            assert!(path.exists(), "{}: {target}", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(path).expect("a document"));
                assert!(anchors.iter().any(|known| known == anchor), "{}: {target}", document.display());
            }
        }
    }
}

#[test]
fn the_first_pages_are_short() {
    for (name, most) in [("README.md", 8 << 10), ("ARCHITECTURE.md", 15 << 10)] {
        let bytes = fs::metadata(Path::new(ROOT).join(name)).expect(name).len();
        assert!(bytes <= most, "{name} has {bytes} bytes, of {most}");
    }
}

/// All sources below a folder, one after the other, with their names.
fn sources(below: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all += &format!("{}\n{}\n", path.display(), fs::read_to_string(&path).expect("a source"));
        }
    }
    all
}

/// What the pages about the code call `a::b`, or `c.rs`, is there.
#[test]
fn the_code_has_what_its_pages_name() {
    let sources = sources(&Path::new(ROOT).join("src")) + &sources(&Path::new(ROOT).join("tests"));
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let known: std::collections::HashSet<&str> = sources.split(|letter| !is_part(letter)).collect();
    for page in ["ARCHITECTURE.md", "PORTING.md"] {
        let text = fs::read_to_string(Path::new(ROOT).join(page)).expect(page);
        for event in Parser::new(&text) {
            let Event::Code(code) = event else { continue };
            if code.contains("::") || code.contains(".rs") {
                for name in code
                    .split(|letter| !is_part(letter))
                    .filter(|name| name.starts_with(|letter: char| !letter.is_numeric()))
                {
                    assert!(known.contains(name), "{page}: there is no {name}, of {code}");
                }
            }
        }
    }
}

/// Figures that somebody was going to fill in.
#[test]
fn nothing_is_left_to_fill_in() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        assert!(!text.contains("{{"), "{}", document.display());
    }
}
