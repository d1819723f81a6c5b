//! What the tests share: a child process of one's own, and resident memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::{Command, Output};

const CHILD: &str = "NEAP_TEST_CHILD";

/// Runs `body` in a child process, so that its memory, its settings or its end
/// is its own. `test` is the calling test's name.
pub fn child(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some_and(|name| name == test) {
        body();
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, test).envs(environment.iter().copied());
    Some(command.output().expect("a child process"))
}

/// The same for a child that should end well.
pub fn child_succeeds(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) {
    if let Some(output) = child(test, environment, body) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // What the child found, for `--nocapture`.
        text(&output.stdout)
            .lines()
            .filter(|line| line.contains("above the start"))
            .for_each(|line| println!("{line}"));
        assert!(
            output.status.success(),
            "{}\n{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

/// Resident memory of this process in bytes.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    pages * 4096
}

pub const MIB: usize = 1 << 20;

/// A small generator that allocates nothing.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
