//! Resident memory over time, as SVG: one file for light pages, one for dark.
//! Text is left to whoever shows it.

use crate::child::{Report, Sample};
use crate::{Row, median};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::{Path, PathBuf};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Of a page's column; what is read at this width is not made smaller.
const WIDTH: u32 = 800;
const HEAD: u32 = 100;
const PANEL: u32 = 256;
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif";

/// A page's colours.
struct Theme {
    name: &'static str,
    page: RGBColor,
    text: RGBColor,
    quiet: RGBColor,
    grid: RGBColor,
    neap: RGBColor,
    system: RGBColor,
    live: RGBColor,
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        page: RGBColor(255, 255, 255),
        text: RGBColor(31, 35, 40),
        quiet: RGBColor(89, 99, 110),
        grid: RGBColor(221, 226, 232),
        neap: RGBColor(9, 105, 218),
        system: RGBColor(188, 76, 0),
        live: RGBColor(110, 119, 129),
    },
    Theme {
        name: "dark",
        page: RGBColor(13, 17, 23),
        text: RGBColor(230, 237, 243),
        quiet: RGBColor(145, 152, 161),
        grid: RGBColor(48, 54, 61),
        neap: RGBColor(88, 166, 255),
        system: RGBColor(240, 136, 62),
        live: RGBColor(145, 152, 161),
    },
];

/// Draws both files; their paths.
pub fn draw(dir: &Path, rows: &[Row]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for theme in &THEMES {
        let path = dir.join(format!("memory-{}.svg", theme.name));
        picture(&path, rows, theme)?;
        paths.push(path);
    }
    Ok(paths)
}

/// The run that the table's last columns are from.
fn shown(runs: &[Report]) -> &Report {
    median(runs, |report| report.settled)
}

fn picture(path: &Path, rows: &[Row], theme: &Theme) -> Result {
    let lines = rows.len().div_ceil(2);
    let area = SVGBackend::new(path, (WIDTH, HEAD + PANEL * lines as u32 + 8)).into_drawing_area();
    area.fill(&theme.page)?;
    let (head, panels) = area.split_vertically(HEAD);
    let [neap, system] = [0, 1].map(|which| rows.iter().map(|row| shown(&row.1[which]).settled).sum::<f64>());
    let headline = format!(
        "1.3 s after the work, Neap holds {}, the system allocator {}",
        megabytes(neap),
        megabytes(system)
    );
    write(&head, &headline, (20, 14), 18, theme.text, true)?;
    let below = "Memory above what the program held before the work; the headline adds up all programs.";
    write(&head, below, (20, 42), 13, theme.quiet, false)?;
    let mut left = 20;
    for (name, color, width, room) in [
        ("resident under Neap", theme.neap, 3, 190),
        ("resident under the system allocator", theme.system, 3, 294),
        ("live: what the program itself holds", theme.live, 1, 0),
    ] {
        let line = [(left, 78), (left + 24, 78)];
        head.draw(&PathElement::new(line, color.stroke_width(width)))?;
        write(&head, name, (left + 32, 71), 13, theme.text, false)?;
        left += room;
    }
    for (row, panel) in rows.iter().zip(panels.split_evenly((lines, 2))) {
        self::panel(&panel, row, theme)?;
    }
    area.present()?;
    Ok(())
}

fn panel(panel: &Area, (workload, [neap, system]): &Row, theme: &Theme) -> Result {
    let (neap, system) = (shown(neap), shown(system));
    let found = format!(
        "{} stay under Neap, {} under the system's",
        megabytes(neap.settled),
        megabytes(system.settled)
    );
    write(panel, workload.title, (20, 14), 14, theme.text, true)?;
    write(panel, &found, (20, 34), 13, theme.quiet, false)?;
    let all = || neap.samples.iter().chain(&system.samples);
    let end = all().map(|sample| sample.ms).fold(1.0, f64::max) / 1000.0;
    let top = all().map(|sample| sample.resident).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(panel)
        .margin_right(24)
        .margin_top(90)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(5)
        .y_labels(4)
        .x_label_formatter(&|seconds| format!("{seconds:.1} s"))
        .y_label_formatter(&|mib| format!("{mib:.0} MiB"))
        .label_style((FONT, units(12), &theme.quiet))
        .axis_style(theme.grid)
        .bold_line_style(theme.grid)
        .light_line_style(TRANSPARENT)
        .draw()?;
    type Figure = fn(&Sample) -> f64;
    let lines: [(&Report, Figure, RGBColor, u32); 3] = [
        (system, |sample| sample.resident, theme.system, 3),
        (neap, |sample| sample.live, theme.live, 1),
        (neap, |sample| sample.resident, theme.neap, 3),
    ];
    for (report, figure, color, width) in lines {
        let points = report.samples.iter().map(|sample| (sample.ms / 1000.0, figure(sample)));
        chart.draw_series(LineSeries::new(points, color.stroke_width(width)))?;
    }
    // Where the work ends: each label on a line of its own, the earlier one's
    // above, so that neither mark goes through the other's label.
    let plot = chart.plotting_area();
    let (corner, width) = (panel.get_base_pixel(), panel.dim_in_pixel().0 as i32);
    let mut marks = [("Neap", neap.ms, theme.neap), ("system", system.ms, theme.system)];
    marks.sort_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
    for ((name, ms, color), top) in marks.into_iter().zip([56, 72]) {
        let (x, bottom) = plot.map_coordinate(&(ms / 1000.0, 0.0));
        let (x, bottom) = (x - corner.0, bottom - corner.1);
        panel.draw(&PathElement::new([(x, top), (x, bottom)], color.stroke_width(1)))?;
        let label = format!("{name}: work ends");
        let room = label.len() as i32 * 7;
        let left = (x + 5).min(width - room);
        panel.draw(&Rectangle::new([(left - 2, top), (left + room, top + 13)], theme.page.filled()))?;
        write(panel, &label, (left, top + 1), 12, color, false)?;
    }
    Ok(())
}

fn megabytes(mib: f64) -> String {
    if mib < 9.95 { format!("{mib:.1} MiB") } else { format!("{mib:.0} MiB") }
}

/// Writes a line of text; `size` is in pixels.
fn write(area: &Area, text: &str, at: (i32, i32), size: u32, color: RGBColor, bold: bool) -> Result {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = (FONT, units(size)).into_font().style(style).color(&color);
    area.draw(&Text::new(text, at, style.pos(Pos::new(HPos::Left, VPos::Top))))?;
    Ok(())
}

/// A font's size as plotters counts it, which divides by this for SVG.
fn units(pixels: u32) -> f64 {
    f64::from(pixels) * 1.24
}
