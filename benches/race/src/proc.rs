//! What the kernel says of this process, read without touching the heap, and of the processor.

use std::fs::File;
use std::io::Read;

/// Resident anonymous memory, in MiB. Unlike all resident memory it does not grow when
/// more code of the program's file is read.
pub fn anonymous() -> f64 {
    kib("/proc/self/smaps_rollup", "Anonymous:") / 1024.0
}

/// Minor page faults so far: those that needed no reading from a disk.
pub fn faults() -> f64 {
    // The tenth field; the second, the name, has no space in it here.
    figure("/proc/self/stat", |text| text.split(' ').nth(9)?.parse().ok())
}

/// A line of the process's status, in MiB.
pub fn status(name: &str) -> f64 {
    kib("/proc/self/status", name) / 1024.0
}

/// The processor as the kernel knows it, for captions.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let name = of("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    match (of("cpu family"), of("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model}), {count} cores"),
        _ => format!("{name}, {count} cores"),
    }
}

fn kib(path: &str, name: &str) -> f64 {
    figure(path, |text| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().strip_suffix(" kB")?.parse().ok()
    })
}

fn figure(path: &str, find: impl Fn(&str) -> Option<f64>) -> f64 {
    let mut buffer = [0; 8192];
    let length = File::open(path).and_then(|mut file| file.read(&mut buffer)).unwrap_or(0);
    std::str::from_utf8(&buffer[..length]).ok().and_then(find).unwrap_or(f64::NAN)
}
