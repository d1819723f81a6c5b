//! What every contestant runs: one workload, timed, in a process of its own.

pub mod workloads;

use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What a contestant found.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Of the work alone.
    pub seconds: f64,
    /// Peak resident memory of the process in MiB.
    pub peak: f64,
    /// Resident memory some time after the work, in MiB, where it was waited for.
    pub settled: Option<f64>,
}

/// A contestant's `main`: runs the workload its first argument names, at the
/// scale that its second says (1 is full), waits the seconds of the third, if
/// there is one, and prints a [`Report`] as JSON.
pub fn contest() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a workload");
    let scale: f64 = arguments.next().and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    let workload = workloads::ALL.iter().find(|workload| workload.name == name).expect("a known workload");
    let work = (workload.prepare)(scale);
    let start = Instant::now();
    black_box(work());
    let seconds = start.elapsed().as_secs_f64();
    let settled = arguments.next().and_then(|seconds| seconds.parse().ok()).map(|seconds| {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        status("VmRSS:")
    });
    let report = Report { seconds, peak: status("VmHWM:"), settled };
    println!("{}", serde_json::to_string(&report).expect("plain numbers"));
}

/// A line of the process's status, in MiB.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}
