//! The values that variables of the environment may have. Nothing here allocates or panics.

/// The names of a unit, in lower case, and how much it is.
type Unit = (&'static [&'static str], u64);

/// All are powers of 1024, whatever their names: nobody means 1,000,000 bytes by `1M` here.
const BYTES: &[Unit] = &[
    (&["", "b"], 1),
    (&["k", "kb", "kib"], 1 << 10),
    (&["m", "mb", "mib"], 1 << 20),
    (&["g", "gb", "gib"], 1 << 30),
    (&["t", "tb", "tib"], 1 << 40),
];

const MILLISECONDS: &[Unit] =
    &[(&["", "ms"], 1), (&["s"], 1000), (&["m", "min"], 60 * 1000), (&["h"], 60 * 60 * 1000)];

/// A number of bytes, such as `1073741824`, `1024M` or `1 GiB`.
pub(super) fn bytes(text: &[u8]) -> Option<u64> {
    scaled(text, BYTES)
}

/// A duration in milliseconds, such as `500`, `500ms` or `2s`.
pub(super) fn milliseconds(text: &[u8]) -> Option<u64> {
    scaled(text, MILLISECONDS)
}

pub(super) fn flag(text: &[u8]) -> Option<bool> {
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| is(text.trim_ascii(), word));
    if is_one_of(["1", "true", "yes", "on"]) {
        return Some(true);
    }
    is_one_of(["0", "false", "no", "off"]).then_some(false)
}

/// A whole number and a unit, with white space around both. None if it is too large, too.
fn scaled(text: &[u8], units: &[Unit]) -> Option<u64> {
    let text = text.trim_ascii();
    let digits = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
    let number = digits.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))
    })?;
    let unit = unit.trim_ascii_start();
    let (_, factor) = units.iter().find(|(names, _)| names.iter().any(|name| is(unit, name)))?;
    number.checked_mul(*factor)
}

/// Whether these are the same, in any case.
fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_have_binary_units() {
        for (text, wanted) in [
            ("0", 0),
            ("1000", 1000),
            (" 12b ", 12),
            ("64k", 64 << 10),
            ("256M", 256 << 20),
            ("256MB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1g", 1 << 30),
            ("3GIB", 3 << 30),
            ("2tib", 2 << 40),
            ("18446744073709551615", u64::MAX),
            ("000000000000000000000000000000007", 7),
        ] {
            assert_eq!(bytes(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in [
            "",
            " ",
            "k",
            "-1",
            "+1",
            "1.5G",
            "1,000",
            "1_000",
            "0x10",
            "1 2",
            "1kk",
            "1ki",
            "1 G B",
            "1s",
            "18446744073709551616",
            "16777216T",
            "99999999999999999999999",
        ] {
            assert_eq!(bytes(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_milliseconds() {
        for (text, wanted) in [
            ("0", 0),
            ("250", 250),
            ("250ms", 250),
            ("250 MS", 250),
            ("1s", 1000),
            ("2m", 120_000),
            ("2min", 120_000),
            ("1H", 3_600_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(milliseconds(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in ["", "s", "soon", "1.5s", "-1s", "1us", "1m30s", "18446744073709551615s"] {
            assert_eq!(milliseconds(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_flag_is_a_word_or_a_digit() {
        for text in ["1", "true", "yes", "on", "ON", " True\n"] {
            assert_eq!(flag(text.as_bytes()), Some(true), "{text}");
        }
        for text in ["0", "false", "no", "off", "Off", "\tNO "] {
            assert_eq!(flag(text.as_bytes()), Some(false), "{text}");
        }
        for text in ["", "2", "y", "n", "always", "10", "true false"] {
            assert_eq!(flag(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_value_or_not(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (bytes(&text), milliseconds(&text), flag(&text));
        }

        /// What looks like a value, rather than any bytes, most of which end at the first.
        #[test]
        fn digits_and_letters_are_a_value_or_not(text in "[ 0-9]{0,24}[ 0-9kKmMgGtTiIbBsShHnN.+-]{0,5}") {
            for value in [bytes(text.as_bytes()), milliseconds(text.as_bytes())].into_iter().flatten() {
                let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
                prop_assert!(value == 0 || value.is_multiple_of(digits.parse().expect("a number")));
            }
        }

        #[test]
        fn a_number_and_a_unit_are_their_product(
            number in any::<u64>(),
            small in 0u64..100_000,
            unit in prop::sample::select(vec![("", 0), ("B", 0), ("Kib", 10), ("M", 20), ("gB", 30), ("t", 40)]),
            space in " {0,3}",
        ) {
            let (name, shift) = unit;
            for number in [number, small] {
                let text = format!("{space}{number}{space}{name}{space}");
                prop_assert_eq!(bytes(text.as_bytes()), number.checked_mul(1 << shift));
            }
        }
    }
}
