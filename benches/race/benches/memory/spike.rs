//! The picture of memory over time after a spike: its readings, and drawing it.

use crate::Options;
use race::driver::progress;
use race::picture;
use race::timeline::{Readings, Timeline};
use std::error::Error;
use std::path::Path;

/// Runs the contestants in turn, keeps what they read as data, and draws it.
pub fn run(binaries: &Path, environment: &[(&str, &str)], options: &Options) -> Result<(), Box<dyn Error>> {
    let mut readings =
        Readings { processor: options.processor.clone(), scale: options.scale, all: Vec::new() };
    let cases = picture::spike::CASES;
    let scale = options.scale.to_string();
    let bar = progress(cases.len() * options.allocators.len())?;
    for case in cases {
        for contestant in &options.allocators {
            bar.set_message(format!("{case} on {}", contestant.name));
            let what = format!("timeline:{case}");
            // A peer that dies has no line.
            match contestant.run::<Timeline>(binaries, environment, &[&what, &scale]) {
                Err(error) if !contestant.is_neap() => bar.suspend(|| eprintln!("{error}")),
                run => readings.add(case, contestant.name, &run?.0),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let file = options.out.join("spike.csv");
    readings.write(&file)?;
    println!("data: {}", file.display());
    draw(&file, &options.out)
}

/// Draws what a file has.
pub fn draw(file: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    for path in picture::spike::draw(&Readings::read(file)?, out)? {
        println!("picture: {}", path.display());
    }
    Ok(())
}
