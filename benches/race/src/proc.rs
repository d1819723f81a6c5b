//! What the kernel says of this process, read without touching the heap.

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
