//! The settings of the environment: the variables `NEAP_…`. What is no setting, or no value
//! of one, is reported on standard error and ignored.

use crate::base::fatal::report;
use crate::config::parse;
use crate::platform;
use core::ffi::CStr;
use core::fmt::{self, Write};

const PREFIX: &CStr = c"NEAP_";
/// How the names of the test suite's own variables begin, which are no settings.
const OF_TESTS: &[u8] = b"NEAP_TEST_";

const NAMES: [&str; 7] = [
    "NEAP_TICK_INTERVAL",
    "NEAP_TICK_INTERVAL_MS",
    "NEAP_BACKGROUND",
    "NEAP_THREAD_POOL_BYTES",
    "NEAP_LIMIT_BYTES",
    "NEAP_LIMIT_FROM_CGROUP",
    "NEAP_HUGE_PAGES",
];

const INTERVAL: &str = "a time above 0, such as 500, 500ms or 2s";
const BYTES: &str = "a number of bytes, such as 1048576, 64k or 256M";
const FLAG: &str = "1 or 0, yes or no, true or false, on or off";

/// What the environment sets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Environment {
    pub(super) tick_interval_ms: Option<u64>,
    pub(super) background: Option<bool>,
    pub(super) thread_pool_bytes: Option<u64>,
    /// Bytes; 0 for none.
    pub(super) limit: Option<u64>,
    pub(super) limit_from_cgroup: Option<bool>,
    pub(super) huge_pages: Option<bool>,
}

/// Why a variable is ignored.
#[derive(Debug, PartialEq)]
enum Ignored {
    /// With the name that may have been meant.
    Unknown(Option<&'static str>),
    /// With what its value should be.
    Invalid(&'static str),
}

impl Environment {
    /// Goes through the environment, if there is one yet. Empty if whoever set it must not
    /// decide what this process does.
    pub(super) fn read(report: bool) -> Self {
        let mut found = Self::default();
        if platform::has_environment() && platform::environment_is_trusted() {
            platform::each_variable(PREFIX, |name, value| {
                if let Err(ignored) = found.add(name, value)
                    && report
                {
                    report_ignored(&Name(name), ignored);
                }
            });
        }
        found
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Ignored> {
        let bytes = || parse::bytes(value).ok_or(Ignored::Invalid(BYTES));
        let flag = || parse::flag(value).ok_or(Ignored::Invalid(FLAG));
        let interval = || {
            let interval = parse::milliseconds(value).filter(|&ms| ms > 0);
            interval.ok_or(Ignored::Invalid(INTERVAL))
        };
        match name {
            b"NEAP_TICK_INTERVAL" => self.tick_interval_ms = Some(interval()?),
            // The other name wins, whichever comes first.
            b"NEAP_TICK_INTERVAL_MS" => {
                self.tick_interval_ms = self.tick_interval_ms.or(Some(interval()?));
            }
            b"NEAP_BACKGROUND" => self.background = Some(flag()?),
            b"NEAP_THREAD_POOL_BYTES" => self.thread_pool_bytes = Some(bytes()?),
            b"NEAP_LIMIT_BYTES" => self.limit = Some(bytes()?),
            b"NEAP_LIMIT_FROM_CGROUP" => self.limit_from_cgroup = Some(flag()?),
            b"NEAP_HUGE_PAGES" => self.huge_pages = Some(flag()?),
            name if name.starts_with(OF_TESTS) => {}
            name => return Err(Ignored::Unknown(nearest(name))),
        }
        Ok(())
    }
}

#[cold]
fn report_ignored(name: &Name, ignored: Ignored) {
    match ignored {
        Ignored::Invalid(wanted) => report(format_args!("{name} is ignored: it should be {wanted}")),
        Ignored::Unknown(Some(near)) => {
            report(format_args!("{name} is ignored: there is no such setting; the nearest is {near}"));
        }
        Ignored::Unknown(None) => report(format_args!("{name} is ignored: there is no such setting")),
    }
}

/// A variable's name, made fit for a line of a log.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '?' };
        self.0.iter().take(LONGEST).try_for_each(|&byte| f.write_char(letter(byte)))
    }
}

/// No longer name is compared, or shown in full.
const LONGEST: usize = 64;

/// The name that was meant by an unknown one, if one is near.
fn nearest(name: &[u8]) -> Option<&'static str> {
    let prefix = PREFIX.count_bytes();
    let begins = |long: &[u8], short: &[u8]| {
        short.len() > prefix + 2
            && long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
    };
    let is_part = |known: &&str| begins(known.as_bytes(), name) || begins(name, known.as_bytes());
    NAMES.into_iter().find(is_part).or_else(|| {
        let with_distance = |known: &'static str| (distance(name, known.as_bytes()), known);
        let (changes, known) = NAMES.into_iter().map(with_distance).min()?;
        (changes <= (known.len() - prefix) / 3).then_some(known)
    })
}

/// How many letters have to be put in, left out or changed to make one name of the other.
fn distance(name: &[u8], known: &[u8]) -> usize {
    if name.len() > LONGEST {
        return usize::MAX;
    }
    // For each beginning of `name`, its distance from what was seen of `known` so far.
    let mut distances: [usize; LONGEST + 1] = core::array::from_fn(|letters| letters);
    for (row, wanted) in known.iter().enumerate() {
        let mut diagonal = core::mem::replace(&mut distances[0], row + 1);
        for (column, letter) in name.iter().enumerate() {
            let changed = diagonal + usize::from(!letter.eq_ignore_ascii_case(wanted));
            diagonal = distances[column + 1];
            distances[column + 1] = changed.min(diagonal + 1).min(distances[column] + 1);
        }
    }
    distances[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_setting_and_every_setting_has_a_name() {
        for name in NAMES {
            let mut found = Environment::default();
            assert_eq!(found.add(name.as_bytes(), b"1"), Ok(()), "{name}");
            assert_ne!(found, Environment::default(), "{name}");
            let invalid = found.add(name.as_bytes(), b"soon");
            assert!(matches!(invalid, Err(Ignored::Invalid(_))), "{name}: {invalid:?}");
        }
    }

    #[test]
    fn the_interval_has_two_names_of_which_one_wins() {
        let (new, old) = (("NEAP_TICK_INTERVAL", "1s"), ("NEAP_TICK_INTERVAL_MS", "20"));
        for pair in [[new, old], [old, new]] {
            let mut found = Environment::default();
            for (name, value) in pair {
                assert_eq!(found.add(name.as_bytes(), value.as_bytes()), Ok(()));
            }
            assert_eq!(found.tick_interval_ms, Some(1000));
        }
        let mut found = Environment::default();
        assert!(found.add(b"NEAP_TICK_INTERVAL", b"0").is_err());
        assert_eq!(found, Environment::default());
    }

    #[test]
    fn an_unknown_name_is_told_the_nearest() {
        for (name, wanted) in [
            ("NEAP_BACKGROUD", Some("NEAP_BACKGROUND")),
            ("NEAP_background", Some("NEAP_BACKGROUND")),
            ("NEAP_BACKGROUND_THREAD", Some("NEAP_BACKGROUND")),
            ("NEAP_TICKINTERVAL", Some("NEAP_TICK_INTERVAL")),
            ("NEAP_LIMIT", Some("NEAP_LIMIT_BYTES")),
            ("NEAP_LIMIT_CGROUP", Some("NEAP_LIMIT_FROM_CGROUP")),
            ("NEAP_HUGEPAGE", Some("NEAP_HUGE_PAGES")),
            ("NEAP_ARENAS", None),
            ("NEAP_", None),
        ] {
            let ignored = Environment::default().add(name.as_bytes(), b"1");
            assert_eq!(ignored, Err(Ignored::Unknown(wanted)), "{name}");
        }
        let long = [&b"NEAP_"[..], &[0xff; 10_000]].concat();
        assert_eq!(Environment::default().add(&long, b""), Err(Ignored::Unknown(None)));
        assert_eq!(Name(&long).to_string(), format!("NEAP_{}", "?".repeat(LONGEST - 5)));
        assert_eq!(Environment::default().add(b"NEAP_TEST_CHILD", b""), Ok(()));
    }

    #[test]
    fn distances_are_counted_in_letters() {
        for (name, known, wanted) in
            [("", "abc", 3), ("abc", "", 3), ("ABC", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(name.as_bytes(), known.as_bytes()), wanted, "{name} {known}");
        }
    }
}
