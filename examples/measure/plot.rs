//! Resident memory and the tiers over time, as SVG and PNG.

use crate::Row;
use crate::child::{Report, Sample};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::error::Error;
use std::path::{Path, PathBuf};

const SIZE: (u32, u32) = (1200, 900);

/// Draws both files; their paths.
pub fn draw(dir: &Path, rows: &[Row]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    // A font of our own: a machine may have none.
    let font = epaint_default_fonts::UBUNTU_LIGHT;
    register_font("sans-serif", FontStyle::Normal, font).map_err(|_| "the font is not one")?;
    let (svg, png) = (dir.join("memory.svg"), dir.join("memory.png"));
    panels(SVGBackend::new(&svg, SIZE).into_drawing_area(), rows)?;
    panels(BitMapBackend::new(&png, SIZE).into_drawing_area(), rows)?;
    Ok(vec![svg, png])
}

fn panels<B: DrawingBackend>(area: DrawingArea<B, Shift>, rows: &[Row]) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let panels = area.split_evenly((rows.len().div_ceil(2), 2));
    for ((workload, [neap, system]), panel) in rows.iter().zip(&panels) {
        if let (Some(neap), Some(system)) = (neap.last(), system.last()) {
            draw_panel(panel, workload.title, neap, system)?;
        }
    }
    area.present()?;
    Ok(())
}

fn draw_panel<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    title: &str,
    neap: &Report,
    system: &Report,
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let all = || neap.samples.iter().chain(&system.samples);
    let end = all().map(|sample| sample.ms).fold(1.0, f64::max);
    let top = all().map(|sample| sample.resident).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("ms")
        .y_desc("MiB")
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    type Figure = fn(&Sample) -> f64;
    let lines: [(&str, &Report, Figure, RGBColor, u32); 6] = [
        ("resident, system", system, |sample| sample.resident, RGBColor(150, 150, 150), 2),
        ("resident, Neap", neap, |sample| sample.resident, RGBColor(20, 90, 160), 3),
        ("live", neap, |sample| sample.live, RGBColor(40, 150, 80), 1),
        ("free runs", neap, |sample| sample.free, RGBColor(150, 80, 170), 1),
        ("local tier", neap, |sample| sample.local, RGBColor(230, 140, 20), 1),
        ("victim tier", neap, |sample| sample.victim, RGBColor(200, 40, 40), 1),
    ];
    for (name, report, figure, color, width) in lines {
        let points = report.samples.iter().map(|sample| (sample.ms, figure(sample)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(width)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}
