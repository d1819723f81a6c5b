//! What a malloc must do, and what a program must not do with it: cases, each in a process
//! of its own. They call the C names, so the preloaded library answers.

pub mod misuse;
pub mod standard;
pub mod system;

use crate::library::Library;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

/// One case.
pub struct Case {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it does; it panics if something is wrong.
    pub run: fn(),
    /// How it ends under Neap.
    pub end: End,
}

/// How a case ends.
#[derive(Clone, Copy)]
pub enum End {
    /// With 0, and nothing on standard error.
    Well,
    /// By `abort`, after one line that contains this.
    Dies(&'static str),
}

/// The case with that name.
pub fn find(name: &str) -> Option<&'static Case> {
    all().find(|case| case.name == name)
}

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    standard::ALL.iter().chain(system::ALL).chain(misuse::ALL)
}

/// Runs a case under a library. `program` is the binary `case`.
pub fn run(case: &Case, library: &Library, program: &Path) -> std::io::Result<Output> {
    let mut command = library.command(program);
    if let Some(path) = &library.path {
        command.env(LIBRARY, path);
    }
    command.arg(case.name).output()
}

/// Where a case that loads the library itself finds it.
pub const LIBRARY: &str = "CASE_LIBRARY";

/// What is wrong with how a case ended, if anything.
pub fn judge(case: &Case, output: &Output) -> Result<(), String> {
    let error = String::from_utf8_lossy(&output.stderr);
    let right = match case.end {
        End::Well => output.status.success() && error.is_empty(),
        End::Dies(what) => {
            let lines: Vec<&str> = error.lines().collect();
            output.status.signal() == Some(libc::SIGABRT)
                && lines.len() == 1
                && lines[0].starts_with("neap: ")
                && lines[0].contains(what)
        }
    };
    if right { Ok(()) } else { Err(format!("{}: {} {error}", case.name, output.status)) }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn set_errno(value: i32) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = value };
}
