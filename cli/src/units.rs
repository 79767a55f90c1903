//! Sizes and periods as people write them: `16GiB`, `500MB`, `2s`, `1h`; plain numbers are bytes and milliseconds.

use granary_core::calendar::civil;

const SIZES: [(&str, u64); 15] = [
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
    ("p", 1 << 50),
    ("pib", 1 << 50),
];

const PERIODS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes of `16GiB`, `1.5 TiB`, `500MB` (powers of ten), `64k` (powers of two) or a plain number.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, &SIZES, "a size, for example 16GiB or 500MB")
}

/// Milliseconds of `2s`, `500ms`, `5min`, `1h`, `1d` or a plain number of milliseconds.
pub fn parse_period_ms(text: &str) -> Result<u64, String> {
    parse(text, &PERIODS, "a period, for example 2s, 500ms or 5min")
}

/// A plain whole number.
pub fn parse_count(text: &str) -> Result<u64, String> {
    parse(text, &[], "a whole number")
}

fn parse(text: &str, units: &[(&str, u64)], wanted: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not {wanted}");
    let trimmed = text.trim();
    let digits_end =
        trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits_end);
    let number = number.replace('_', "");
    let unit = unit.trim().to_ascii_lowercase();
    let factor =
        if unit.is_empty() { 1 } else { units.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1 };
    if let Some((whole, fraction)) = number.split_once('.') {
        if factor == 1 || fraction.is_empty() || fraction.len() > 9 {
            return Err(bad());
        }
        let whole: u128 = whole.parse().map_err(|_| bad())?;
        let scale = 10u128.pow(fraction.len() as u32);
        let fraction: u128 = fraction.parse().map_err(|_| bad())?;
        let value = (whole * scale + fraction) * u128::from(factor) / scale;
        return u64::try_from(value).map_err(|_| format!("{text:?} is too large"));
    }
    let value: u64 = number.parse().map_err(|_| bad())?;
    value.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// `1.5 GiB`, `12 B`.
pub fn show_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub fn show_period_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{} s", ms / 1_000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A length of time that may be months: `40 s`, `3 min 20 s`, `13 h 53 min`, `29 d 23 h`.
pub fn show_wait(secs: u64) -> String {
    match secs {
        0 => "0 s".to_owned(),
        1..86_400 => show_period_ms(secs * 1000),
        _ => format!("{} d {} h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// `2026-11-25 18:09:26 UTC` of seconds since 1970.
pub fn show_time(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days as i64);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_periods() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("16GiB", 16 << 30),
            ("16 gib", 16 << 30),
            ("64k", 65_536),
            ("500MB", 500_000_000),
            ("1.5TiB", 3 << 39),
            ("1_000", 1000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, ms) in [
            ("250", 250),
            ("2s", 2_000),
            ("500ms", 500),
            ("5min", 300_000),
            ("1.5h", 5_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_period_ms(text), Ok(ms), "{text}");
        }
        for bad in ["", "GiB", "1.5", "-1", "1x", "1.GiB", "20000000P", "1..5k", "0x10"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert!(parse_period_ms("2GiB").is_err());
        assert!(parse_count("1k").is_err());
        assert!(parse_bytes("12 parsecs").unwrap_err().contains("for example 16GiB"));
    }

    #[test]
    fn shown() {
        assert_eq!(show_bytes(12), "12 B");
        assert_eq!(show_bytes(3 << 29), "1.5 GiB");
        assert_eq!(show_bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(show_period_ms(200_000), "3 min 20 s");
        assert_eq!(show_period_ms(7_500_000), "2 h 5 min");
    }

    #[test]
    fn times_are_dates() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_630_166, "2026-11-25 18:09:26 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(show_time(secs), text);
        }
        assert_eq!((show_wait(0), show_wait(59)), ("0 s".into(), "59 s".into()));
        assert_eq!(show_wait(2_591_999), "29 d 23 h");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = parse_bytes(&text);
            let _ = parse_period_ms(&text);
        }

        #[test]
        fn plain_numbers_are_themselves(n: u64) {
            prop_assert_eq!(parse_bytes(&n.to_string()), Ok(n));
            prop_assert_eq!(parse_period_ms(&format!("{n}ms")), Ok(n));
        }
    }
}
