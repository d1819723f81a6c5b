//! One workload in a process of its own, so that its memory is its own.

use crate::switch::VARIABLE;
use crate::workloads;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a child found: milliseconds and MiB above what it held before the work.
pub struct Report {
    pub ms: f64,
    pub peak: f64,
    pub settled: f64,
    pub samples: Vec<Sample>,
}

/// Memory at one moment, in MiB.
#[derive(Clone, Copy)]
pub struct Sample {
    pub ms: f64,
    pub resident: f64,
    /// What the program itself held; under Neap only.
    pub live: f64,
}

/// A report as a child prints it.
type Printed = (f64, f64, f64, Vec<[f64; 3]>);

/// Longer than two ticks of the default interval.
const SETTLE: Duration = Duration::from_millis(1300);
const EVERY: Duration = Duration::from_millis(20);

/// Runs a workload in a child.
pub fn spawn(name: &str, dir: &Path, mib: usize, system: bool) -> Result<Report, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(dir).args(["--child", name, "--mib", &mib.to_string()]);
    if system {
        command.env(VARIABLE, "1");
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let (ms, peak, settled, samples): Printed = serde_json::from_slice(&output.stdout)?;
    let samples = samples.into_iter().map(|[ms, resident, live]| Sample { ms, resident, live }).collect();
    Ok(Report { ms, peak, settled, samples })
}

/// The child's side: runs the workload and prints the report.
pub fn run(name: &str, files: &[String]) -> Result<(), Box<dyn Error>> {
    let workload = workloads::ALL.iter().find(|workload| workload.name == name).ok_or("no such workload")?;
    let system = std::env::var_os(VARIABLE).is_some();
    let before = Before { resident: resident(), live: neap::stats().live };
    let start = Instant::now();
    let done = AtomicBool::new(false);
    let (ms, samples) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut samples = Vec::with_capacity(10_000);
            while !done.load(Relaxed) && samples.len() < samples.capacity() {
                samples.push(sample(start, &before, system));
                std::thread::sleep(EVERY);
            }
            samples
        });
        black_box((workload.run)(files));
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        std::thread::sleep(SETTLE);
        done.store(true, Relaxed);
        (ms, sampler.join().expect("the sampler does not panic"))
    });
    let settled = mib(resident().saturating_sub(before.resident));
    let peak = samples.iter().map(|sample| sample.resident).fold(0.0, f64::max);
    let samples = samples.iter().map(|sample| [sample.ms, sample.resident, sample.live]).collect();
    let printed: Printed = (ms, peak, settled, samples);
    serde_json::to_writer(std::io::stdout(), &printed)?;
    Ok(())
}

/// What the process held before the work: the sources.
struct Before {
    resident: usize,
    live: usize,
}

fn sample(start: Instant, before: &Before, system: bool) -> Sample {
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let resident = mib(resident().saturating_sub(before.resident));
    let live = if system { 0.0 } else { mib(neap::stats().live.saturating_sub(before.live)) };
    Sample { ms, resident, live }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
