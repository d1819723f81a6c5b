//! What a race found, as a file of comma-separated values: a row for each workload, and
//! before them comments with what has to be known of the run.

use crate::driver::NEAP;
use crate::statistics::geometric_mean;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{fs, iter};

/// A race's results.
pub struct Results {
    /// The processor, the command and the like, by name.
    pub about: Vec<(String, String)>,
    /// Whose times the rows have.
    pub allocators: Vec<String>,
    /// In the order of the workloads.
    pub rows: Vec<Row>,
}

/// One workload. What is not known is NaN.
pub struct Row {
    /// Its name.
    pub workload: String,
    /// Each allocator's median.
    pub milliseconds: Vec<f64>,
    /// Neap's time by that of the best peer, whose median is least.
    pub to_best: f64,
    /// Neap's time by that of the peer that was best in the other half of the rounds.
    pub by_other_rounds: f64,
    /// Between which bounds the latter lies, with 95 %.
    pub bounds: [f64; 2],
}

/// What the columns are, for the comments.
pub const COLUMNS: &str = "medians in ms; Neap's by the least of the peers'; the median of Neap's by those of the peer \
that was best in the other half of the rounds, and between which bounds that lies with 95 %";

const RATIOS: [&str; 4] = ["to_best", "by_other_rounds", "low", "high"];

impl Results {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let comments = text.lines().map_while(|line| line.strip_prefix("# "));
        let about = comments.filter_map(|line| line.split_once(": "));
        let about = about.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
        let columns = reader.headers()?.len();
        let count = columns.checked_sub(1 + RATIOS.len()).ok_or("too few columns")?;
        let allocators = reader.headers()?.iter().skip(1).take(count).map(str::to_owned).collect();
        let rows = reader.records().map(|record| row(&record?, count)).collect::<Result<_, _>>()?;
        Ok(Self { about, allocators, rows })
    }

    /// Writes a file that can be read again.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut comments = String::new();
        for (name, value) in &self.about {
            writeln!(comments, "# {name}: {value}")?;
        }
        let mut writer = csv::Writer::from_writer(comments.into_bytes());
        let allocators = self.allocators.iter().map(String::as_str);
        writer.write_record(iter::once("workload").chain(allocators).chain(RATIOS))?;
        for row in &self.rows {
            let times = row.milliseconds.iter().map(|time| shown(*time, 1));
            let ratios = [row.to_best, row.by_other_rounds, row.bounds[0], row.bounds[1]];
            let ratios = ratios.into_iter().map(|ratio| shown(ratio, 3));
            writer.write_record(iter::once(row.workload.clone()).chain(times).chain(ratios))?;
        }
        Ok(fs::write(path, writer.into_inner()?)?)
    }

    /// What the comments say of it.
    pub fn about(&self, name: &str) -> Option<&str> {
        self.about.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Neap's time and the best peer's, with its name.
    pub fn best<'a>(&'a self, row: &Row) -> Option<(f64, f64, &'a str)> {
        let of = |(index, name): (usize, &'a String)| (row.milliseconds[index], name.as_str());
        let times = || self.allocators.iter().enumerate().map(of).filter(|(time, _)| !time.is_nan());
        let (own, _) = times().find(|(_, name)| *name == NEAP)?;
        let peers = times().filter(|(_, name)| *name != NEAP);
        let (best, name) = peers.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        Some((own, best, name))
    }

    /// Each peer, with the geometric mean of Neap's times by its.
    pub fn to_each(&self) -> Vec<(&str, f64)> {
        let Some(neap) = self.allocators.iter().position(|name| name == NEAP) else { return Vec::new() };
        let peers = self.allocators.iter().enumerate().filter(|(index, _)| *index != neap);
        let means = peers.map(|(peer, name)| {
            let ratios = self.rows.iter().map(|row| row.milliseconds[neap] / row.milliseconds[peer]);
            (name.as_str(), geometric_mean(ratios.filter(|ratio| !ratio.is_nan())))
        });
        means.collect()
    }

    /// The geometric mean of Neap's times by those of the best peer.
    pub fn to_best(&self) -> f64 {
        geometric_mean(self.rows.iter().map(|row| row.to_best).filter(|ratio| !ratio.is_nan()))
    }
}

fn row(record: &csv::StringRecord, count: usize) -> Result<Row, Box<dyn Error>> {
    let figures = record.iter().skip(1).map(|field| match field {
        "" => Ok(f64::NAN),
        field => field.parse().map_err(|_| format!("{field} is not a number")),
    });
    let figures: Vec<f64> = figures.collect::<Result<_, _>>()?;
    let (times, ratios) = figures.split_at(count);
    let &[to_best, by_other_rounds, low, high] = ratios else { return Err("too few columns".into()) };
    let milliseconds = times.to_vec();
    Ok(Row { workload: record[0].to_owned(), milliseconds, to_best, by_other_rounds, bounds: [low, high] })
}

fn shown(figure: f64, digits: usize) -> String {
    if figure.is_nan() { String::new() } else { format!("{figure:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let row = |workload: &str, milliseconds: [f64; 3], to_best| Row {
            workload: workload.into(),
            milliseconds: milliseconds.into(),
            to_best,
            by_other_rounds: f64::NAN,
            bounds: [0.5, 0.75],
        };
        let about = vec![("processor".into(), "a: b, c".into())];
        let allocators = ["system", NEAP, "other"].map(str::to_owned).into();
        let rows = vec![row("one", [8.0, 2.0, 4.0], 0.5), row("two", [2.0, 2.0, f64::NAN], 1.0)];
        Results { about, allocators, rows }.write(file.path()).expect("writes");
        let read = Results::read(file.path()).expect("reads");
        assert_eq!(read.about("processor"), Some("a: b, c"));
        assert_eq!(read.best(&read.rows[0]), Some((2.0, 4.0, "other")));
        assert_eq!(read.best(&read.rows[1]), Some((2.0, 2.0, "system")));
        assert!(read.rows[1].by_other_rounds.is_nan() && read.rows[1].bounds == [0.5, 0.75]);
        assert_eq!(read.to_each(), [("system", 0.5), ("other", 0.5)]);
        assert!((read.to_best() - 0.5f64.sqrt()).abs() < 1e-9);
    }
}
