//! The race as bars: Neap's time by each peer's, and by the best one's on each workload.

use super::{Drawn, Look, Sheet, Theme, WIDTH, both, known, write};
use crate::results::Results;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::error::Error;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// What is neither ahead nor behind: less than that is noise.
const EVEN: RangeInclusive<f64> = 0.97..=1.03;
/// Where ratios have a line and a number, if they come near them.
const TICKS: [f64; 14] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0];
/// Heights.
const ROW: i32 = 15;
const TITLE: i32 = 50;
const HEAD: i32 = 82;
/// Columns: names end here, bars lie between these, and then come the times.
const NAMES: i32 = 138;
const BARS: Range<i32> = 146..582;
const OWN: i32 = 640;
const PEERS: i32 = 700;

/// A line of a panel.
struct Bar {
    name: String,
    ratio: f64,
    /// Neap's time and a peer's, in ms, and that peer's name.
    times: Option<(f64, f64, String)>,
}

/// Draws both pictures; their paths.
pub fn draw(results: &Results, out: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let of_peer = |(name, ratio): (&str, f64)| Bar { name: known(name).to_owned(), ratio, times: None };
    let mut peers: Vec<Bar> = results.to_each().into_iter().map(of_peer).collect();
    let of_row = |row: &crate::results::Row| Bar {
        name: row.workload.clone(),
        ratio: row.to_best,
        times: results.best(row).map(|(own, best, name)| (own, best, known(name).to_owned())),
    };
    let mut workloads: Vec<Bar> = results.rows.iter().map(of_row).collect();
    for bars in [&mut peers, &mut workloads] {
        bars.retain(|bar| bar.ratio.is_finite() && bar.ratio > 0.0);
        bars.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
    }
    if workloads.is_empty() {
        return Ok(Vec::new());
    }
    let count = peers.len();
    peers.push(Bar { name: "fastest of them".to_owned(), ratio: results.to_best(), times: None });
    let height = HEAD + 2 * TITLE + (peers.len() + workloads.len()) as i32 * ROW + 22;
    both(out, "race", height as u32, |sheet, theme| {
        head(sheet, theme, results, &workloads, count)?;
        let ratios = || peers.iter().chain(&workloads).map(|bar| bar.ratio);
        // Room for the numbers beside the longest bars.
        let range = ratios().fold(1.0, f64::min) * 0.88..ratios().fold(1.0, f64::max) * 1.12;
        let mean = format!("beside each peer: geometric mean of {} workloads", workloads.len());
        panel(sheet, theme, HEAD, &mean, &range, &peers)?;
        let top = HEAD + TITLE + peers.len() as i32 * ROW + 8;
        let each = format!("each workload, beside whichever of the {count} is fastest at it");
        panel(sheet, theme, top, &each, &range, &workloads)
    })
}

/// What was found, and how.
fn head(sheet: &Sheet, theme: &Theme, results: &Results, workloads: &[Bar], peers: usize) -> Drawn {
    let text = format!(
        "Neap takes {:.2} of the time of the fastest of {peers} others, on average",
        results.to_best()
    );
    write(sheet, (16, 24), &text, Look::new(20.0, theme.ink).bold())?;
    let about = |name| results.about(name).unwrap_or("unknown");
    let text = format!(
        "{} · medians of {} rounds · bars: Neap’s time ÷ the peer’s",
        about("processor"),
        about("rounds")
    );
    write(sheet, (16, 48), &text, Look::new(13.0, theme.faded))?;
    let count = |of: fn(f64) -> bool| workloads.iter().filter(|bar| of(bar.ratio)).count();
    let kinds = [
        (count(|ratio| ratio < *EVEN.start()), "ahead", 0.0),
        (count(|ratio| EVEN.contains(&ratio)), "within 3 %", 1.0),
        (count(|ratio| ratio > *EVEN.end()), "behind", 2.0),
    ];
    for (x, (count, kind, ratio)) in [16, 106, 216].into_iter().zip(kinds) {
        sheet.draw(&Rectangle::new([(x, 65), (x + 10, 75)], color(theme, ratio).filled()))?;
        write(sheet, (x + 16, 70), &format!("{count} {kind}"), Look::new(13.0, theme.ink))?;
    }
    let text = format!("of {} workloads", workloads.len());
    write(sheet, (314, 70), &text, Look::new(13.0, theme.faded))
}

fn color(theme: &Theme, ratio: f64) -> RGBColor {
    match ratio {
        ratio if ratio < *EVEN.start() => theme.blue,
        ratio if ratio <= *EVEN.end() => theme.grey,
        _ => theme.vermilion,
    }
}

/// Bars from 1 on, to the left where Neap takes less time.
fn panel(sheet: &Sheet, theme: &Theme, top: i32, title: &str, range: &Range<f64>, bars: &[Bar]) -> Drawn {
    let small = Look::new(12.0, theme.faded);
    let rows = top + TITLE;
    let bottom = rows + bars.len() as i32 * ROW;
    write(sheet, (16, top + 18), title, Look::new(14.0, theme.ink).bold())?;
    let area =
        sheet.clone().shrink((BARS.start, rows), ((BARS.end - BARS.start) as u32, (bottom - rows) as u32));
    let chart =
        ChartBuilder::on(&area).build_cartesian_2d(range.clone().log_scale(), bars.len() as f64..0.0)?;
    for top in (rows..bottom).step_by(2 * ROW as usize) {
        let stripe = [(16, top), (WIDTH as i32 - 16, top + ROW)];
        sheet.draw(&Rectangle::new(stripe, theme.stripe.filled()))?;
    }
    let x = |ratio: f64| chart.backend_coord(&(ratio, 0.0)).0;
    for tick in TICKS.into_iter().filter(|tick| range.contains(tick)) {
        let color = if tick == 1.0 { theme.faded } else { theme.grid };
        sheet.draw(&PathElement::new([(x(tick), rows), (x(tick), bottom)], color))?;
        write(sheet, (x(tick), rows - 9), &tick.to_string(), small.side(HPos::Center))?;
    }
    if bars.iter().any(|bar| bar.times.is_some()) {
        write(sheet, (OWN, rows - 9), "Neap, ms", small.side(HPos::Right))?;
        write(sheet, (PEERS, rows - 9), "peer", small.side(HPos::Right))?;
    }
    for (index, bar) in bars.iter().enumerate() {
        let (top, middle) = (rows + index as i32 * ROW, rows + index as i32 * ROW + ROW / 2);
        let ink = Look::new(12.0, theme.ink);
        write(sheet, (NAMES, middle), &bar.name, ink.side(HPos::Right))?;
        let end = x(bar.ratio);
        let corners = [(end.min(x(1.0)), top + 2), (end.max(x(1.0)), top + ROW - 2)];
        sheet.draw(&Rectangle::new(corners, color(theme, bar.ratio).filled()))?;
        let (at, side) = if bar.ratio < 1.0 { (end - 5, HPos::Right) } else { (end + 5, HPos::Left) };
        write(sheet, (at, middle), &format!("{:.2}", bar.ratio), ink.side(side))?;
        if let Some((own, best, peer)) = &bar.times {
            write(sheet, (OWN, middle), &format!("{own:.0}"), ink.side(HPos::Right))?;
            write(sheet, (PEERS, middle), &format!("{best:.0}"), small.side(HPos::Right))?;
            write(sheet, (PEERS + 6, middle), peer, small)?;
        }
    }
    Ok(())
}
