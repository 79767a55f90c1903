//! Moments as people write them: `2026-01-31T12:00` (UTC), or `3h` for three hours ago.

use crate::units::parse_period_ms;

const DAY_MS: u64 = 86_400_000;

/// Milliseconds since 1970 of a moment, seen from `now_ms`.
pub fn parse(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(ago) = parse_period_ms(text)
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
    {
        return Ok(now_ms.saturating_sub(ago));
    }
    calendar(text).ok_or_else(|| {
        format!("{text:?} is no moment; write one like 2026-01-31T12:00 (UTC), or 3h for three hours ago")
    })
}

fn calendar(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let numbers = |text: &str, separator: char| -> Option<Vec<u64>> {
        text.split(separator)
            .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?)
            .collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let &[year, month, day] = &date[..] else { return None };
    let (hour, minute, second) = match time[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    if day == 0 || day > month_days(year, month) {
        return None;
    }
    let days =
        (1970..year).map(year_days).sum::<u64>() + (1..month).map(|m| month_days(year, m)).sum::<u64>() + day
            - 1;
    Some(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000)
}

/// `2026-01-31 12:00:00 UTC`.
pub fn show(unix_ms: u64) -> String {
    let (mut days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (mut year, mut month) = (1970, 1);
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    let seconds = ms / 1000;
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02}:{:02} UTC",
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(leap(year))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_and_periods() {
        let now = 1_800_000_000_000;
        assert_eq!(parse("1970-01-02T00:00", now), Ok(DAY_MS));
        assert_eq!(parse("2026-11-26T02:18:31Z", now), Ok(1_795_659_511_000));
        assert_eq!(parse("2024-02-29", now), Ok(1_709_164_800_000));
        assert_eq!(parse("3h", now), Ok(now - 3 * 3_600_000));
        for bad in
            ["2023-02-29", "2026-13-01", "yesterday", "2026-01-31T25:00", "12", "", "2026-01-31T1", "-1h"]
        {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(seconds in 0u64..253_402_300_800) {
            let text = show(seconds * 1000);
            prop_assert_eq!(parse(text.trim_end_matches(" UTC"), 0), Ok(seconds * 1000));
        }
    }
}
