//! Runs the contestants in turn; draws up the table and the picture.
//!
//! `cargo bench -p race --bench race -- --help`

mod reports;
mod tables;

use clap::{Parser, ValueEnum};
use race::driver::{Contestant, NEAP, contestant, fresh, progress};
use race::layouts::{Build, Layouts};
use race::results::Results;
use race::{picture, proc, workloads};
use reports::Reports;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const ALL: &[&str] = &[NEAP, "system", "mimalloc", "jemalloc", "snmalloc", "rpmalloc", "rusty_alloc"];

/// The race.
#[derive(Parser)]
struct Options {
    /// Only workloads whose name matches this regular expression.
    #[arg(long, default_value = "")]
    workloads: regex::Regex,
    /// Only these allocators.
    #[arg(long, value_delimiter = ',', default_values = ALL, value_parser = contestant)]
    allocators: Vec<&'static Contestant>,
    /// Rounds of all contestants in turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// After two rounds, leave a peer out of a workload on which its best time in them is more
    /// than so many times the best peer's; that saves most of the time.
    #[arg(long, default_value = "inf", value_parser = at_least_one)]
    leave_out: f64,
    /// Share of the full work; 0.01 is a smoke test.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Seconds from the work's end to the reading of settled memory; in the first round only.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// How the contestants are built.
    #[arg(long, value_enum, default_value = "lto")]
    build: Build,
    /// Link the contestants anew for each round, their functions in another order, instead of
    /// copying them: takes minutes to compile at the first time, and lld.
    #[arg(long)]
    layouts: bool,
    /// Where the table, the data and the picture go.
    #[arg(long, default_value_os_t = target().join("race"))]
    out: PathBuf,
    /// The processor, as the picture names it.
    #[arg(long, default_value_t = proc::processor())]
    processor: String,
    /// Only draw the picture, from the data of a race that was run before (race.csv).
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root)?;
    fs::create_dir_all(&options.out)?;
    if let Some(file) = &options.draw {
        return draw(&Results::read(file)?, &options.out);
    }
    let binaries = Binaries::of(&options)?;
    let chosen: Vec<usize> = (0..workloads::ALL.len())
        .filter(|&index| options.workloads.is_match(workloads::ALL[index].name))
        .collect();
    let names = options.allocators.iter().map(|contestant| contestant.name).collect();
    let mut reports = Reports::new(chosen, names);
    let bar = progress(reports.chosen.len() * options.allocators.len() * options.rounds)?;
    let mut last = None;
    for round in 0..options.rounds {
        // The last round's go once these are made.
        let fresh = last.insert(binaries.fresh(round, &options)?).path();
        let settle = (round == 0).then(|| options.settle.to_string());
        for workload in reports.chosen.clone() {
            let mut turn: Vec<_> = options.allocators.iter().enumerate().collect();
            // Whoever runs after another finds the machine as that one left it.
            if round % 2 == 1 {
                turn.reverse();
            }
            for (allocator, contestant) in turn {
                let key = (workload, allocator);
                if round >= 2 && reports.is_left_out(key, &options.allocators, options.leave_out) {
                    bar.inc(1);
                    continue;
                }
                let title = workloads::ALL[workload].name;
                bar.set_message(format!("{title} on {}", contestant.name));
                let scale = options.scale.to_string();
                let arguments: Vec<&str> = [title, &scale].into_iter().chain(settle.as_deref()).collect();
                let (report, _) = contestant.run(fresh, &[], &arguments)?;
                reports.add(key, report);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let text = tables::tables(&reports);
    println!("{text}");
    let table = options.out.join("race.md");
    fs::write(&table, &text)?;
    fs::write(options.out.join("race.json"), serde_json::to_vec_pretty(&reports.named())?)?;
    let results = reports.results(about(&options));
    let data = options.out.join("race.csv");
    results.write(&data)?;
    println!("table: {}\ndata: {}", table.display(), data.display());
    draw(&results, &options.out)
}

/// What has to be known of a run.
fn about(options: &Options) -> Vec<(String, String)> {
    let build = options.build.to_possible_value().map(|build| build.get_name().to_owned());
    let about = [
        ("processor", options.processor.clone()),
        ("build", build.unwrap_or_default()),
        ("linked anew in each round", if options.layouts { "yes" } else { "no" }.to_owned()),
        ("rounds", options.rounds.to_string()),
        ("scale", options.scale.to_string()),
        ("columns", race::results::COLUMNS.to_owned()),
    ];
    about.map(|(name, value)| (name.to_owned(), value)).into()
}

fn draw(results: &Results, out: &Path) -> Result<(), Box<dyn Error>> {
    for path in picture::race::draw(results, out)? {
        println!("picture: {}", path.display());
    }
    Ok(())
}

/// Where cargo builds.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder").to_owned()
}

/// Where each round's binaries come from.
enum Binaries {
    Built(PathBuf),
    Layouts(Layouts),
}

impl Binaries {
    /// Cargo has built them with fat LTO, as it built this programme; others are made here.
    fn of(options: &Options) -> Result<Self, Box<dyn Error>> {
        if options.layouts {
            return Ok(Self::Layouts(Layouts::compile(options.build, &options.allocators, &target())?));
        }
        let with_lto = PathBuf::from(env!("CARGO_BIN_EXE_race_neap"));
        Ok(Self::Built(match options.build {
            Build::Lto => with_lto.parent().expect("a binary lies in a folder").to_owned(),
            Build::Release => {
                let dir = target().join("race");
                let mut cargo = Command::new(env!("CARGO"));
                cargo.args(["build", "--release", "-p", "race", "--bins", "--target-dir"]);
                if !cargo.arg(&dir).status()?.success() {
                    return Err("the contestants do not build".into());
                }
                dir.join("release")
            }
        }))
    }

    /// New ones for a round, in a folder that goes with what is returned.
    fn fresh(&self, round: usize, options: &Options) -> Result<TempDir, Box<dyn Error>> {
        fresh(&options.allocators, &options.out, |contestant, file| match self {
            Self::Built(dir) => {
                fs::copy(dir.join(contestant.binary()), file)?;
                Ok(())
            }
            Self::Layouts(layouts) => layouts.link(contestant, round + 1, file),
        })
    }
}

fn at_least_one(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "not a number")?;
    if ratio >= 1.0 { Ok(ratio) } else { Err("below 1 the best would be left out, too".into()) }
}
