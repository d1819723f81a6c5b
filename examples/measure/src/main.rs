//! Allocation-heavy workloads on real data, under Neap and under the system
//! allocator in turn: time, peak and settled resident memory, and a plot of
//! memory over time.
//!
//! `cargo run --release -p measure [DIR]` reads the Rust sources below
//! `DIR`; by default those of the crates that cargo fetched, for this or others.

mod child;
mod plot;
mod sources;
mod switch;
mod workloads;

use child::Report;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use switch::Switch;
use tabled::builder::Builder;
use tabled::settings::Style;

#[global_allocator]
static HEAP: Switch = Switch::new();

/// Measures Neap beside the system allocator.
#[derive(Parser)]
struct Options {
    /// Where Rust sources are; by default those that cargo fetched.
    dir: Option<PathBuf>,
    /// Where plots go; by default the folder `measure` where cargo builds.
    #[arg(long)]
    out: Option<PathBuf>,
    /// So many MiB of sources.
    #[arg(long, default_value_t = 24)]
    mib: usize,
    /// Runs of each workload under each allocator; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Runs this one workload in this process; for the program's own use.
    #[arg(long, hide = true)]
    child: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let dir = options.dir.clone().unwrap_or_else(sources::default_dir);
    let sources = sources::read(&dir, options.mib << 20)?;
    if let Some(name) = &options.child {
        return child::run(name, &sources.files);
    }
    println!("{sources}, below {}", dir.display());
    drop(sources);
    let bar = ProgressBar::new(workloads::ALL.len() as u64 * 2 * options.rounds);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}  {msg}")?);
    let mut rows = Vec::new();
    for workload in workloads::ALL {
        let mut runs: [Vec<Report>; 2] = Default::default();
        for _ in 0..options.rounds {
            // In turn, so that a noisy moment meets both.
            for (runs, system) in runs.iter_mut().zip([false, true]) {
                bar.set_message(format!("{} ({})", workload.name, if system { "system" } else { "Neap" }));
                runs.push(child::spawn(workload.name, &dir, options.mib, system)?);
                bar.inc(1);
            }
        }
        rows.push((workload, runs));
    }
    bar.finish_and_clear();
    println!("{}", table(&rows));
    println!(
        "time in ms, memory in MiB; medians of {}; settled: 1.3 s after everything was freed",
        options.rounds
    );
    let out = options.out.map_or_else(default_out, Ok)?;
    std::fs::create_dir_all(&out)?;
    for path in plot::draw(&out, &rows)? {
        println!("plot: {}", path.display());
    }
    Ok(())
}

/// The folder `measure` in the one that cargo builds in, which it marks if it
/// made it; this program lies in a folder of its profile's name below that, or
/// of its target's and its profile's.
fn default_out() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let marked = program.ancestors().take(4).find(|folder| folder.join("CACHEDIR.TAG").exists());
    let target = marked.or_else(|| program.ancestors().nth(2)).ok_or(io::ErrorKind::NotFound)?;
    Ok(target.join("measure"))
}

/// A workload's runs, under Neap and under the system's allocator.
type Row = (&'static workloads::Workload, [Vec<Report>; 2]);

type Figure = fn(&Report) -> f64;

fn table(rows: &[Row]) -> String {
    let mut builder = Builder::new();
    builder.push_record(["workload", "time", "system", "peak", "system", "settled", "system"]);
    for (workload, [neap, system]) in rows {
        let mut record = vec![workload.title.to_string()];
        let figures: [Figure; 3] = [|report| report.ms, |report| report.peak, |report| report.settled];
        for figure in figures {
            record.extend([neap, system].map(|runs| format!("{:.1}", figure(median(runs, figure)))));
        }
        builder.push_record(record);
    }
    builder.build().with(Style::markdown()).to_string()
}

/// The run in the middle by a figure.
fn median(runs: &[Report], figure: Figure) -> &Report {
    let mut runs: Vec<&Report> = runs.iter().collect();
    runs.sort_by(|one, other| figure(one).total_cmp(&figure(other)));
    runs[runs.len() / 2]
}
