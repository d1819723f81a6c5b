//! Prints what each misuse does under Neap and its peers, as a table.
//!
//! `cargo run --release -p preload --bin misuse`

use preload::cases::{self, misuse};
use preload::library::Library;
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use tabled::builder::Builder;
use tabled::settings::Style;

fn main() -> Result<(), Box<dyn Error>> {
    let program = std::env::current_exe()?.with_file_name("case");
    let libraries = Library::all()?;
    let mut table = Builder::new();
    table
        .push_record(["what a program does"].into_iter().chain(libraries.iter().map(|library| library.name)));
    for case in misuse::ALL {
        let mut row = vec![case.name.to_owned()];
        for library in &libraries {
            row.push(outcome(&cases::run(case, library, &program)?));
        }
        table.push_record(row);
    }
    println!("{}", table.build().with(Style::markdown()));
    Ok(())
}

/// How a process ended, in a few words.
fn outcome(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    let ended = match output.status.signal() {
        Some(libc::SIGABRT) => "abort".to_owned(),
        Some(libc::SIGSEGV) => "SIGSEGV".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None if output.status.success() => said.to_owned(),
        None => format!("{said}, exit"),
    };
    match error.lines().filter(|line| !line.trim().is_empty()).count() {
        0 => ended,
        1 => format!("a line, {ended}"),
        lines => format!("{lines} lines, {ended}"),
    }
}
