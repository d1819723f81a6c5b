//! Pictures for a page of text 800 pixels wide, light or dark: their paper, inks and letters.
//!
//! Colours are M. Okabe's and K. Ito's, which people tell apart who see few colours. Letters
//! are whatever the reader's system has, so no width is known here: each text is anchored at
//! the side that must not move, with room to spare at the other.
//!
//! Those of the README are made by
//!
//! ```sh
//! cargo bench -p race --bench race -- --draw docs/pictures/race.csv --out docs/pictures
//! cargo bench -p race --bench memory -- --picture spike --out docs/pictures
//! ```
//!
//! the second of which measures, in three minutes, and keeps its readings beside the pictures;
//! `--draw docs/pictures/spike.csv` draws those again.

pub mod race;
pub mod spike;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::{Path, PathBuf};

const WIDTH: u32 = 800;
const LETTERS: &str = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif";

/// What is drawn on.
type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// The colours of one kind of page.
struct Theme {
    name: &'static str,
    paper: RGBColor,
    /// Of texts.
    ink: RGBColor,
    /// Of texts that are less important.
    faded: RGBColor,
    /// Of the lines behind.
    grid: RGBColor,
    /// Of every other row.
    stripe: RGBColor,
    blue: RGBColor,
    vermilion: RGBColor,
    green: RGBColor,
    purple: RGBColor,
    orange: RGBColor,
    /// Of what is neither here nor there.
    grey: RGBColor,
}

const fn rgb(code: u32) -> RGBColor {
    RGBColor((code >> 16) as u8, (code >> 8) as u8, code as u8)
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        paper: rgb(0xffffff),
        ink: rgb(0x1f2328),
        faded: rgb(0x59636e),
        grid: rgb(0xd1d9e0),
        stripe: rgb(0xf4f6f8),
        blue: rgb(0x0072b2),
        vermilion: rgb(0xd55e00),
        green: rgb(0x009e73),
        purple: rgb(0xcc79a7),
        orange: rgb(0xe69f00),
        grey: rgb(0x9aa4ae),
    },
    Theme {
        name: "dark",
        paper: rgb(0x0d1117),
        ink: rgb(0xf0f6fc),
        faded: rgb(0x9198a1),
        grid: rgb(0x2f3742),
        stripe: rgb(0x151b23),
        blue: rgb(0x56b4e9),
        vermilion: rgb(0xd55e00),
        green: rgb(0x009e73),
        purple: rgb(0xcc79a7),
        orange: rgb(0xe69f00),
        grey: rgb(0x6e7681),
    },
];

/// Draws `NAME-light.svg` and `NAME-dark.svg`; their paths.
fn both(
    out: &Path,
    name: &str,
    height: u32,
    draw: impl Fn(&Sheet, &Theme) -> Drawn,
) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut paths = Vec::new();
    for theme in &THEMES {
        let path = out.join(format!("{name}-{}.svg", theme.name));
        let sheet = SVGBackend::new(&path, (WIDTH, height)).into_drawing_area();
        sheet.fill(&theme.paper)?;
        draw(&sheet, theme)?;
        sheet.present()?;
        drop(sheet);
        paths.push(path);
    }
    Ok(paths)
}

/// A text's look: its size in pixels, its colour, and which of its sides is where it is put.
#[derive(Clone, Copy)]
struct Look {
    size: f64,
    color: RGBColor,
    bold: bool,
    side: HPos,
}

impl Look {
    const fn new(size: f64, color: RGBColor) -> Self {
        Self { size, color, bold: false, side: HPos::Left }
    }

    const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    const fn side(self, side: HPos) -> Self {
        Self { side, ..self }
    }
}

/// Writes a text, the middle of its capitals at this height.
fn write(sheet: &Sheet, at: (i32, i32), text: &str, look: Look) -> Drawn {
    let style = if look.bold { FontStyle::Bold } else { FontStyle::Normal };
    // The library's size is that of a line, by which it divides.
    let font = FontDesc::new(FontFamily::Name(LETTERS), look.size * 1.24, style);
    let style = TextStyle::from(font).color(&look.color).pos(Pos::new(look.side, VPos::Center));
    // What the library takes for the middle is that of small letters.
    Ok(sheet.draw(&Text::new(text, (at.0, at.1 + 1), style))?)
}

/// An allocator's name as readers know it.
fn known(allocator: &str) -> &str {
    match allocator {
        "neap" => "Neap",
        "system" => "glibc",
        "jemalloc-background" => "jemalloc, background",
        name => name,
    }
}
