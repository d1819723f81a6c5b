//! What the drivers share: which allocators take part, how one of them is run, and how
//! figures are formatted.

use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use tabled::builder::Builder;
use tabled::settings::Style;
use tempfile::TempDir;

/// The one that the others are compared with.
pub const NEAP: &str = "neap";

/// An allocator, with its settings.
pub struct Contestant {
    /// Its name in arguments and tables.
    pub name: &'static str,
    binary: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const fn plain(name: &'static str, binary: &'static str) -> Contestant {
    Contestant { name, binary, environment: &[] }
}

const CONTESTANTS: &[Contestant] = &[
    plain(NEAP, "race_neap"),
    plain("system", "race_system"),
    plain("mimalloc", "race_mimalloc"),
    plain("jemalloc", "race_jemalloc"),
    plain("snmalloc", "race_snmalloc"),
    plain("rpmalloc", "race_rpmalloc"),
    plain("rusty_alloc", "race_rusty_alloc"),
    Contestant {
        name: "jemalloc-background",
        binary: "race_jemalloc",
        environment: &[("_RJEM_MALLOC_CONF", "background_thread:true")],
    },
    Contestant { name: "neap-foreground", binary: "race_neap", environment: &[("NEAP_BACKGROUND", "0")] },
    Contestant {
        name: "neap-no-ticks",
        binary: "race_neap",
        environment: &[("NEAP_TICK_INTERVAL_MS", "3600000")],
    },
];

/// The contestant of a name, for an option of the command line.
pub fn contestant(name: &str) -> Result<&'static Contestant, String> {
    let found = CONTESTANTS.iter().find(|contestant| contestant.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = CONTESTANTS.iter().map(|contestant| contestant.name).collect();
        format!("there is no {name}, but {}", names.join(", "))
    })
}

impl Contestant {
    /// Whether it is Neap, with any settings.
    pub fn is_neap(&self) -> bool {
        self.binary == "race_neap"
    }

    /// The name of its binary.
    pub fn binary(&self) -> &'static str {
        self.binary
    }

    /// Runs it with these arguments. Returns what it printed as JSON, and its standard error.
    /// Its own environment overrides the caller's.
    pub fn run<T: DeserializeOwned>(
        &self,
        binaries: &Path,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<(T, String), Box<dyn Error>> {
        let mut command = Command::new(binaries.join(self.binary));
        command.envs(environment.iter().copied()).envs(self.environment.iter().copied());
        let output = command.args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("{} on {}: {} {said}", arguments.join(" "), self.name, output.status).into());
        }
        Ok((serde_json::from_slice(&output.stdout)?, said))
    }
}

/// The contestants' binaries, made by `make` as files that are new in memory too, in a folder
/// of their own inside another. They are removed when the result is dropped.
///
/// How the kernel holds a file in memory (in which pages, for example) can decide a third of a
/// workload's time, and it is the same in each run until the file leaves memory. If every round
/// has files of its own, that luck is spread over the rounds and shows in their bounds. Drop a
/// round's files only after the next ones are made, or those get the same pages.
pub fn fresh(
    contestants: &[&Contestant],
    within: &Path,
    make: impl Fn(&Contestant, &Path) -> Result<(), Box<dyn Error>>,
) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir_in(within)?;
    for contestant in contestants {
        let file = folder.path().join(contestant.binary);
        make(contestant, &file)?;
        // Otherwise it is written to the disk while the first workloads run.
        fs::File::open(file)?.sync_all()?;
    }
    Ok(folder)
}

/// A progress bar for so many runs.
pub fn progress(runs: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} of {eta}  {msg}")?;
    Ok(ProgressBar::new(runs as u64).with_style(style))
}

/// Rows as Markdown; the first one is the header.
pub fn markdown(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    rows.into_iter().collect::<Builder>().build().with(Style::markdown()).to_string()
}
