//! Days of the calendar.

/// Year, month and day of the day that is `days` after 1970-01-01, in the Gregorian calendar. After Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`: eras of 400 years that begin in March, so that the leap day
/// is the last of its year.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_is_the_one_after_the_day_before() {
        let length = |y: i64, m: u32| match m {
            2 if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        assert_eq!(civil(0), (1970, 1, 1));
        let mut expected = (1899, 12, 31);
        for day in -25_567..200_000 {
            let (y, m, d) = expected;
            expected = match (m, d == length(y, m)) {
                (12, true) => (y + 1, 1, 1),
                (_, true) => (y, m + 1, 1),
                _ => (y, m, d + 1),
            };
            assert_eq!(civil(day), expected);
        }
    }
}
