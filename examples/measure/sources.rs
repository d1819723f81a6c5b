//! The real data: Rust sources.

use std::error::Error;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The sources that cargo fetched to build this example, or our own.
pub fn default_dir() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let fetched = home.map(|home| home.join("registry/src")).filter(|dir| dir.is_dir());
    fetched.unwrap_or_else(|| PathBuf::from("src"))
}

/// Reads sources in the order of their paths, up to `bytes` in all.
pub fn read(dir: &Path, bytes: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut sum = 0;
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if entry.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        // Not every file of a crate is text.
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        sum += text.len();
        files.push(text);
        if sum >= bytes {
            break;
        }
    }
    if files.is_empty() {
        return Err(format!("no Rust source below {}", dir.display()).into());
    }
    Ok(files)
}
