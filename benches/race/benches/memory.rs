//! Runs the memory scenarios on the contestants in turn and writes tables.
//!
//! `cargo bench -p race --bench memory -- --help`

use clap::Parser;
use race::driver::{Contestant, NEAP, contestant, markdown, progress};
use race::scenarios::{ALL, Goal, Scenario};
use race::statistics::median;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

const ALLOCATORS: &[&str] =
    &[NEAP, "system", "mimalloc", "jemalloc", "jemalloc-background", "snmalloc", "rpmalloc", "rusty_alloc"];
/// Neap ticks while the process is quiet; the others do not read this.
const ENVIRONMENT: &[(&str, &str)] = &[("NEAP_BACKGROUND", "1")];

/// The memory comparison.
#[derive(Parser)]
struct Options {
    /// Only scenarios whose name matches this regular expression.
    #[arg(long, default_value = "")]
    scenarios: regex::Regex,
    /// Only these allocators; a scenario may add variants of Neap.
    #[arg(long, value_delimiter = ',', default_values = ALLOCATORS, value_parser = contestant)]
    allocators: Vec<&'static Contestant>,
    /// Rounds of all contestants in turn; tables show medians.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Share of the full work; 0.01 is a smoke test.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where the tables go.
    #[arg(long, default_value = "target/race")]
    out: PathBuf,
    /// Also print Neap's statistics at the end of each run.
    #[arg(long)]
    stats: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The results, by figure and contestant.
type Found = BTreeMap<(&'static str, &'static str, &'static str), Vec<f64>>;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    std::env::set_current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    let binaries = PathBuf::from(env!("CARGO_BIN_EXE_race_neap"));
    let binaries = binaries.parent().expect("a binary lies in a folder");
    let mut environment = ENVIRONMENT.to_vec();
    environment.extend(options.stats.then_some(("RACE_STATS", "1")));
    let chosen: Vec<&Scenario> =
        ALL.iter().filter(|scenario| options.scenarios.is_match(scenario.name)).collect();
    let runs: usize = chosen.iter().map(|scenario| taking_part(scenario, &options).len()).sum();
    let bar = progress(runs * options.rounds)?;
    let mut found = Found::new();
    for _ in 0..options.rounds {
        for scenario in &chosen {
            for contestant in taking_part(scenario, &options) {
                bar.set_message(format!("{} on {}", scenario.name, contestant.name));
                let arguments = [&format!("memory:{}", scenario.name), &options.scale.to_string()];
                // A peer that crashes has no figures; the others go on.
                let run = contestant.run(binaries, &environment, &arguments.map(String::as_str));
                let (figures, said): (BTreeMap<String, f64>, String) = match run {
                    Err(error) if !contestant.is_neap() => (BTreeMap::new(), error.to_string()),
                    run => run?,
                };
                if !said.is_empty() {
                    bar.suspend(|| eprintln!("{} on {}\n{said}", scenario.name, contestant.name));
                }
                for figure in scenario.figures {
                    let key = (scenario.name, figure.name, contestant.name);
                    found.entry(key).or_default().extend(figures.get(figure.name));
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let text = tables(&chosen, &options, &found)?;
    println!("{text}");
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join("memory.md");
    std::fs::write(&path, &text)?;
    println!("tables: {}", path.display());
    Ok(())
}

/// The contestants of a scenario: those asked for, and the scenario's variants.
fn taking_part(scenario: &Scenario, options: &Options) -> Vec<&'static Contestant> {
    let mut all = options.allocators.clone();
    for name in scenario.variants {
        if all.iter().all(|other| other.name != *name) {
            all.extend(contestant(name));
        }
    }
    all
}

/// A table for each group of scenarios.
fn tables(chosen: &[&Scenario], options: &Options, found: &Found) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for group in chosen.chunk_by(|a, b| a.table == b.table) {
        let names: Vec<&str> = taking_part(group[0], options).iter().map(|one| one.name).collect();
        let mut rows =
            vec![[&["", "goal"], names.as_slice()].concat().into_iter().map(str::to_owned).collect()];
        for scenario in group {
            for figure in scenario.figures {
                let of =
                    |name| match found.iter().find(|(key, _)| **key == (scenario.name, figure.name, name)) {
                        Some((_, figures)) => median(figures.iter().copied()),
                        None => f64::NAN,
                    };
                let mut row = vec![figure.name.to_owned(), judge(&figure.goal, of(NEAP), of)];
                row.extend(names.iter().map(|name| shown(of(name))));
                rows.push(row);
            }
        }
        text += &format!("{}\n\n{}\n\n", group[0].table, markdown(rows));
    }
    Ok(text)
}

/// The goal, and whether Neap met it.
fn judge<'a>(goal: &Goal, own: f64, of: impl Fn(&'a str) -> f64) -> String {
    let (text, met) = match *goal {
        Goal::None => return String::new(),
        Goal::AtMost(most) => (format!("≤ {most}"), own <= most),
        Goal::AtMostOf(name) => (format!("≤ {name}"), own <= of(name)),
        Goal::AtLeastOf(name, share) => (format!("≥ {share} {name}"), own >= of(name) * share),
    };
    match own.is_nan() {
        true => text,
        false => format!("{text}: {}", if met { "met" } else { "missed" }),
    }
}

fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size.is_nan() => "died".to_owned(),
        size if size >= 1000.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
