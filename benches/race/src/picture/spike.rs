//! A spike's memory over time as lines, with their names at their ends.

use super::{Drawn, Look, Sheet, Theme, both, known, write};
use crate::driver::NEAP;
use crate::timeline::{Readings, Timeline};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What contestants do: one panel each.
pub const CASES: [&str; 2] = ["spike", "survivors"];
const TITLES: [&str; 2] = ["all of it freed", "all but one block in a hundred freed"];
/// Who has a line; the others are told in the corner.
const LINES: [&str; 5] = ["system", "mimalloc", "jemalloc", "jemalloc-background", NEAP];
/// Heights.
const HEAD: i32 = 64;
const PANEL: i32 = 246;
/// Where lines begin and end; then come dots, what is held at the end, and names.
const PLOT: Range<i32> = 52..552;
const DOTS: i32 = 572;
const HELD: i32 = 620;
const NAMES: i32 = 628;
/// Between two names.
const GAP: i32 = 17;

/// Draws both pictures; their paths.
pub fn draw(readings: &Readings, out: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let height = HEAD + PANEL * CASES.len() as i32;
    both(out, "spike", height as u32, |sheet, theme| {
        head(sheet, theme, readings)?;
        for (index, (case, title)) in CASES.into_iter().zip(TITLES).enumerate() {
            panel(sheet, theme, HEAD + index as i32 * PANEL, title, case, readings)?;
        }
        Ok(())
    })
}

/// What was found, and how.
fn head(sheet: &Sheet, theme: &Theme, readings: &Readings) -> Drawn {
    let line = |allocator| readings.line(CASES[0], allocator);
    let last = |line: &Timeline| line.last().map_or(f64::NAN, |(_, mib)| *mib);
    let (own, peer) = (line(NEAP), line("mimalloc"));
    // The first reading that is hardly above the last one.
    let back = own.iter().find(|(seconds, mib)| *seconds > 0.0 && *mib < last(&own) + 1.0);
    let text = format!(
        "{} GiB freed: Neap is at {} MiB after {:.1} s, mimalloc stays at {} MiB",
        readings.scale,
        shown(last(&own)),
        back.map_or(f64::NAN, |(seconds, _)| *seconds),
        shown(last(&peer))
    );
    write(sheet, (16, 24), &text, Look::new(18.0, theme.ink).bold())?;
    let work = "resident MiB; one thread’s blocks of 32 to 512 bytes, Neap with its background thread";
    let text = format!("{work} · {}", readings.processor);
    write(sheet, (16, 48), &text, Look::new(13.0, theme.faded))
}

fn shown(mib: f64) -> String {
    // Some of what was there at the start can be gone, too.
    if mib < 10.0 { format!("{:.1}", mib.max(0.0)) } else { format!("{mib:.0}") }
}

fn panel(sheet: &Sheet, theme: &Theme, top: i32, title: &str, case: &str, readings: &Readings) -> Drawn {
    let small = Look::new(12.0, theme.faded);
    write(sheet, (16, top + 14), title, Look::new(14.0, theme.ink).bold())?;
    let lines = LINES.map(|allocator| (allocator, readings.line(case, allocator)));
    let points = || lines.iter().flat_map(|(_, line)| line);
    let start = points().map(|(seconds, _)| *seconds).fold(-0.5, f64::min);
    let end = points().map(|(seconds, _)| *seconds).fold(1.0, f64::max);
    let most = points().map(|(_, mib)| *mib).fold(1.0, f64::max);
    let (high, low) = (top + 42, top + PANEL - 56);
    let area = sheet.clone().shrink((PLOT.start, high), (PLOT.len() as u32, (low - high) as u32));
    let chart = ChartBuilder::on(&area).build_cartesian_2d(start..end, 0.0..most * 1.06)?;
    let place = |seconds: f64, mib: f64| chart.backend_coord(&(seconds, mib));
    for tick in [0.0, 500.0, 1000.0].into_iter().filter(|tick| *tick < most) {
        let (_, y) = place(0.0, tick);
        sheet.draw(&PathElement::new([(PLOT.start, y), (PLOT.end, y)], theme.grid))?;
        write(sheet, (PLOT.start - 8, y), &tick.to_string(), small.side(HPos::Right))?;
    }
    for second in (0..=end.round() as i32).step_by(2) {
        let (x, _) = place(second.into(), 0.0);
        write(sheet, (x, low + 14), &format!("{second} s"), small.side(HPos::Center))?;
    }
    let (freed, _) = place(0.0, 0.0);
    sheet.draw(&PathElement::new([(freed, high - 10), (freed, low)], theme.faded))?;
    write(sheet, (freed + 6, high - 6), "freed", small)?;
    for (allocator, line) in &lines {
        let points: Vec<_> = line.iter().map(|&(seconds, mib)| place(seconds, mib)).collect();
        let width = if *allocator == NEAP { 3 } else { 2 };
        sheet.draw(&PathElement::new(points, color(theme, allocator).stroke_width(width)))?;
    }
    let text = format!("MiB after {} s", end.round());
    write(sheet, (DOTS - 6, top + 14), &text, small)?;
    names(sheet, theme, &lines, |mib| place(end, mib).1)?;
    let others = readings.allocators(case).into_iter().filter(|name| !LINES.contains(name));
    let others = others.filter_map(|name| {
        let (_, mib) = *readings.line(case, name).last()?;
        Some(format!("{} {}", known(name), shown(mib)))
    });
    let others = others.collect::<Vec<_>>().join(", ");
    if others.is_empty() {
        return Ok(());
    }
    write(sheet, (PLOT.start, low + 32), &format!("not drawn: {others}"), small)
}

/// Beside the lines' ends, what is held there, and by whom.
fn names(sheet: &Sheet, theme: &Theme, lines: &[(&str, Timeline)], height: impl Fn(f64) -> i32) -> Drawn {
    let mut ends: Vec<_> = lines.iter().filter_map(|(name, line)| Some((*name, line.last()?.1))).collect();
    ends.sort_by(|one, other| other.1.total_cmp(&one.1));
    let wanted: Vec<i32> = ends.iter().map(|(_, mib)| height(*mib)).collect();
    for ((allocator, held), (from, to)) in ends.iter().zip(wanted.iter().zip(apart(&wanted))) {
        let color = color(theme, allocator);
        sheet.draw(&PathElement::new([(PLOT.end, *from), (DOTS, to)], color))?;
        sheet.draw(&Circle::new((DOTS, to), 4, color.filled()))?;
        let ink = Look::new(13.0, theme.ink);
        let ink = if *allocator == NEAP { ink.bold() } else { ink };
        write(sheet, (HELD, to), &shown(*held), ink.side(HPos::Right))?;
        write(sheet, (NAMES, to), known(allocator), ink)?;
    }
    Ok(())
}

fn color(theme: &Theme, allocator: &str) -> RGBColor {
    match allocator {
        NEAP => theme.blue,
        "system" => theme.orange,
        "mimalloc" => theme.vermilion,
        "jemalloc" => theme.green,
        _ => theme.purple,
    }
}

/// Heights from the top down, moved so far apart that texts do not touch, and none below the lowest.
fn apart(wanted: &[i32]) -> Vec<i32> {
    let mut heights = wanted.to_vec();
    for index in 1..heights.len() {
        heights[index] = heights[index].max(heights[index - 1] + GAP);
    }
    if let (Some(last), Some(lowest)) = (heights.last_mut(), wanted.last()) {
        *last = *lowest;
    }
    for index in (1..heights.len()).rev() {
        heights[index - 1] = heights[index - 1].min(heights[index] - GAP);
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::{GAP, apart};

    #[test]
    fn names_do_not_touch() {
        assert_eq!(apart(&[10, 12, 200]), [10, 10 + GAP, 200]);
        assert_eq!(apart(&[10, 198, 200]), [10, 200 - GAP, 200]);
        assert!(apart(&[]).is_empty());
    }
}
