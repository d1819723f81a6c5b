//! Allocation-heavy workloads on real data, under Neap and under the system
//! allocator in turn: time, peak and settled resident memory, and a plot of
//! where the memory is.
//!
//! `cargo run --release --example measure [DIR]` reads the Rust sources below
//! `DIR`; by default those of the crates that building this example fetched.

mod child;
mod plot;
mod sources;
mod switch;
mod workloads;

use child::Report;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::PathBuf;
use switch::Switch;
use tabled::builder::Builder;
use tabled::settings::Style;

#[global_allocator]
static HEAP: Switch = Switch::new();

/// Measures Neap beside the system allocator.
#[derive(Parser)]
struct Options {
    /// Where Rust sources are; by default those of this example's own dependencies.
    dir: Option<PathBuf>,
    /// Where plots go.
    #[arg(long, default_value = "target/measure")]
    out: PathBuf,
    /// At most so many MiB of sources.
    #[arg(long, default_value_t = 24)]
    mib: usize,
    /// Runs of each workload under each allocator; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Runs this one workload in this process; for the program's own use.
    #[arg(long, hide = true)]
    child: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let dir = options.dir.clone().unwrap_or_else(sources::default_dir);
    if let Some(name) = &options.child {
        return child::run(name, &sources::read(&dir, options.mib << 20)?);
    }
    let count = workloads::ALL.len() * 2 * options.rounds;
    let bar = ProgressBar::new(count as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}  {msg}")?);
    println!("sources below {}", dir.display());
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
    std::fs::create_dir_all(&options.out)?;
    for path in plot::draw(&options.out, &rows)? {
        println!("plot: {}", path.display());
    }
    Ok(())
}

type Row = (&'static workloads::Workload, [Vec<Report>; 2]);

fn table(rows: &[Row]) -> String {
    let mut builder = Builder::new();
    builder.push_record(["workload", "time", "system", "peak", "system", "settled", "system"]);
    for (workload, [neap, system]) in rows {
        let mut record = vec![workload.title.to_string()];
        for figure in
            [|report: &Report| report.ms, |report: &Report| report.peak, |report: &Report| report.settled]
        {
            record.extend([neap, system].map(|runs| format!("{:.1}", median(runs, figure))));
        }
        builder.push_record(record);
    }
    builder.build().with(Style::markdown()).to_string()
}

fn median(runs: &[Report], figure: impl Fn(&Report) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
