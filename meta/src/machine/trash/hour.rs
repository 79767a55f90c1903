//! The name of an hour.

use granary_core::Timestamp;
use granary_core::calendar::civil;

const HOUR_SECS: i64 = 3600;

/// `2026-11-26T05`: the hour in UTC, so that names are in order of time.
pub(super) fn name(at: Timestamp) -> Box<[u8]> {
    let hours = at.secs.div_euclid(HOUR_SECS);
    let (year, month, day) = civil(hours.div_euclid(24));
    format!("{year:04}-{month:02}-{day:02}T{:02}", hours.rem_euclid(24)).into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_have_the_names_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01T00"),
            (-1, "1969-12-31T23"),
            (951_782_400, "2000-02-29T00"),
            (951_868_799, "2000-02-29T23"),
            (1_795_669_199, "2026-11-26T04"),
            (1_795_669_200, "2026-11-26T05"),
        ] {
            assert_eq!(&*name(Timestamp { secs, nanos: 0 }), text.as_bytes());
        }
    }
}
