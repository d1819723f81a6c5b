//! Runs the contestants in turn and writes the table.
//!
//! `cargo bench -p race -- --help`

use clap::Parser;
use race::driver::{Contestant, NEAP, contestant, fresh, markdown, progress};
use race::layouts::{Build, Layouts};
use race::statistics::{bounds_of_median, geometric_mean};
use race::{Report, statistics, workloads};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
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
    /// After two rounds, leave a peer out of a workload if its best time is more than so many
    /// times the best peer's; that saves most of the time.
    #[arg(long, default_value = "inf", value_parser = at_least_one)]
    leave_out: f64,
    /// Share of the full work; 0.01 is a smoke test.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Seconds from the end of the work until settled memory is read; in the first round only.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// How the contestants are built.
    #[arg(long, value_enum, default_value = "lto")]
    build: Build,
    /// Link the contestants again for each round, with their functions in another order, instead
    /// of copying them. The first time takes minutes to compile; needs lld.
    #[arg(long)]
    layouts: bool,
    /// Where the table and the plot go.
    #[arg(long, default_value = "target/race")]
    out: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Reports by workload and allocator.
type Reports = BTreeMap<(usize, usize), Vec<Report>>;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root)?;
    let binaries = Binaries::of(&options)?;
    let chosen: Vec<usize> = (0..workloads::ALL.len())
        .filter(|&index| options.workloads.is_match(workloads::ALL[index].name))
        .collect();
    let bar = progress(chosen.len() * options.allocators.len() * options.rounds)?;
    let mut reports = Reports::new();
    std::fs::create_dir_all(&options.out)?;
    let mut last = None;
    for round in 0..options.rounds {
        // The last round's go once these are made.
        let fresh = last.insert(binaries.fresh(round, &options)?).path();
        let settle = (round == 0).then(|| options.settle.to_string());
        for &workload in &chosen {
            let mut turn: Vec<_> = options.allocators.iter().enumerate().collect();
            // A contestant finds the machine as the one before it left it.
            if round % 2 == 1 {
                turn.reverse();
            }
            for (allocator, contestant) in turn {
                if is_left_out(&reports, (workload, allocator), &options, round) {
                    bar.inc(1);
                    continue;
                }
                let title = workloads::ALL[workload].name;
                bar.set_message(format!("{title} on {}", contestant.name));
                let scale = options.scale.to_string();
                let arguments: Vec<&str> = [title, &scale].into_iter().chain(settle.as_deref()).collect();
                let (report, _) = contestant.run(fresh, &[], &arguments)?;
                reports.entry((workload, allocator)).or_default().push(report);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let names: Vec<&str> = options.allocators.iter().map(|contestant| contestant.name).collect();
    let text = tables(&reports, &chosen, &names);
    println!("{text}");
    std::fs::write(options.out.join("race.md"), &text)?;
    std::fs::write(options.out.join("race.json"), serde_json::to_vec_pretty(&named(&reports, &names))?)?;
    println!("table: {}", options.out.join("race.md").display());
    plot::draw(&options.out, &reports, &chosen, &names)?;
    Ok(())
}

/// Every report by the names of its workload and allocator, in the order of the rounds.
fn named<'a>(reports: &'a Reports, names: &[&'a str]) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a [Report]>> {
    let mut named = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (&(workload, allocator), reports) in reports {
        let title = workloads::ALL[workload].name;
        named.entry(title).or_default().insert(names[allocator], reports.as_slice());
    }
    named
}

/// Where each round's binaries come from.
enum Binaries {
    Built(PathBuf),
    Layouts(Layouts),
}

impl Binaries {
    /// Cargo has built them with fat LTO, as it built this program; others are made here.
    fn of(options: &Options) -> Result<Self, Box<dyn Error>> {
        if options.layouts {
            return Ok(Self::Layouts(Layouts::compile(options.build, &options.allocators)?));
        }
        let with_lto = PathBuf::from(env!("CARGO_BIN_EXE_race_neap"));
        Ok(Self::Built(match options.build {
            Build::Lto => with_lto.parent().expect("a binary lies in a folder").to_owned(),
            Build::Release => {
                let dir = PathBuf::from("target/race");
                let mut cargo = Command::new(env!("CARGO"));
                cargo.args(["build", "--release", "-p", "race", "--bins", "--target-dir"]);
                if !cargo.arg(&dir).status()?.success() {
                    return Err("the contestants do not build".into());
                }
                dir.join("release")
            }
        }))
    }

    /// New ones for a round, in a folder that is removed when the result is dropped.
    fn fresh(&self, round: usize, options: &Options) -> Result<TempDir, Box<dyn Error>> {
        fresh(&options.allocators, &options.out, |contestant, file| match self {
            Self::Built(dir) => {
                std::fs::copy(dir.join(contestant.binary()), file)?;
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

/// Whether this is a peer that was too slow in the first two rounds to matter.
fn is_left_out(reports: &Reports, key: (usize, usize), options: &Options, round: usize) -> bool {
    let is_peer = |&index: &usize| !options.allocators[index].is_neap();
    let best = |allocator| {
        let times = reports.get(&(key.0, allocator)).into_iter().flatten().take(2);
        times.map(|report| report.seconds).fold(f64::INFINITY, f64::min)
    };
    let peers = (0..options.allocators.len()).filter(is_peer);
    let limit = options.leave_out * peers.map(best).fold(f64::INFINITY, f64::min);
    round >= 2 && is_peer(&key.1) && best(key.1) > limit
}

fn median(reports: &Reports, key: (usize, usize), figure: fn(&Report) -> f64) -> f64 {
    statistics::median(reports.get(&key).into_iter().flatten().map(figure))
}

fn tables(reports: &Reports, chosen: &[usize], names: &[&str]) -> String {
    let time = table(reports, chosen, names, |report| report.seconds * 1000.0);
    let sure = certainty(reports, chosen, names);
    let peak = table(reports, chosen, names, |report| report.peak);
    let settled = table(reports, chosen, names, |report| report.settled.unwrap_or(f64::NAN));
    format!(
        "Time, ms (medians)\n\n{time}\n\n{sure}\n\nPeak resident memory, MiB\n\n{peak}\n\nResident some time after the work, MiB\n\n{settled}\n"
    )
}

/// Neap's time as a ratio to the best peer's, round by round: the median, its bounds, and on
/// which workloads Neap is ahead or behind.
///
/// Of several equal peers one is always fastest by luck. So the other half of the rounds says
/// which peer is the best for one half. With unequal peers that sometimes picks a slower one: the
/// truth lies between this and the lowest median. Bounds at 95 % are wrong on one workload in
/// twenty.
fn certainty(reports: &Reports, chosen: &[usize], names: &[&str]) -> String {
    /// A difference too small to be called behind.
    const BEHIND: f64 = 1.03;
    let Some(neap) = names.iter().position(|name| *name == NEAP) else { return String::new() };
    let header = ["workload", "best in half of the rounds", "Neap / that in the others", "95 %"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let (mut ahead, mut behind) = (0, Vec::new());
    for &workload in chosen {
        let bests = [0, 1].map(|half| best_peer(reports, workload, names, half));
        let [Some(one), Some(other)] = bests else { continue };
        let title = workloads::ALL[workload].name;
        let ratios = [(0, other), (1, one)].into_iter().flat_map(|(half, peer)| {
            let times = |allocator| times(reports, (workload, allocator), half);
            times(neap).zip(times(peer)).map(|(own, peer)| own / peer)
        });
        let ratios: Vec<f64> = ratios.collect();
        let middle = statistics::median(ratios.iter().copied());
        let bounds = bounds_of_median(ratios.into_iter());
        ahead += usize::from(bounds.is_some_and(|(_, high)| high < 1.0));
        if bounds.is_some_and(|(low, _)| low > BEHIND) {
            behind.push(title);
        }
        let bounds = bounds.map_or("too few rounds".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let peers =
            if one == other { names[one].into() } else { format!("{}, {}", names[one], names[other]) };
        rows.push(vec![title.to_owned(), peers, format!("{middle:.2}"), bounds]);
    }
    let behind = if behind.is_empty() { "none".into() } else { behind.join(", ") };
    format!(
        "{}\n\nOf {} workloads, with the bounds on one side: ahead {ahead}; more than 3 % behind: {behind}",
        markdown(rows),
        chosen.len()
    )
}

/// Of the peers that ran in every round, the one with the lowest median time in one half.
fn best_peer(reports: &Reports, workload: usize, names: &[&str], half: usize) -> Option<usize> {
    let rounds = |peer: &usize| reports.get(&(workload, *peer)).map_or(0, Vec::len);
    let time = |peer: &usize| statistics::median(times(reports, (workload, *peer), half));
    let peers = || (0..names.len()).filter(|&index| names[index] != NEAP);
    let all = peers().map(|peer| rounds(&peer)).max()?;
    let able = peers().filter(|peer| rounds(peer) == all && !time(peer).is_nan());
    able.min_by(|one, other| time(one).total_cmp(&time(other)))
}

/// The times of one half of the rounds: two of every four, so that each half has both orders.
fn times(reports: &Reports, key: (usize, usize), half: usize) -> impl Iterator<Item = f64> {
    let rounds = reports.get(&key).into_iter().flatten().enumerate();
    rounds.filter(move |(round, _)| round / 2 % 2 == half).map(|(_, report)| report.seconds)
}

/// A row for each workload, with Neap's ratio to the best peer; then geometric
/// means of Neap's ratio to each.
fn table(reports: &Reports, chosen: &[usize], names: &[&str], figure: fn(&Report) -> f64) -> String {
    let neap = names.iter().position(|name| *name == NEAP);
    let header = ["workload"].into_iter().chain(names.iter().copied()).chain(["Neap / best peer"]);
    let mut rows = vec![header.map(str::to_owned).collect::<Vec<String>>()];
    let mut to_best = Vec::new();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    for &workload in chosen {
        let figures: Vec<f64> =
            (0..names.len()).map(|index| median(reports, (workload, index), figure)).collect();
        let best =
            figures.iter().enumerate().filter(|(index, _)| Some(*index) != neap).map(|(_, figure)| *figure);
        let best = best.fold(f64::INFINITY, f64::min);
        let own = neap.map_or(f64::NAN, |neap| figures[neap]);
        to_best.push(own / best);
        figures.iter().zip(&mut ratios).for_each(|(figure, ratios)| ratios.push(own / figure));
        let mut record = vec![workloads::ALL[workload].name.to_owned()];
        record.extend(figures.iter().map(|figure| format!("{figure:.1}")));
        record.push(format!("{:.2}", own / best));
        rows.push(record);
    }
    let mut record = vec!["Neap / each, geometric mean".to_owned()];
    record.extend(ratios.into_iter().map(|ratios| format!("{:.2}", geometric_mean(ratios.into_iter()))));
    record.push(format!("{:.2}", geometric_mean(to_best.into_iter())));
    rows.push(record);
    markdown(rows)
}

/// Times as bars: the ratio to Neap's.
mod plot {
    use super::{NEAP, Reports, median, workloads};
    use plotters::coord::Shift;
    use plotters::prelude::*;
    use plotters::style::{FontStyle, register_font};
    use std::error::Error;
    use std::path::Path;

    pub fn draw(
        dir: &Path,
        reports: &Reports,
        chosen: &[usize],
        names: &[&str],
    ) -> Result<(), Box<dyn Error>> {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        register_font("sans-serif", FontStyle::Normal, font).map_err(|_| "the font is not one")?;
        let size = (1100, 60 + 26 * chosen.len() as u32);
        let (svg, png) = (dir.join("race.svg"), dir.join("race.png"));
        panel(SVGBackend::new(&svg, size).into_drawing_area(), reports, chosen, names)?;
        panel(BitMapBackend::new(&png, size).into_drawing_area(), reports, chosen, names)?;
        println!("plot: {}\nplot: {}", svg.display(), png.display());
        Ok(())
    }

    fn panel<B: DrawingBackend>(
        area: DrawingArea<B, Shift>,
        reports: &Reports,
        chosen: &[usize],
        names: &[&str],
    ) -> Result<(), Box<dyn Error>>
    where
        B::ErrorType: 'static,
    {
        area.fill(&WHITE)?;
        let Some(neap) = names.iter().position(|name| *name == NEAP) else { return Ok(()) };
        let label = |row: &f64| {
            let index = chosen.len() as f64 - row;
            chosen
                .get(index as usize)
                .map_or(String::new(), |&workload| workloads::ALL[workload].name.to_owned())
        };
        let mut chart = ChartBuilder::on(&area)
            .caption("time, as a multiple of Neap's (cut at 4)", ("sans-serif", 20))
            .margin(10)
            .x_label_area_size(24)
            .y_label_area_size(130)
            .build_cartesian_2d(0.0..4.0, 0.0..chosen.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(chosen.len() + 1)
            .y_label_formatter(&label)
            .label_style(("sans-serif", 13))
            .draw()?;
        for (index, name) in names.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let points = chosen.iter().enumerate().map(|(row, &workload)| {
                let time = |allocator: usize| median(reports, (workload, allocator), |report| report.seconds);
                let ratio = (time(index) / time(neap)).min(3.98);
                Circle::new((ratio, chosen.len() as f64 - row as f64 - 0.5), 5, color.filled())
            });
            chart.draw_series(points)?.label(*name).legend(move |at| Circle::new(at, 5, color.filled()));
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
