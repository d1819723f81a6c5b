//! What the tests share: child processes, figures of memory and of size classes, and
//! how many cases property tests try.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod one_class;

use neap::ClassStats;
use proptest::test_runner::{Config, FileFailurePersistence};
use std::process::{Command, Output};

const CHILD: &str = "NEAP_TEST_CHILD";

/// Runs `body` in a child process, which has its own memory and settings, and may
/// abort. If it hangs, an alarm ends it. `test` is the calling test's name.
pub fn child(test: &str, environment: &[(&str, &str)], body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some_and(|name| name == test) {
        // SAFETY: no pointers.
        unsafe { libc::alarm(300) };
        body();
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, test).envs(environment.iter().copied());
    Some(command.output().expect("a child process"))
}

/// The same for a child that must exit with 0.
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

/// Runs `test` of this binary again in a process whose address space is limited to `bytes`
/// from its start, with a variable by which it knows itself. It must exit with 0.
pub fn limited_child(test: &str, bytes: usize, variable: (&str, &str)) {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", test, "--test-threads=1"]).env(variable.0, variable.1);
    let limit = libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
    // SAFETY: only a system call between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        });
    }
    let output = command.output().expect("a child");
    assert!(output.status.success(), "{variable:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The figures of the size class with blocks of so many bytes.
pub fn class_of(block_size: usize) -> ClassStats {
    *neap::stats().classes().iter().find(|class| class.block_size == block_size).expect("the class")
}

/// A property test tries `cases`, or as many as `PROPTEST_CASES` asks for. What failed is
/// noted in the target folder, not among the sources, and tried first the next time. A
/// smaller example of it is searched for 20 seconds.
pub fn property(cases: u32) -> Config {
    let asked_for = std::env::var_os("PROPTEST_CASES").is_some();
    let default = Config::default();
    Config {
        cases: if asked_for { default.cases } else { cases },
        max_shrink_time: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_TARGET_TMPDIR"),
            "/",
            env!("CARGO_CRATE_NAME"),
            ".proptest"
        )))),
        ..default
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
