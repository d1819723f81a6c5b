//! The reports as tables.

use crate::reports::{Reports, Standing};
use race::driver::markdown;
use race::statistics::geometric_mean;
use race::{Report, workloads};

/// All of them.
pub fn tables(reports: &Reports) -> String {
    let time = table(reports, |report| report.seconds * 1000.0);
    let sure = certainty(reports);
    let peak = table(reports, |report| report.peak);
    let settled = table(reports, |report| report.settled.unwrap_or(f64::NAN));
    format!(
        "Time, ms (medians)\n\n{time}\n\n{sure}\n\nPeak resident memory, MiB\n\n{peak}\n\nResident some time after the work, MiB\n\n{settled}\n"
    )
}

/// Neap's time as a ratio to the best peer's, round by round: the median, between which bounds
/// it lies, and on which workloads Neap is ahead or behind. Bounds at 95 % are wrong on one
/// workload in twenty.
fn certainty(reports: &Reports) -> String {
    /// What is not worth to be called behind.
    const BEHIND: f64 = 1.03;
    let header = ["workload", "best in half of the rounds", "Neap / that in the others", "95 %"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let (mut ahead, mut behind) = (0, Vec::new());
    for &workload in &reports.chosen {
        let Some(Standing { peers: [one, other], ratio, bounds }) = reports.standing(workload) else {
            continue;
        };
        let title = workloads::ALL[workload].name;
        ahead += usize::from(bounds.is_some_and(|(_, high)| high < 1.0));
        if bounds.is_some_and(|(low, _)| low > BEHIND) {
            behind.push(title);
        }
        let bounds = bounds.map_or("too few rounds".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let [one, other] = [reports.names[one], reports.names[other]];
        let peers = if one == other { one.into() } else { format!("{one}, {other}") };
        rows.push(vec![title.to_owned(), peers, format!("{ratio:.2}"), bounds]);
    }
    if reports.neap().is_none() {
        return String::new();
    }
    let behind = if behind.is_empty() { "none".into() } else { behind.join(", ") };
    format!(
        "{}\n\nOf {} workloads, with the bounds on one side: ahead {ahead}; more than 3 % behind: {behind}",
        markdown(rows),
        reports.chosen.len()
    )
}

/// A row for each workload, with Neap's ratio to the best peer; then geometric
/// means of Neap's ratio to each.
fn table(reports: &Reports, figure: fn(&Report) -> f64) -> String {
    let names = &reports.names;
    let header = ["workload"].into_iter().chain(names.iter().copied()).chain(["Neap / best peer"]);
    let mut rows = vec![header.map(str::to_owned).collect::<Vec<String>>()];
    let mut to_bests = Vec::new();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    for &workload in &reports.chosen {
        let (figures, to_best) = reports.medians(workload, figure);
        let own = reports.neap().map_or(f64::NAN, |neap| figures[neap]);
        to_bests.push(to_best);
        figures.iter().zip(&mut ratios).for_each(|(figure, ratios)| ratios.push(own / figure));
        let mut record = vec![workloads::ALL[workload].name.to_owned()];
        record.extend(figures.iter().map(|figure| format!("{figure:.1}")));
        record.push(format!("{to_best:.2}"));
        rows.push(record);
    }
    let mut record = vec!["Neap / each, geometric mean".to_owned()];
    record.extend(ratios.into_iter().map(|ratios| format!("{:.2}", geometric_mean(ratios.into_iter()))));
    record.push(format!("{:.2}", geometric_mean(to_bests.into_iter())));
    rows.push(record);
    markdown(rows)
}
