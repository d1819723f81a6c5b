//! The real data: Rust sources.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The sources that cargo fetched to build this program, or Neap's own.
pub fn default_dir() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let fetched = home.map(|home| home.join("registry/src")).filter(|dir| dir.is_dir());
    fetched.unwrap_or_else(|| PathBuf::from("src"))
}

/// What was read.
pub struct Sources {
    /// The text of each file.
    pub files: Vec<String>,
    /// Bytes in all.
    bytes: usize,
    /// Files that are not there a second time.
    different: usize,
}

impl Display for Sources {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} MiB of Rust in {} files", self.bytes as f64 / (1 << 20) as f64, self.different)?;
        match self.files.len() - self.different {
            0 => Ok(()),
            again => write!(out, ", and {again} of them again for want of others"),
        }
    }
}

/// Reads sources in the order of their paths, up to `bytes` in all. Where
/// there are fewer, they follow once more from the first on, so that the work
/// is as much on a new machine, with little fetched, as on any other.
pub fn read(dir: &Path, bytes: usize) -> Result<Sources, Box<dyn Error>> {
    let mut files: Vec<String> = Vec::new();
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
    if sum == 0 {
        return Err(format!("no Rust source below {}", dir.display()).into());
    }
    let different = files.len();
    for file in 0.. {
        if sum >= bytes {
            break;
        }
        let text = files[file].clone();
        sum += text.len();
        files.push(text);
    }
    Ok(Sources { files, bytes: sum, different })
}
