//! Links the contestants again, each time with their functions in another order.
//!
//! The addresses of functions decide several percent of a workload's time, since they decide
//! which functions share the sets of a cache or of the branch predictor. That is the same in
//! each run of one binary, and no allocator's merit. See T. Mytkowicz and others, "Producing
//! wrong data without doing anything obviously wrong!", 2009.

use crate::driver::Contestant;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the contestants are built.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Build {
    /// Fat LTO, one codegen unit.
    Lto,
    /// Plain `--release`.
    Release,
}

/// The contestants, ready to be linked.
pub struct Layouts {
    /// The command that links a binary, by the binary's name.
    links: BTreeMap<&'static str, String>,
}

impl Layouts {
    /// Compiles the contestants, from the workspace's root, and keeps what is linked. The first
    /// time takes some minutes, and 4 GB under `target`.
    pub fn compile(build: Build, contestants: &[&Contestant]) -> Result<Self, Box<dyn Error>> {
        let (name, options): (_, &[&str]) = match build {
            Build::Lto => (
                "lto",
                &["--config", "profile.release.lto='fat'", "--config", "profile.release.codegen-units=1"],
            ),
            Build::Release => ("release", &[]),
        };
        let dir = PathBuf::from("target/race-layouts").join(name);
        fs::create_dir_all(&dir)?;
        let mut links = BTreeMap::new();
        for contestant in contestants {
            let binary = contestant.binary();
            // Cargo prints nothing if there is nothing to do, so the command is kept in a file.
            let link = std::path::absolute(dir.join(binary).with_extension("link"))?;
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["rustc", "--release", "-p", "race", "--bin", binary, "--target-dir"]).arg(&dir);
            cargo.args(options).args(["--", "-C", "save-temps"]);
            cargo.arg(format!("--print=link-args={}", link.display()));
            if !cargo.status()?.success() {
                return Err(format!("{binary} does not build").into());
            }
            let command = fs::read_to_string(link)?.lines().last().unwrap_or_default().to_owned();
            links.insert(binary, command);
        }
        Ok(Self { links })
    }

    /// Links one of them into a file, with its functions in an order that depends on a seed.
    pub fn link(&self, contestant: &Contestant, seed: usize, path: &Path) -> Result<(), Box<dyn Error>> {
        let binary = contestant.binary();
        let command = &self.links[binary];
        // The command is rustc's, quoted for a shell; of two `-o` options the last one counts.
        let line = format!("{command} -Wl,--shuffle-sections='.text*={seed}' -o \"$0\"");
        let output = Command::new("sh").arg("-c").arg(line).arg(path).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{binary} does not link in another order (lld can do it): {said}").into());
        }
        Ok(())
    }
}
