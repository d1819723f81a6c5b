//! Memory over time: what a contestant reads of itself while it works and after, and the file
//! of comma-separated values that several contestants' readings are kept in.

use crate::proc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two readings.
const PAUSE: Duration = Duration::from_millis(50);

/// Resident memory above the start: seconds since everything was freed, MiB.
pub type Timeline = Vec<(f64, f64)>;

/// Reads the process's memory now and then, in the working thread itself: another thread would
/// change how allocators work.
pub struct Watch {
    start: Instant,
    next: Instant,
    base: f64,
    freed: Duration,
    readings: Timeline,
}

impl Watch {
    /// Starts, with the first reading.
    pub fn start() -> Self {
        let now = Instant::now();
        // As many as never need another block.
        let mut readings = vec![(0.0, 0.0); 4096];
        readings.clear();
        let base = resident();
        Self { start: now, next: now, base, freed: Duration::ZERO, readings }
    }

    /// A reading, if it is time; to be called often.
    pub fn look(&mut self) {
        let now = Instant::now();
        if now >= self.next && self.readings.len() < self.readings.capacity() {
            self.read();
            self.next = now + PAUSE;
        }
    }

    /// Everything is freed: from here seconds are counted.
    pub fn freed(&mut self) {
        self.freed = self.start.elapsed();
        self.read();
    }

    /// Waits and goes on reading.
    pub fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(PAUSE);
            self.read();
        }
    }

    /// What was read.
    pub fn finish(mut self) -> Timeline {
        let freed = self.freed.as_secs_f64();
        self.readings.iter_mut().for_each(|(seconds, _)| *seconds -= freed);
        self.readings
    }

    fn read(&mut self) {
        self.readings.push((self.start.elapsed().as_secs_f64(), resident() - self.base));
    }
}

/// Anonymous memory that is resident, in MiB. Takes microseconds, where adding up the mappings
/// takes milliseconds of a GiB.
fn resident() -> f64 {
    proc::status("RssAnon:")
}

/// One contestant's line in one picture.
#[derive(Deserialize, Serialize)]
pub struct Reading {
    /// What it did.
    pub case: String,
    /// Who.
    pub allocator: String,
    /// Since everything was freed.
    pub seconds: f64,
    /// Above the start.
    pub mib: f64,
}

/// Readings of several contestants, with what has to be known of the run.
pub struct Readings {
    /// Where they were taken.
    pub processor: String,
    /// The share of the full work.
    pub scale: f64,
    /// By case and allocator, in order of time.
    pub all: Vec<Reading>,
}

const PROCESSOR: &str = "# processor: ";
const SCALE: &str = "# scale: ";

impl Readings {
    /// Adds a line, without those readings that lie between equal ones.
    pub fn add(&mut self, case: &str, allocator: &str, line: &Timeline) {
        let tenths = |index: usize| line.get(index).map(|(_, mib)| (mib * 10.0).round());
        for (index, &(seconds, mib)) in line.iter().enumerate() {
            let before = index.checked_sub(1).and_then(tenths);
            if before != tenths(index) || tenths(index) != tenths(index + 1) {
                let round = |figure: f64, digits: f64| (figure * digits).round() / digits;
                self.all.push(Reading {
                    case: case.to_owned(),
                    allocator: allocator.to_owned(),
                    seconds: round(seconds, 1000.0),
                    mib: round(mib, 10.0),
                });
            }
        }
    }

    /// The line of an allocator in a case.
    pub fn line(&self, case: &str, allocator: &str) -> Timeline {
        let of = |reading: &&Reading| reading.case == case && reading.allocator == allocator;
        self.all.iter().filter(of).map(|reading| (reading.seconds, reading.mib)).collect()
    }

    /// Who has a line in a case.
    pub fn allocators(&self, case: &str) -> BTreeSet<&str> {
        let of_case = self.all.iter().filter(|reading| reading.case == case);
        of_case.map(|reading| reading.allocator.as_str()).collect()
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let about = |name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let (processor, scale) = (about(PROCESSOR).to_owned(), about(SCALE).parse()?);
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
        Ok(Self { processor, scale, all: reader.deserialize().collect::<Result<_, _>>()? })
    }

    /// Writes a file that can be read again.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut comments = String::new();
        writeln!(comments, "{PROCESSOR}{}\n{SCALE}{}", self.processor, self.scale)?;
        writeln!(comments, "# seconds since everything was freed; anonymous resident MiB above the start")?;
        let mut writer = csv::Writer::from_writer(comments.into_bytes());
        self.all.iter().try_for_each(|reading| writer.serialize(reading))?;
        Ok(fs::write(path, writer.into_inner()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_bends() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = vec![(-1.0, 0.0), (0.0, 9.0), (1.0, 9.02), (2.0, 9.0), (3.0, 2.0), (4.0, 2.0)];
        let mut readings = Readings { processor: "a: b, c".into(), scale: 0.5, all: Vec::new() };
        readings.add("case", "one", &line);
        readings.write(file.path()).expect("writes");
        let read = Readings::read(file.path()).expect("reads");
        assert_eq!((read.processor.as_str(), read.scale), ("a: b, c", 0.5));
        let read = read.line("case", "one");
        assert_eq!(read, [(-1.0, 0.0), (0.0, 9.0), (2.0, 9.0), (3.0, 2.0), (4.0, 2.0)]);
    }
}
