//! Settings by builder, by environment and by call: which one holds, and that it does.

mod common;

use common::{MIB, Random, child, child_succeeds, resident};
use neap::{Neap, SettingSource};
use std::time::{Duration, Instant};

/// Every setting is stated, and as nobody would have it by default.
#[global_allocator]
static HEAP: Neap = Neap::new()
    .tick_interval(HOUR)
    .background(false)
    .thread_pool_bytes(9 * MIB)
    .limit(1 << 40)
    .limit_from_cgroup(false)
    .huge_pages(false);

const HOUR: Duration = Duration::from_secs(3600);

/// Values that none of the program's settings have.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("NEAP_TICK_INTERVAL", "2m"),
    ("NEAP_BACKGROUND", "Yes"),
    ("NEAP_THREAD_POOL_BYTES", "5 MiB"),
    ("NEAP_LIMIT_BYTES", "3g"),
    ("NEAP_LIMIT_FROM_CGROUP", "on"),
    ("NEAP_HUGE_PAGES", "true"),
];

fn assert_program_settings() {
    let settings = neap::settings();
    assert_eq!(settings.tick_interval.value, HOUR, "{settings}");
    assert!(!settings.background.value, "{settings}");
    assert_eq!(settings.thread_pool_bytes.value, 9 * MIB, "{settings}");
    assert_eq!(settings.limit.value, Some(1 << 40), "{settings}");
    assert!(!settings.limit_from_cgroup.value, "{settings}");
    assert!(!settings.huge_pages.value, "{settings}");
    assert_sources(SettingSource::Program);
}

fn assert_sources(source: SettingSource) {
    let settings = neap::settings();
    assert_eq!(settings.tick_interval.source, source, "{settings}");
    assert_eq!(settings.background.source, source, "{settings}");
    assert_eq!(settings.thread_pool_bytes.source, source, "{settings}");
    // If the machine's control group is lower, that is told.
    let of_group = settings.limit.source == SettingSource::ControlGroup;
    assert!(settings.limit.source == source || of_group, "{settings}");
    assert_eq!(settings.limit_from_cgroup.source, source, "{settings}");
    assert_eq!(settings.huge_pages.source, source, "{settings}");
}

#[test]
fn without_an_environment_the_programs_settings_hold() {
    child_succeeds("without_an_environment_the_programs_settings_hold", &[], assert_program_settings);
}

#[test]
fn the_environment_overrides_every_setting_of_the_program() {
    child_succeeds("the_environment_overrides_every_setting_of_the_program", &ENVIRONMENT, || {
        let settings = neap::settings();
        assert_eq!(settings.tick_interval.value, Duration::from_secs(120), "{settings}");
        assert!(settings.background.value, "{settings}");
        assert_eq!(settings.thread_pool_bytes.value, 5 * MIB, "{settings}");
        assert!(settings.limit.value.is_some_and(|limit| limit <= 3 << 30), "{settings}");
        assert!(settings.limit_from_cgroup.value, "{settings}");
        assert_sources(SettingSource::Environment);
    });
}

#[test]
fn a_call_overrides_program_and_environment() {
    let check = || {
        neap::set_tick_interval(Duration::from_micros(7999));
        neap::set_background(!neap::settings().background.value);
        let background = neap::settings().background;
        neap::set_thread_pool_bytes(77);
        neap::set_limit(1 << 20);
        let settings = neap::settings();
        assert_eq!(settings.tick_interval.value, Duration::from_millis(7), "{settings}");
        assert_eq!(background, settings.background, "{settings}");
        assert_eq!(settings.thread_pool_bytes.value, 77, "{settings}");
        assert_eq!(settings.limit.value, Some(1 << 20), "{settings}");
        let called = [
            settings.tick_interval.source,
            settings.background.source,
            settings.thread_pool_bytes.source,
            settings.limit.source,
        ];
        assert_eq!(called, [SettingSource::Call; 4], "{settings}");
        neap::set_tick_interval(Duration::ZERO);
        assert_eq!(neap::settings().tick_interval.value, Duration::from_millis(1));
        settings
    };
    child_succeeds("a_call_overrides_program_and_environment", &ENVIRONMENT, || {
        assert!(!check().background.value);
        neap::set_background(true);
        assert!(check().limit_from_cgroup.source == SettingSource::Environment);
    });
}

#[test]
fn the_environment_can_lift_a_limit() {
    child_succeeds("the_environment_can_lift_a_limit", &[("NEAP_LIMIT_BYTES", "0")], || {
        let limit = neap::settings().limit;
        assert_eq!((limit.value, limit.source), (None, SettingSource::Environment));
        neap::set_limit(5);
        assert_eq!(neap::settings().limit.value, Some(5));
        neap::set_limit(0);
        assert_eq!(neap::settings().limit.value, None);
    });
}

/// The lines that a child wrote about itself; it must have succeeded.
fn lines_of(output: std::process::Output) -> Vec<String> {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    error.lines().filter(|line| line.starts_with("neap: ")).map(str::to_owned).collect()
}

#[test]
fn invalid_values_are_reported_once_and_ignored() {
    let environment = [
        ("NEAP_TICK_INTERVAL", "1.5s"),
        ("NEAP_TICK_INTERVAL_MS", "0"),
        ("NEAP_BACKGROUND", "2"),
        ("NEAP_THREAD_POOL_BYTES", "-1"),
        ("NEAP_LIMIT_BYTES", "99999999999T"),
        ("NEAP_LIMIT_FROM_CGROUP", ""),
        ("NEAP_HUGE_PAGES", "always"),
    ];
    let Some(output) = child("invalid_values_are_reported_once_and_ignored", &environment, || {
        drop(vec![1u8; 1000]);
        assert_program_settings();
    }) else {
        return;
    };
    let lines = lines_of(output);
    assert_eq!(lines.len(), environment.len(), "{lines:?}");
    for (name, _) in environment {
        let wanted = format!("neap: {name} is ignored: it should be ");
        assert_eq!(lines.iter().filter(|line| line.starts_with(&wanted)).count(), 1, "{lines:?}");
    }
}

#[test]
fn unknown_names_are_reported_once() {
    let environment = [
        ("NEAP_BACKGROUND_THREAD", "1"),
        ("NEAP_LIMIT", "1"),
        ("NEAP_DECAY", "1"),
        ("NEAP_TEST_OF_NOTHING", "1"),
        ("NEAP", "1"),
        ("neap_limit", "1"),
        ("AN_NEAP_LIMIT", "1"),
    ];
    let Some(output) = child("unknown_names_are_reported_once", &environment, assert_program_settings) else {
        return;
    };
    let mut lines = lines_of(output);
    lines.sort();
    assert_eq!(
        lines,
        [
            "neap: NEAP_BACKGROUND_THREAD is ignored: there is no such setting; the nearest is NEAP_BACKGROUND",
            "neap: NEAP_DECAY is ignored: there is no such setting",
            "neap: NEAP_LIMIT is ignored: there is no such setting; the nearest is NEAP_LIMIT_BYTES",
        ]
    );
}

/// A copy of this program that has another user's rights, as `su` and `ping` have.
#[cfg(target_os = "linux")]
#[test]
fn a_set_user_id_program_ignores_the_environment() {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const TEST: &str = "a_set_user_id_program_ignores_the_environment";
    const CHILD: &str = "NEAP_TEST_CHILD";
    const HAS_NO_RIGHTS: i32 = 77;
    const OWNER: u32 = 1;
    const CALLER: u32 = 65534;

    if std::env::var_os(CHILD).is_some() {
        // SAFETY: no pointers.
        if unsafe { libc::getauxval(libc::AT_SECURE) } == 0 {
            std::process::exit(HAS_NO_RIGHTS);
        }
        assert_program_settings();
        std::process::exit(0);
    }
    let folder = std::env::temp_dir().join(format!("neap-settings-{}", std::process::id()));
    let program = folder.join("set-user-id");
    let mode = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let made = fs::create_dir(&folder)
        .and_then(|()| mode(&folder, 0o755))
        .and_then(|()| fs::copy(std::env::current_exe()?, &program))
        .and_then(|_| chown(&program, Some(OWNER), None))
        .and_then(|()| mode(&program, 0o4755));
    let output = made.and_then(|()| {
        let mut command = std::process::Command::new(&program);
        command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).current_dir("/");
        command.env(CHILD, TEST).env("NEAP_OF_ANYTHING", "1").envs(ENVIRONMENT);
        command.uid(CALLER).gid(CALLER).output()
    });
    let _ = fs::remove_dir_all(&folder);
    match output {
        Err(error) => println!("skipped: only root can make and run such a program: {error}"),
        Ok(output) if output.status.code() == Some(HAS_NO_RIGHTS) => {
            println!("skipped: programs in {} get no other rights", folder.display());
        }
        Ok(output) => assert_eq!(lines_of(output), [""; 0]),
    }
}

#[test]
fn the_background_thread_can_be_switched_on() {
    let environment = [("NEAP_TICK_INTERVAL_MS", "20"), ("NEAP_BACKGROUND", "1")];
    child_succeeds("the_background_thread_can_be_switched_on", &environment, || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        let end = Instant::now() + Duration::from_secs(30);
        // No allocation from here on: only the background thread can tick, until nothing is left.
        while neap::stats().ticks < 3 {
            assert!(Instant::now() < end, "no tick: {}", neap::stats());
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn allocations_tick_without_a_background_thread() {
    child_succeeds(
        "allocations_tick_without_a_background_thread",
        &[("NEAP_TICK_INTERVAL_MS", "20")],
        || {
            let end = Instant::now() + Duration::from_secs(30);
            while neap::stats().ticks < 5 {
                assert!(Instant::now() < end, "no tick: {}", neap::stats());
                drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
            }
        },
    );
}

#[test]
fn a_thread_cache_can_be_bounded_to_nothing() {
    child_succeeds("a_thread_cache_can_be_bounded_to_nothing", &[("NEAP_THREAD_POOL_BYTES", "0")], || {
        drop((0..10_000).map(|n| Box::new([n; 20])).collect::<Vec<_>>());
        assert_eq!(neap::stats().pooled_local, 0);
    });
}

#[test]
fn a_thread_cache_stays_within_its_bytes() {
    child_succeeds("a_thread_cache_stays_within_its_bytes", &[("NEAP_THREAD_POOL_BYTES", "100000")], || {
        for size in 1..2000 {
            drop((0..300).map(|_| vec![1u8; size]).collect::<Vec<_>>());
        }
        let stats = neap::stats();
        assert!(stats.pooled_local > 0 && stats.pooled_local <= 100_000 * stats.threads, "{stats}");
    });
}

/// Allocates blocks whose sizes drift, 24 MiB of them live. Returns the most memory that
/// was resident above the start.
fn most_while_sizes_drift() -> usize {
    let mut random = Random(5);
    let mut live: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::with_capacity(100_000);
    let (start, mut bytes, mut most) = (resident(), 0, 0);
    for round in 0..40 {
        let size = 300 * (1 + round % 10);
        for _ in 0..12 * MIB / size {
            live.push_back(vec![1; size - random.below(100)]);
            bytes += live.back().map_or(0, Vec::len);
            while bytes > 24 * MIB {
                bytes -= live.pop_front().map_or(0, |block| block.len());
            }
        }
        most = most.max(resident().saturating_sub(start));
    }
    most
}

#[test]
fn a_soft_limit_is_kept_where_it_can_be() {
    let limit = 48 * MIB;
    child_succeeds(
        "a_soft_limit_is_kept_where_it_can_be",
        &[("NEAP_LIMIT_BYTES", &limit.to_string())],
        || {
            let most = most_while_sizes_drift();
            println!("{} KiB above the start", most >> 10);
            assert!(most < limit + 4 * MIB, "{most}");
        },
    );
}

#[test]
fn a_soft_limit_below_what_is_live_fails_nothing() {
    child_succeeds(
        "a_soft_limit_below_what_is_live_fails_nothing",
        &[("NEAP_LIMIT_BYTES", "1000000")],
        || {
            let all: Vec<Vec<u8>> = (1..3000).map(|size| vec![1; size]).collect();
            drop(vec![1u8; 40 * MIB]);
            assert!(all.iter().enumerate().all(|(index, block)| block.len() == index + 1));
        },
    );
}

/// Whatever limits the machine's control groups have.
#[test]
fn the_limit_of_a_control_group_can_be_asked_for() {
    child_succeeds(
        "the_limit_of_a_control_group_can_be_asked_for",
        &[("NEAP_LIMIT_FROM_CGROUP", "1")],
        || {
            assert_eq!((1..3000).map(|size| vec![1u8; size].len()).sum::<usize>(), 2999 * 1500);
        },
    );
}
