//! What every contestant runs, in a process of its own: one timed workload, or one memory
//! scenario; and what the two drivers share.

pub mod driver;
pub mod layouts;
mod proc;
pub mod scenarios;
pub mod statistics;
pub mod workloads;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The result of a contestant.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Seconds of the work alone.
    pub seconds: f64,
    /// Peak resident memory of the process in MiB.
    pub peak: f64,
    /// Resident memory some time after the work, in MiB, if asked for.
    pub settled: Option<f64>,
}

/// A contestant's `main`. Runs the workload or the scenario (`memory:NAME`) that its first
/// argument names, at the scale of the second (1 is full), and prints the result as JSON.
/// After a workload it waits for the seconds of the third argument, if there is one.
pub fn contest() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a workload");
    let scale: f64 = arguments.next().and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    let found = match name.strip_prefix("memory:") {
        Some(name) => serde_json::to_string(&scenario(name, scale)),
        None => serde_json::to_string(&workload(&name, scale, arguments.next())),
    };
    println!("{}", found.expect("plain numbers"));
}

fn workload(name: &str, scale: f64, settle: Option<String>) -> Report {
    let workload = workloads::ALL.iter().find(|workload| workload.name == name).expect("a known workload");
    let work = (workload.prepare)(scale);
    let start = Instant::now();
    black_box(work());
    let seconds = start.elapsed().as_secs_f64();
    let settled = settle.and_then(|seconds| seconds.parse().ok()).map(|seconds| {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        proc::status("VmRSS:")
    });
    Report { seconds, peak: proc::status("VmHWM:"), settled }
}

fn scenario(name: &str, scale: f64) -> BTreeMap<&'static str, f64> {
    let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == name).expect("a known scenario");
    let found = (scenario.run)(scale);
    scenario.figures.iter().map(|figure| figure.name).zip(found).collect()
}
