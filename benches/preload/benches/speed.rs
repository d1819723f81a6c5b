//! Runs every workload under every library in turn and writes a table.
//!
//! `cargo bench -p preload --bench speed -- --help`

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use preload::library::{Library, NEAP};
use preload::{redis, work};
use std::error::Error;
use std::path::Path;
use tabled::builder::Builder;
use tabled::settings::Style;

/// The comparison under `LD_PRELOAD`.
#[derive(Parser)]
struct Options {
    /// Rounds of all libraries in turn; the table shows medians.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Share of the full work; 0.01 is a smoke test.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Leave redis out.
    #[arg(long)]
    no_redis: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by cargo: a smoke test.
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::parse();
    if options.test {
        (options.rounds, options.scale) = (1, 0.01);
    }
    let libraries = Library::all()?;
    let mut names: Vec<&str> = work::ALL.iter().map(|work| work.name).collect();
    if !options.no_redis && redis::is_installed() {
        names.extend(redis::ALL.iter().map(|load| load.name));
    }
    names.retain(|name| name.contains(&options.only));
    let bar = ProgressBar::new((names.len() * libraries.len() * options.rounds) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    // Times by workload and library.
    let mut times = vec![vec![Vec::new(); libraries.len()]; names.len()];
    for round in 0..options.rounds {
        for (name, times) in names.iter().zip(&mut times) {
            let mut turn: Vec<_> = libraries.iter().zip(times).collect();
            // A library finds the machine as the one before it left it.
            if round % 2 == 1 {
                turn.reverse();
            }
            for (library, times) in turn {
                bar.set_message(format!("{name}, {}", library.name));
                times.push(time(name, library, options.scale)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    println!("{}", table(&names, &libraries, &times));
    Ok(())
}

fn time(name: &str, library: &Library, scale: f64) -> Result<f64, Box<dyn Error>> {
    if let Some(load) = redis::ALL.iter().find(|load| load.name == name) {
        return redis::time(load, library, scale);
    }
    let output =
        library.command(Path::new(env!("CARGO_BIN_EXE_work"))).args([name, &scale.to_string()]).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{name} under {}: {} {error}", library.name, output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
}

/// The median of the ratios to the best peer's times, round by round.
///
/// Of several equal peers one is always fastest by luck. So the other half of the rounds (two of
/// every four, so that each half has both orders) says which peer is the best for one half. With
/// unequal peers that sometimes picks a slower one: the truth lies between this and the lowest
/// median.
fn ratio_to_best(own: &[f64], peers: &[&[f64]]) -> f64 {
    let rounds = |half: usize| {
        let is_in = move |round: &usize| own.len() < 4 || round / 2 % 2 == half;
        (0..own.len()).filter(is_in)
    };
    let ratios = [0, 1].into_iter().flat_map(|half| {
        let time = |peer: &&[f64]| median(&rounds(1 - half).map(|round| peer[round]).collect::<Vec<_>>());
        let best = peers.iter().min_by(|one, other| time(one).total_cmp(&time(other)));
        rounds(half).filter_map(move |round| Some(own[round] / best?[round]))
    });
    median(&ratios.collect::<Vec<_>>())
}

/// Milliseconds, Neap's ratio to the best peer, and geometric means.
fn table(names: &[&str], libraries: &[Library], times: &[Vec<Vec<f64>>]) -> String {
    let mut table = Builder::new();
    let heads = ["workload"].into_iter().chain(libraries.iter().map(|library| library.name));
    table.push_record(heads.chain(["neap / best peer", "told by other rounds"]));
    let neap = libraries.iter().position(|library| library.name == NEAP).expect("Neap takes part");
    // The C library is the baseline, not a peer.
    let is_peer = |&index: &usize| !matches!(libraries[index].name, NEAP | "glibc");
    let peers: Vec<usize> = (0..libraries.len()).filter(is_peer).collect();
    let mut logs = vec![0.0; libraries.len()];
    for (name, times) in names.iter().zip(times) {
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        let mut row = vec![(*name).to_owned()];
        row.extend(medians.iter().map(|time| format!("{:.0}", time * 1000.0)));
        let least = peers.iter().map(|&peer| medians[peer]).fold(f64::INFINITY, f64::min);
        row.push(format!("{:.2}", medians[neap] / least));
        let of_peers: Vec<&[f64]> = peers.iter().map(|&peer| times[peer].as_slice()).collect();
        row.push(format!("{:.2}", ratio_to_best(&times[neap], &of_peers)));
        table.push_record(row);
        logs.iter_mut().zip(&medians).for_each(|(log, time)| *log += (medians[neap] / time).ln());
    }
    let mut row = vec!["neap / each, geometric mean".to_owned()];
    row.extend(logs.iter().map(|log| format!("{:.2}", (log / names.len() as f64).exp())));
    row.extend([String::new(), String::new()]);
    table.push_record(row);
    table.build().with(Style::markdown()).to_string()
}
